"""clean and undo: the commands that change something. They show it first, and ask."""

import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from janitor.commands.common import (
    CANNOT_ASK,
    EXIT_LEFT,
    EXIT_UNKNOWN,
    EXIT_USAGE,
    ConfigFile,
    DataDirs,
    Deadline,
    Endpoints,
    Root,
    Stop,
    alone,
    load,
    open_journal,
    options,
    read_journal,
    terminal,
    write,
)
from janitor.core.model.reason import Reason
from janitor.report.words import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from janitor.core.model.action import Plan, Policy
    from janitor.host.changes.journal import Journal
    from janitor.passes.clean import Look
    from janitor.passes.scan import Options

_LOOK_EVERY_S = 5


def clean(
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="IDS", help="Repair only these IDs or families (leases,RULE001)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Skip leases that need the grace period.")] = False,
    grace: Annotated[
        int | None,
        typer.Option("--grace", metavar="SECONDS", help="Grace period, at least 60.  [default: 600]"),
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(
            "--fix",
            metavar="WHAT",
            help="Only change a setting. networkd: systemd-networkd no longer deletes other programs' policy rules.",
        ),
    ] = None,
    most: Annotated[int, typer.Option("--max", metavar="N", help="Free and discard at most N files.")] = 256,
    network: Annotated[
        list[str] | None, typer.Option("--network", metavar="NAME", help="Clean only this network; repeatable.")
    ] = None,
    root: Root = "/",
    cri_endpoint: Endpoints = None,
    data_dir: DataDirs = None,
    deadline: Deadline = None,
    config: ConfigFile = None,
) -> None:
    """Free leaked leases and repair related findings.

    Shows the changes and asks before it makes them. 'janitor undo' reverts them, except
    leases that were written back.

    Exit codes: 0 done, 1 something left to do, 2 something could not be checked, 64 wrong usage, 70 bug in janitor.
    """
    from janitor.core.model.action import Policy
    from janitor.report.changes import plan_text

    settings = load(config)
    grace_s = settings.grace if grace is None else grace
    if grace_s < 60:
        raise Stop(f"--grace {grace_s}: must be at least 60 seconds", EXIT_USAGE)
    if most < 1:
        raise Stop(f"--max {most}: must be 1 or more", EXIT_USAGE)
    if fix is not None and (only or network):
        raise Stop("--fix cannot be used with --only or --network", EXIT_USAGE)
    if fix is None and not (yes or dry_run or (sys.stdin is not None and sys.stdin.isatty())):
        raise Stop(f"{CANNOT_ASK}: use --yes to make the changes, or --dry-run to see them", EXIT_USAGE)
    where = options(root, cri_endpoint, data_dir, deadline, config)
    if fix is not None:
        from janitor.commands.settings import fix_setting

        fix_setting(fix, where, dry_run=dry_run, yes=yes)
        return
    policy = Policy(most, tuple(network or ()), grace_s, _findings(only))
    if dry_run:
        from janitor.passes.clean import look as looked

        look = looked(where, policy, note=False)
        _check_networks(policy, look)
        write(plan_text(look.plan, terminal()[0]).encode("utf-8", "backslashreplace"))
        left = bool(look.plan.actions or look.plan.refusals)
    else:
        with alone(where.root, "janitor clean") as still:
            journal = open_journal(where.root)
            look = _watch(where, policy, wait=not no_wait)
            _check_networks(policy, look)
            write(plan_text(look.plan, terminal()[0]).encode("utf-8", "backslashreplace"))
            left = bool(look.plan.refusals)
            if look.plan.actions:
                if not yes and not typer.confirm("Make these changes?"):
                    raise Stop("nothing was changed", EXIT_LEFT)
                left = _carry_out(look, where, policy, journal, still)
            _purge(where.root, journal, settings.keep_days)
    unseen = look.unseen(policy)
    for part in unseen:
        print(f"janitor: not everything could be checked: {text(part.reason)}", file=sys.stderr)
    raise typer.Exit(EXIT_UNKNOWN if unseen else EXIT_LEFT if left else 0)


