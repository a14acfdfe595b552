"""The component that writes node_exporter's textfile, in a process of its own: a disk may hang, the rules must not
wait.

Others may own the directory, so no existing file is opened, and only janitor's own file is removed.
"""

import errno
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from janitor.core.model.retry import SECOND, is_due
from janitor.daemon.component import Part
from janitor.host.files import describe_os_error
from janitor.host.kernel.procfs import clock
from janitor.host.worker import Tell, Worker
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family, text

_EVERY_S: Final = 60


@dataclass(frozen=True, slots=True)
class Written:
    """Identifies a file that janitor wrote: it is janitor's while device and inode are the same."""

    path: str
    device: int
    inode: int


@dataclass(slots=True)
class Textfile(Part):
    """Writes `families` to `path` on request and every minute; "" for nowhere."""

    path: str
    families: Callable[[], tuple[Family, ...]]
    log: Log
    patience_s: float = 10  # seconds that the disk has to answer
    written: Written | None = None
    _worker: Worker = field(init=False)
    _next_ns: int | None = 0  # when to write, while no process is running
    _again: bool = False
    _warned: bool = False  # about the running process
    _problem: int | None = None  # the last logged error number (errno(3))

    def __post_init__(self) -> None:
        """If even SIGKILL does not end the process, no second one is started."""
        self._worker = Worker(signal.SIGKILL, limit_s=self.patience_s)

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Descriptors to wait for: (readers, writers)."""
        return self._worker.descriptors()

    @property
    def due_ns(self) -> int | None:
        """When to run although no descriptor is ready."""
        return self._worker.due_ns if self._worker.busy else self._next_ns

    def soon(self) -> None:
        """Write now, or as soon as the running process has ended."""
        self._again = True
        if not self._worker.busy:
            self._next_ns = 0

    def run(self, ready: frozenset[int]) -> None:
        """Read the process's output; start a process if one is due."""
        del ready
        now = clock().boottime_ns
        if not self._worker.busy:
            if is_due(self._next_ns, now):
                self._begin(now)
            return
        lines, ended = self._worker.poll()
        for line in lines:
            self._heard(line.decode("utf-8", "replace"))
        if ended is not None:
            self._next_ns = 0 if self._again else now + _EVERY_S * SECOND if self.path else None
        elif self._worker.late and not self._warned:
            self._warned = True
            where = self.path or "removing the old one"
            self._trouble(errno.ETIMEDOUT, f"{where}: no answer from the disk for {self.patience_s:g} s")

    def close(self, patience_s: float) -> None:
        """End the process; the next one replaces what it leaves."""
        del patience_s
        self._worker.end(0.05)

    def take_over(self, before: Self) -> None:
        """Take over which file is janitor's."""
        self.written = before.written

    def _begin(self, now: int) -> None:
        path, old = self.path, self.written
        stale = old if old is not None and old.path != path else None
        self._again = self._warned = False
        if not path and stale is None:
            self._next_ns = None
            return
        families = self.families()

        def work(tell: Tell) -> None:
            try:
                if stale is not None:
                    remove(stale)
                    tell(b"removed")
                if path:
                    made = write(path, families)
                    tell(f"wrote {made.device} {made.inode}".encode())
            except OSError as error:
                why = describe_os_error(error).replace("\n", " ")  # one line, whatever the path
                tell(f"trouble {error.errno or 0} {why}".encode("utf-8", "backslashreplace"))

        try:
            self._worker.start(work)
        except OSError as error:
            self._next_ns = now + _EVERY_S * SECOND
            self._trouble(error.errno or 0, f"cannot start its process: {describe_os_error(error)}")

    def _heard(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "wrote":
            device, _, inode = rest.partition(" ")
            self.written, self._problem = Written(self.path, int(device), int(inode)), None
        elif word == "removed":
            self.written = None
        else:
            number, _, why = rest.partition(" ")
            self._trouble(int(number), why)

    def _trouble(self, number: int, why: str) -> None:
        if number != self._problem:
            self.log(LogEvent.TEXTFILE_NOT_WRITTEN, why=why)
        self._problem = number


def write(path: str, families: tuple[Family, ...]) -> Written:
    """Write the metrics, completely or not at all. Raises OSError; may wait for the disk."""
    fresh = f"{path}.new"
    try:
        Path(fresh).unlink()  # left by a killed process, or somebody's FIFO
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o644), "wb") as file:
        there = os.fstat(file.fileno())
        if not stat.S_ISREG(there.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", fresh)
        os.fchmod(file.fileno(), 0o644)  # independent of the umask: another user reads it
        file.write(text(families, process=False))
    Path(fresh).rename(path)
    return Written(path, there.st_dev, there.st_ino)


def remove(old: Written) -> None:
    """Remove a file of ours if it is still the one that we wrote. Raises OSError."""
    try:
        there = os.lstat(old.path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(there.st_mode) and (there.st_dev, there.st_ino) == (old.device, old.inode):
        Path(old.path).unlink()
