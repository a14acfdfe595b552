"""Who this node is, the marks that it leaves in its data directories, and the operator's word that they are its own.

A mark and a node's own number are files of one line each, `janitor-node 1 NUMBER MACHINE-ID first|nested INODE`. The
last word is the inode number of that very file: a copy, in an image or on another disk, is none. The shell form of the
boot stage (cloud-init/janitor-boot.sh) reads and writes the same. Standard library only.
"""

import errno
import hashlib
import os
import re
import stat
from typing import Final

from janitor.core.leases.scope import shared
from janitor.core.model.codes import Code
from janitor.core.model.evidence import LeaseDirectory, Unknown
from janitor.core.model.node_mark import KEY, MARK, Owner, another
from janitor.core.model.reason import Reason
from janitor.core.model.unknown import unseen
from janitor.host.files import STATE, failed, read_bounded, sync_directory, unknown
from janitor.host.kernel import procfs
from janitor.host.node import Node

NUMBER: Final = f"{STATE}/node"
"""Where a node's own number is: a place that goes along with the node, not with its leases."""

CONFIGURATION: Final = "/etc/janitor/janitor.toml"
_FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h
_LINE: Final = re.compile(rb"janitor-node 1 ([0-9a-f]{32}) ([0-9a-f]{32}|-) (first|nested) ([0-9]+)\n")
_MACHINE_ID: Final = re.compile(rb"[0-9a-f]{32}\n?")
_LIMIT: Final = 1 << 20
_SAID: Final = re.compile(rb"[ \t]*" + KEY.encode() + rb"[ \t]*=")
_OURS: Final = re.compile(rb"[ \t]*" + KEY.encode() + rb"[ \t]*=[ \t]*true[ \t]*(#.*)?\r?")


def this_node(node: Node) -> tuple[Owner] | Unknown:
    """Who this node is. Its number is "" where it has none that is its own."""
    if isinstance(node.proc, Unknown):
        return node.proc
    first = in_first_pid_namespace(node.proc)
    if isinstance(first, Unknown):
        return first
    try:
        own = _read(node.path(NUMBER))
    except (OSError, ValueError):
        own = None
    return (Owner("" if own is None else own.number, _machine_id(node.complete()), first),)


def in_first_pid_namespace(proc: procfs.Proc) -> bool | Unknown:
    """Whether the node's first process is in the machine's first PID namespace; the kernel names no other so."""
    try:
        return os.readlink(f"{proc.path}/1/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError as error:
        if not proc.ours:
            return unknown(Code.CANNOT_READ_PID_NAMESPACE_OF_NODE, error)
    try:
        return os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError as error:
        return unknown(Code.CANNOT_READ_PID_NAMESPACE, error)


def read_marks(node: Node, data_dir: str) -> tuple[Owner, ...] | Unknown:
    """The mark in a data directory; none where there is none, a copy of one, or a blank one."""
    try:
        mark = _read(f"{node.path(data_dir)}/{MARK}")
    except OSError as error:
        return unknown(Code.CANNOT_READ_MARK, error, path=f"{data_dir}/{MARK}")
    except ValueError:
        return unseen(Code.FOREIGN_MARK, path=f"{data_dir}/{MARK}")
    return () if mark is None else (mark,)


def leave_marks(
    node: Node, directories: tuple[LeaseDirectory, ...], owners: tuple[Owner, ...] | Unknown
) -> Reason | None:
    """Mark the data directories of these as this node's, where they bear no mark and are this node's to judge.

    The caller has made sure that they are not a container's without the operator's word (core/model/node_mark.py).
    Nobody's mark is ever replaced. Says what went wrong, None for nothing.
    """
    if isinstance(owners, Unknown):
        return None
    problem: Reason | None = None
    (owner,) = owners
    ours = [d for d in directories if not (d.mismatch or shared(d) or another(_data_dir(d), d.marks, owners))]
    for data_dir, marked in {_data_dir(d): bool(d.marks) for d in ours}.items():
        here = node.path(data_dir)
        if not os.path.isdir(here):
            continue
        try:
            owner = _with_number(node, owner, ours)
            if not marked:
                _write(f"{here}/{MARK}", owner)
        except OSError as error:
            problem = problem or failed(Code.CANNOT_MARK, error, path=data_dir)
    return problem


def said_ours(node: Node) -> bool:
    """The operator's word in the node's configuration, for the boot stage, which cannot read all of that.

    Of TOML this knows one line above the first table, and nothing where it might be within a text of several lines.
    """
    try:
        text = read_bounded(node.path(CONFIGURATION), _LIMIT)
    except OSError:
        return False
    if b'"""' in text or b"'''" in text:
        return False
    lines: list[bytes] = []
    for line in text.split(b"\n"):
        if line.lstrip(b" \t").startswith(b"["):
            break
        lines.append(line)
    found = [line for line in lines if _SAID.match(line)]
    return len(found) == 1 and _OURS.fullmatch(found[0]) is not None


def _data_dir(directory: LeaseDirectory) -> str:
    return os.path.dirname(directory.path)


def _machine_id(node: Node) -> str:
    """What stands for it here: machine-id(5) wants the ID itself kept from others, and evidence is handed on."""
    try:
        text = read_bounded(node.path("/etc/machine-id"), 64)
    except OSError:
        return ""
    if not _MACHINE_ID.fullmatch(text):
        return ""
    return hashlib.sha256(b"janitor " + text.strip()).hexdigest()[:32]


def _read(path: str) -> Owner | None:
    """None where there is no such file, a copy, or a blank one (a power cut). ValueError for anything else; OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ValueError("not a regular file") from None
        raise
    try:
        text = os.read(fd, 256) if stat.S_ISREG(os.fstat(fd).st_mode) else b"?"
        inode = os.fstat(fd).st_ino
    finally:
        os.close(fd)
    if not text.strip(b"\0"):
        return None
    found = _LINE.fullmatch(text)
    if found is None:
        raise ValueError("not a line of janitor's")
    number, machine, kind, written = (part.decode("ascii") for part in found.groups())
    return Owner(number, "" if machine == "-" else machine, kind == "first") if int(written) == inode else None


def _with_number(node: Node, owner: Owner, ours: list[LeaseDirectory]) -> Owner:
    """The owner with a number, which is on the disk: one of its marks' where it has lost its own, else a new one."""
    if owner.number:
        return owner
    marks = [mark for d in ours if not isinstance(d.marks, Unknown) for mark in d.marks]
    number = marks[0].number if marks else os.urandom(16).hex()
    path = node.path(NUMBER)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    owner = Owner(number, owner.machine_id, owner.first)
    _write(path, owner)
    return owner


def _write(path: str, owner: Owner) -> None:
    """Durably, all of it or nothing, and over nothing but a copy. FileExistsError where somebody was faster."""
    new = f"{path}.new"
    for place in (new, path):
        try:
            if place == new or _read(place) is None:
                os.unlink(place)
        except FileNotFoundError:
            pass
        except ValueError:
            raise FileExistsError(errno.EEXIST, "there is a file that is not janitor's", path) from None
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        kind = "first" if owner.first else "nested"
        words = ("janitor-node", "1", owner.number, owner.machine_id or "-", kind, str(os.fstat(fd).st_ino))
        os.write(fd, f"{' '.join(words)}\n".encode("ascii"))
        os.fsync(fd)
        os.link(new, path)
        if os.lstat(path).st_ino != os.fstat(fd).st_ino:
            raise FileExistsError(errno.EEXIST, "another janitor is writing it", path)
    finally:
        os.close(fd)
        os.unlink(new)
    sync_directory(os.path.dirname(path))
