"""What all checks have in common."""

import importlib
import inspect
import pkgutil

import pytest

from janitor import checks

MODULES = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_a_check_is_one_public_function(name: str) -> None:
    module = importlib.import_module(f"janitor.checks.{name}")
    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    own = [key for key in functions if vars(module)[key].__module__ == module.__name__]
    assert [key for key in own if not key.startswith("_")] == ["check"]
    assert list(inspect.signature(module.check).parameters) == ["evidence", "judgement"]
