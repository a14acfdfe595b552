"""The journal: every change is in it, synced, before it happens, and its outcome afterwards.

JSON lines in /var/lib/janitor/journal. A line is one event of one action of one pass: `intend` (with the whole action
and the place that its file goes to), then `done`, `skipped` or `failed`, and perhaps `undone` later. A crash can only
tear the last line; a torn line is ignored. If the journal exceeds its maximum size, nothing is changed: an unread line
may be an action that has to be completed. Standard library only.
"""

import errno
import json
import math
import os
import time
from dataclasses import dataclass, field
from typing import Any, Final

from janitor.core.model.outcome import Entry, Event
from janitor.core.model.reason import Reason
from janitor.host.changes.journal_records import action_from, action_record, reason_from, reason_record
from janitor.host.changes.versions import newer, version_of
from janitor.host.files import STATE, inside, read_bounded, sync_directory

JOURNAL: Final = f"{STATE}/journal"
_LIMIT = 64 << 20
VERSION: Final = 2
"""The journal's version. 1 had sentences where there are codes now."""
_ROOM = 1 << 20  # reserved for outcomes: they can still be written when no more can be intended


def new_pass_id(name: str = "") -> str:
    """A unique name for a pass that sorts by time: `20261120T125501Z-4711`.

    The process ID distinguishes passes of the same second, unless the caller gives a better `name`.
    """
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name or os.getpid()}"


@dataclass(slots=True)
class Journal:
    """An open journal. OSError if it cannot be read or written; then nothing may be changed."""

    root: str
    entries: dict[tuple[str, int], Entry] = field(default_factory=dict)

    def load(self) -> None:
        """Read all of it. Lines that cannot be parsed and events of unknown actions are ignored."""
        self.entries.clear()
        try:
            data = read_bounded(inside(self.root, JOURNAL), _LIMIT + 1)
        except FileNotFoundError:
            return
        if len(data) > _LIMIT:
            raise _too_large()
        for line in data.split(b"\n"):
            try:
                record = json.loads(line)
                if (found := version_of(record)) > VERSION:
                    raise newer(JOURNAL, found, VERSION)
                self._read(record)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                continue

    def _read(self, record: dict[str, Any]) -> None:
        """Read one event. ValueError, KeyError, TypeError or OverflowError if janitor has not written it."""
        key = (str(record["pass"]), int(record["n"]))
        if record["event"] == "intend":
            place = str(record["quarantine"])
            action = action_from(record["action"], place, key[0])
            at = float(record["at"])
            if not math.isfinite(at):
                raise ValueError("no time")
            up = float(record.get("up", -1))
            entry = Entry(*key, action, place, at, str(record["boot_id"]), up_s=up if math.isfinite(up) else -1.0)
            self.entries[key] = entry
        elif record["event"] in ("done", "skipped", "failed", "undone") and key in self.entries:
            self.entries[key].state = record["event"]
            self.entries[key].detail = reason_from(record.get("detail"))

    def intend(self, entries: list[Entry]) -> None:
        """Write what is about to be done, and sync it to the disk."""
        self._append([_intention(e) for e in entries], _LIMIT - _ROOM)
        self.entries.update({(e.pass_id, e.number): e for e in entries})

    def outcome(self, outcomes: list[tuple[Entry, Event, Reason | None]]) -> None:
        """Write the outcomes."""
        self._append(
            [
                {"event": event, "pass": e.pass_id, "n": e.number, "at": time.time(), "detail": reason_record(detail)}
                for e, event, detail in outcomes
            ],
            _LIMIT,
        )
        for entry, event, detail in outcomes:
            entry.state, entry.detail = event, detail

    def _append(self, records: list[dict[str, Any]], most: int) -> None:
        if not records:
            return
        path = inside(self.root, JOURNAL)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            end = os.lseek(fd, 0, os.SEEK_END)
            # A crash may have torn the last line: end it, so that the next one is whole.
            torn = end > 0 and os.pread(fd, 1, end - 1) != b"\n"
            data = b"\n" * torn + b"".join(json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in records)
            if end + len(data) > most:
                raise _too_large()
            try:
                _write_all(fd, data)
            except OSError:
                os.ftruncate(fd, end)  # half a record would be taken for a whole intention
                raise
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(os.path.dirname(path))

    def forget(self, actions: set[tuple[str, int]]) -> None:
        """Remove these (pass, number) entries: write the others to a new file and rename it over the journal."""
        kept = [e for key, e in self.entries.items() if key not in actions]
        path = inside(self.root, JOURNAL)
        fresh = Journal(self.root)
        temporary = f"{path}.new"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            for e in kept:
                file.write(json.dumps(_intention(e), separators=(",", ":")).encode() + b"\n")
                if e.state != "intend":
                    detail = reason_record(e.detail)
                    result = {"event": e.state, "pass": e.pass_id, "n": e.number, "at": e.at, "detail": detail}
                    file.write(json.dumps(result, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_directory(os.path.dirname(path))
        fresh.load()
        self.entries = fresh.entries


def _intention(e: Entry) -> dict[str, Any]:
    return {
        "event": "intend", "pass": e.pass_id, "n": e.number, "at": e.at, "up": e.up_s, "boot_id": e.boot_id,
        "quarantine": e.quarantine, "action": action_record(e.action), "version": VERSION,
    }  # fmt: skip


def _too_large() -> OSError:
    sentence = (
        f"it has reached its limit of {_LIMIT >> 20} MiB; a smaller keep_days drops more of it; if it cannot be read "
        "at all, move it away: its changes can then be undone only by hand"
    )
    return OSError(errno.EFBIG, sentence, JOURNAL)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
