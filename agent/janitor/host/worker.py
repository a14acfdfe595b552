"""A piece of work in a process of its own, which says what it does in lines over a pipe, and its supervision.

Made by fork(2) from a process with one thread: what it imported is shared, nothing it opened is kept, and whatever
the work runs into (a hanging disk, the out-of-memory killer) does not stop the one who waits for it.
"""

import ctypes
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from janitor.core.model.retry import SECOND, is_due
from janitor.host.kernel.procfs import clock

_PR_SET_PDEATHSIG: Final = 1
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_READ: Final = 1 << 20
_LONGEST: Final = 64 << 20  # bytes of one line
_OOM_SCORE_ADJ: Final = 500  # proc(5): as if it had half the memory more; -500 is what the unit gives to the daemon

Tell = Callable[[bytes], None]
"""Hands one line over, without its end; it holds no newline."""


@dataclass(slots=True)
class Child:
    """A child at work. `read` it when its descriptor is readable; it has ended when `over` says so."""

    pid: int
    began_ns: int  # on CLOCK_BOOTTIME
    _fd: int
    _rest: bytes = b""
    _closed: bool = False
    status: int | None = None  # as os.waitstatus_to_exitcode has it, once it is over

    def fileno(self) -> int:
        """What to select on; -1 once it has said everything."""
        return -1 if self._closed else self._fd

    def read(self) -> list[bytes]:
        """Whole lines that have come. A child that says too much at once is killed."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return []
        if not data:
            self._close()
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            self.signal(signal.SIGKILL)
        return lines

    def over(self) -> bool:
        """Whether it is gone; it does not wait for that."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens where it is gone."""
        if self.status is None:
            os.kill(self.pid, number)

    def end(self, patience_s: float) -> list[bytes]:
        """SIGTERM, and SIGKILL after the patience; the last lines it said. It may outlive us where no signal helps."""
        lines: list[bytes] = []
        self.signal(signal.SIGTERM)
        deadline = clock().boottime_ns + int(patience_s * 1e9)
        while not self._closed and (left := (deadline - clock().boottime_ns) / 1e9) > 0:
            if select.select([self._fd], [], [], left)[0]:
                lines += self.read()
        if not self._closed:
            self.signal(signal.SIGKILL)
            self._close()
        for _ in range(20):
            if self.over():
                break
            select.select([], [], [], 0.005)
        return lines

    def _close(self) -> None:
        if not self._closed:
            os.close(self._fd)
            self._closed = True


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process has ended."""

    status: int | None  # as os.waitstatus_to_exitcode has it
    began_ns: int  # on CLOCK_BOOTTIME
    late: bool  # it took longer than it may


@dataclass(slots=True)
class Worker:
    """Supervises one process at a time. `poll` it when one of its descriptors is ready, and when it is due.

    A process that works for longer than `limit_s` gets SIGTERM, and SIGKILL `grace_s` later; at once where that is 0.
    When we die it gets the signal `orphaned`.
    """

    orphaned: signal.Signals
    limit_s: float | None = None
    grace_s: float = 0
    late: bool = False  # the process at work has exceeded the limit
    child: Child | None = None
    _stopping: bool = False
    _signal_ns: int | None = None  # when the next signal is to be sent
    _over_ns: int | None = None  # when to look whether a process that has said everything is gone

    @property
    def busy(self) -> bool:
        """Whether a process is at work."""
        return self.child is not None

    def descriptors(self) -> tuple[list[int], list[int]]:
        """What to wait for, to read and to write."""
        return ([self.child.fileno()] if self.child is not None and self.child.fileno() >= 0 else []), []

    @property
    def due_ns(self) -> int | None:
        """When to poll it though nothing is ready."""
        if self.child is None:
            return None
        return self._signal_ns if self.child.fileno() >= 0 else self._over_ns

    def start(self, work: Callable[[Tell], None]) -> None:
        """Begin, where none is at work. OSError where there can be no process."""
        self.child = child = start(work, self.orphaned)
        self.late = self._stopping = False
        self._signal_ns = None if self.limit_s is None else child.began_ns + int(self.limit_s * SECOND)

    def poll(self) -> tuple[list[bytes], Ended | None]:
        """The lines that have come, and how the process has ended once it has."""
        if self.child is None:
            return [], None
        now = clock().boottime_ns
        lines = self.child.read() if self.child.fileno() >= 0 else []
        if self.child.fileno() >= 0:
            if is_due(self._signal_ns, now):
                self._out_of_time()
            return lines, None
        if not self.child.over():
            self._over_ns = now + SECOND // 100
            return lines, None
        ended = Ended(self.child.status, self.child.began_ns, self.late)
        self.child = None
        return lines, ended

    def stop(self) -> None:
        """Ask the process to end, once."""
        if self.child is None or self._stopping:
            return
        self._stopping = True
        self.child.signal(signal.SIGTERM if self.grace_s else signal.SIGKILL)
        self._signal_ns = clock().boottime_ns + int(self.grace_s * SECOND) if self.grace_s else None

    def end(self, patience_s: float) -> tuple[list[bytes], Ended | None]:
        """End the process now: SIGTERM, and SIGKILL after the patience. It may outlive us where no signal helps."""
        if self.child is None:
            return [], None
        child, self.child = self.child, None
        lines = child.end(patience_s)
        return lines, Ended(child.status, child.began_ns, self.late) if child.status is not None else None

    def _out_of_time(self) -> None:
        assert self.child is not None  # noqa: S101 (for the type checker)
        if not self._stopping:
            self.late = True
            self.stop()
            return
        self.child.signal(signal.SIGKILL)
        self._signal_ns = None


def start(work: Callable[[Tell], None], orphaned: int) -> Child:
    """Begin. The child gets the signal `orphaned` when we die. OSError where there can be no process."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    # Until it has handlers of its own, a signal to the child would be written to the pipe that wakes us.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(work, writer, orphaned, before)
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(writer)
    return Child(pid, clock().boottime_ns, reader)


def offer_to_the_oom_killer() -> None:
    """For a child whose work can be made again: where memory runs out, it goes before the one who made it."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(_OOM_SCORE_ADJ))
    except OSError:
        pass  # no /proc of ours: it stays as likely as we are


def _be_child(work: Callable[[Tell], None], writer: int, orphaned: int, mask: set[signal.Signals | int]) -> None:
    """Work, and end: nothing of the parent's is run or written any more."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, orphaned, 0, 0, 0)
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd > 2 and fd != writer:
                try:
                    os.close(fd)
                except OSError:
                    pass  # the listing's own
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            work(lambda line: _write_all(pipe.fileno(), line + b"\n"))
        code = 0
    finally:
        os._exit(code)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
