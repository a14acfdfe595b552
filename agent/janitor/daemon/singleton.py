"""Being the only daemon of a node: taking the lock, waiting for it, and noticing its loss."""

import os
from collections.abc import Callable
from typing import Final

from janitor.host.cni.locks import DAEMON_LOCK, Busy, lost, take_daemon_lock
from janitor.host.files import describe_os_error, os_error_identity
from janitor.host.kernel.procfs import clock
from janitor.host.systemd.notify import notify
from janitor.report.events import Log, LogEvent
from janitor.report.words import text

_EVERY_NS: Final = 2_000_000_000


class Sole:
    """The lock that only one daemon of a node holds. `root` returns the node's root from the current settings."""

    def __init__(self, root: Callable[[], str], log: Log) -> None:
        self._root, self._log = root, log
        self._fd: int | None = None
        self._said: object = None  # why it waits, as last logged
        self.due_ns = 0  # when to try again, on CLOCK_BOOTTIME
        self.why = ""  # why it waits; "" while it has the lock
        self.another = False  # another janitor has the lock

    @property
    def held(self) -> bool:
        """Whether this daemon may act."""
        return self._fd is not None

    def take(self) -> bool:
        """Try to take the lock; returns whether it was taken. A failure is logged once."""
        try:
            self._fd = take_daemon_lock(self._root())
        except (Busy, OSError) as error:
            self.another = isinstance(error, Busy)
            problem: object = os_error_identity(error) if isinstance(error, OSError) else error.reason
            self.why = describe_os_error(error) if isinstance(error, OSError) else text(error.reason)
            self.due_ns = clock().boottime_ns + _EVERY_NS
            if problem != self._said:
                self._log(LogEvent.WAITING, why=self.why, then="this daemon takes over when it gets the lock")
                notify(READY="1", STATUS=f"waiting: {self.why}")
            self._said = problem
            return False
        self.why, self.another = "", False
        return True

    def still(self) -> bool:
        """False if the lock's file was removed and another daemon has the lock now: then this one must stop."""
        if self._fd is None or (why := lost(self._root(), DAEMON_LOCK, self._fd)) is None:
            return True
        self.close()
        try:
            self._fd = take_daemon_lock(self._root())
            self._log(LogEvent.LOCK_LOST, why=text(why), then="the lock was taken again")
        except (Busy, OSError) as error:
            taken = describe_os_error(error) if isinstance(error, OSError) else text(error.reason)
            self._log(
                LogEvent.LOCK_LOST,
                why=f"{text(why)}; {taken}",
                then="this daemon does nothing until it gets the lock again",
            )
            self.due_ns, self._said = clock().boottime_ns + _EVERY_NS, None
            return False
        return True

    def close(self) -> None:
        """Release the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
