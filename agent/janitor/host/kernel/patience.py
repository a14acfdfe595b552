"""A look at one process that may not answer: from whoever cannot wait.

What /proc shows of a process waits for as long as that is in the middle of an execve(2), and there it may wait itself:
for a file system that a pod serves, of which a file is closed on the way. Standard library only.
"""

import errno
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

PATIENCE_S: Final = 0.25
_MOST: Final = 1024  # threads that are left behind

_T = TypeVar("_T")
_left: dict[int, threading.Thread] = {}  # by process; one that still waits is not asked again


def ask(pid: int, look: Callable[[], _T]) -> _T:
    """What `look` returns or raises; OSError (ETIMEDOUT) where the process does not answer soon, or did not before.

    EAGAIN where too many do not.
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
        except RuntimeError as error:  # the kernel's EAGAIN, as threading says it
            raise BlockingIOError(errno.EAGAIN, str(error)) from None
        thread.join(PATIENCE_S)
        if thread.is_alive():
            _left[pid] = thread
    if failure:
        raise failure[0]
    if not result:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    return result[0]
