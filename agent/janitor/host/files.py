"""Reading files of a node that may be mounted elsewhere, without leaving a trace on it.

Standard library only: the boot stage uses this, too. Nothing is written, not even access times if the kernel permits
that.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, Final

from janitor.core.model.codes import Code
from janitor.core.model.reason import Fact, Reason, because
from janitor.core.model.unknown import Unknown

STATE: Final = "/var/lib/janitor"
"""Persistent state: journal, quarantine, the node's number."""
STATE_DIR: Final = "/run/janitor"
"""State of this boot: locks, the boot ledger, notes."""
HIDDEN: Final = ".janitor-quarantine"
"""The quarantine beside data directories that have a mount of their own."""
_SYMLINK_LIMIT = 40  # the kernel's own limit (path_resolution(7))


def inside(root: str, path: str) -> str:
    """The place of the node's `path` as janitor sees it. Links are followed as if `root` were `/`, as in chroot(2).

    `/var/run` is an absolute link to `/run` on most systems. Followed literally, it would lead out of a disk mounted at
    `--root` and onto this machine. The path need not exist. OSError (ELOOP) for a loop of links.
    """
    if root == "/":
        return path
    todo = path.strip("/").split("/")
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        here = os.path.join(root, *done, part)
        try:
            target = os.readlink(here)
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _SYMLINK_LIMIT:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done = []
        todo = target.strip("/").split("/") + todo
    return os.path.join(root, *done)


def open_quietly(path: str, flags: int = os.O_RDONLY, dir_fd: int | None = None) -> int:
    """open(2) for reading that never blocks on a FIFO, gets no controlling terminal and updates no access time."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:  # O_NOATIME is only for the owner
        return os.open(path, flags, dir_fd=dir_fd)


def read_bounded(path: str, limit: int, *, dir_fd: int | None = None, follow: bool = True) -> bytes:
    """At most `limit` bytes of a regular file (or one of /proc). OSError from open(2) and read(2)."""
    fd = open_quietly(path, os.O_RDONLY if follow else os.O_RDONLY | os.O_NOFOLLOW, dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        parts: list[bytes] = []
        while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def entries(path: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a directory, unsorted. OSError from opendir(3)."""
    fd = open_quietly(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as listing:
            yield from listing
    finally:
        os.close(fd)


def names(path: str) -> list[str]:
    """The names in a directory, sorted; empty if it does not exist. Otherwise OSError."""
    try:
        return sorted((entry.name for entry in entries(path)), key=os.fsencode)  # the order of Go and the shell
    except (FileNotFoundError, NotADirectoryError):
        return []


def printable(name: str) -> str:
    """A file name as text for any terminal and any JSON: no control characters, valid UTF-8."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def sync_directory(path: str) -> None:
    """fsync(2) a directory, so that the names in it survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def parse_json(data: bytes | str, **hooks: Any) -> Any:
    """JSON from a file that may be damaged. ValueError for anything that later code could fail on.

    `hooks` are keyword arguments of json.loads.
    """
    try:
        document = json.loads(data, parse_constant=_no_constant, **hooks)
        text = json.dumps(document, ensure_ascii=False)
        text.encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeError:
        raise ValueError("it holds text that is not Unicode") from None
    if "\\u0000" in text:
        raise ValueError("it holds NUL characters")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"it holds {name}")


def os_error_identity(error: OSError) -> tuple[object, ...]:
    """What distinguishes this error from others: type, number and file. For errors that are reported only once."""
    return type(error), error.errno, error.filename or error.strerror


def describe_os_error(error: OSError) -> str:
    """The system's error message, with the file name if there is one."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def failed(code: Code, error: OSError, /, **facts: Fact) -> Reason:
    """A Reason for a refused system call: `error` is the system's message, `errno` its number.

    `euid` is added if root would have been permitted and this process is not root.
    """
    told = any(isinstance(fact, str) and str(error.filename) in fact for fact in facts.values())
    where = f"{error.filename}: " if isinstance(error.filename, str) and not told else ""
    facts |= {"error": f"{where}{error.strerror or error}", "errno": error.errno or 0}
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        facts["euid"] = os.geteuid()
    return because(code, **facts)


def unknown(code: Code, error: OSError, /, **facts: Fact) -> Unknown:
    """Unknown, because the system refused it."""
    return Unknown(failed(code, error, **facts))
