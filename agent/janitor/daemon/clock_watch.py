"""Records changes of the clocks in /run/janitor, for every pass and for `clean`.

Once the wall clock is set, it proves no lease's age any more (core/leases/age.py, (c)). While no daemon ran, the offset
between the two clocks shows whether they still agree. If nothing ran for a while although CLOCK_BOOTTIME advanced (a
frozen container, a stopped machine), no pod was created either: that time does not count as watching (b).
"""

from dataclasses import dataclass, field, replace
from typing import Final

from janitor.core.model.evidence import Clock, Unknown, known
from janitor.core.model.retry import SECOND, earliest, is_due
from janitor.daemon.component import Part
from janitor.host.changes.state import ClockNote, read_clock, read_observations, write_clock
from janitor.host.files import describe_os_error
from janitor.host.kernel.clock_set import ClockSet
from janitor.host.kernel.procfs import clock
from janitor.host.node import find_node
from janitor.report.events import Log, LogEvent

_SLEWED_NS: Final = 2 * SECOND  # the offset may change this much without a step while nobody watched
_TOLD_NS: Final = SECOND  # a smaller step is recorded, not logged
_STALL_NS: Final = 5 * SECOND  # the loop never blocks: if a turn is later than this, the process did not run
_RESTART_NS: Final = 90 * SECOND  # a pass runs every minute
_EVERY_NS: Final = SECOND  # at most one note per second, however often the clock is set
_AGAIN_NS: Final = 10 * SECOND
_TELL_EVERY_NS: Final = 600 * SECOND


@dataclass(slots=True)
class ClockWatch(Part):
    """Logs once what it cannot do; (b) and (c) then hold as they do without a daemon."""

    root: str
    log: Log
    _timer: ClockSet | None = None
    _note: ClockNote = field(default_factory=ClockNote)
    _begun: bool = False
    _next_ns: int | None = 0  # when to start; later, when to check a timer that has just reported a step
    _again_ns: int | None = None  # when to retry writing the note
    _told_ns: dict[LogEvent, int] = field(default_factory=dict)  # when each event was last logged

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Descriptors to wait for: (readers, writers)."""
        return ([self._timer.fileno()] if self._timer is not None and self._next_ns is None else []), []

    @property
    def due_ns(self) -> int | None:
        """When to run although no descriptor is ready."""
        return earliest(self._next_ns, self._again_ns)

    def run(self, ready: frozenset[int]) -> None:
        """Check whether the clock was set, and record it."""
        del ready
        now = clock()
        if not self._begun:
            self._begun, self._next_ns = True, None
            self._begin(now)
        elif self._next_ns is None or now.boottime_ns >= self._next_ns:
            self._next_ns = None
            if self._timer is not None and self._timer.was_set():
                self._next_ns = now.boottime_ns + _EVERY_NS
                self._was_set(now)
        if is_due(self._again_ns, now.boottime_ns):
            self._write(now)

    def noted(self) -> ClockNote:
        """What has been seen, for a pass that starts now: the pass need not read the note, which may have been removed.

        The note is also written again, for `clean`.
        """
        if self._begun and read_clock(find_node(self.root)) != self._note:
            self._write(clock())
        return self._note

    def turned(self, before: Clock, now: Clock, wait_s: float) -> None:
        """The loop has finished a turn that was to wait `wait_s`. If it took far longer, the process did not run."""
        took_ns = (now.boottime_ns - now.asleep_ns) - (before.boottime_ns - before.asleep_ns)
        if took_ns > wait_s * SECOND + _STALL_NS:
            self._note = replace(self._note, stalled_ns=self._note.stalled_ns + took_ns)
            self._write(now)
            self._log_seldom(
                now,
                LogEvent.DAEMON_STALLED,
                for_s=f"{took_ns / SECOND:.0f}",
                then="that time does not count toward the grace period",
            )

    def close(self, patience_s: float) -> None:
        """Record the present offset of the clocks for the next daemon."""
        del patience_s
        if self._timer is not None:
            self._timer.close()
            self._timer = None
            now = clock()
            self._note = replace(self._note, offset_ns=_offset_ns(now))
            self._write(now)

    def _begin(self, now: Clock) -> None:
        try:
            self._timer = ClockSet()
        except OSError as error:
            self.log(
                LogEvent.CLOCK_NOT_WATCHED,
                why=describe_os_error(error),
                then="two clock steps that cancel each other out are not detected",
            )
        before = read_clock(find_node(self.root))
        if isinstance(before, Unknown):  # the unreadable note may have said anything
            self._note = ClockNote(now.boottime_ns, _offset_ns(now), now.boottime_ns)
        elif before is None:
            self._note = ClockNote(offset_ns=_offset_ns(now))
        else:
            self._note = replace(before, stalled_ns=before.stalled_ns + self._unwatched_ns(now))
            if abs(_offset_ns(now) - before.offset_ns) > _SLEWED_NS:
                self._was_set(now)
                return
        self._write(now)

    def _unwatched_ns(self, now: Clock) -> int:
        """For how long nobody has watched, if longer than a restart takes.

        systemd may have killed a stopped daemon before it could record the time itself.
        """
        seen = known(read_observations(find_node(self.root)))
        gap_ns = now.boottime_ns - max((observation.last_ns for observation in seen), default=now.boottime_ns)
        return gap_ns if gap_ns > _RESTART_NS else 0

    def _was_set(self, now: Clock) -> None:
        by_ns = _offset_ns(now) - self._note.offset_ns
        self._note = replace(self._note, set_ns=now.boottime_ns, offset_ns=_offset_ns(now))
        self._write(now)
        if abs(by_ns) >= _TOLD_NS:
            self._log_seldom(
                now,
                LogEvent.CLOCK_WAS_SET,
                by_s=f"{by_ns / SECOND:+.0f}",
                then="file age is not accepted as proof until the runtime restarts",
            )

    def _write(self, now: Clock) -> None:
        node = find_node(self.root)
        if isinstance(node.boot_id, Unknown):
            return  # nothing is judged then either
        try:
            write_clock(node, self._note)
            self._again_ns = None
        except OSError as error:
            if self._again_ns is None:
                self.log(
                    LogEvent.NOTES_NOT_WRITTEN,
                    why=describe_os_error(error),
                    then="'janitor clean' may not know about a clock step or a stall",
                )
            self._again_ns = now.boottime_ns + _AGAIN_NS

    def _log_seldom(self, now: Clock, event: LogEvent, /, **fields: str) -> None:
        if event not in self._told_ns or now.boottime_ns - self._told_ns[event] >= _TELL_EVERY_NS:
            self._told_ns[event] = now.boottime_ns
            self.log(event, **fields)


def _offset_ns(now: Clock) -> int:
    return now.realtime_ns - now.boottime_ns
