"""What all checks have in common: one function each, and findings that agree with the table of their IDs."""

import ast
import importlib
import inspect
import pkgutil
from collections import defaultdict

import pytest

from janitor import checks
from janitor.core.model.finding_ids import Family, FindingId, Severity
from tests.lab.cache import REPOSITORY

MODULES = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))
SOURCES = sorted(
    file
    for pattern in ("checks/*.py", "core/address_plan/*.py")
    for file in (REPOSITORY / "agent/janitor").glob(pattern)
)  # fmt: skip
AGREED = {"LEASE", "RULE", "CNI", "CIDR", "KUB", "NODE", "HCCM", "PATH", "ROUTE", "SCAN", "MD"}
OLDER = {"CSI", "CA"}  # one finding each, and no more


@pytest.mark.parametrize("name", MODULES)
def test_a_check_is_one_public_function(name: str) -> None:
    module = importlib.import_module(f"janitor.checks.{name}")
    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    own = [key for key in functions if vars(module)[key].__module__ == module.__name__]
    assert [key for key in own if not key.startswith("_")] == ["check"]
    assert list(inspect.signature(module.check).parameters) == ["evidence", "judgement"]


def test_a_new_finding_is_of_a_family_that_was_agreed_on() -> None:
    assert {family.value for family in Family} <= AGREED | OLDER
    assert [one.value for one in FindingId if one.family.value in OLDER] == ["CSI001", "CA001"]
    for one in FindingId:
        assert one.value == f"{one.family}{one.value[-3:]}"
        assert one.value[-3:].isdecimal()


def test_the_severities_of_the_table_are_those_that_checks_make() -> None:
    """No more and no fewer: of each place that makes a finding, the severities that its source text names."""
    made: defaultdict[str, set[Severity]] = defaultdict(set)
    for file in SOURCES:
        tree = ast.parse(file.read_text())
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Finding.of":
                for one in ids_of(call, tree):
                    made[one] |= severities_of(call, tree) or {FindingId[one].severities[0]}
    assert made == {one.value: set(one.severities) for one in FindingId}


def ids_of(call: ast.Call, tree: ast.Module) -> list[str]:
    """The ID that is named in the call; where it comes from a variable, those that the module names."""
    first = call.args[0] if call.args else next(k.value for k in call.keywords if k.arg == "id")
    return named(first, "FindingId") or named(tree, "FindingId")


def severities_of(call: ast.Call, tree: ast.Module) -> set[Severity]:
    """Likewise. None where the call names none: then the table decides."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "severity"]
    names = [name for value in given for name in named(value, "Severity") or named(tree, "Severity")]
    return {Severity[name] for name in names}


def named(tree: ast.AST, kind: str) -> list[str]:
    return [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == kind
    ]
