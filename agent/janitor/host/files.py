"""Opening files of a node that may be mounted somewhere else, without leaving a trace on it.

Standard library only: the boot stage reads with this too. Nothing is ever written here, not even an access
time where the kernel lets us ask for that.
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
"""What janitor keeps for good: journal, quarantine, the node's number."""
STATE_DIR: Final = "/run/janitor"
"""What it keeps for this boot: locks, the boot ledger, notes."""
HIDDEN: Final = ".janitor-quarantine"
"""A quarantine beside data directories that have a mount of their own."""
_SYMLINK_LIMIT = 40  # as the kernel's own (path_resolution(7))


def inside(root: str, path: str) -> str:
    """The path of `path` as seen from here, symlinks followed as if `root` were `/` (chroot(2)'s rule).

    `/var/run` is an absolute link to `/run` nearly everywhere: followed naively it would lead out of a disk
    mounted at `--root` and onto this machine. The path need not exist; OSError ELOOP for a circle.
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
    """open(2) for reading: never blocks on a FIFO, never makes a terminal ours, leaves no access time."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:  # O_NOATIME is for the owner only
        return os.open(path, flags, dir_fd=dir_fd)


def read_bounded(path: str, limit: int, *, dir_fd: int | None = None, follow: bool = True) -> bytes:
    """At most `limit` bytes of a regular file (or one of /proc). OSError as open(2) and read(2) give it."""
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
    """The entries of a directory, in no order. OSError as opendir(3) gives it."""
    fd = open_quietly(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as listing:
            yield from listing
    finally:
        os.close(fd)


def names(path: str) -> list[str]:
    """The names in a directory, sorted; none where there is no such directory. OSError otherwise."""
    try:
        return sorted((entry.name for entry in entries(path)), key=os.fsencode)  # as Go and the shell sort them
    except (FileNotFoundError, NotADirectoryError):
        return []


def printable(name: str) -> str:
    """A file's name as text that every terminal and every JSON can carry: no control characters, valid UTF-8."""
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
    """JSON from a file that anybody may have damaged. ValueError for all that could trip what works on it later.

    `hooks` are json.loads' own.
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
    """What tells one error from another: its kind, its number and the file. For what is to be said once."""
    return type(error), error.errno, error.filename


def describe_os_error(error: OSError) -> str:
    """What the system says, with the file it says it of where it names one."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def failed(code: Code, error: OSError, /, **facts: Fact) -> Reason:
    """The system refused something: `error` is what it says, `errno` its number.

    `euid` is there where it wants root and we are not.
    """
    told = any(isinstance(fact, str) and str(error.filename) in fact for fact in facts.values())
    where = f"{error.filename}: " if isinstance(error.filename, str) and not told else ""
    facts |= {"error": f"{where}{error.strerror or error}", "errno": error.errno or 0}
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        facts["euid"] = os.geteuid()
    return because(code, **facts)


def unknown(code: Code, error: OSError, /, **facts: Fact) -> Unknown:
    """What could not be seen, because the system refused it."""
    return Unknown(failed(code, error, **facts))
