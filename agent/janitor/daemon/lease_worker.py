"""The component that looks after the leases: starts a child process for each pass that is due, and records its result.

A pass takes from a tenth of a second to many seconds, mostly waiting for a runtime, but rules must be restored within
milliseconds. So a pass is a child process (host/worker.py). The loop stays a single thread that never blocks; a pass
that hangs or is killed by the OOM killer is one failed pass; and all memory of a pass is freed.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Self

from janitor.core.model.fingerprint import Fingerprint
from janitor.core.model.retry import SECOND, Refusals, Retry
from janitor.daemon.component import Health, Part
from janitor.daemon.lease_pass import Order, lease_pass
from janitor.daemon.pass_record import LONGEST_S, PassRecord
from janitor.host.changes import state
from janitor.host.files import describe_os_error
from janitor.host.kernel.procfs import clock
from janitor.host.node import find_node
from janitor.host.worker import Ended, Tell, Worker, offer_to_the_oom_killer
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family
from janitor.report.pass_lines import Failed, Line, LogLine, Looked, Unchanged, decode, encode

_KILL_AFTER_S: Final = 10
_SOONEST_S: Final = 5
_TIDY_EVERY_S: Final = 86_400
_MOST_UNCHANGED: Final = 4
_LOOK_EVERY_S: Final = 300
"""At most so many passes in a row, for at most so long, end after a fingerprint check: it does not see everything."""


@dataclass(slots=True)
class Passing(Part):
    """`order(tidy, postponed)` returns what the next pass has to do."""

    order: Callable[[bool, frozenset[str]], Order]
    interval_s: float
    log: Log
    record: PassRecord = field(default_factory=PassRecord)
    _worker: Worker = field(default_factory=lambda: Worker(signal.SIGTERM, LONGEST_S, _KILL_AFTER_S))
    _end: Looked | Unchanged | Failed | None = None
    _fingerprint: Fingerprint = field(default_factory=Fingerprint)
    _unchanged: int = 0  # passes in a row that ended after a fingerprint check
    _next_ns: int = 0  # when the next pass starts, while none is running
    _retry: Retry = field(default_factory=lambda: Retry(_SOONEST_S, LONGEST_S))
    _order: Order | None = None  # of the running pass
    _tidied_ns: int = 0  # when the journal was last tidied; 0 after a failure
    _over: Callable[[], None] | None = None  # to be called when the pass that was asked to end has ended
    _refusals: Refusals = field(default_factory=Refusals)
    _logged: tuple[str, int] = ("", 0)  # the pass whose actions were logged last, and how many were

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Descriptors to wait for: (readers, writers)."""
        return self._worker.descriptors()

    @property
    def due_ns(self) -> int | None:
        """When to run although no descriptor is ready."""
        return self._worker.due_ns if self._worker.busy else self._next_ns

    def soon(self) -> None:
        """Start a full pass now, unless one is running. Refused actions are tried again."""
        self._fingerprint = Fingerprint()
        self._refusals.try_all(clock().boottime_ns)
        if not self._worker.busy:
            self._next_ns = 0

    @property
    def ending(self) -> bool:
        """Whether a running pass was asked to end."""
        return self._over is not None

    def end_pass(self, over: Callable[[], None]) -> None:
        """End the running pass: its order is obsolete. `over` is called when it has ended, at once if none runs."""
        if not self._worker.busy:
            over()
            return
        self._over = over
        self._worker.stop()

    def run(self, ready: frozenset[int]) -> None:
        """Read the process's output; start a pass if one is due."""
        del ready
        now = clock().boottime_ns
        if not self._worker.busy:
            if now >= self._next_ns:
                self._begin()
            return
        lines, ended = self._worker.poll()
        before = self._logged
        for line in lines:
            self._heard(line)
        if self._logged != before:
            self._note_told(self._logged)
        if ended is not None:
            self._finish(ended, now)

    def close(self, patience_s: float) -> None:
        """End the running pass: after its current batch, or at once if that takes longer than `patience_s`."""
        if not self._worker.busy:
            return
        before = self._logged
        lines, ended = self._worker.end(patience_s)
        for line in lines:
            self._heard(line)
        if isinstance(self._end, Looked) and self._end.settled:
            self._note_told(None)
        elif self._logged != before:
            self._note_told(self._logged)
        if ended is not None and self._over is not None:
            self._over()
        self._over = None

    def metrics(self) -> tuple[Family, ...]:
        """How the passes ended, what the last one saw, and what was done."""
        return self.record.metrics(self.interval_s)

    def health(self, awake_ns: int) -> Health:
        """Whether passes complete."""
        return self.record.health(self.interval_s, awake_ns)

    def take_over(self, before: Self) -> None:
        """Take over the state of a predecessor that was ended."""
        self.record, self._tidied_ns = before.record, before._tidied_ns
        self._refusals, self._logged = before._refusals, before._logged

    def _begin(self) -> None:
        now = clock().boottime_ns
        tidy = not self._tidied_ns or now - self._tidied_ns > _TIDY_EVERY_S * SECOND
        may = self._unchanged < _MOST_UNCHANGED and now - self.record.looked_ns < _LOOK_EVERY_S * SECOND
        fingerprint = self._fingerprint if may else replace(self._fingerprint, digest="")
        self._order = order = replace(self.order(tidy, self._refusals.postponed(now)), fingerprint=fingerprint)
        self._end = None

        def work(tell: Tell) -> None:
            offer_to_the_oom_killer()

            def send(line: Line) -> None:
                tell(encode(line))

            try:
                lease_pass(order, send)
            except Exception as error:  # noqa: BLE001 (the process ends here, and the daemon is to know of what)
                send(Failed(f"{type(error).__name__}: {error}"))

        try:
            self._worker.start(work)
        except OSError as error:  # out of descriptors or processes, usually only for a while
            self._failed(clock().boottime_ns, f"cannot start its process: {describe_os_error(error)}")

    def _heard(self, data: bytes) -> None:
        try:
            line = decode(data)
        except ValueError:
            return  # truncated by a kill
        if not isinstance(line, LogLine):
            self._end = line
        elif line.event.action is not None:
            self._refusals.done(line.key)
            self.log(line.event, **line.fields)
            self.record.done.update([line.event])
            pass_id, told = line.fields.get("pass", ""), self._logged
            self._logged = (pass_id, told[1] + 1 if told[0] == pass_id else 1)
        elif not line.key or self._refusals.refused(line.key, line.reason, clock().boottime_ns):
            self.log(line.event, **line.fields)

    def _note_told(self, action_records: tuple[str, int] | None) -> None:
        """Record for the next daemon what was logged, in case this one is killed; None if nothing is left to log."""
        node = find_node(self._order.options.root if self._order is not None else "/")
        try:
            if action_records is None:
                state.drop_log_cursor(node)
            elif action_records[0] and isinstance(node.boot_id, str):
                state.write_log_cursor(node, *action_records)
        except OSError:
            pass  # some actions may be logged twice

    def _finish(self, ended: Ended, now: int) -> None:
        if isinstance(self._end, Looked | Unchanged):
            self._retry.succeeded()
        if isinstance(self._end, Looked):
            self._saw(self._end, now)
        elif isinstance(self._end, Unchanged):
            self._unchanged += 1
            self.record.unchanged(now)
        else:
            self._tidied_ns = 0  # the next pass completes what this one left
        if self._over is not None:
            over, self._over, self._next_ns = self._over, None, now
            over()
            return
        if isinstance(self._end, Looked | Unchanged):
            soonest = self._end.soonest_s if isinstance(self._end, Looked) else None
            wait = min(self.interval_s, max(_SOONEST_S, (soonest or self.interval_s) + 1))
            self._next_ns = max(now, ended.began_ns + int(wait * SECOND))
            return
        why = self._end.why if isinstance(self._end, Failed) else f"its process exited with status {ended.status}"
        if ended.late:
            why = f"it took longer than {LONGEST_S} s"
        self._failed(now, why)

    def _failed(self, now: int, why: str) -> None:
        self._retry.longest_s = max(self.interval_s, LONGEST_S)
        wait = self._retry.failed()
        self._next_ns = now + int(wait * SECOND)
        self.record.failed(why)
        self.log(LogEvent.PASS_FAILED, why=why, again_s=int(wait))

    def _saw(self, looked: Looked, now: int) -> None:
        self._fingerprint, self._unchanged = looked.fingerprint, 0
        if looked.settled:
            self._note_told(None)
            self._tidied_ns = now if self._order is not None and self._order.tidy else self._tidied_ns
        self.record.saw(looked, now, self.log)
