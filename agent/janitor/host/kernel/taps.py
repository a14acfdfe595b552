"""The network namespace of a tap device, by the descriptor that a virtual machine's monitor holds.

The device keeps its namespace alive, and the descriptor the device: where the monitor has left that namespace, nothing
else shows it. fdinfo says which descriptors are such (`iff:`, which no other file has); the kernel gives a copy of it
(pidfd_getfd, Linux 5.6) and then the namespace (TUNGETDEVNETNS, 5.2). Standard library only.
"""

import ctypes
import fcntl
import os
from typing import Final

from janitor.host.files import read_bounded

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # one number on every architecture
_PIDFD_THREAD: Final = os.O_EXCL  # Linux 6.9: of a thread that is not the first one of its process
_TUNGETDEVNETNS: Final = 0x54E3
_LIMIT: Final = 4096
_libc = ctypes.CDLL(None, use_errno=True)


def namespace_of(task: str, number: int) -> int | None:
    """A descriptor of the namespace of the tap device that is descriptor `number` of this thread (`/proc/7/task/9`).

    None where it is none, or has no device yet, or the kernel is older than that.
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
        # It may be another file by now, of which this would ask something else.
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
