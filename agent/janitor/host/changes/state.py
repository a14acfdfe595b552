"""janitor's notes about this boot, in /run/janitor: the boot ledger, and what earlier passes have seen.

Plain JSON, read and written with the standard library, because the boot stage has nothing else. A note of another boot,
or one that cannot be parsed, proves nothing and is never an error: its proofs are simply missing.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import FileIdentity, Observation, Unknown
from janitor.core.model.unknown import unseen
from janitor.host.changes.versions import newer_note, version_of
from janitor.host.files import STATE_DIR, parse_json, read_bounded, unknown
from janitor.host.node import Node
from janitor.report.words import text

LEDGER: Final = f"{STATE_DIR}/ledger.json"
OBSERVATIONS: Final = f"{STATE_DIR}/observations.json"
CLOCK: Final = f"{STATE_DIR}/clock.json"
RULES: Final = f"{STATE_DIR}/rules.json"
LOG_CURSOR: Final = f"{STATE_DIR}/log_cursor.json"
_OLD_LOG_CURSOR: Final = f"{STATE_DIR}/telling.json"
"""The name in earlier versions. Read if the new one does not exist, and removed together with it."""
VERSION: Final = 1
"""The version of all notes."""
_LIMIT = 256 << 20
_LONGEST_NS: Final = 1 << 63


def read_ledger(node: Node) -> tuple[FileIdentity, ...] | Unknown:
    """The leases that the boot stage found in this boot; none if it has not run."""
    document = _read(node, LEDGER)
    if isinstance(document, Unknown):
        return document
    try:
        return tuple(_identity(item) for item in document.get("files", ()))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return unseen(Code.BAD_NOTE, path=LEDGER, what="a boot ledger", error=repr(error))


def ledger_boot(node: Node) -> str | Unknown:
    """The boot ID in the ledger; "" without a ledger."""
    try:
        path = f"{node.path(STATE_DIR)}/{os.path.basename(LEDGER)}"
        document = parse_json(read_bounded(path, _LIMIT, follow=False))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return unknown(Code.CANNOT_READ_NOTE, error, path=LEDGER)
    except ValueError as error:
        return unseen(Code.BAD_NOTE, path=LEDGER, what="JSON", error=str(error))
    boot_id = document.get("boot_id") if isinstance(document, dict) else None
    return boot_id if isinstance(boot_id, str) and boot_id else unseen(Code.BAD_LEDGER, path=LEDGER)


def write_ledger(node: Node, files: tuple[FileIdentity, ...]) -> None:
    """Write the whole ledger or nothing. OSError."""
    _write(node, LEDGER, {"files": [_plain(file) for file in files]})


def write_observations(node: Node, observations: tuple[Observation, ...]) -> None:
    """Record what this pass has seen, for the next one. OSError."""
    leases = [
        {
            "file": _plain(o.file),
            "ctime_ns": o.ctime_ns,
            "first_ns": o.first_ns,
            "last_ns": o.last_ns,
            "passes": o.passes,
            "asleep_ns": o.asleep_ns,
        }
        for o in observations
    ]
    _write(node, OBSERVATIONS, {"leases": leases})


def read_observations(node: Node) -> tuple[Observation, ...] | Unknown:
    """What earlier passes of this boot have seen; empty if there were none."""
    document = _read(node, OBSERVATIONS)
    if isinstance(document, Unknown):
        return document
    try:
        return tuple(
            Observation(
                _identity(item["file"]), int(item["ctime_ns"]), int(item["first_ns"]), int(item["last_ns"]),
                int(item["passes"]), int(item.get("asleep_ns", 0)),
            )
            for item in document.get("leases", ())
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return unseen(Code.BAD_NOTE, path=OBSERVATIONS, what="a record of observations", error=repr(error))


@dataclass(frozen=True, slots=True)
class ClockNote:
    """What the daemon has seen of the clocks in this boot.

    `set_ns`: when the wall clock was last set, on CLOCK_BOOTTIME; 0 if never. `offset_ns`: the wall clock minus
    CLOCK_BOOTTIME. `stalled_ns`: for how long nothing ran while the clocks went on, as in a frozen container or a
    stopped machine.
    """

    set_ns: int = 0
    offset_ns: int = 0
    stalled_ns: int = 0


def write_clock(node: Node, note: ClockNote) -> None:
    """Record it for passes and for the next daemon. OSError."""
    _write(node, CLOCK, {name: getattr(note, name) for name in ClockNote.__slots__})


def read_clock(node: Node) -> ClockNote | Unknown | None:
    """The note; None if no daemon of this boot has watched the clock yet."""
    document = _read(node, CLOCK)
    if isinstance(document, Unknown):
        return document
    if not document:
        return None
    try:
        stalled_ns = document["stood_ns" if "stood_ns" in document else "stalled_ns"]  # the name in an earlier version
        note = ClockNote(int(document["set_ns"]), int(document["offset_ns"]), int(stalled_ns))
        if min(note.set_ns, note.stalled_ns) < 0 or max(map(abs, astuple(note))) > _LONGEST_NS:
            raise ValueError("no clock says that")
        return note
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return unseen(Code.BAD_NOTE, path=CLOCK, what="a note of the clocks", error=repr(error))


def write_log_cursor(node: Node, pass_id: str, told: int) -> None:
    """Record that a pass of the daemon is making changes, and how many of its actions have been logged. OSError."""
    _write(node, LOG_CURSOR, {"pass": pass_id, "told": told})


def read_log_cursor(node: Node) -> tuple[str, int]:
    """The pass whose actions were not all logged, and how many of them were; ("", 0) if there is none."""
    for path in (LOG_CURSOR, _OLD_LOG_CURSOR):
        document = _read(node, path)
        if not isinstance(document, Unknown) and isinstance(document.get("told"), int):
            return str(document.get("pass")), int(document["told"])
    return "", 0


def drop_log_cursor(node: Node) -> None:
    """Everything has been logged: remove the note. OSError."""
    for path in (LOG_CURSOR, _OLD_LOG_CURSOR):
        try:
            os.unlink(node.path(path))
        except FileNotFoundError:
            pass


def read_rules(node: Node) -> dict[str, Any]:
    """The daemon's last note of the policy rules (saved_rules.py); empty if there is none of this boot."""
    document = _read(node, RULES)
    return {} if isinstance(document, Unknown) else document


