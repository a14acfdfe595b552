"""Reasons in tests: what could not be seen, for a reason of the test's own, and reasons in words."""

from collections.abc import Iterable

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.core.model.unknown import Unknown, unseen
from janitor.report.words import text


def recorded(words: str) -> Reason:
    """A reason that has nothing but these words, as an earlier version would have written them."""
    return because(Code.RECORDED, text=words)


def not_seen(words: str = "", hint: str = "") -> Unknown:
    """Something that could not be seen."""
    return unseen(Code.RECORDED, text=words, hint=hint) if hint else unseen(Code.RECORDED, text=words)


def words(*reasons: Reason | Iterable[Reason] | None) -> str:
    """All of them, in words, one a line."""
    flat: list[Reason] = []
    for one in reasons:
        flat += [one] if isinstance(one, Reason) else list(one or ())
    return "\n".join(map(text, flat))
