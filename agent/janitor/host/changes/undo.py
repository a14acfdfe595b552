"""Undoing a pass, completing what a crash interrupted, and dropping old passes.

Standard library only.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from janitor.core.model.action import DiscardEntry, FreeLease, ReserveLease, RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.outcome import Entry, Event, Restored
from janitor.core.model.reason import Reason, because
from janitor.host.changes.apply import ApplyContext, Witness
from janitor.host.changes.journal import Journal
from janitor.host.changes.quarantine import put_back
from janitor.host.cni.locks import Busy, network_lock
from janitor.host.files import failed, sync_directory
from janitor.host.node import Node

_REFUSED_KEPT = 256  # this many records of skipped and failed actions may collect; the log has them, too
_FIRST_JANITOR = 1_760_000_000  # seconds since the epoch: October 2025


def undo(pass_id: str, context: ApplyContext) -> Iterator[Restored]:
    """Put back what `pass_id` moved and is still in quarantine. An address is restored only if it is still free."""
    seen = context.witness()
    for entry in [e for e in context.journal.entries.values() if e.pass_id == pass_id and e.state == "done"]:
        if isinstance(entry.action, ReserveLease):
            continue  # a live pod needs this lease
        restored = _restore(entry, context, seen)
        if restored.ok:
            context.journal.outcome([(entry, "undone", None)])
        yield restored


def _restore(entry: Entry, context: ApplyContext, seen: Witness | Unknown) -> Restored:
    action = entry.action
    if isinstance(action, RestoreRule | WriteSetting):
        assert context.repairs is not None  # noqa: S101 (undo always gets them)
        return Restored(entry, context.repairs.take_back(action, entry))
    name, directory = action.name, action.directory
    source, here = context.node.path(entry.quarantine), context.node.path(directory)
    if isinstance(seen, Unknown):
        return Restored(entry, because(Code.USE_UNSEEN, seen.reason))
    if isinstance(action, FreeLease) and name in seen.addresses:
        return Restored(entry, because(Code.ADDRESS_IN_USE))
    try:
        if isinstance(action, DiscardEntry):
            fd = os.open(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                put_back(source, name, fd)
            finally:
                os.close(fd)
        else:
            with network_lock(here, directory, context.patience_s) as fd:
                put_back(source, name, fd)
    except FileExistsError:
        return Restored(entry, because(Code.LEASED_AGAIN))
    except FileNotFoundError:
        place = _stat(f"{here}/{name}")
        expected = None if isinstance(action, ReserveLease) else action.file.inode
        if not os.path.lexists(source) and place is not None and place.st_ino == expected:
            return Restored(entry)  # an earlier undo was interrupted before it could record this
        if not os.path.lexists(source):
            return Restored(entry, because(Code.NOT_IN_QUARANTINE))
        return Restored(entry, because(Code.DIRECTORY_GONE, path=directory))
    except Busy as busy:
        return Restored(entry, busy.reason)
    except OSError as error:
        return Restored(entry, failed(Code.UNDO_FAILED, error))
    return Restored(entry)


def recover(node: Node, journal: Journal) -> list[Entry]:
    """Find out what became of interrupted actions and record it. Returns those. OSError.

    Moves nothing, and removes only second names. A file is at its place or in quarantine, and safe in both.
    """
    cut_short = [e for e in journal.entries.values() if e.state == "intend"]
    if cut_short:
        journal.outcome([(entry, *_became(node, entry)) for entry in cut_short])
    return cut_short


def _became(node: Node, entry: Entry) -> tuple[Event, Reason]:
    action = entry.action
    if isinstance(action, RestoreRule):
        return "skipped", because(Code.INTERRUPTED_RULE)
    done: tuple[Event, Reason] = ("done", because(Code.FOUND_DONE))
    before: tuple[Event, Reason] = ("skipped", because(Code.INTERRUPTED_BEFORE))
    place = _stat(node.path(action.path))
    if isinstance(action, WriteSetting):
        written = place is not None and place.st_size == len(action.content.encode())
        return done if written else before
    kept = node.path(entry.quarantine)
    away = _stat(kept)
    if isinstance(action, ReserveLease):
        if away is not None:
            os.unlink(kept)  # the complete lease under its temporary name; its final name may or may not exist
            sync_directory(os.path.dirname(kept))
        return done if place is not None else before
    if away is not None and place is not None and (place.st_dev, place.st_ino) == (away.st_dev, away.st_ino):
        os.unlink(kept)  # a second name, made before a CNI DEL that was not completed
        sync_directory(os.path.dirname(kept))
        return "skipped", because(Code.INTERRUPTED_IN_PLACE)
    if away is not None:
        return done
    return before if place is not None else ("skipped", because(Code.RELEASED_MEANWHILE))


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


@dataclass(frozen=True, slots=True)
class Purged:
    """How many passes were dropped, with how many files, and how many records of skipped and failed actions."""

    passes: int
    files: int
    refused: int


def purge(node: Node, journal: Journal, days: float) -> Purged:
    """Drop passes older than `days` from quarantine and journal, and records of skipped and failed actions. OSError.

    The last pass that changed anything is always kept. The wall clock may have been set, so it is not trusted alone.
    The age of a pass of this boot is measured on CLOCK_BOOTTIME; if that was not recorded, it is kept. A pass of an
    earlier boot is no older than its directory; one dated before the first janitor is kept.
    """
    entries = journal.entries
    old = _old_passes(node, journal, days)
    dropped = {key for key in entries if key[0] in old}
    refused = {
        key
        for key, entry in entries.items()
        if key not in dropped
        and entry.state in ("skipped", "failed")
        and _stat(node.path(entry.quarantine)) is None  # a file in quarantine was moved, whatever the journal says
    }
    if not dropped and len(refused) < _REFUSED_KEPT:
        return Purged(0, 0, 0)
    files = 0
    for key in (*dropped, *refused):
        kept = node.path(entries[key].quarantine)
        try:
            os.unlink(kept)
            files += 1
        except FileNotFoundError:
            pass  # put back, or never moved
        try:
            os.rmdir(os.path.dirname(kept))
        except OSError:
            pass  # not empty yet, or already gone
    journal.forget(dropped | refused)
    return Purged(len(old), files, len(refused))


def _old_passes(node: Node, journal: Journal, days: float) -> set[str]:
    boot_id = node.boot_id if isinstance(node.boot_id, str) else ""
    newest: dict[str, float] = {}  # seconds since the epoch
    since: dict[str, float] = {}  # age in seconds of a pass of this boot, on CLOCK_BOOTTIME
    up_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    last = ""
    for entry in journal.entries.values():
        name = entry.pass_id
        last = name if entry.state == "done" else last
        if entry.boot_id == boot_id:
            known = boot_id and entry.up_s >= 0
            since[name] = min(since.get(name, up_s), up_s - entry.up_s if known else 0.0)
        else:
            found = _stat(os.path.dirname(node.path(entry.quarantine)))
            newest[name] = max(newest.get(name, 0.0), entry.at, found.st_ctime if found else 0.0)
    limit = time.time() - days * 86_400
    old = {name for name, at in newest.items() if _FIRST_JANITOR < at < limit} - since.keys()
    old |= {name for name, age_s in since.items() if age_s > days * 86_400} - newest.keys()
    return old - {last}
