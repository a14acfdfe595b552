"""The component that keeps new leases durable: it supervises the process that syncs them (host/cni/durable.py)."""

import signal
from dataclasses import dataclass, field
from typing import Final, Self

from janitor.core.model.retry import SECOND, Retry, is_due
from janitor.daemon.component import Part
from janitor.host.cni.durable import keep_durable
from janitor.host.files import describe_os_error
from janitor.host.kernel.procfs import clock
from janitor.host.node import find_node
from janitor.host.worker import Ended, Tell, Worker
from janitor.report import pass_metrics
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family

_LONGEST_WAIT_S: Final = 300
_WELL_NS: Final = 60 * SECOND


@dataclass(slots=True)
class Syncing(Part):
    """Keeps one process running. Failures are logged."""

    root: str
    data_dirs: tuple[str, ...]
    log: Log
    files: int = 0
    seconds: float = 0.0
    _worker: Worker = field(default_factory=lambda: Worker(signal.SIGKILL))
    _retry: Retry = field(default_factory=lambda: Retry(1, _LONGEST_WAIT_S))
    _next_ns: int = 0  # when to start it, while it is not running

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Descriptors to wait for: (readers, writers)."""
        return self._worker.descriptors()

    @property
    def due_ns(self) -> int | None:
        """When to run although no descriptor is ready."""
        return self._worker.due_ns if self._worker.busy else self._next_ns

    def run(self, ready: frozenset[int]) -> None:
        """Read the process's output; start a process if there is none."""
        del ready
        if not self._worker.busy:
            if is_due(self._next_ns, clock().boottime_ns):
                self._start()
            return
        lines, ended = self._worker.poll()
        for line in lines:
            self._heard(line.decode("utf-8", "replace"))
        if ended is not None:
            self._ended(ended)

    def close(self, patience_s: float) -> None:
        """End the process; it has nothing to clean up."""
        del patience_s
        self._worker.end(0.05)

    def metrics(self) -> tuple[Family, ...]:
        """How much was synced."""
        return pass_metrics.synced(self.files, self.seconds)

    def take_over(self, before: Self) -> None:
        """Continue the predecessor's counts."""
        self.files, self.seconds = before.files, before.seconds

    def _start(self) -> None:
        try:
            self._worker.start(self._work)
        except OSError as error:
            self.log(
                LogEvent.SYNCING_FAILED,
                why=f"cannot start its process: {describe_os_error(error)}",
                again_s=self._pause(),
            )

    def _ended(self, ended: Ended) -> None:
        if clock().boottime_ns - ended.began_ns > _WELL_NS:
            self._retry.succeeded()
        self.log(LogEvent.SYNCING_FAILED, status=ended.status, again_s=self._pause())

    def _pause(self) -> float:
        wait = self._retry.failed()
        self._next_ns = clock().boottime_ns + int(wait * SECOND)
        return wait

    def _work(self, tell: Tell) -> None:
        try:
            keep_durable(find_node(self.root), self.data_dirs, tell)
        except OSError as error:
            tell(f"trouble {describe_os_error(error)}".encode("utf-8", "backslashreplace"))

    def _heard(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "synced":
            files, _, microseconds = rest.partition(" ")
            self.files += int(files)
            self.seconds += int(microseconds) / 1e6
        else:
            self.log(LogEvent.SYNCING_FAILED, why=rest)
