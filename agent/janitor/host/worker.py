"""Work in a child process that reports in lines over a pipe, and its supervision.

The child is forked from a process with one thread. It shares what was imported and keeps nothing that was opened.
Whatever happens to the work (a hanging disk, the OOM killer), the waiting parent goes on.
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
_LONGEST: Final = 64 << 20  # bytes in one line
_OOM_SCORE_ADJ: Final = 500  # proc(5): counts like half of all memory on top; the unit gives the daemon -500

Tell = Callable[[bytes], None]
"""Sends one line, given without its newline. It must not contain one."""


@dataclass(slots=True)
class Child:
    """A running child. Call `read` when its descriptor is readable; `over` tells whether it has ended."""

    pid: int
    began_ns: int  # on CLOCK_BOOTTIME
    _fd: int
    _rest: bytes = b""
    _closed: bool = False
    status: int | None = None  # as in os.waitstatus_to_exitcode, once it has ended

    def fileno(self) -> int:
        """The descriptor, for select; -1 after the end of its output."""
        return -1 if self._closed else self._fd

    def read(self) -> list[bytes]:
        """The complete lines that have arrived. A child with too long a line is killed."""
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
        """Whether it has ended. Does not wait."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def signal(self, number: int) -> None:
        """Send a signal. Does nothing if it has ended."""
        if self.status is None:
            os.kill(self.pid, number)

    def end(self, patience_s: float) -> list[bytes]:
        """SIGTERM, then SIGKILL after `patience_s`. Returns its last lines. The child may still exist."""
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

    status: int | None  # as in os.waitstatus_to_exitcode
    began_ns: int  # on CLOCK_BOOTTIME
    late: bool  # it exceeded its time limit


@dataclass(slots=True)
class Worker:
    """Supervises one process at a time. Call `poll` when one of its descriptors is ready, and at `due_ns`.

    A process that exceeds `limit_s` gets SIGTERM, and SIGKILL `grace_s` later; SIGKILL at once if `grace_s` is 0. If
    the parent dies, the process gets the signal `orphaned`.
    """

    orphaned: signal.Signals
    limit_s: float | None = None
    grace_s: float = 0
    late: bool = False  # the current process has exceeded the limit
    child: Child | None = None
    _stopping: bool = False
    _signal_ns: int | None = None  # when to send the next signal
    _over_ns: int | None = None  # when to check whether a process whose output has ended has ended, too

    @property
    def busy(self) -> bool:
        """Whether a process is running."""
        return self.child is not None

    def descriptors(self) -> tuple[list[int], list[int]]:
        """The descriptors to wait for, to read and to write."""
        return ([self.child.fileno()] if self.child is not None and self.child.fileno() >= 0 else []), []

    @property
    def due_ns(self) -> int | None:
        """When to call `poll` even if no descriptor is ready."""
        if self.child is None:
            return None
        return self._signal_ns if self.child.fileno() >= 0 else self._over_ns

    def start(self, work: Callable[[Tell], None]) -> None:
        """Start the work, if no process is running. OSError if the process cannot be created."""
        self.child = child = start(work, self.orphaned)
        self.late = self._stopping = False
        self._signal_ns = None if self.limit_s is None else child.began_ns + int(self.limit_s * SECOND)

    def poll(self) -> tuple[list[bytes], Ended | None]:
        """The lines that have arrived, and how the process has ended, once it has."""
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
        """Ask the process to end. Only the first call has an effect."""
        if self.child is None or self._stopping:
            return
        self._stopping = True
        self.child.signal(signal.SIGTERM if self.grace_s else signal.SIGKILL)
        self._signal_ns = clock().boottime_ns + int(self.grace_s * SECOND) if self.grace_s else None

    def end(self, patience_s: float) -> tuple[list[bytes], Ended | None]:
        """End the process now: SIGTERM, then SIGKILL after `patience_s`. The process may still exist."""
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
    """Start a child. It gets the signal `orphaned` if the parent dies. OSError if it cannot be created."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    # Until the child has its own handlers, a signal to it would be written to the parent's wakeup pipe.
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
    """For a child whose work can be repeated: when memory runs out, it is killed before its parent."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(_OOM_SCORE_ADJ))
    except OSError:
        pass  # without our own /proc, it stays as likely as the parent


def _be_child(work: Callable[[Tell], None], writer: int, orphaned: int, mask: set[signal.Signals | int]) -> None:
    """Do the work and exit, without running or flushing anything of the parent's."""
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
                    pass  # the descriptor of the listing itself
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            work(lambda line: _write_all(pipe.fileno(), line + b"\n"))
        code = 0
    finally:
        os._exit(code)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
