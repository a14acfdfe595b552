"""When to retry: a pause that doubles with each failure, and due times.

Times are in ns of CLOCK_BOOTTIME; None means never, 0 means now. Pure.
"""

from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.reason import Reason

SECOND: Final = 1_000_000_000
_FIRST_S: Final = 5
_LONGEST_S: Final = 3600


def earliest(*times_ns: int | None) -> int | None:
    """The earliest time; None if all are never."""
    return min((at for at in times_ns if at is not None), default=None)


def is_due(at_ns: int | None, now_ns: int) -> bool:
    """Whether the time has come."""
    return at_ns is not None and now_ns >= at_ns


@dataclass(slots=True)
class Retry:
    """Something that may fail. The pause doubles from `first_s` to `longest_s`."""

    first_s: float
    longest_s: float
    failures: int = 0

    def failed(self) -> float:
        """Record a failure. Returns the seconds until the next try."""
        pause_s = min(self.longest_s, self.first_s * (1 << min(self.failures, 20)))
        self.failures += 1
        return pause_s

    def succeeded(self) -> None:
        """Reset: the next failure counts as the first."""
        self.failures = 0


@dataclass(slots=True)
class _Refused:
    reason: Reason | None
    not_before_ns: int
    retry: Retry = field(default_factory=lambda: Retry(_FIRST_S, _LONGEST_S))


@dataclass(slots=True)
class Refusals:
    """Actions that were refused, by `Action.key`, across passes: when to try each again."""

    _refused: dict[str, _Refused] = field(default_factory=dict)

    def refused(self, key: str, reason: Reason | None, now_ns: int) -> bool:
        """Record a refusal. True if it is news: the first one, or a different reason."""
        before = self._refused.get(key)
        one = self._refused.setdefault(key, _Refused(reason, now_ns))
        news = before is None or one.reason != reason
        one.reason, one.not_before_ns = reason, now_ns + int(one.retry.failed() * SECOND)
        return news

    def done(self, key: str) -> None:
        """Forget the refusals of an action that has succeeded."""
        self._refused.pop(key, None)

    def postponed(self, now_ns: int) -> frozenset[str]:
        """The keys that must not be tried now. Keys not tried for long are dropped: their objects are gone."""
        oldest = now_ns - 2 * _LONGEST_S * SECOND
        self._refused = {key: one for key, one in self._refused.items() if one.not_before_ns > oldest}
        return frozenset(key for key, one in self._refused.items() if one.not_before_ns > now_ns)

    def try_all(self, now_ns: int) -> None:
        """End every pause, because the cause may have been fixed. Reasons already reported are not reported again."""
        for one in self._refused.values():
            one.not_before_ns = now_ns
            one.retry.succeeded()
