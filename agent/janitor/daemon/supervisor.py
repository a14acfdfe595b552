"""Starts and ends the daemon's components; one that fails is ended, and restarted a little later.

An exception of a component stays here, and the others go on. A component's counts outlive it.
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
"""The time that a pass gets after SIGTERM, out of the second that everything may take."""

P = TypeVar("P", bound=Part)


@dataclass(slots=True, eq=False)
class Slot(Generic[P]):
    """The place of one component: running, resting after a failure, or not wanted.

    If one of the settings in `rests_on` changes, the component is ended and made again. It adopts other changes as they
    are.
    """

    name: str
    make: Callable[[], P]
    wanted: Callable[[], bool] = lambda: True
    rests_on: frozenset[str] = frozenset()
    part: P | None = None
    resting_ns: int | None = None  # after a failure: until when it rests, on CLOCK_BOOTTIME
    _idle: P | None = None  # not running: the last one, or one that never ran

    def known(self) -> P | None:
        """The component, running or not; None if it is not wanted."""
        return self.part or self._idle

    def prepare(self) -> None:
        """If wanted, make a component to ask for metrics and health before it runs."""
        if self.part is None:
            self._idle = (self._idle or self.make()) if self.wanted() else None

    def begin(self, log: Log) -> None:
        """Start it, unless it runs or rests after a failure; if it is no longer wanted, end it for good."""
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
        """It has raised `error`: end it and let it rest."""
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
    """All components, in the order in which they are started and run."""

    def __init__(self, log: Log, slots: Sequence[Slot[Any]]) -> None:
        self._log = log
        self.slots = slots
        self.prepare()

    def prepare(self) -> None:
        """Make each wanted component available for metrics and health before it runs."""
        for slot in self.slots:
            try:
                slot.prepare()
            except Exception as error:  # noqa: BLE001 (as in `run`)
                slot.fail(error, self._log)

    def metrics(self) -> Iterator[Family]:
        """The metrics of all wanted components."""
        for part in self._known():
            yield from part.metrics()

    def healths(self, awake_ns: int) -> list[Health]:
        """The health of each wanted component."""
        return [part.health(awake_ns) for part in self._known()]

    def dues_ns(self) -> list[int]:
        """When components want to run although no descriptor is ready, or have rested long enough."""
        dues = [slot.resting_ns for slot in self.slots] + [part.due_ns for _, part in self._running()]
        return [due for due in dues if due is not None]

    def run(self, ready: frozenset[int]) -> None:
        """Run the components that have a ready descriptor or are due."""
        for slot, part in self._running():
            try:
                readers, writers = part.descriptors()
                due = part.due_ns  # may be "now", so read it before the clock
                if is_due(due, clock().boottime_ns) or ready.intersection(readers) or ready.intersection(writers):
                    part.run(ready)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other parts go on)
                slot.fail(error, self._log)

    def descriptors(self) -> tuple[list[int], list[int]]:
        """The descriptors of all components: (readers, writers)."""
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
        """Whether a component that failed may be restarted now."""
        now = clock().boottime_ns
        over = [slot for slot in self.slots if is_due(slot.resting_ns, now)]
        for slot in over:
            slot.resting_ns = None
        return bool(over)

    def begin(self) -> None:
        """Start every component that is wanted and neither runs nor rests; end those that are not wanted."""
        for slot in self.slots:
            slot.begin(self._log)

    def end_changed(self, changed: set[str]) -> None:
        """End the components that depend on one of these settings."""
        for slot in self.slots:
            if changed & slot.rests_on:
                slot.end(self._log)

    def end_all(self) -> None:
        """End all running components; clear all rests."""
        for slot in self.slots:
            slot.end(self._log)
            slot.resting_ns = None

    def _running(self) -> list[tuple[Slot[Any], Part]]:
        return [(slot, slot.part) for slot in self.slots if slot.part is not None]

    def _known(self) -> list[Part]:
        return [part for slot in self.slots if (part := slot.known()) is not None]


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
