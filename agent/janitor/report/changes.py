"""The output of clean and undo: the plan, a line per outcome, and the list of passes."""

import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from janitor.core.model.action import Action, FreeLease, Plan, Refusal, ReserveLease, RestoreRule, WriteSetting
from janitor.core.model.outcome import Entry, Outcome, Restored
from janitor.core.model.reason import Reason
from janitor.core.model.text import count, duration, listing, safe
from janitor.report.words import text, texts

_SHOWN = 20
_WOULD = {
    "free": "would free", "discard": "would discard", "reserve": "would reserve", "restore": "would restore",
    "configure": "would write",
}  # fmt: skip
_DONE = {"free": "freed", "discard": "discarded", "reserve": "reserved", "restore": "restored", "configure": "written"}


def plan_text(plan: Plan, width: int) -> str:
    """The planned actions, grouped by equal proof, and what is left unchanged; both with their reasons."""
    groups: dict[tuple[str, str, tuple[Reason, ...]], list[Action]] = {}
    for action in plan.actions:
        # Reasons that name the pod must not split a group.
        proof = tuple(reason for reason in action.proof if not _names(reason, action.pod))
        groups.setdefault((action.kind, action.directory, proof), []).append(action)
    lines: list[str] = []
    for (kind, directory, proof), actions in groups.items():
        names = [f"{action.name}{f' ({action.pod})' * bool(action.pod)}" for action in actions]
        where = f" in {directory}" if directory else ""
        lines.append(f"{_WOULD[kind]} {len(actions)}{where}: {listing(names)}")
        lines += [f"  because {text(reason)}" for reason in proof]
    left = _left(plan.refusals)
    lines += [line for group in left[:_SHOWN] for line in group]
    if len(left) > _SHOWN:
        lines.append(f"left: {len(left) - _SHOWN} more")
    return "".join(f"{_wrapped(line, width)}\n" for line in lines or ["nothing to do"])


def _left(refusals: Iterable[Refusal]) -> list[list[str]]:
    """Groups of what is left in one directory for the same reason, as lines; one line for a group of one."""
    groups: dict[tuple[str, tuple[Reason, ...], bool], list[Refusal]] = {}
    for refusal in refusals:
        directory = refusal.subject.rpartition("/")[0] if refusal.subject.startswith("/") else ""
        # As above: reasons that name the pod must not split a group.
        shared = tuple(reason for reason in refusal.reasons if not _names(reason, refusal.pod))
        groups.setdefault((directory, shared, bool(refusal.wait_s)), []).append(refusal)
    found: list[list[str]] = []
    for (directory, reasons, waits), members in groups.items():
        longest = max(refusal.wait_s or 0 for refusal in members)
        soon = f" (check again in {duration(longest)})" if waits else ""
        if len(members) == 1:
            found.append([f"left: {members[0].subject}: {'; '.join(texts(members[0].reasons))}{soon}"])
            continue
        names = [
            f"{r.subject.rpartition('/')[2] if directory else r.subject}{f' ({r.pod})' * bool(r.pod)}" for r in members
        ]
        where = f" in {directory}" if directory else ""
        found.append([f"left: {len(members)}{where}: {listing(names)}", f"  because {'; '.join(texts(reasons))}{soon}"])
    return found


def _names(reason: Reason, pod: str) -> bool:
    """Whether the reason names this pod."""
    if not pod:
        return False
    return any(value == pod for _, value in reason.facts) or (reason.cause is not None and _names(reason.cause, pod))


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(
        safe(line.strip()),
        max(width, 40),
        initial_indent="  " * line.startswith("  "),
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _subject(action: Action) -> str:
    whose = f" ({action.pod})" if action.pod else ""
    if isinstance(action, FreeLease | ReserveLease):
        return f"{action.name} of {action.network}{whose}"
    return f"{action.path}{whose}"


def outcome_line(outcome: Outcome) -> str:
    """`freed 10.52.0.5 of k8s-pod-network`, or what happened instead and why."""
    verb = _DONE[outcome.action.kind] if outcome.event == "done" else outcome.event
    why = "" if outcome.detail is None else f": {text(outcome.detail)}"
    return safe(f"{verb} {_subject(outcome.action)}{why}")


def summary(pass_id: str, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """The last line: what was done, what is left, and how to undo it."""
    counted = Counter(_DONE[o.action.kind] if o.event == "done" else o.event for o in outcomes)
    done = ", ".join(f"{number} {what}" for what, number in counted.items()) or "nothing done"
    left = f", {len(plan.refusals)} left" if plan.refusals else ""
    done_ones = [o.action for o in outcomes if o.event == "done"]
    back = any(not isinstance(action, ReserveLease) for action in done_ones)
    ours = any(isinstance(action, RestoreRule | WriteSetting) for action in done_ones)
    how = "reverts it" if ours else "puts it back"
    return f"{done}{left}" + (f"; 'janitor undo {pass_id}' {how}" if back else "")


def passes_text(entries: Iterable[Entry]) -> str:
    """One line per pass: its ID, its time, and the outcomes of its actions."""
    passes: dict[str, list[Entry]] = {}
    for entry in entries:
        passes.setdefault(entry.pass_id, []).append(entry)
    lines = []
    for pass_id, members in passes.items():
        states = Counter(_state(member) for member in members)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(members[0].at))
        lines.append(f"{pass_id}  {when}  {', '.join(f'{number} {what}' for what, number in states.items())}")
    return "".join(f"{line}\n" for line in lines) or "no passes\n"


def _state(entry: Entry) -> str:
    if entry.state == "done":
        return _DONE[entry.action.kind]
    return "unfinished" if entry.state == "intend" else entry.state


def restored_text(pass_id: str, restored: Sequence[Restored]) -> str:
    """One line per file, and a total."""
    lines = []
    for one in restored:
        action = one.entry.action
        verb = {"restore": "removed the rule", "configure": "reverted"}.get(action.kind, "put back")
        why = "" if one.detail is None else f": {text(one.detail)}"
        lines.append(safe(f"{'not ' * (not one.ok)}{verb} {action.path}{why}"))
    back = sum(one.ok for one in restored)
    ours = any(isinstance(one.entry.action, RestoreRule | WriteSetting) for one in restored)
    done = f"{count(back, 'change')} undone" if ours else f"{count(back, 'file')} put back"
    lines.append(f"{pass_id}: {done}, {len(restored) - back} not")
    return "".join(f"{line}\n" for line in lines)
