"""Carrying out a plan. Together with host/changes/undo.py, this is the only writer of leases.

For each batch: host-local's lock is available and the plugins of the chain exist; the intentions are synced to the
journal; the kernel is asked once more; then, under that lock and for a few milliseconds, each file is compared with the
one that was judged, then renamed; the directories are synced; the outcomes go to the journal. No runtime is called in
between. If janitor is killed at any point, every file is in its place or in quarantine, and the next run finds out
which. Standard library only.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from janitor.core.model.action import Action, DiscardEntry, FreeLease, ReserveLease, RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.outcome import Entry, Event, Outcome
from janitor.core.model.reason import Reason, because
from janitor.core.model.unknown import unseen
from janitor.host.changes.journal import Journal
from janitor.host.changes.quarantine import QUARANTINE, make_place, move, place_for, unchanged
from janitor.host.cni.delete import ChainDel, DelError, chain_del, find_chain
from janitor.host.cni.locks import Busy, network_lock
from janitor.host.files import failed, sync_directory
from janitor.host.kernel.firewall import named_addresses
from janitor.host.kernel.mounts import Mounts
from janitor.host.kernel.programs import Programs
from janitor.host.node import Node

_Kind = TypeVar("_Kind", FreeLease, DiscardEntry, ReserveLease)

BATCH = 16  # the number of renames that a pod waiting for the lock may have to wait for


@dataclass(frozen=True, slots=True)
class Witness:
    """What the kernel shows right before a change: IDs that processes name, and addresses that are up or routed to."""

    ids: frozenset[str]
    addresses: frozenset[str]


class Repairs(Protocol):
    """Makes and takes back changes that move no files: rules and settings (host/changes/repairs.py).

    A protocol, because the boot stage imports this module and has only the standard library.
    """

    def do(self, action: RestoreRule | WriteSetting, entry: Entry) -> Outcome:
        """Make the change. Never raises."""

    def take_back(self, action: RestoreRule | WriteSetting, entry: Entry) -> Reason | None:
        """Undo it. None, or why that was not possible."""


@dataclass(frozen=True, slots=True)
class ApplyContext:
    """What it takes to change a node. `stop` is asked before each batch: a reason not to go on, or None."""

    node: Node
    pass_id: str
    journal: Journal
    mounts: Mounts
    witness: Callable[[], Witness | Unknown]
    plugin_dirs: tuple[str, ...] = ()
    programs: Callable[[], Programs | Unknown] = lambda: unseen(Code.PROGRAMS_NOT_ASKED)
    patience_s: float = 5.0
    repairs: Repairs | None = None
    batch: int = BATCH
    stop: Callable[[], Reason | None] = lambda: None


def apply(actions: tuple[Action, ...], context: ApplyContext) -> Iterator[Outcome]:
    """Carry out all actions in order, batch by batch. Yields each outcome once it is known and in the journal.

    What is certain to fail is not written to the journal, which would otherwise grow with every pass.
    """
    number = 0
    broken: Reason | None = None
    locked: dict[str, Reason] = {}  # directories whose lock was busy: one wait per pass is enough
    for batch in _batches(actions, context.batch):
        broken = broken or context.stop()
        if broken is not None:
            yield from (Outcome(action, "skipped", broken, tried=False) for action in batch)
            continue
        hopeless = _hopeless(batch, context, locked)
        if hopeless is not None:
            yield from (Outcome(action, *hopeless) for action in batch)
            continue
        entries = [_entry(action, number + index, context) for index, action in enumerate(batch)]
        number += len(batch)
        try:
            for place in {os.path.dirname(e.quarantine) for e in entries if e.quarantine}:
                make_place(context.node.path(place))
            context.journal.intend(entries)
        except OSError as error:
            broken = failed(Code.JOURNAL_UNWRITABLE, error)
            yield from (Outcome(action, "failed", broken) for action in batch)
            continue
        outcomes = _do(batch, entries, context)
        try:
            context.journal.outcome([(e, o.event, o.detail) for e, o in zip(entries, outcomes, strict=True)])
        except OSError as error:
            broken = failed(Code.JOURNAL_BROKEN, error)
            outcomes = [
                replace(o, event="failed", detail=failed(Code.JOURNAL_BROKE, error, event=o.event)) for o in outcomes
            ]
        yield from outcomes


def _batches(actions: tuple[Action, ...], most: int) -> Iterator[list[Action]]:
    """Group neighbours of one directory and kind. Actions that share a CNI DEL are always one batch."""
    batch: list[Action] = []
    for action in actions:
        together = action.chain == batch[0].chain if batch else True
        alike = not batch or (action.directory, action.kind) == (batch[0].directory, batch[0].kind)
        if batch and not (together and (action.chain or (alike and len(batch) < most))):
            yield batch
            batch = []
        batch.append(action)
    if batch:
        yield batch


def _hopeless(batch: list[Action], context: ApplyContext, locked: dict[str, Reason]) -> tuple[Event, Reason] | None:
    """The outcome of a batch that certainly cannot be carried out, before anything is written; None if it can be."""
    first = batch[0]
    if not isinstance(first, FreeLease | ReserveLease):
        return None
    try:
        if first.directory not in locked:
            with network_lock(context.node.path(first.directory), first.directory, context.patience_s):
                pass
        if first.chain:
            _chain(first.chain, context, "")
    except Busy as busy:
        locked[first.directory] = busy.reason
    except OSError as error:
        return "failed", failed(Code.CHANGE_FAILED, error, path=first.directory)
    except DelError as error:
        return "failed", _kept(error)
    return ("skipped", locked[first.directory]) if first.directory in locked else None


def _chain(entry: str, context: ApplyContext, scratch: str) -> tuple[ChainDel, Programs]:
    programs = context.programs()
    if isinstance(programs, Unknown):
        raise DelError(because(Code.NO_PLUGIN_RUN, programs.reason))
    return find_chain(context.node, entry, programs, context.plugin_dirs, scratch), programs


def _run_chain(entry: str, leases: list[FreeLease], context: ApplyContext, scratch: str) -> None:
    """Run CNI DEL and check its effect: not every plugin reports it if it finds no tool to remove its rules with."""
    chain, programs = _chain(entry, context, scratch)
    chain_del(chain, programs)
    if not chain.filters:
        return
    left = named_addresses(context.node.root, (action.name for action in leases))
    if isinstance(left, Unknown):
        raise DelError(because(Code.DEL_LEFT_UNSEEN, left.reason))
    if left:
        raise DelError(because(Code.DEL_LEFT_RULES, addresses=tuple(sorted(left))))


def _kept(error: DelError) -> Reason:
    return because(Code.KEPT_BECAUSE_OF_DEL, error.reason)


def _entry(action: Action, number: int, context: ApplyContext) -> Entry:
    rule = isinstance(action, RestoreRule)  # a rule has no file, but each action has a place
    where = QUARANTINE if rule else place_for(context.node, action.directory, context.mounts)
    place = f"{where}/{context.pass_id}/{number:05d}-{'rule' if rule else action.name}"
    up_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    boot_id = context.node.boot_id if isinstance(context.node.boot_id, str) else ""
    return Entry(context.pass_id, number, action, place, time.time(), boot_id, up_s=up_s)


def _do(batch: list[Action], entries: list[Entry], context: ApplyContext) -> list[Outcome]:
    first = batch[0]
    if isinstance(first, RestoreRule | WriteSetting):
        assert context.repairs is not None  # noqa: S101 (whoever plans such actions provides the repairs)
        repairs = [action for action in batch if isinstance(action, RestoreRule | WriteSetting)]
        return [context.repairs.do(action, entry) for action, entry in zip(repairs, entries, strict=True)]
    seen = context.witness()
    if isinstance(seen, Unknown):
        return [Outcome(action, "skipped", because(Code.LAST_LOOK_FAILED, seen.reason)) for action in batch]
    here = context.node.path(first.directory)
    try:
        if isinstance(first, DiscardEntry):
            return _discard(_pairs(batch, entries, DiscardEntry), here, seen, context.node)
        if first.chain:
            return _with_del(batch, entries, seen, context)
        with network_lock(here, first.directory, context.patience_s) as directory:
            if isinstance(first, ReserveLease):
                # Waiting for the lock may have taken a while, and the pod may have been stopped meanwhile.
                seen = context.witness()
                if isinstance(seen, Unknown):
                    return [Outcome(action, "skipped", because(Code.LAST_LOOK_FAILED, seen.reason)) for action in batch]
                outcomes = [
                    _reserve(action, context.node.path(entry.quarantine), directory, seen)
                    for action, entry in _pairs(batch, entries, ReserveLease)
                ]
            else:
                outcomes = [
                    _free(action, context.node.path(entry.quarantine), directory, seen)
                    for action, entry in _pairs(batch, entries, FreeLease)
                ]
            return _synced(outcomes, _sync(directory, entries, context.node))
    except Busy as busy:
        return [Outcome(action, "skipped", busy.reason) for action in batch]
    except OSError as error:
        reason = failed(Code.CHANGE_FAILED, error, path=first.directory)
        return [Outcome(action, "failed", reason) for action in batch]


def _pairs(batch: list[Action], entries: list[Entry], kind: type[_Kind]) -> list[tuple[_Kind, Entry]]:
    """A batch of one kind of action, with its journal entries."""
    return list(zip([action for action in batch if isinstance(action, kind)], entries, strict=True))


def _sync(directory: int, entries: list[Entry], node: Node) -> Reason | None:
    """Make the renames durable. If that fails, they are done all the same, and the failure is reported."""
    try:
        os.fsync(directory)
        for place in {os.path.dirname(e.quarantine) for e in entries}:
            sync_directory(node.path(place))
    except OSError as error:
        return failed(Code.NOT_SYNCED, error)
    return None


def _synced(outcomes: list[Outcome], problem: Reason | None) -> list[Outcome]:
    return [replace(o, detail=problem) if problem and o.event == "done" else o for o in outcomes]


def _alive(action: FreeLease | DiscardEntry, seen: Witness) -> Reason | None:
    if action.container_id and action.container_id in seen.ids:
        return because(Code.PROCESS_RUNS_NOW)
    if isinstance(action, FreeLease) and action.name in seen.addresses:
        return because(Code.ADDRESS_UP_NOW)
    return None


def _free(action: FreeLease | DiscardEntry, target: str, directory: int, seen: Witness) -> Outcome:
    reason = _alive(action, seen) or unchanged(action.name, action.path, directory, action.file, action.ctime_ns)
    if reason:
        return Outcome(action, "skipped", reason)
    try:
        move(action.name, directory, target)
    except OSError as error:
        return Outcome(action, "failed", failed(Code.MOVE_FAILED, error, path=os.path.dirname(target)))
    return Outcome(action, "done")


def _discard(batch: list[tuple[DiscardEntry, Entry]], here: str, seen: Witness, node: Node) -> list[Outcome]:
    """libcni takes no lock for its cache. The container is dead, so nothing writes this entry any more."""
    directory = os.open(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        outcomes = [_free(action, node.path(entry.quarantine), directory, seen) for action, entry in batch]
        return _synced(outcomes, _sync(directory, [entry for _, entry in batch], node))
    finally:
        os.close(directory)


def _with_del(batch: list[Action], entries: list[Entry], seen: Witness, context: ApplyContext) -> list[Outcome]:
    """Free the leases of one dead attachment. Its CNI DEL runs first, while the leases still reserve the addresses.

    The last action is the cache entry. If one of the leases is not as it was judged, nothing is done.
    """
    leases = [action for action in batch if isinstance(action, FreeLease)]
    last, place = batch[-1], os.path.dirname(context.node.path(entries[0].quarantine))
    assert isinstance(last, DiscardEntry)  # noqa: S101 (core/leases/plan.py puts it there; for the type checker)
    here, path = context.node.path(leases[0].directory), leases[0].directory
    with network_lock(here, path, context.patience_s) as directory:
        for action in leases:
            reason = _alive(action, seen) or unchanged(
                action.name, action.path, directory, action.file, action.ctime_ns
            )
            if reason:
                why = because(Code.ANOTHER_OF_CHAIN, reason, subject=action.name)
                return [Outcome(other, "skipped", why) for other in batch]
    if changed := _entry_changed(last, context.node):
        reason = because(Code.ANOTHER_OF_CHAIN, changed, subject=last.path)
        return [Outcome(action, "skipped", reason) for action in batch]
    scratch = f"{place}/scratch"
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    try:
        node_path = f"{os.path.dirname(entries[0].quarantine)}/scratch"
        _run_chain(last.chain, leases, context, node_path)
    except DelError as error:
        return [Outcome(action, "failed", _kept(error)) for action in batch]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    with network_lock(here, path, context.patience_s) as directory:
        moved = [
            _free(a, context.node.path(e.quarantine), directory, seen) for a, e in zip(leases, entries, strict=False)
        ]
        moved = _synced(moved, _sync(directory, entries[:-1], context.node))
    moved = [replace(o, detail=o.detail or because(Code.WITH_CHAIN_DEL)) if o.event == "done" else o for o in moved]
    try:
        return moved + _discard([(last, entries[-1])], context.node.path(last.directory), seen, context.node)
    except OSError as error:
        return [*moved, Outcome(last, "failed", failed(Code.CHANGE_FAILED, error, path=last.directory))]


def _entry_changed(action: DiscardEntry, node: Node) -> Reason | None:
    """Why the cache entry whose chain is about to run is not the one that was judged; None if it is."""
    try:
        directory = os.open(node.path(action.directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return failed(Code.CHANGE_FAILED, error, path=action.directory)
    try:
        return unchanged(action.name, action.path, directory, action.file, action.ctime_ns)
    finally:
        os.close(directory)


def _reserve(action: ReserveLease, target: str, directory: int, seen: Witness) -> Outcome:
    """Write a missing lease: first complete and synced under another name, then linked, which replaces nothing."""
    if action.container_id not in seen.ids or action.name not in seen.addresses:
        return Outcome(action, "skipped", because(Code.POD_STOPPED))
    content = f"{action.container_id}\r\n{action.interface}" if action.interface else action.container_id
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, content.encode("ascii"))
            os.fchmod(fd, _mode_of_neighbours(directory))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(target, action.name, dst_dir_fd=directory)
        finally:
            os.unlink(target)
    except FileExistsError:
        return Outcome(action, "skipped", because(Code.LEASED_MEANWHILE))
    except OSError as error:
        return Outcome(action, "failed", failed(Code.WRITE_FAILED, error))
    return Outcome(action, "done")


def _mode_of_neighbours(directory: int) -> int:
    """The mode that most leases here have: host-local wrote 0644 up to v1.3 and writes 0600 since."""
    modes: Counter[int] = Counter()
    for name in os.listdir(directory):
        if name[0].isdigit() or ":" in name:
            try:
                modes[os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode & 0o777] += 1
            except FileNotFoundError:
                continue
    return modes.most_common(1)[0][0] if modes else 0o600
