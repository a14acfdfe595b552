"""Outcomes of planned actions, and how the journal records them."""

from dataclasses import dataclass
from typing import Literal

from janitor.core.model.action import Action
from janitor.core.model.reason import Reason

Event = Literal["intend", "done", "skipped", "failed", "undone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one action: `done`, `skipped` (somebody was faster, or busy) or `failed`, and why.

    `tried` is False if the action was not started because the pass was told to stop.
    """

    action: Action
    event: Event
    detail: Reason | None = None
    tried: bool = True


@dataclass(slots=True)
class Entry:
    """One action in the journal: what was intended, and its last state."""

    pass_id: str
    number: int
    action: Action
    quarantine: str  # where its file went, as the node sees it
    at: float  # seconds since the epoch
    boot_id: str
    state: Event = "intend"
    detail: Reason | None = None
    up_s: float = -1.0  # seconds since boot, on CLOCK_BOOTTIME; negative if not recorded


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of putting one file back. `detail` is why it failed."""

    entry: Entry
    detail: Reason | None = None

    @property
    def ok(self) -> bool:
        """Whether it is back."""
        return self.detail is None