def undo(
    pass_id: Annotated[
        str | None, typer.Argument(metavar="[PASS]", help="Pass to undo, from --list.  [default: the last]")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List all passes and exit.")] = False,
    root: Root = "/",
    config: ConfigFile = None,
) -> None:
    """Undo a pass of 'janitor clean', the daemon or the boot stage.

    Does not put back a lease whose address is in use or leased again.

    Exit codes: 0 done, 1 something could not be undone, 2 could not start, 64 wrong usage, 70 bug in janitor.
    """
    from janitor.core.model.action import ReserveLease
    from janitor.core.model.lease import canonical_address
    from janitor.host.changes import undo as host_undo
    from janitor.host.changes.apply import ApplyContext
    from janitor.host.changes.repairs import NodeRepairs
    from janitor.host.files import describe_os_error
    from janitor.host.kernel.mounts import own_mounts
    from janitor.host.kernel.net_tables import Asked as AskedAddresses
    from janitor.host.kernel.processes import Asked
    from janitor.host.node import find_node
    from janitor.passes.clean import witness
    from janitor.report.changes import passes_text, restored_text

    where = options(root, None, None, None, config)
    if listing:
        write(passes_text(read_journal(where.root).entries.values()).encode("utf-8", "backslashreplace"))
        return
    with alone(where.root, "janitor undo"):
        journal = open_journal(where.root)
        entries = list(journal.entries.values())
        undoable = [e.pass_id for e in entries if e.state == "done" and not isinstance(e.action, ReserveLease)]
        if pass_id is None and not undoable:
            raise Stop("nothing to undo", EXIT_LEFT)
        chosen = pass_id or undoable[-1]
        if chosen not in {e.pass_id for e in entries}:
            raise Stop(f"no such pass: {chosen}; 'janitor undo --list' shows all passes", EXIT_USAGE)
        names = {entry.action.name for entry in entries if entry.pass_id == chosen}
        addresses = AskedAddresses(frozenset(name for name in names if canonical_address(name) is not None))
        node = find_node(where.root)
        context = ApplyContext(
            node,
            chosen,
            journal,
            own_mounts(),
            lambda: witness(node, Asked(frozenset()), addresses),
            repairs=NodeRepairs(node, where.profiles),
        )
        try:
            restored = list(host_undo.undo(chosen, context))
        except OSError as error:
            raise Stop(f"undoing pass {chosen}: {describe_os_error(error)}") from None
        write(restored_text(chosen, restored).encode("utf-8", "backslashreplace"))
    raise typer.Exit(EXIT_LEFT if any(not one.ok for one in restored) else 0)


def _watch(where: "Options", policy: "Policy", *, wait: bool) -> "Look":
    """Look, and keep looking while that can prove something, at most for the time that the first look announced."""
    from janitor.commands.progress import Waiting
    from janitor.passes.clean import look

    now = look(where, policy)
    if not wait or not now.wait_s:
        return now
    total = now.wait_s
    began = time.monotonic()
    with Waiting(total, _awaited(now.plan)) as bar:
        while now.wait_s and (gone := time.monotonic() - began) < total + 2 * _LOOK_EVERY_S:
            bar.at(gone)
            time.sleep(min(_LOOK_EVERY_S, max(1, now.wait_s)))
            now = look(where, policy)
    return now


def _awaited(plan: "Plan") -> str:
    """What is being waited for, in a few words."""
    from janitor.core.model.text import count

    settling = [r.subject for r in plan.refusals if r.wait_s and not r.subject.startswith("/")]
    files = sum(bool(r.wait_s) for r in plan.refusals) - len(settling)
    parts = [f"the grace period of {count(files, 'file')}"] if files else []
    return " and ".join(parts + [f"{subject}, which has just started" for subject in settling])


def _findings(only: str | None) -> frozenset[str] | None:
    from janitor.core.model.finding_ids import matching_ids

    try:
        return None if only is None else frozenset(matching_ids(only))
    except ValueError as error:
        raise Stop(f"--only {error}", EXIT_USAGE) from None


def _check_networks(policy: "Policy", look: "Look") -> None:
    from janitor.core.model.evidence import known

    there = sorted({directory.network for directory in known(look.evidence.lease_directories)})
    for name in policy.networks:
        if name not in there:
            raise Stop(
                f"--network {name}: it has no leases on this node; networks with leases: {', '.join(there) or 'none'}",
                EXIT_USAGE,
            )


def _purge(root: str, journal: "Journal", keep_days: float) -> None:
    from janitor.host.changes.undo import purge
    from janitor.host.files import describe_os_error
    from janitor.host.node import find_node

    try:
        purge(find_node(root), journal, keep_days)
    except OSError as error:
        print(f"janitor: deleting old passes from journal and quarantine: {describe_os_error(error)}", file=sys.stderr)


def _carry_out(
    look: "Look", where: "Options", policy: "Policy", journal: "Journal", still: "Callable[[], Reason | None]"
) -> bool:
    """Carry out the plan and print each outcome; returns whether anything is left. A signal ends it after the current
    batch.

    `still` returns why the lock is lost, or None.
    """
    from janitor.core.model.action import Plan
    from janitor.passes.clean import STOPPED, carry_out, leave_mark
    from janitor.report.changes import outcome_line, plan_text, summary

    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    if problem := leave_mark(look.evidence):
        print(f"janitor: {text(problem)}", file=sys.stderr)
    context, plan, work = carry_out(look, where, policy, journal, lambda: STOPPED if signals else still())
    outcomes = []
    for outcome in work:
        outcomes.append(outcome)
        write(f"{outcome_line(outcome)}\n".encode("utf-8", "backslashreplace"))
    # What was planned and then refused: its reasons have not been printed yet.
    known = {refusal.subject for refusal in look.plan.refusals}
    if new := tuple(refusal for refusal in plan.refusals if refusal.subject not in known):
        write(plan_text(Plan((), new), terminal()[0]).encode("utf-8", "backslashreplace"))
    write(f"{summary(context.pass_id, outcomes, plan)}\n".encode("utf-8", "backslashreplace"))
    return bool(plan.refusals) or any(outcome.event != "done" for outcome in outcomes)
