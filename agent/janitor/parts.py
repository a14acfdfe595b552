"""The daemon's parts as they come and go: one that fails is ended, and may be begun anew a little later.

Whatever a part raises stays here, and the others go on. What a part has counted outlives it.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from janitor.core.retry import SECOND, is_due
from janitor.host.procfs import clock
from janitor.keeping import Keeping
from janitor.part import Part
from janitor.passing import Passing
from janitor.report.events import Log, LogEvent
from janitor.syncing import Syncing
from janitor.textfile import Textfile

_BEGIN_AGAIN_S: Final = 30
_PATIENCE_S: Final = 0.4
"""What a pass is given to end after SIGTERM, of the second that all of it may take."""

Kind = TypeVar("Kind")


class Parts:
    """By their names; each is there, or has failed and rests, or is not wanted."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.there: dict[str, Part] = {}
        self._resting: dict[str, int] = {}  # those that failed: until when, on CLOCK_BOOTTIME
        self._ended: dict[str, Part] = {}  # what will be made anew, for what it has counted

    @property
    def known(self) -> dict[str, Part]:
        """Those that are there, and those that were and will be again, for what they have counted."""
        return self._ended | self.there

    def one(self, kind: type[Kind]) -> Kind | None:
        """The part of this kind, if it is there."""
        return next((part for part in self.there.values() if isinstance(part, kind)), None)

    def dues_ns(self) -> list[int]:
        """When one of them wants to be run though nothing is ready, or has rested long enough."""
        dues = (part.due_ns for part in self.there.values())
        return [due for due in dues if due is not None] + list(self._resting.values())

    def run(self, ready: frozenset[int]) -> None:
        """Run those of which a descriptor is ready, or that are due."""
        for name, part in list(self.there.items()):
            try:
                readers, writers = part.descriptors()
                due = part.due_ns  # which may be "now": the clock comes after it
                if is_due(due, clock().boottime_ns) or ready.intersection(readers) or ready.intersection(writers):
                    part.run(ready)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other parts go on)
                self._failed(name, error)

    def descriptors(self) -> tuple[list[int], list[int]]:
        """What all of them wait for, to read and to write."""
        readers, writers = [], []
        for name, part in list(self.there.items()):
            try:
                to_read, to_write = part.descriptors()
            except Exception as error:  # noqa: BLE001 (as in `run`)
                self._failed(name, error)
                continue
            readers += to_read
            writers += to_write
        return readers, writers

    def _failed(self, name: str, error: Exception) -> None:
        self._log(LogEvent.COMPONENT_FAILED, part=name, why=f"{type(error).__name__}: {error}", again_s=_BEGIN_AGAIN_S)
        self.end(name)
        self._resting[name] = clock().boottime_ns + _BEGIN_AGAIN_S * SECOND

    def rested(self) -> bool:
        """Whether one that failed may be begun anew."""
        now = clock().boottime_ns
        over = [name for name, until in self._resting.items() if now >= until]
        for name in over:
            del self._resting[name]
        return bool(over)

    def begin(self, name: str, make: Callable[[], Part] | None) -> None:
        """Make it, unless it is there or has just failed; without `make` it is not wanted, and ended for good."""
        if make is None:
            self.end(name)
            self._ended.pop(name, None)
        elif name not in self.there and name not in self._resting:
            try:
                self.there[name] = made = make()
            except Exception as error:  # noqa: BLE001 (as in `run`)
                self._failed(name, error)
            else:
                carry_over(self._ended.pop(name, None), made)

    def end(self, name: str) -> None:
        """End it, if it is there."""
        part = self.there.pop(name, None)
        if part is None:
            return
        self._ended[name] = part
        try:
            part.close(_PATIENCE_S)
        except Exception as error:  # noqa: BLE001 (it is going away anyhow)
            self._log(LogEvent.COMPONENT_FAILED, part=name, why=f"{type(error).__name__}: {error}")

    def end_all(self) -> None:
        """End those that are there; none rests any more."""
        for name in list(self.there):
            self.end(name)
        self._resting.clear()


def carry_over(before: object, fresh: object) -> None:
    """What a part has counted outlives it: it may have to be begun anew."""
    if isinstance(before, Passing) and isinstance(fresh, Passing):
        fresh.go_on_from(before)
    elif isinstance(before, Keeping) and isinstance(fresh, Keeping):
        fresh.counts_before = before.counts
    elif isinstance(before, Syncing) and isinstance(fresh, Syncing):
        fresh.files, fresh.seconds = before.files, before.seconds
    elif isinstance(before, Textfile) and isinstance(fresh, Textfile):
        fresh.written = before.written
