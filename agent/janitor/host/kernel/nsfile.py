"""Namespaces as files: recognizing them, and opening them at a path that a pod may have made.

Such a path is a mount point, or a descriptor of the pod's. It may lead to a FIFO, a device, a link to a file of the
node's, or a file system that answers when the pod likes. So nothing is opened before it is known to be the namespace.
First it is opened as a path (O_PATH), which asks no file system and follows no link. Then the kernel's own record of
its file system and inode number (statx(2), AT_STATX_DONT_SYNC) identifies it: there is only one nsfs. Only then is it
opened. Standard library only.
"""

import ctypes
import errno
import fcntl
import os
import struct
from functools import cache
from typing import Final, Literal

Kind = Literal["net", "mnt"]

_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# openat2(2) has the same number on every architecture, like all system calls since 2019.
_OPENAT2: Final = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _IN_ROOT, _CACHED = 0x02, 0x04, 0x10, 0x20
_ABSENT: Final = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG)  # an old kernel, or a seccomp filter
_AT_STATX_DONT_SYNC, _AT_EMPTY_PATH, _AT_FDCWD = 0x4000, 0x1000, -100
_NS_GET_NSTYPE: Final = 0xB703
_KINDS: Final = {0x40000000: "net", 0x20000: "mnt"}
_libc = ctypes.CDLL(None, use_errno=True)
_statx = getattr(_libc, "statx", None)


def identity(path: str, dir_fd: int = _AT_FDCWD) -> tuple[int, int]:
    """Device and inode number of a file. Follows links, and does not ask the server of its file system. OSError.

    With "" as the path: of the open file `dir_fd`.
    """
    if _statx is None:  # a C library before 2018
        info = os.fstat(dir_fd) if not path else os.stat(path, dir_fd=None if dir_fd == _AT_FDCWD else dir_fd)
        return info.st_dev, info.st_ino
    buffer = ctypes.create_string_buffer(256)
    flags = _AT_STATX_DONT_SYNC | (0 if path else _AT_EMPTY_PATH)
    if _statx(dir_fd, os.fsencode(path), flags, 0, buffer) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    inode, major, minor = struct.unpack_from("=Q96xII", buffer, 32)
    return os.makedev(major, minor), inode


@cache
def device() -> int:
    """The device number of nsfs. OSError."""
    return os.stat("/proc/self/ns/net").st_dev


def kind_of(path: str, inode: int) -> Kind | None:
    """The kind of the namespace that this link of /proc leads to; None for other kinds. OSError, also if replaced."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    fd = _opened(place, inode, path, None)
    try:
        kind = _KINDS.get(fcntl.ioctl(fd, _NS_GET_NSTYPE))
        return "net" if kind == "net" else "mnt" if kind == "mnt" else None
    finally:
        os.close(fd)


def open_namespace(path: str, inode: int) -> int:
    """Open the namespace that a link of /proc leads to (`/proc/7/fd/5`). OSError; ENOENT if it is another file."""
    return _opened(os.open(path, os.O_PATH | os.O_CLOEXEC), inode, path, None)


def open_mounted(root: str, point: str, inode: int, *, procfs: int | None = None) -> int:
    """The same for a mount point, as named by the process with this root directory. OSError.

    `procfs` is an open descriptor of our /proc, for a thread in a mount namespace that has another /proc or none.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = _beneath(top, point)
    finally:
        os.close(top)
    return _opened(place, inode, point, procfs)


def _opened(place: int, inode: int, path: str, procfs: int | None) -> int:
    """Open the file at `place` if it is this namespace. Closes `place`."""
    try:
        if identity("", place) != (device(), inode):
            raise FileNotFoundError(errno.ENOENT, "something else is there now", path)
        here = f"self/fd/{place}" if procfs is not None else f"/proc/self/fd/{place}"
        return os.open(here, os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)
    finally:
        os.close(place)


def _beneath(top: int, point: str) -> int:
    """Open a path below the directory `top` (O_PATH). OSError; ELOOP if there is a link on the way.

    The path to a mount point stays in the kernel's cache for as long as it is one, so no file system has to be asked:
    RESOLVE_CACHED ensures that. Some file systems (overlayfs over others, NFS) insist on being asked. For them it is
    tried without RESOLVE_CACHED.
    """
    for resolve in (_IN_ROOT | _NO_SYMLINKS | _NO_MAGICLINKS | _CACHED, _IN_ROOT | _NO_SYMLINKS | _NO_MAGICLINKS):
        how = struct.pack("=QQQ", _PLACE, 0, resolve)
        fd: int = _libc.syscall(_OPENAT2, top, os.fsencode(point.lstrip("/") or "."), how, len(how))
        if fd >= 0:
            return fd
        error = ctypes.get_errno()
        if error not in (errno.EAGAIN, *_ABSENT):
            raise OSError(error, os.strerror(error), point)
    return _step_by_step(top, point)


def _step_by_step(top: int, point: str) -> int:
    """For kernels before 5.6. A link is opened as itself, so nothing can be opened below it (ENOTDIR)."""
    here = os.dup(top)
    for part in point.split("/"):
        if part in ("", "."):
            continue
        try:
            if part == "..":
                raise OSError(errno.EXDEV, "it leads upwards", point)
            below = os.open(part, _PLACE, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here
