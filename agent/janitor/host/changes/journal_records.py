"""Actions and reasons as JSON objects in the journal, and back. Standard library only.

A record was written by this version of janitor or another one, or was damaged. It names files that are later put back,
moved or deleted, so its paths must be ones that janitor uses.
"""

import os
from dataclasses import asdict
from typing import Any, Final

from janitor.core.model.action import Action, DiscardEntry, FreeLease, ReserveLease, RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import FileIdentity
from janitor.core.model.reason import Fact, Reason, because
from janitor.report.words import text

_DEEPEST: Final = 8  # causes of causes


def reason_record(reason: Reason | None) -> dict[str, Any] | None:
    """The code, the facts and the sentence; None for no reason."""
    if reason is None:
        return None
    record: dict[str, Any] = {"code": reason.code, "text": text(reason), "facts": dict(reason.facts)}
    return record if reason.cause is None else {**record, "cause": reason_record(reason.cause)}


def reason_from(record: Any, depth: int = 0) -> Reason | None:
    """The reason again. Text alone is from an earlier version, or from a later one whose code is not known here."""
    if not record or depth > _DEEPEST:
        return None
    if not isinstance(record, dict):
        return because(Code.RECORDED, text=str(record))
    try:
        code = Code(record["code"])
        facts: dict[str, Fact] = {str(name): _fact(value) for name, value in record["facts"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return because(Code.RECORDED, text=str(record.get("text", "")))
    return because(code, reason_from(record.get("cause"), depth + 1), **facts)


def _fact(value: Any) -> Fact:
    if isinstance(value, list):
        return tuple(str(part) for part in value)
    return value if isinstance(value, int) else str(value)


def action_record(action: Action) -> dict[str, Any]:
    """All kinds of action have the same fields, as in every version; those that do not apply are empty."""
    on_file = action if isinstance(action, FreeLease | DiscardEntry) else None
    attached = None if isinstance(action, RestoreRule | WriteSetting) else action
    return {
        "kind": action.kind, "directory": action.directory, "name": action.name,
        "container_id": attached.container_id if attached is not None else "",
        "interface": attached.interface if attached is not None else "",
        "pod": action.pod, "proof": [reason_record(reason) for reason in action.proof],
        "file": asdict(on_file.file) if on_file is not None else None,
        "ctime_ns": on_file.ctime_ns if on_file is not None else 0, "chain": action.chain,
        "content": action.payload if isinstance(action, RestoreRule)
        else action.content if isinstance(action, WriteSetting) else "",
    }  # fmt: skip


def action_from(record: Any, place: str, pass_id: str) -> Action:
    """The action whose file goes to `place`. ValueError, KeyError or TypeError if janitor has not written it."""
    kind, directory, name = record["kind"], str(record.get("directory", "")), str(record["name"])
    rule = kind == "restore"  # it names no file of the node
    _check(os.path.dirname(place), [os.path.basename(place), *([] if rule else [name])], pass_id)
    if not rule:
        _plain(directory)
    proof = tuple(reason for part in record.get("proof") or () if (reason := reason_from(part)) is not None)
    content = str(record.get("content", ""))
    if rule:
        bytes.fromhex(content)
        return RestoreRule(name, content, proof)
    if kind == "configure":
        return WriteSetting(directory, name, content, proof)
    container_id, interface, pod = (str(record.get(field, "")) for field in ("container_id", "interface", "pod"))
    if kind == "reserve":
        return ReserveLease(directory, name, container_id, interface, pod, proof)
    if kind not in ("free", "discard"):
        raise ValueError("no action of janitor's")
    return (FreeLease if kind == "free" else DiscardEntry)(
        directory, name, container_id, interface, pod, proof, str(record.get("chain", "")),
        file=_identity(record.get("file") or {}), ctime_ns=int(record.get("ctime_ns", 0)),
    )  # fmt: skip


def _check(quarantine: str, names: list[str], pass_id: str) -> None:
    if any("/" in name or name in ("", ".", "..") for name in names):
        raise ValueError("no action of janitor's")
    _plain(quarantine)
    if not quarantine.endswith((f"/quarantine/{pass_id}", f"/.janitor-quarantine/{pass_id}")):
        raise ValueError("not in a quarantine")


def _plain(path: str) -> None:
    if os.path.normpath(path) != path or not path.startswith("/") or "\0" in path:
        raise ValueError("not a plain path")


def _identity(record: dict[str, Any]) -> FileIdentity:
    device, inode, mtime_ns, size = (int(record.get(field, 0)) for field in ("device", "inode", "mtime_ns", "size"))
    return FileIdentity(str(record.get("path", "")), device, inode, mtime_ns, size, str(record.get("digest", "")))
