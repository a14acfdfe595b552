"""Opening a namespace by a place that a pod may have made: a mount of its own, or one of its descriptors.

What lies at such a place may be a FIFO, a device, a link to a file of the node's, or a file system that answers when a
pod likes. So nothing there is opened before it is known to be the namespace: first as a place (O_PATH), which calls
nobody; no link is followed on the way; and the name that the kernel gives it (nsfs: `net:[…]`, without a slash, which
no other file can have) and its file system say that it is the one. Only then is it opened. Standard library only.
"""

import ctypes
import errno
import os
import struct
from typing import Final, Literal

Kind = Literal["net", "mnt"]

_PLACE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# openat2(2) has one number on every architecture, as all system calls since 2019.
_OPENAT2: Final = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _IN_ROOT, _CACHED = 0x02, 0x04, 0x10, 0x20
_ABSENT: Final = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG)  # an old kernel, or a seccomp filter
_libc = ctypes.CDLL(None, use_errno=True)


def open_namespace(path: str, kind: Kind, inode: int) -> int:
    """Open what a link of /proc leads to (`/proc/7/fd/5`), if it is that namespace. OSError; ENOENT if it is not."""
    return _opened(os.open(path, os.O_PATH | os.O_CLOEXEC), kind, inode, path, None)


def open_mounted(root: str, point: str, kind: Kind, inode: int, *, procfs: int | None = None) -> int:
    """The same for a mount point as the process with this root directory names it. OSError.

    `procfs` is our own /proc, opened before, for a thread in a mount namespace that has another one or none.
    """
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = _beneath(top, point)
    finally:
        os.close(top)
    return _opened(place, kind, inode, point, procfs)


def _opened(place: int, kind: Kind, inode: int, path: str, procfs: int | None) -> int:
    """Consumes `place`."""
    own = "self" if procfs is not None else "/proc/self"
    here = f"{own}/fd/{place}"
    try:
        if os.readlink(here, dir_fd=procfs) != f"{kind}:[{inode}]":
            raise FileNotFoundError(errno.ENOENT, "something else is there now", path)
        # The name said that it is the kernel's, so that asking for more calls nobody. nsfs is mounted once for all.
        seen = os.fstat(place)
        if (seen.st_dev, seen.st_ino) != (os.stat(f"{own}/ns/net", dir_fd=procfs).st_dev, inode):
            raise FileNotFoundError(errno.ENOENT, "another namespace is there now", path)
        return os.open(here, os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)
    finally:
        os.close(place)


def _beneath(top: int, point: str) -> int:
    """A place below the open directory. OSError; ELOOP where a link is on the way.

    What is in the way of a mount point is in the kernel's cache for as long as it is one, so nobody has to be called
    to get there; RESOLVE_CACHED sees to it. Some file systems (overlayfs over others, NFS) want to be asked all the
    same: for these it is tried without.
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
    """For kernels before 5.6: a link is opened as itself, and then nothing is below it (ENOTDIR)."""
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
