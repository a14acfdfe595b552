"""Notices when the wall clock is set: timerfd_create(2), which Python has since 3.13. Standard library only.

The timer never expires and has TFD_TIMER_CANCEL_ON_SET: the kernel cancels it at each step of the clock, even if a
second step has undone the first before anybody looked. Slewing (adjtime) is no step. Resuming from suspend counts as
one.
"""

import ctypes
import errno
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Final

_ABSTIME: Final = 1
_CANCEL_ON_SET: Final = 2
_NEVER: Final = sys.maxsize  # seconds since the epoch; the kernel reduces it to its maximum


@dataclass(slots=True)
class ClockSet:
    """A descriptor that reports steps of the wall clock. OSError if the kernel refuses a timer."""

    _fd: int = field(init=False)

    def __post_init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = _checked(libc.timerfd_create(time.CLOCK_REALTIME, os.O_CLOEXEC | os.O_NONBLOCK), "timerfd_create")
        never = (ctypes.c_long * 4)(0, 0, _NEVER, 0)  # struct itimerspec: interval, value
        try:
            _checked(libc.timerfd_settime(self._fd, _ABSTIME | _CANCEL_ON_SET, never, None), "timerfd_settime")
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._fd

    def was_set(self) -> bool:
        """Whether the clock was set since the last call."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
        return True

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result
