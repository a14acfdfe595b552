"""Entering a namespace, in a thread of its own: namespaces belong to a thread, and the change ends with it.

Not to be used while a gRPC channel is open: gRPC must not inherit such a thread. Standard library only.
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
    """Run `visit` in a thread of its own. Raises what it raises; OSError (ETIMEDOUT) after `patience_s` seconds."""
    result: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(visit())
        except BaseException as error:  # noqa: BLE001 (raised again below)
            failure.append(error)

    thread = threading.Thread(target=body, daemon=True)  # a blocked thread must not keep the program from exiting
    try:
        thread.start()
    except RuntimeError as error:  # the kernel's EAGAIN, as threading reports it
        raise BlockingIOError(errno.EAGAIN, str(error)) from None
    thread.join(patience_s)
    if thread.is_alive():
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    if failure:
        raise failure[0]
    return result[0]


def call(name: str, *arguments: int) -> None:
    """setns(2) and unshare(2), which Python has since 3.12. OSError."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def in_network(path: str, visit: Callable[[], _T]) -> _T:
    """Call `visit` in the network namespace at `path`. Sockets that it opens stay there. OSError if not permitted."""
    return _within(path, "net", CLONE_NEWNET, visit)


def in_control_groups(path: str, visit: Callable[[], _T]) -> _T:
    """Call `visit` in the cgroup namespace at `path`: control group paths are relative to it. OSError as above."""
    return _within(path, "cgroup", CLONE_NEWCGROUP, visit)


def _within(path: str, kind: str, flag: int, visit: Callable[[], _T]) -> _T:
    """In this thread if it is already there, otherwise in a new one."""
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