def write_rules(node: Node, document: dict[str, Any]) -> None:
    """Write the whole mirror or nothing. OSError."""
    _write(node, RULES, document)


def _identity(item: Mapping[str, Any]) -> FileIdentity:
    return FileIdentity(
        str(item["path"]), int(item["device"]), int(item["inode"]), int(item["mtime_ns"]), int(item["size"]),
        str(item["digest"]),
    )  # fmt: skip


def _plain(file: FileIdentity) -> dict[str, Any]:
    return {name: getattr(file, name) for name in FileIdentity.__slots__}


def _write(node: Node, path: str, document: dict[str, Any]) -> None:
    if isinstance(node.boot_id, Unknown):
        raise OSError(0, text(node.boot_id.reason))  # a note of an unknown boot would prove nothing
    os.makedirs(node.path(STATE_DIR), mode=0o700, exist_ok=True)
    target = node.path(path)
    try:
        os.unlink(f"{target}.new")  # left by an interruption, or by anybody
    except FileNotFoundError:
        pass
    fd = os.open(f"{target}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="ascii") as file:
            json.dump({"version": VERSION, "boot_id": node.boot_id, **document}, file)
        os.rename(f"{target}.new", target)
    except OSError:
        os.unlink(f"{target}.new")  # the disk may be full: do not leave half a file
        raise


def _read(node: Node, path: str) -> dict[str, Any] | Unknown:
    """A note of this boot; empty if there is none or it is of another boot."""
    try:
        document = parse_json(read_bounded(node.path(path), _LIMIT))
    except FileNotFoundError:
        return {}
    except OSError as error:
        return unknown(Code.CANNOT_READ_NOTE, error, path=path)
    except ValueError as error:
        return unseen(Code.BAD_NOTE, path=path, what="JSON", error=str(error))
    if not isinstance(document, dict):
        return unseen(Code.NOTE_NOT_AN_OBJECT, path=path)
    if (found := version_of(document)) > VERSION:
        return Unknown(newer_note(path, found, VERSION))
    return document if document.get("boot_id") == node.boot_id else {}
