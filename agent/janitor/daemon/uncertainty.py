"""Handles what a decision about a rule needs and cannot be seen: it is logged once and looked at again soon.

Nothing is restored, forgotten or removed while something needed was not seen.
"""

from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.retry import SECOND, Retry
from janitor.core.model.unknown import Unknown
from janitor.core.rules.mirror import CHECK_NS
from janitor.host.kernel.procfs import clock
from janitor.report.events import Log, LogEvent
from janitor.report.words import hint, text

_LONGEST_S: Final = 60


@dataclass(slots=True)
class Doubt:
    """Everything unseen is one doubt: it begins with the first such thing and ends with a complete look."""

    log: Log
    again_ns: int | None = None  # when to look again, on CLOCK_BOOTTIME; None if there is no doubt
    _retry: Retry = field(default_factory=lambda: Retry(CHECK_NS / SECOND, _LONGEST_S))
    _began: bool = False  # something cannot be seen
    _still: bool = False  # still true in the current look

    def about(self, unseen: Unknown) -> None:
        """Something could not be seen. The pause before the next look doubles each time."""
        if not self._began:
            self._began = True
            then = "rules that depend on it are not restored, forgotten or removed; janitor checks again soon"
            self.log(LogEvent.RULES_UNCERTAIN, why=text(unseen.reason), hint=hint(unseen.reason), then=then)
        if not self._still:
            self._still = True
            self.again_ns = clock().boottime_ns + int(self._retry.failed() * SECOND)

    def look_again(self) -> bool:
        """A look begins. Returns whether there was a doubt until now."""
        self.again_ns, self._still = None, False
        return self._began

    def end_unless_still(self) -> None:
        """The look is over: end the doubt if everything was seen."""
        if not self._still:
            self._began = False
            self._retry.succeeded()
