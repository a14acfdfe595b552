"""Entering a namespace, by a thread of its own: which namespaces it is in belongs to a thread, and ends with it.

Must not be done while a gRPC channel is open: such a thread must not be one that gRPC then inherits. Standard library
only.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

CLONE_FS: Final = 0x200
CLONE_NEWCGROUP: Final = 0x2000000
CLONE_NEWNS: Final = 0x20000
CLONE_NEWNET: Final = 0x40000000

_T = TypeVar("_T")


def in_thread(visit: Callable[[], _T], patience_s: float | None = None) -> _T:
    """Run `visit` in a thread that ends with it. Raises what it raises; OSError where it takes longer than that."""
    result: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(visit())
        except BaseException as error:  # noqa: BLE001 (raised again below)
            failure.append(error)

    thread = threading.Thread(target=body, daemon=True)  # the end of the program must not wait for one that blocks
    try:
        thread.start()
    except RuntimeError as error:  # the kernel's EAGAIN, as threading says it
        raise BlockingIOError(errno.EAGAIN, str(error)) from None
    thread.join(patience_s)
    if thread.is_alive():
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    if failure:
        raise failure[0]
    return result[0]


def call(name: str, *arguments: int) -> None:
    """setns(2) and unshare(2), which Python has from 3.12 on. OSError."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def in_network(path: str, visit: Callable[[], _T]) -> _T:
    """Call `visit` in the network namespace at `path`; what it opens stays in there. OSError where that is barred."""
    return _within(path, "net", CLONE_NEWNET, visit)


def in_control_groups(path: str, visit: Callable[[], _T]) -> _T:
    """Call `visit` in the cgroup namespace at `path`, which says what control groups look like. OSError as above."""
    return _within(path, "cgroup", CLONE_NEWCGROUP, visit)


def _within(path: str, kind: str, flag: int, visit: Callable[[], _T]) -> _T:
    """In this thread where it is there already, else in one of its own."""
    wanted, here = os.stat(path), os.stat(f"/proc/thread-self/ns/{kind}")
    if (wanted.st_dev, wanted.st_ino) == (here.st_dev, here.st_ino):
        return visit()

    def enter() -> _T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("setns", fd, flag)
        finally:
            os.close(fd)
        return visit()

    return in_thread(enter)
