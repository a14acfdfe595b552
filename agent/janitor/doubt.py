"""What a decision about a rule rests on and cannot be seen: it is said once, and looked at again soon.

On what was not seen nothing is restored, forgotten or removed.
"""

from dataclasses import dataclass
from typing import Final

from janitor.core.mirror import CHECK_NS
from janitor.core.profiles import SECOND
from janitor.core.unknown import Unknown
from janitor.host.procfs import clock
from janitor.report.events import Log, LogEvent

_LONGEST_NS: Final = 60 * SECOND


@dataclass(slots=True)
class Doubt:
    """All that cannot be seen is one doubt: it begins with the first such thing, and ends with a look that saw all."""

    log: Log
    again_ns: int = 0  # when to look again, on CLOCK_BOOTTIME; 0 for not on account of this
    _since_ns: int = 0  # 0 while all can be seen
    _still: bool = False  # as of the last look

    def about(self, unseen: Unknown) -> None:
        """This could not be seen. The longer that has gone on, the longer the pause before the next look."""
        now = clock().boottime_ns
        if not self._since_ns:
            self._since_ns = now
            then = "nothing is restored, forgotten or removed on that; it is looked at again"
            self.log(LogEvent.RULES_UNCERTAIN, why=unseen.reason, hint=unseen.hint, then=then)
        self._still = True
        self.again_ns = now + min(max(CHECK_NS, now - self._since_ns), _LONGEST_NS)

    def look_again(self) -> bool:
        """A look begins. Whether there was a doubt until now."""
        self.again_ns, self._still = 0, False
        return bool(self._since_ns)

    def end_unless_still(self) -> None:
        """The look is over."""
        if not self._still:
            self._since_ns = 0
