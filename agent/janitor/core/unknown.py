"""What could not be seen, as a value: every part of the evidence is what was seen, or this."""

from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """What could not be seen. It never leads to a deletion.

    `reason` says what was being done, on what, and what went wrong; `hint` what to do about it.
    """

    reason: str
    hint: str = ""


def known(part: tuple[_T, ...] | Unknown) -> tuple[_T, ...]:
    """What was seen of a part; nothing where it is Unknown. For adding reasons to keep, never for proofs."""
    return () if isinstance(part, Unknown) else part
