"""The interface between the daemon's loop and its components."""

from dataclasses import dataclass
from typing import Protocol, Self

from janitor.report.metrics import Family


@dataclass(frozen=True, slots=True)
class Health:
    """`ill`: why a supervisor should restart the daemon; `unready`: why the node is not looked after yet."""

    ill: str = ""
    unready: str = ""
    problem: str = ""  # the last failure, for people; "" if none


class Part(Protocol):
    """A component that the loop drives. The constructor does nothing yet; `run` must not block.

    A component that has not run yet or has ended still has metrics and a health.
    """

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Descriptors to wait for: (readers, writers)."""

    @property
    def due_ns(self) -> int | None:
        """When to run it although no descriptor is ready, on CLOCK_BOOTTIME; None for never."""

    def run(self, ready: frozenset[int]) -> None:
        """Do what is due."""

    def close(self, patience_s: float) -> None:
        """Finish what must be finished within `patience_s`, and stop."""

    def metrics(self) -> tuple[Family, ...]:
        """The current metrics."""
        return ()

    def health(self, awake_ns: int) -> Health:
        """The current health. `awake_ns`: since when the loop has run without a suspension (CLOCK_BOOTTIME)."""
        del awake_ns
        return Health()

    def take_over(self, before: Self) -> None:
        """Take over the state of a predecessor that was ended."""
        del before
