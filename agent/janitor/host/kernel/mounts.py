"""The mount table: which file system a path is on, and which namespaces a mount keeps alive.

A network namespace without any process, kept by a mount, shows only in `/proc/<pid>/mountinfo` (proc(5)). Standard
library only.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from janitor.host.files import open_quietly

_LIMIT: Final = 64 << 20
_PINS_MOST: Final = 4096  # per table
_PIECE: Final = 1 << 18
# Only LF ends a line, and only a space ends a field. The root of a mount that is no namespace begins with a slash.
_PIN: Final = re.compile(rb"^[0-9]+ [0-9]+ [0-9:]+ (net|mnt):\[([0-9]+)\] ([^ \n]*) [^\n]* - nsfs ", re.MULTILINE)
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `root` is the mount's root within its file system; for nsfs it is `net:[…]`."""

    number: str
    device: str
    root: str
    point: str
    filesystem: str
    writable: bool = True  # neither the mount nor its file system is read-only


@dataclass(frozen=True, slots=True)
class Mounts:
    """The mounts of one mount namespace."""

    mounts: tuple[Mount, ...]

    def filesystem_of(self, path: str) -> str:
        """The type of the file system that `path` is on; "" if the table does not tell."""
        try:
            device = os.stat(path).st_dev
        except OSError:
            return ""
        name = f"{os.major(device)}:{os.minor(device)}"
        types = {mount.filesystem for mount in self.mounts if mount.device == name}
        if len(types) == 1:
            return types.pop()
        # Files on btrfs and overlayfs have device numbers that no mount has: use the longest matching mount point.
        mount = self.mount_of(path)
        return mount.filesystem if mount is not None else ""

    def mount_of(self, path: str) -> Mount | None:
        """The mount that leads to `path`. rename(2) does not cross mounts, not even within one file system."""
        path = os.path.realpath(path)
        holding = [m for m in self.mounts if path == m.point or path.startswith(m.point.rstrip("/") + "/")]
        # Of several mounts on one mount point, the last one is visible.
        return max(enumerate(holding), key=lambda pair: (len(pair[1].point), pair[0]))[1] if holding else None


def read_mounts(mountinfo: str, *, dir_fd: int | None = None) -> Mounts:
    """A whole mount table. OSError as for `each_mount`."""
    return Mounts(tuple(each_mount(mountinfo, dir_fd=dir_fd)))


def mount_table(mountinfo: str) -> dict[str, Mount]:
    """The same, by mount ID."""
    return {mount.number: mount for mount in each_mount(mountinfo)}


def each_mount(mountinfo: str, *, devices: Container[str] | None = None, dir_fd: int | None = None) -> Iterator[Mount]:
    """The lines of a mountinfo file. With `devices`, only those of file systems on these devices.

    OSError if it cannot be read, is longer than the kernel's limit on mounts (fs.mount-max) allows, or has a line of
    unknown format.
    """
    # Only LF ends a line, and only a space ends a field: the kernel escapes these two and no others.
    for line in _lines(mountinfo, dir_fd):
        left, separator, right = line.partition(b" - ")
        fields, rest = left.split(b" "), right.split(b" ")
        if not separator or len(fields) < 6:
            raise OSError(errno.EBADMSG, "a line of it cannot be parsed", mountinfo)
        number, device = fields[0].decode("ascii", "replace"), fields[2].decode("ascii", "replace")
        if devices is None or device in devices:
            root, point = _unescape(fields[3]), _unescape(fields[4])
            writable = b"ro" not in fields[5].split(b",") and b"ro" not in rest[-1].split(b",")
            yield Mount(number, device, root, point, os.fsdecode(rest[0]), writable)


def _lines(path: str, dir_fd: int | None) -> Iterator[bytes]:
    fd = open_quietly(path, dir_fd=dir_fd)
    rest, size = b"", 0
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        while data := os.read(fd, 1 << 20):
            size += len(data)
            if size > _LIMIT:
                raise OSError(errno.EFBIG, f"it is longer than {_LIMIT >> 20} MiB", path)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        if rest:
            yield rest
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Pins:
    """Namespaces bound to a file, like /run/netns/…: kind, inode, mount point. `cut`: the table was not read whole."""

    found: tuple[tuple[Literal["net", "mnt"], int, str], ...]
    cut: bool


def namespace_pins(mountinfo: str, go_on: Callable[[], bool], *, dir_fd: int | None = None) -> Pins:
    """The pins of a mountinfo file, read in pieces while `go_on` returns True. OSError if it cannot be read.

    A mount namespace may hold a hundred thousand mounts (fs.mount-max), and a pod may have many mount namespaces.
    """
    found: list[tuple[Literal["net", "mnt"], int, str]] = []
    fd = open_quietly(mountinfo, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", mountinfo)
        rest, total, end = b"", 0, False
        while not end:
            parts, size = [rest], 0
            while size < _PIECE and (part := os.read(fd, _PIECE)):
                parts.append(part)
                size += len(part)
            text, end = b"".join(parts), size == 0
            at = len(text) if end else text.rfind(b"\n") + 1
            for pin in _PIN.finditer(text, 0, at):
                kind: Literal["net", "mnt"] = "net" if pin[1] == b"net" else "mnt"
                found.append((kind, int(pin[2]), _unescape(pin[3])))
            rest, total = text[at:], total + size
            if total > _LIMIT or len(found) > _PINS_MOST or not (end or go_on()):
                return Pins(tuple(found[:_PINS_MOST]), cut=True)
    finally:
        os.close(fd)
    return Pins(tuple(found), cut=False)


def own_mounts() -> Mounts:
    """The mounts that this process sees; empty if its /proc cannot be read."""
    try:
        return read_mounts("/proc/self/mountinfo")
    except OSError:
        return Mounts(())


def _unescape(text: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), text))
