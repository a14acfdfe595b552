"""What a mutant is, where it lies in the source, and the list of them in mutants.toml."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
SOURCES: Final = "agent/janitor"
LIST: Final = Path(__file__).parent / "mutants.toml"


class MutantError(Exception):
    """The list of mutants does not fit the source any more; the sentence says which one, and why."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` occurs once in `file` (below agent/janitor) and becomes `new`; `name` says what is lost by that."""

    name: str
    file: str
    old: str
    new: str

    @property
    def path(self) -> str:
        """The file, as the repository has it."""
        return f"{SOURCES}/{self.file}"

    def applied(self, text: str) -> str:
        """The mutated source. MutantError where `old` is not there exactly once, or where the result is no Python."""
        times = text.count(self.old)
        if times != 1:
            raise MutantError(f"mutant '{self.name}': its text is there {times} times in {self.path}, not once")
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.path, "exec")
        except SyntaxError as error:
            raise MutantError(f"mutant '{self.name}' is no Python: {error}") from None
        if self.old.split() == self.new.split():
            raise MutantError(f"mutant '{self.name}' changes nothing")
        return changed

    def line(self, text: str) -> int:
        """The first line of `text`, from 1, that it changes."""
        shared = next((n for n, (a, b) in enumerate(zip(self.old, self.new, strict=False)) if a != b), 0)
        return text.count("\n", 0, text.index(self.old) + shared) + 1

    def function(self, text: str) -> str:
        """The qualified name of the function that it changes, as code objects have it; "" for code of the module."""
        return enclosing(ast.parse(text), self.line(text))


def enclosing(tree: ast.Module, line: int) -> str:
    """The qualified name of the innermost function with this line, default values and decorators not counted."""
    found = ""

    def visit(node: ast.AST, prefix: str) -> None:
        nonlocal found
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}{child.name}."
                if not isinstance(child, ast.ClassDef):
                    if child.body[0].lineno <= line <= (child.end_lineno or 0):
                        found = f"{prefix}{child.name}"
                    inner += "<locals>."
            visit(child, inner)

    visit(tree, "")
    return found


def read_list() -> list[Mutant]:
    """All mutants, in the order of the list. MutantError where two have the same name."""
    mutants = [Mutant(**entry) for entry in tomllib.loads(LIST.read_text())["mutant"]]
    names = [mutant.name for mutant in mutants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise MutantError(f"two mutants have the name '{min(twice)}'")
    return mutants
