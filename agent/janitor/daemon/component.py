"""What the daemon's loop asks of each of its parts, and what a part tells of itself."""

from dataclasses import dataclass
from typing import Protocol, Self

from janitor.report.metrics import Family


@dataclass(frozen=True, slots=True)
class Health:
    """`ill`: why whoever supervises us should start us anew; `unready`: why the node is not being looked after yet."""

    ill: str = ""
    unready: str = ""
    problem: str = ""  # what went wrong last, for people; "" for nothing


class Part(Protocol):
    """One thing that the loop drives. Making one does nothing yet; `run` must not wait for anything.

    A part that has not been run, or was ended, still has metrics and a health.
    """

    def descriptors(self) -> tuple[list[int], list[int]]:
        """What to wait for, to read and to write."""

    @property
    def due_ns(self) -> int | None:
        """When to run it though nothing is ready, on CLOCK_BOOTTIME; None for never."""

    def run(self, ready: frozenset[int]) -> None:
        """Do what is due."""

    def close(self, patience_s: float) -> None:
        """Put in order what has to be, and stop."""

    def metrics(self) -> tuple[Family, ...]:
        """Its metrics, now."""
        return ()

    def health(self, awake_ns: int) -> Health:
        """How it is; `awake_ns`: since when the loop has run without a suspension (CLOCK_BOOTTIME)."""
        del awake_ns
        return Health()

    def take_over(self, before: Self) -> None:
        """Know what another one has known that had to be ended."""
        del before
