"""The network namespace of a tap device, by the descriptor that a virtual machine's monitor holds.

The descriptor keeps the device alive, and the device its namespace. If the monitor has left that namespace, nothing
else shows it. fdinfo tells which descriptors are tap devices (`iff:`, which no other file has). The kernel then hands
out a copy of the descriptor (pidfd_getfd, Linux 5.6) and its namespace (TUNGETDEVNETNS, 5.2). Standard library only.
"""

import ctypes
import fcntl
import os
from typing import Final

from janitor.host.files import read_bounded

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # same number on every architecture
_PIDFD_THREAD: Final = os.O_EXCL  # Linux 6.9: for a thread that is not the first one of its process
_TUNGETDEVNETNS: Final = 0x54E3
_LIMIT: Final = 4096
_libc = ctypes.CDLL(None, use_errno=True)


def namespace_of(task: str, number: int) -> int | None:
    """Open the namespace of the tap device behind descriptor `number` of this thread (`/proc/7/task/9`).

    None if it is no tap device, has no device yet, or the kernel is too old.
    """
    if not _is_tap(f"{task}/fdinfo/{number}"):
        return None
    thread = int(task.rpartition("/")[2])
    pidfd: int = _libc.syscall(_PIDFD_OPEN, thread, _PIDFD_THREAD)
    if pidfd < 0:
        pidfd = _libc.syscall(_PIDFD_OPEN, thread, 0)
    if pidfd < 0:
        return None
    try:
        copy: int = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        return None
    try:
        # Check again: the descriptor may be another file by now, on which this ioctl means something else.
        return fcntl.ioctl(copy, _TUNGETDEVNETNS) if _is_tap(f"/proc/self/fdinfo/{copy}") else None
    except OSError:
        return None
    finally:
        os.close(copy)


def _is_tap(fdinfo: str) -> bool:
    try:
        return b"\niff:" in read_bounded(fdinfo, _LIMIT)
    except OSError:
        return False
