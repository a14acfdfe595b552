"""This node's identity, its marks in data directories, and the operator's statement that these are its own.

A mark and the node's own number are files with one line, `janitor-node 1 NUMBER MACHINE-ID first|nested INODE`. The
last field is the file's own inode number, so a copy in an image or on another disk is not valid. The boot stage's shell
script (cloud-init/janitor-boot.sh) reads and writes the same format. Standard library only.
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
"""The node's own number. It is stored where it moves with the node, not with its leases."""

CONFIGURATION: Final = "/etc/janitor/janitor.toml"
_FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h
_LINE: Final = re.compile(rb"janitor-node 1 ([0-9a-f]{32}) ([0-9a-f]{32}|-) (first|nested) ([0-9]+)\n")
_MACHINE_ID: Final = re.compile(rb"[0-9a-f]{32}\n?")
_LIMIT: Final = 1 << 20
_SAID: Final = re.compile(rb"[ \t]*" + KEY.encode() + rb"[ \t]*=")
_OURS: Final = re.compile(rb"[ \t]*" + KEY.encode() + rb"[ \t]*=[ \t]*true[ \t]*(#.*)?\r?")


def this_node(node: Node) -> tuple[Owner] | Unknown:
    """This node's identity. The number is "" if it has none of its own."""
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
    """Whether process 1 of the node is in the machine's first PID namespace, the only one with this inode number."""
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
    """The mark in a data directory; none if there is no mark, a copy of one, or an empty file."""
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
    """Mark the data directories of these as this node's, if they have no mark and are this node's to judge.

    The caller has checked that the node is not in a container, or that the operator vouches for its directories
    (core/model/node_mark.py). Never replaces a mark. Returns what went wrong, None if nothing did.
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
    """Whether the configuration file says that the data directories are this node's. For the boot stage.

    The boot stage does not parse all of TOML: it accepts one line above the first table, and nothing if the file has a
    multi-line string, since the line might be inside it.
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
    """A hash of the machine ID: machine-id(5) requires the ID itself to be confidential, and evidence is shared."""
    try:
        text = read_bounded(node.path("/etc/machine-id"), 64)
    except OSError:
        return ""
    if not _MACHINE_ID.fullmatch(text):
        return ""
    return hashlib.sha256(b"janitor " + text.strip()).hexdigest()[:32]


def _read(path: str) -> Owner | None:
    """None if there is no such file, a copy, or one emptied by a power cut. ValueError for other contents; OSError."""
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
    """The owner with a number that is on the disk: its own, else that of one of its marks, else a new one."""
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
    """Write the file durably, as a whole. Replaces only a copy or a blank file. FileExistsError otherwise."""
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
