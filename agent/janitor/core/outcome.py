"""What became of what was planned: outcomes, and how the journal remembers them."""

from dataclasses import dataclass
from typing import Any, Literal

from janitor.core.action import Action

Event = Literal["intend", "done", "skipped", "failed", "undone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action: `done`, `skipped` (somebody was faster, or busy) or `failed`, and why."""

    action: Action
    event: Event
    detail: str


@dataclass(slots=True)
class Entry:
    """One action as the journal knows it: what was intended, and the last thing that became of it."""

    pass_id: str
    number: int
    action: dict[str, Any]  # the fields of Action
    quarantine: str  # where its file went, as the node names it
    at: float  # seconds since the epoch
    boot_id: str
    state: Event = "intend"
    detail: str = ""
    up_s: float = -1.0  # seconds since the boot, on CLOCK_BOOTTIME; negative where that was not written down


def action_of(entry: Entry) -> Action:
    """The action again, as far as it takes to say what was done; its file's identity is left out."""
    known = entry.action
    directory, name, container_id, interface, pod = (
        str(known.get(field, "")) for field in ("directory", "name", "container_id", "interface", "pod")
    )
    proof = tuple(str(part) for part in known.get("proof") or ())
    return Action(known["kind"], directory, name, container_id, interface, pod, proof)


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of one file that was to be put back."""

    entry: Entry
    ok: bool
    detail: str
