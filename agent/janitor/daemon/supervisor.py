"""The daemon's parts as they come and go: one that fails is ended, and may be begun anew a little later.

Whatever a part raises stays here, and the others go on. What a part has counted outlives it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from janitor.core.model.retry import SECOND, is_due
from janitor.daemon.component import Health, Part
from janitor.host.kernel.procfs import clock
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family

_BEGIN_AGAIN_S: Final = 30
_PATIENCE_S: Final = 0.4
"""What a pass is given to end after SIGTERM, of the second that all of it may take."""

P = TypeVar("P", bound=Part)


@dataclass(slots=True, eq=False)
class Slot(Generic[P]):
    """The place of one part: it runs, or rests after a failure, or is not wanted.

    When one of the settings `rests_on` changes, the part is ended, so that it is begun anew; it takes the other changes
    as they are.
    """

    name: str
    make: Callable[[], P]
    wanted: Callable[[], bool] = lambda: True
    rests_on: frozenset[str] = frozenset()
    part: P | None = None
    resting_ns: int | None = None  # it has failed: until when it rests, on CLOCK_BOOTTIME
    _idle: P | None = None  # one that does not run: the last one, or one that never did

    def known(self) -> P | None:
        """The part, whether it runs or not; None where it is not wanted."""
        return self.part or self._idle

    def prepare(self) -> None:
        """Have a part to ask for its metrics and its health though none runs yet, where one is wanted."""
        if self.part is None:
            self._idle = (self._idle or self.make()) if self.wanted() else None

    def begin(self, log: Log) -> None:
        """Let it run, unless it does or has just failed; one that is not wanted any more is ended for good."""
        if not self.wanted():
            self.end(log)
            self._idle = None
        elif self.part is None and self.resting_ns is None:
            try:
                made = self.make()
                if self._idle is not None:
                    made.take_over(self._idle)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other parts go on)
                self.fail(error, log)
            else:
                self.part, self._idle = made, None

    def fail(self, error: Exception, log: Log) -> None:
        """It has raised this: it rests for a while."""
        log(LogEvent.COMPONENT_FAILED, part=self.name, why=_words(error), again_s=_BEGIN_AGAIN_S)
        self.end(log)
        self.resting_ns = clock().boottime_ns + _BEGIN_AGAIN_S * SECOND

    def end(self, log: Log) -> None:
        """End it, if it runs."""
        if self.part is None:
            return
        part, self.part = self.part, None
        self._idle = part
        try:
            part.close(_PATIENCE_S)
        except Exception as error:  # noqa: BLE001 (it is going away anyhow)
            log(LogEvent.COMPONENT_FAILED, part=self.name, why=_words(error))


class Parts:
    """All of them, in the order in which they are begun and run."""

    def __init__(self, log: Log, slots: Sequence[Slot[Any]]) -> None:
        self._log = log
        self.slots = slots
        self.prepare()

    def prepare(self) -> None:
        """Have each part that is wanted tell of itself before it runs."""
        for slot in self.slots:
            try:
                slot.prepare()
            except Exception as error:  # noqa: BLE001 (as in `run`)
                slot.fail(error, self._log)

    def metrics(self) -> Iterator[Family]:
        """Those of all parts that are wanted."""
        for part in self._known():
            yield from part.metrics()

    def healths(self, awake_ns: int) -> list[Health]:
        """How each part that is wanted is."""
        return [part.health(awake_ns) for part in self._known()]

    def dues_ns(self) -> list[int]:
        """When one of them wants to be run though nothing is ready, or has rested long enough."""
        dues = [slot.resting_ns for slot in self.slots] + [part.due_ns for _, part in self._running()]
        return [due for due in dues if due is not None]

    def run(self, ready: frozenset[int]) -> None:
        """Run those of which a descriptor is ready, or that are due."""
        for slot, part in self._running():
            try:
                readers, writers = part.descriptors()
                due = part.due_ns  # which may be "now": the clock comes after it
                if is_due(due, clock().boottime_ns) or ready.intersection(readers) or ready.intersection(writers):
                    part.run(ready)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other parts go on)
                slot.fail(error, self._log)

    def descriptors(self) -> tuple[list[int], list[int]]:
        """What all of them wait for, to read and to write."""
        readers, writers = [], []
        for slot, part in self._running():
            try:
                to_read, to_write = part.descriptors()
            except Exception as error:  # noqa: BLE001 (as in `run`)
                slot.fail(error, self._log)
                continue
            readers += to_read
            writers += to_write
        return readers, writers

    def rested(self) -> bool:
        """Whether one that failed may be begun anew."""
        now = clock().boottime_ns
        over = [slot for slot in self.slots if is_due(slot.resting_ns, now)]
        for slot in over:
            slot.resting_ns = None
        return bool(over)

    def begin(self) -> None:
        """Let every part run that is wanted, does not, and has not just failed; end what is not wanted."""
        for slot in self.slots:
            slot.begin(self._log)

    def end_changed(self, changed: set[str]) -> None:
        """End those that rest on one of these settings."""
        for slot in self.slots:
            if changed & slot.rests_on:
                slot.end(self._log)

    def end_all(self) -> None:
        """End those that run; none rests any more."""
        for slot in self.slots:
            slot.end(self._log)
            slot.resting_ns = None

    def _running(self) -> list[tuple[Slot[Any], Part]]:
        return [(slot, slot.part) for slot in self.slots if slot.part is not None]

    def _known(self) -> list[Part]:
        return [part for slot in self.slots if (part := slot.known()) is not None]


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
