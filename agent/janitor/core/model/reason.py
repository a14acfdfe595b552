"""A reason as a value: a code, the facts that belong to it, and perhaps the reason behind it."""

from dataclasses import dataclass
from typing import Optional

from janitor.core.model.codes import Code

Fact = str | int | tuple[str, ...]
"""An address, a path, a number of seconds or bytes, a name, what the kernel said; or several of one kind."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is as it is. `facts` are pairs of a name and a value, in the order in which they were given."""

    code: Code
    facts: tuple[tuple[str, Fact], ...] = ()
    cause: Optional["Reason"] = None

    def fact(self, name: str) -> Fact | None:
        """One of the facts; None where there is none of that name."""
        return dict(self.facts).get(name)


def because(code: Code, cause: Reason | None = None, /, **facts: Fact) -> Reason:
    """A reason from its code, the reason behind it, and its facts."""
    return Reason(code, tuple(facts.items()), cause)
