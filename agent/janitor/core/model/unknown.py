"""The third state of every part of the evidence: not seen."""

from dataclasses import dataclass
from typing import TypeVar

from janitor.core.model.codes import Code
from janitor.core.model.reason import Fact, Reason, because

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be seen, and why. It never leads to a deletion."""

    reason: Reason


def unseen(code: Code, cause: Reason | None = None, /, **facts: Fact) -> Unknown:
    """Unknown for this reason."""
    return Unknown(because(code, cause, **facts))


def known(part: tuple[_T, ...] | Unknown) -> tuple[_T, ...]:
    """What was seen of a part; empty if it is Unknown. Only for reasons to keep something, never for proofs."""
    return () if isinstance(part, Unknown) else part
