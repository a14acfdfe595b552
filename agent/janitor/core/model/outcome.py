"""What became of what was planned: outcomes, and how the journal remembers them."""

from dataclasses import dataclass
from typing import Literal

from janitor.core.model.action import Action
from janitor.core.model.reason import Reason

Event = Literal["intend", "done", "skipped", "failed", "undone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action: `done`, `skipped` (somebody was faster, or busy) or `failed`, and why.

    `tried` is False where nothing of it was begun, because the pass was told to stop before.
    """

    action: Action
    event: Event
    detail: Reason | None = None
    tried: bool = True


@dataclass(slots=True)
class Entry:
    """One action as the journal knows it: what was intended, and the last thing that became of it."""

    pass_id: str
    number: int
    action: Action
    quarantine: str  # where its file went, as the node names it
    at: float  # seconds since the epoch
    boot_id: str
    state: Event = "intend"
    detail: Reason | None = None
    up_s: float = -1.0  # seconds since the boot, on CLOCK_BOOTTIME; negative where that was not written down


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of one file that was to be put back. `detail` is why not."""

    entry: Entry
    detail: Reason | None = None

    @property
    def ok(self) -> bool:
        """Whether it is back."""
        return self.detail is None
