"""The daemon's part that keeps new leases durable: a child that syncs them (host/durable.py), and its supervision."""

import signal
from dataclasses import dataclass
from typing import Final

from janitor.host import worker
from janitor.host.durable import keep_durable
from janitor.host.files import said
from janitor.host.procfs import clock
from janitor.report.events import Log, LogEvent

_LONGEST_WAIT_S: Final = 300
_WELL_NS: Final = 60_000_000_000


@dataclass(slots=True)
class Syncing:
    """Keeps one child running. What it could not do is said once."""

    root: str
    data_dirs: tuple[str, ...]
    log: Log
    files: int = 0
    seconds: float = 0.0
    _child: worker.Child | None = None
    _next_ns: int = 1
    _tries: int = 0

    def descriptors(self) -> tuple[list[int], list[int]]:
        """What to wait for, to read and to write."""
        return ([self._child.fileno()] if self._child is not None and self._child.fileno() >= 0 else []), []

    def due_ns(self) -> int:
        """When to be run though nothing is ready; 0 for never."""
        waits = self._child is not None and self._child.fileno() >= 0
        return 0 if waits else self._next_ns

    def run(self, ready: frozenset[int]) -> None:
        """Take in what the child says, and start one where there is none."""
        del ready
        now = clock().boottime_ns
        if self._child is not None:
            for line in self._child.read() if self._child.fileno() >= 0 else ():
                self._heard(line.decode("utf-8", "replace"))
            if self._child.fileno() < 0:
                if not self._child.over():
                    self._next_ns = now + 10_000_000
                    return
                self._tries = 0 if now - self._child.began_ns > _WELL_NS else self._tries + 1
                wait = min(_LONGEST_WAIT_S, 2**self._tries)
                self._next_ns = now + wait * 1_000_000_000
                self.log(LogEvent.SYNCING_FAILED, status=self._child.status, again_s=wait)
                self._child = None
        elif now >= self._next_ns:
            try:
                self._child = worker.start(self._work, signal.SIGKILL)
            except OSError as error:
                self._tries += 1
                wait = min(_LONGEST_WAIT_S, 2**self._tries)
                self._next_ns = now + wait * 1_000_000_000
                self.log(LogEvent.SYNCING_FAILED, why=f"starting its process: {said(error)}", again_s=wait)

    def close(self, patience_s: float) -> None:
        """End the child; it has nothing to put in order."""
        del patience_s
        if self._child is not None:
            self._child.end(0.05)

    def _work(self, tell: worker.Tell) -> None:
        try:
            keep_durable(self.root, self.data_dirs, tell)
        except OSError as error:
            tell(f"trouble {said(error)}".encode("utf-8", "backslashreplace"))

    def _heard(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "synced":
            files, _, microseconds = rest.partition(" ")
            self.files += int(files)
            self.seconds += int(microseconds) / 1e6
        else:
            self.log(LogEvent.SYNCING_FAILED, why=rest)
