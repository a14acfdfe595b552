"""What was tried and refused, from pass to pass: when to try it again, and whether there is anything new to be said."""

from dataclasses import dataclass, field
from typing import Final

SECOND: Final = 1_000_000_000
_FIRST_S: Final = 5
_LONGEST_S: Final = 3600


@dataclass(frozen=True, slots=True)
class _Try:
    reason: str
    times: int
    not_before_ns: int


@dataclass(slots=True)
class Backoff:
    """Keys are `Action.key`; times are in ns of CLOCK_BOOTTIME. Each thing's pause doubles, up to an hour."""

    _tries: dict[str, _Try] = field(default_factory=dict)

    def refused(self, key: str, reason: str, now_ns: int) -> bool:
        """Note it; whether that is news: a first refusal, or one for another reason than before."""
        before = self._tries.get(key)
        times = before.times + 1 if before is not None else 1
        pause_s = min(_LONGEST_S, _FIRST_S * 2 ** min(times - 1, 20))
        self._tries[key] = _Try(reason, times, now_ns + pause_s * SECOND)
        return before is None or before.reason != reason

    def done(self, key: str) -> None:
        """It was done after all."""
        self._tries.pop(key, None)

    def postponed(self, now_ns: int) -> frozenset[str]:
        """What is not to be tried now. What nobody has tried for long is forgotten: it is not there any more."""
        oldest = now_ns - 2 * _LONGEST_S * SECOND
        self._tries = {key: one for key, one in self._tries.items() if one.not_before_ns > oldest}
        return frozenset(key for key, one in self._tries.items() if one.not_before_ns > now_ns)

    def try_all(self, now_ns: int) -> None:
        """End every pause: somebody may have put right what was in the way. What was said stays said."""
        self._tries = {key: _Try(one.reason, 0, now_ns) for key, one in self._tries.items()}
