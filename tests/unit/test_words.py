"""Codes and their sentences: each has one, gets the facts that it needs, and nothing decides by what it says."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from janitor.core.model.codes import Code
from janitor.core.model.reason import because
from janitor.report.words import HINTS, TEXTS, hint, text
from tests.lab.cache import REPOSITORY

AGENT = REPOSITORY / "agent/janitor"
MAKERS = {"because": (), "unseen": (), "failed": ("error",), "unknown": ("error",)}
"""What makes a reason, and the facts that it adds by itself."""

COMPARING = {
    "startswith", "endswith", "split", "rsplit", "partition", "rpartition", "find", "index", "count", "removeprefix",
    "removesuffix", "splitlines", "fullmatch", "match", "search", "findall", "sub",
}  # fmt: skip
FOR_PEOPLE = {"summary", "explanation", "strerror", "why", "sentence", "hint"}
"""Fields and variables that hold a sentence."""

TELLERS = {"text", "texts", "hint", "describe_os_error"}
"""Functions that give one."""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(AGENT.rglob("*.py")):
        if not path.name.endswith("_pb2.py"):
            yield path, ast.parse(path.read_text())


def placeholders(*templates: str) -> set[str]:
    return {name for one in templates for _, name, _, _ in string.Formatter().parse(one) if name}


def named(node: ast.expr) -> str:
    """`Code.X` as X; "" for anything else."""
    own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    return node.attr if own and isinstance(node, ast.Attribute) else ""


def test_each_code_has_a_sentence_and_each_is_used() -> None:
    assert set(TEXTS) == set(Code)
    assert set(HINTS) <= set(Code)
    used = {
        named(node)
        for path, tree in modules()
        if path.name not in ("codes.py", "words.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.expr)
    }
    assert {code.name for code in Code} - used == set()


def test_codes_are_written_as_kubernetes_writes_reasons() -> None:
    for code in Code:
        assert code.value == "".join(word.capitalize() for word in code.name.lower().split("_"))


def test_each_reason_is_made_with_the_facts_that_its_sentence_needs() -> None:
    wrong = []
    for path, tree in modules():
        for node in ast.walk(tree):
            maker = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if maker not in MAKERS or not isinstance(node, ast.Call) or not node.args or not named(node.args[0]):
                continue
            code = Code[named(node.args[0])]
            given = {word.arg for word in node.keywords if word.arg} | set(MAKERS[maker])
            given |= {"cause"} if len(node.args) > 1 and not MAKERS[maker] else set()
            wanted = placeholders(TEXTS[code], HINTS.get(code, ""))
            spread = any(word.arg is None for word in node.keywords)
            if code is not Code.RECORDED and not (given <= wanted if spread else given == wanted):
                wrong.append(f"{path.name}:{node.lineno}: {code.name} wants {sorted(wanted)}, gets {sorted(given)}")
    assert wrong == []


def sentence(node: ast.expr, functions: set[str]) -> bool:
    """Whether an expression is a text for people."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in functions
    return (isinstance(node, ast.Attribute) and node.attr in FOR_PEOPLE) or (
        isinstance(node, ast.Name) and node.id in FOR_PEOPLE
    )


def decides(node: ast.AST, functions: set[str]) -> bool:
    """Whether it compares, searches or splits one."""
    if isinstance(node, ast.Compare):
        of_values = [op for op in node.ops if not isinstance(op, ast.Is | ast.IsNot)]
        return bool(of_values) and any(sentence(one, functions) for one in (node.left, *node.comparators))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in COMPARING:
        return sentence(node.func.value, functions) or any(sentence(one, functions) for one in node.args)
    return False


def test_nothing_compares_searches_or_splits_a_text_for_people() -> None:
    wrong = []
    for path, tree in modules():
        functions = {
            name.asname or name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in ("janitor.report.words", "janitor.host.files")
            for name in node.names
            if name.name in TELLERS
        }
        wrong += [f"{path.name}:{getattr(node, 'lineno', 0)}" for node in ast.walk(tree) if decides(node, functions)]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    ["text(reason) == 'it is empty'", "'empty' in text(reason)", "text(reason).startswith('it')",
     "re.match('it', text(x))", "error.strerror == 'No such file'", "finding.summary.split(':')",
     "why != self._problem", "self.why == before.why"],
)  # fmt: skip
def test_what_would_be_found(line: str) -> None:
    assert any(decides(node, {"text"}) for node in ast.walk(ast.parse(line)))


def test_a_fact_that_is_missing_in_a_file_is_a_question_mark() -> None:
    assert text(because(Code.TOO_LARGE)) == "it holds ? bytes, far more than host-local writes"
    assert hint(because(Code.UNUSED_RUNTIME)) == "if the kubelet uses it, set --cri-endpoint ?"
