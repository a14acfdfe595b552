"""What the daemon reports about itself: its log, its latest actions for the page, and systemd's status line."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from janitor.host.kernel.procfs import clock
from janitor.host.privileges import MissingPrivilege
from janitor.host.systemd.notify import notify, watchdog_s
from janitor.report.events import Log, LogEvent
from janitor.report.page import ActionRecord, action_record

_ACTIONS: Final = 100


@dataclass(slots=True)
class Reporter:
    """Writes to `sink`; a continuing condition is reported only once."""

    sink: Log
    action_records: deque[ActionRecord] = field(default_factory=lambda: deque(maxlen=_ACTIONS))  # newest first
    missing_privileges: tuple[MissingPrivilege, ...] = ()  # missing privileges and mounts
    watchdog_s: float | None = field(default_factory=watchdog_s)
    _status: str = ""

    def log(self, event: LogEvent, /, **fields: object) -> None:
        """Write a log line; actions are also kept for the page."""
        self.sink(event, **fields)
        done = action_record(clock().realtime_ns / 1e9, event, fields)
        if done is not None:
            self.action_records.appendleft(done)

    def missing(self, missing_privileges: tuple[MissingPrivilege, ...]) -> None:
        """Update what is missing, and log what is new."""
        before, self.missing_privileges = self.missing_privileges, missing_privileges
        for missing_privilege in missing_privileges:
            if missing_privilege not in before:
                self.log(LogEvent.MISSING, what=missing_privilege.what, why=missing_privilege.why)

    def alive(self) -> None:
        """Notify systemd's watchdog, if it has one."""
        if self.watchdog_s:
            notify(WATCHDOG="1")

    def status(self, words: str) -> None:
        """Set the status line of `systemctl status`."""
        if words != self._status:
            notify(STATUS=words)
            self._status = words
