"""Putting back what a pass moved, finishing what a crash cut short, and dropping what is old.

Standard library only.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from janitor.core.evidence import Unknown
from janitor.core.outcome import Entry, Event, Restored
from janitor.host.apply import Hands, Witness
from janitor.host.files import inside
from janitor.host.journal import Journal, sync_directory
from janitor.host.locks import Busy, network_lock
from janitor.host.quarantine import put_back

_REFUSED_KEPT = 256  # records of what was not done, before they are dropped; the log has them too
_FIRST_JANITOR = 1_760_000_000  # seconds since the epoch: October 2025


def undo(pass_id: str, hands: Hands) -> Iterator[Restored]:
    """Put back what `pass_id` moved and is not back yet; each address only if it is still free."""
    seen = hands.witness()
    for entry in [e for e in hands.journal.entries.values() if e.pass_id == pass_id and e.state == "done"]:
        if entry.action["kind"] == "reserve":
            continue  # a lease that a live pod needs is not taken away again
        restored = _restore(entry, hands, seen)
        if restored.ok:
            hands.journal.outcome([(entry, "undone", "")])
        yield restored


def _restore(entry: Entry, hands: Hands, seen: Witness | Unknown) -> Restored:
    if entry.action["kind"] in ("restore", "configure"):
        assert hands.repairs is not None  # noqa: S101 (undo is given them)
        problem = hands.repairs.take_back(entry)
        return Restored(entry, not problem, problem)
    name, directory = str(entry.action["name"]), str(entry.action["directory"])
    source, here = inside(hands.root, entry.quarantine), inside(hands.root, directory)
    if isinstance(seen, Unknown):
        return Restored(entry, False, f"whether its address is in use cannot be seen: {seen.reason}")
    if entry.action["kind"] == "free" and name in seen.addresses:
        return Restored(entry, False, "its address is in use now")
    try:
        if entry.action["kind"] == "discard":
            fd = os.open(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                put_back(source, name, fd)
            finally:
                os.close(fd)
        else:
            with network_lock(here, directory, hands.patience_s) as fd:
                put_back(source, name, fd)
    except FileExistsError:
        return Restored(entry, False, "its address has been leased again")
    except FileNotFoundError:
        place, file = _stat(f"{here}/{name}"), entry.action.get("file") or {}
        if not os.path.lexists(source) and place is not None and place.st_ino == file.get("inode"):
            return Restored(entry, True, "")  # an earlier undo was cut short before it could say so
        gone = "it is not in quarantine any more" if not os.path.lexists(source) else f"{directory} is gone"
        return Restored(entry, False, gone)
    except Busy as busy:
        return Restored(entry, False, str(busy))
    except OSError as error:
        return Restored(entry, False, f"{error.strerror}")
    return Restored(entry, True, "")


def recover(root: str, journal: Journal) -> list[Entry]:
    """Find out what became of actions that were cut short, and write it down. Returns those. OSError as usual.

    Nothing is moved: a file is where it was, or in quarantine, and either is as good as it was before.
    """
    cut_short = [e for e in journal.entries.values() if e.state == "intend"]
    if cut_short:
        journal.outcome([(entry, *_became(root, entry)) for entry in cut_short])
    return cut_short


def _became(root: str, entry: Entry) -> tuple[Event, str]:
    if entry.action["kind"] == "restore":
        return "skipped", "interrupted; 'janitor scan' says whether the rule is there"
    place = _stat(inside(root, f"{entry.action['directory']}/{entry.action['name']}"))
    if entry.action["kind"] == "configure":
        written = place is not None and place.st_size == len(str(entry.action["content"]).encode())
        return ("done", "found so after an interruption") if written else ("skipped", "interrupted before it")
    kept = inside(root, entry.quarantine)
    away = _stat(kept)
    if entry.action["kind"] == "reserve":
        if away is not None:
            os.unlink(kept)  # the complete lease under its first name; its own name may or may not be there
            sync_directory(os.path.dirname(kept))
        return ("done", "found so after an interruption") if place is not None else ("skipped", "interrupted before it")
    if away is not None and place is not None and (place.st_dev, place.st_ino) == (away.st_dev, away.st_ino):
        os.unlink(kept)  # a second name, made before a CNI DEL that was not completed
        sync_directory(os.path.dirname(kept))
        return "skipped", "interrupted; the file is in its place"
    if away is not None:
        return "done", "found so after an interruption"
    return "skipped", "interrupted before it" if place is not None else "its owner released it meanwhile"


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


@dataclass(frozen=True, slots=True)
class Purged:
    """How many passes were dropped, with how many files of theirs, and how many records of what was not done."""

    passes: int
    files: int
    refused: int


def purge(root: str, journal: Journal, days: float, boot_id: str) -> Purged:
    """Drop passes older than `days` from quarantine and journal, and what says of nothing done. OSError as usual.

    Never the last pass that changed anything. A wall clock may be set: a pass of this boot is as old as CLOCK_BOOTTIME
    says, or kept where that was not written down; another counts as no older than its directory, and one from before
    there was a janitor is kept.
    """
    entries = journal.entries
    old = _old_passes(root, journal, days, boot_id)
    dropped = {key for key in entries if key[0] in old}
    refused = {
        key
        for key, entry in entries.items()
        if key not in dropped
        and entry.state in ("skipped", "failed")
        and _stat(inside(root, entry.quarantine)) is None  # what is in quarantine has been moved, whatever was written
    }
    if not dropped and len(refused) < _REFUSED_KEPT:
        return Purged(0, 0, 0)
    files = 0
    for key in (*dropped, *refused):
        kept = inside(root, entries[key].quarantine)
        try:
            os.unlink(kept)
            files += 1
        except FileNotFoundError:
            pass  # put back, or never moved
        try:
            os.rmdir(os.path.dirname(kept))
        except OSError:
            pass  # not empty yet, or gone already
    journal.forget(dropped | refused)
    return Purged(len(old), files, len(refused))


def _old_passes(root: str, journal: Journal, days: float, boot_id: str) -> set[str]:
    newest: dict[str, float] = {}  # seconds since the epoch
    since: dict[str, float] = {}  # seconds that a pass of this boot is old, on CLOCK_BOOTTIME
    up_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    last = ""
    for entry in journal.entries.values():
        name = entry.pass_id
        last = name if entry.state == "done" else last
        if entry.boot_id == boot_id:
            known = boot_id and entry.up_s >= 0
            since[name] = min(since.get(name, up_s), up_s - entry.up_s if known else 0.0)
        else:
            found = _stat(os.path.dirname(inside(root, entry.quarantine)))
            newest[name] = max(newest.get(name, 0.0), entry.at, found.st_ctime if found else 0.0)
    limit = time.time() - days * 86_400
    old = {name for name, at in newest.items() if _FIRST_JANITOR < at < limit} - since.keys()
    old |= {name for name, age_s in since.items() if age_s > days * 86_400} - newest.keys()
    return old - {last}
