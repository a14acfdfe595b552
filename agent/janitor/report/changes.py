"""What clean and undo say: the plan before, a line for each outcome, and the passes there have been."""

import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from janitor.core.action import Action, Plan, Refusal
from janitor.core.outcome import Entry, Outcome, Restored
from janitor.core.prose import count, duration, listing, safe

_SHOWN = 20
_WOULD = {
    "free": "would free", "discard": "would discard", "reserve": "would reserve", "restore": "would restore",
    "configure": "would write",
}  # fmt: skip
_DONE = {"free": "freed", "discard": "discarded", "reserve": "reserved", "restore": "restored", "configure": "written"}


def plan_text(plan: Plan, width: int) -> str:
    """What would be done, in groups that rest on the same proof, and what is left, with the reasons of both."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Action]] = {}
    for action in plan.actions:
        # What is said of one pod only does not make a group of its own.
        proof = tuple(reason for reason in action.proof if not action.pod or action.pod not in reason)
        groups.setdefault((action.kind, action.directory, proof), []).append(action)
    lines: list[str] = []
    for (kind, directory, proof), actions in groups.items():
        names = [f"{action.name}{f' ({action.pod})' * bool(action.pod)}" for action in actions]
        where = f" in {directory}" if directory else ""
        lines.append(f"{_WOULD[kind]} {len(actions)}{where}: {listing(names)}")
        lines += [f"  because {reason}" for reason in proof]
    left = _left(plan.refusals)
    lines += [line for group in left[:_SHOWN] for line in group]
    if len(left) > _SHOWN:
        lines.append(f"left: {len(left) - _SHOWN} more")
    return "".join(f"{_wrapped(line, width)}\n" for line in lines or ["nothing to do"])


def _left(refusals: Iterable[Refusal]) -> list[list[str]]:
    """The lines of each group of what is left in one directory for the same reason; one line for what is alone."""
    groups: dict[tuple[str, str, bool], list[Refusal]] = {}
    for refusal in refusals:
        directory = refusal.subject.rpartition("/")[0] if refusal.subject.startswith("/") else ""
        # As above: what is said of one pod only does not make a group of its own.
        parts = [part for part in refusal.reason.split("; ") if not refusal.pod or refusal.pod not in part]
        groups.setdefault((directory, "; ".join(parts), bool(refusal.wait_s)), []).append(refusal)
    found: list[list[str]] = []
    for (directory, reason, waits), members in groups.items():
        longest = max(refusal.wait_s or 0 for refusal in members)
        soon = f" (may be decided in {duration(longest)})" if waits else ""
        if len(members) == 1:
            found.append([f"left: {members[0].subject}: {members[0].reason}{soon}"])
            continue
        names = [
            f"{r.subject.rpartition('/')[2] if directory else r.subject}{f' ({r.pod})' * bool(r.pod)}" for r in members
        ]
        where = f" in {directory}" if directory else ""
        found.append([f"left {len(members)}{where}: {listing(names)}", f"  because {reason}{soon}"])
    return found


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
    lease = action.kind in ("free", "reserve")
    return f"{f'{action.name} of {action.network}' if lease else action.path}{whose}"


def outcome_line(outcome: Outcome) -> str:
    """`freed 10.52.0.5 of k8s-pod-network`, or what happened instead and why."""
    verb = _DONE[outcome.action.kind] if outcome.event == "done" else outcome.event
    return safe(f"{verb} {_subject(outcome.action)}{f': {outcome.detail}' * bool(outcome.detail)}")


def summary(pass_id: str, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """The last line: what was done, what is left, and how to take it back."""
    counted = Counter(_DONE[o.action.kind] if o.event == "done" else o.event for o in outcomes)
    done = ", ".join(f"{number} {what}" for what, number in counted.items()) or "nothing done"
    left = f", {len(plan.refusals)} left" if plan.refusals else ""
    back = any(o.event == "done" and o.action.kind != "reserve" for o in outcomes)
    ours = any(o.event == "done" and o.action.kind in ("restore", "configure") for o in outcomes)
    how = "takes that back" if ours else "puts it back"
    return f"{done}{left}" + (f"; 'janitor undo {pass_id}' {how}" if back else "")


def passes_text(entries: Iterable[Entry]) -> str:
    """One line for each pass: its name, when, and what became of its actions."""
    passes: dict[str, list[Entry]] = {}
    for entry in entries:
        passes.setdefault(entry.pass_id, []).append(entry)
    lines = []
    for pass_id, members in passes.items():
        states = Counter(_state(member) for member in members)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(members[0].at))
        lines.append(f"{pass_id}  {when}  {', '.join(f'{number} {what}' for what, number in states.items())}")
    return "".join(f"{line}\n" for line in lines) or "there has been no pass\n"


def _state(entry: Entry) -> str:
    if entry.state == "done":
        return _DONE.get(str(entry.action["kind"]), "done")
    return "begun" if entry.state == "intend" else entry.state


def restored_text(pass_id: str, restored: Sequence[Restored]) -> str:
    """One line for each file, and a sum."""
    lines = []
    for one in restored:
        kind, directory, name = (str(one.entry.action[key]) for key in ("kind", "directory", "name"))
        path = f"{directory}/{name}" if directory else name
        verb = {"restore": "removed the rule", "configure": "taken back"}.get(kind, "put back")
        lines.append(safe(f"{verb} {path}" if one.ok else f"not {verb} {path}: {one.detail}"))
    back = sum(one.ok for one in restored)
    noun = "change" if any(one.entry.action["kind"] in ("restore", "configure") for one in restored) else "file"
    lines.append(f"{pass_id}: {count(back, noun)} put back, {len(restored) - back} not")
    return "".join(f"{line}\n" for line in lines)
