"""What the daemon reports of itself: its log, its latest actions for the page, and systemd's status line."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from janitor.host.kernel.procfs import clock
from janitor.host.privileges import Lack
from janitor.host.systemd.notify import notify, watchdog_s
from janitor.report.events import Log, LogEvent
from janitor.report.page import Deed, deed

_DEEDS: Final = 100


@dataclass(slots=True)
class Reporter:
    """Writes to `sink`, and says nothing twice that goes on."""

    sink: Log
    deeds: deque[Deed] = field(default_factory=lambda: deque(maxlen=_DEEDS))  # the last first
    lacks: tuple[Lack, ...] = ()  # what is missing of rights and of the node
    watchdog_s: float | None = field(default_factory=watchdog_s)
    _status: str = ""

    def log(self, event: LogEvent, /, **fields: object) -> None:
        """A line of the log; an action is kept for the page."""
        self.sink(event, **fields)
        done = deed(clock().realtime_ns / 1e9, event, fields)
        if done is not None:
            self.deeds.appendleft(done)

    def missing(self, lacks: tuple[Lack, ...]) -> None:
        """This much is missing now."""
        before, self.lacks = self.lacks, lacks
        for lack in lacks:
            if lack not in before:
                self.log(LogEvent.MISSING, what=lack.what, why=lack.why)

    def alive(self) -> None:
        """Satisfy systemd's watchdog, where it has one."""
        if self.watchdog_s:
            notify(WATCHDOG="1")

    def status(self, words: str) -> None:
        """The line for systemctl status."""
        if words != self._status:
            notify(STATUS=words)
            self._status = words
