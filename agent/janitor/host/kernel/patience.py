"""Reading a process that may not answer, for callers that cannot wait.

Much of what /proc shows of a process blocks while that is in the middle of an execve(2). The execve may itself wait for
a file system that a pod serves, because it closes files there. Standard library only.
"""

import errno
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

PATIENCE_S: Final = 0.25
_MOST: Final = 1024  # abandoned threads

_T = TypeVar("_T")
_left: dict[int, threading.Thread] = {}  # by process ID; a process is not asked again while its thread waits


def ask(pid: int, look: Callable[[], _T]) -> _T:
    """What `look` returns or raises. OSError (ETIMEDOUT) if the process does not answer within PATIENCE_S.

    ETIMEDOUT also while an earlier look at it still blocks. EAGAIN if too many processes do not answer.
    """
    for other, thread in list(_left.items()):
        if not thread.is_alive():
            del _left[other]
    result: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(look())
        except BaseException as error:  # noqa: BLE001 (raised again below)
            failure.append(error)

    if len(_left) >= _MOST:
        raise BlockingIOError(errno.EAGAIN, "too many processes do not respond")
    if pid not in _left:
        thread = threading.Thread(target=body, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the kernel's EAGAIN, as threading reports it
            raise BlockingIOError(errno.EAGAIN, str(error)) from None
        thread.join(PATIENCE_S)
        if thread.is_alive():
            _left[pid] = thread
    if failure:
        raise failure[0]
    if not result:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    return result[0]
