"""A reason as a value: a code, its facts, and optionally the reason behind it."""

from dataclasses import dataclass
from typing import Optional

from janitor.core.model.codes import Code

Fact = str | int | tuple[str, ...]
"""An address, a path, a number of seconds or bytes, a name, a kernel message; or several of one kind."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is as it is. `facts` are (name, value) pairs in the order given."""

    code: Code
    facts: tuple[tuple[str, Fact], ...] = ()
    cause: Optional["Reason"] = None

    def fact(self, name: str) -> Fact | None:
        """The fact of this name; None if there is none."""
        return dict(self.facts).get(name)


def because(code: Code, cause: Reason | None = None, /, **facts: Fact) -> Reason:
    """A reason from its code, its cause and its facts."""
    return Reason(code, tuple(facts.items()), cause)
