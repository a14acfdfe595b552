"""What the daemon's loop asks of each of its parts."""

from typing import Protocol


class Part(Protocol):
    """One thing that the loop drives. `run` must not wait for anything."""

    def descriptors(self) -> tuple[list[int], list[int]]:
        """What to wait for, to read and to write."""

    @property
    def due_ns(self) -> int | None:
        """When to run it though nothing is ready, on CLOCK_BOOTTIME; None for never."""

    def run(self, ready: frozenset[int]) -> None:
        """Do what is due."""

    def close(self, patience_s: float) -> None:
        """Put in order what has to be, and stop."""
