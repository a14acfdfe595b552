"""The list of mutants fits the source, and the tests of a mutant are found: `make mutants` itself takes minutes."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.__main__ import chosen
from tests.mutants.mutant import REPOSITORY, Mutant, MutantError, enclosing, read_list


@pytest.mark.parametrize("mutant", read_list(), ids=lambda mutant: mutant.name)
def test_each_mutant_still_applies(mutant: Mutant) -> None:
    """Code that has moved takes its mutants along: change `old` and `new` in tests/mutants/mutants.toml."""
    mutant.applied((REPOSITORY / mutant.path).read_text())


SOURCE = """\
LIMIT = 3

class Thing:
    def method(self, most=LIMIT):
        def inner():
            return most
        return inner() + 1
"""


@pytest.mark.parametrize(
    ("line", "name"), [(1, ""), (3, ""), (4, ""), (6, "Thing.method.<locals>.inner"), (7, "Thing.method")]
)
def test_the_function_that_a_line_belongs_to(line: int, name: str) -> None:
    assert enclosing(ast.parse(SOURCE), line) == name


def test_the_line_that_changes_is_not_the_first_of_its_text() -> None:
    mutant = Mutant("x", "x.py", "    def method(self, most=LIMIT):\n        def inner():\n            return most\n",
                    "    def method(self, most=LIMIT):\n        def inner():\n            return 0\n")  # fmt: skip
    assert (mutant.line(SOURCE), mutant.function(SOURCE)) == (6, "Thing.method.<locals>.inner")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("LIMIT = 4", "LIMIT = 5", "is there 0 times"),
        ("LIMIT", "MOST", "is there 2 times"),
        ("LIMIT = 3", "LIMIT =", "is no Python"),
        ("LIMIT = 3", "LIMIT  =  3", "changes nothing"),
    ],
)
def test_a_mutant_that_does_not_fit_is_named(old: str, new: str, why: str) -> None:
    with pytest.raises(MutantError, match=f"mutant 'no bound'.* {why}"):
        Mutant("no bound", "x.py", old, new).applied(SOURCE)


def test_the_tests_of_a_mutant_are_those_that_call_what_it_changes_the_fastest_first() -> None:
    reached = {
        "a": (2.0, frozenset({"x.py:Thing.method"})),
        "b": (1.0, frozenset({"x.py:Thing.method", "y.py:f"})),
        "c": (0.5, frozenset({"y.py:f"})),
        "d": (3.0, frozenset({"x.py:Thing.method.<locals>.inner"})),
    }
    inside = Mutant("x", "x.py", "inner() + 1", "inner() + 2")
    assert chosen(inside, SOURCE, reached) == ["b", "a"]
    assert chosen(Mutant("x", "x.py", "LIMIT = 3", "LIMIT = 4"), SOURCE, reached) == ["b", "a", "d"]
