"""Locks: host-local's, held for every change in a network's directory, and janitor's own, so that only one runs.

host-local uses flock(2) on `<directory>/lock`; fcntl.lockf would not exclude it. Up to v0.6 host-local locked the
directory itself, so that is locked as well. The only file ever created here is janitor's own lock file. Standard
library only.
"""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.host.files import failed, inside, read_bounded
from janitor.host.kernel.procfs import Proc

JANITOR_LOCK = "/run/janitor/lock"
DAEMON_LOCK = "/run/janitor/daemon.lock"
DAEMON = "janitor run"
_RETRY_S = 0.02
_HOLDER = re.compile(r"'([^']*)' \(process \d+\)")  # the text that the holder of a janitor lock writes into it
_TABLE_LIMIT = 1 << 20
_SOMEBODY = "somebody else"


class Busy(Exception):  # noqa: N818 (a busy lock is no error)
    """The lock is not available. `by_daemon`: the daemon holds it, whose passes are short."""

    def __init__(self, reason: Reason, by_daemon: bool = False) -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.by_daemon = by_daemon


@contextmanager
def network_lock(here: str, path: str, patience_s: float = 5.0) -> Iterator[int]:
    """Hold host-local's lock on the directory `here`, called `path` in messages. Yields its descriptor.

    Busy if the lock stays taken, or if there is no lock file: host-local makes it, so the origin of the leases is
    unknown. Busy also if the directory or the lock file was replaced while waiting: the lock would then exclude nobody.
    """
    directory = os.open(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            lock = os.open("lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            raise Busy(because(Code.NO_LOCK_FILE, path=path)) from None
        except OSError as error:
            raise Busy(failed(Code.CANNOT_OPEN_LOCK, error, path=f"{path}/lock")) from None
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                raise Busy(because(Code.LOCK_NOT_REGULAR, path=f"{path}/lock"))
            deadline = time.monotonic() + patience_s
            for fd, name in ((directory, path), (lock, f"{path}/lock")):
                if not _take(fd, deadline):
                    raise Busy(because(Code.LOCK_HELD, path=name, seconds=f"{patience_s:g}", holder=_holder(fd)))
            if not _same(directory, here) or not _same(lock, "lock", directory):
                raise Busy(because(Code.DIRECTORY_REPLACED, path=path))
            yield directory
        finally:
            os.close(lock)
    finally:
        os.close(directory)


def _take(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_RETRY_S)
        else:
            return True


def _holder(fd: int) -> str:
    """The process that holds the lock (/proc/locks, proc(5)); "somebody else" if that cannot be determined.

    Any process that may read a directory may lock it, for any time.
    """
    info = os.fstat(fd)
    file = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    try:
        table = read_bounded("/proc/locks", _TABLE_LIMIT).decode("ascii", "replace")
    except OSError:
        return _SOMEBODY
    for row in (line.split() for line in table.split("\n")):
        if row[1:2] == ["FLOCK"] and row[5:6] == [file] and (name := Proc("/proc").name(int(row[4]))) != "?":
            return f"process {row[4]} ({name})"
    return _SOMEBODY


def _same(fd: int, name: str, dir_fd: int | None = None) -> bool:
    try:
        there, held = os.stat(name, dir_fd=dir_fd), os.fstat(fd)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


@contextmanager
def only_janitor(root: str, what: str, patience_s: float = 0) -> Iterator[Callable[[], Reason | None]]:
    """Be the only janitor that changes this node. Busy names the other one. OSError if /run cannot be used.

    Waits up to `patience_s` seconds for a pass of the daemon, which is short. Yields a function to call before each
    change: it returns why the lock is no longer exclusive, or None.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fd = _claim(root, JANITOR_LOCK, what)
            break
        except Busy as busy:
            if time.monotonic() > deadline or not busy.by_daemon:
                raise
            time.sleep(_RETRY_S)
    try:
        yield lambda: lost(root, JANITOR_LOCK, fd)
    finally:
        os.close(fd)


def lost(root: str, lock: str, fd: int) -> Reason | None:
    """Why the lock that we hold excludes nobody any more: the file is gone or replaced. None while it does."""
    return None if _same(fd, inside(root, lock)) else because(Code.LOCK_LOST, path=lock)


def take_daemon_lock(root: str) -> int:
    """Be the only daemon of this node, however the other one was started, until the descriptor is closed.

    Busy and OSError as with `only_janitor`.
    """
    return _claim(root, DAEMON_LOCK, DAEMON)


def _claim(root: str, lock: str, what: str) -> int:
    """Open and lock the file and write our name into it. For root only: flock(2) needs no more than read access."""
    path = inside(root, lock)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    _close_to_others(os.path.dirname(path))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        _close_to_others(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"'{what}' (process {os.getpid()})\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip() or "another janitor"
        os.close(fd)
        named = _HOLDER.match(holder)
        by_daemon = named is not None and named[1] == DAEMON
        raise Busy(because(Code.JANITOR_AT_WORK, holder=holder), by_daemon) from None
    except BaseException:
        os.close(fd)
        raise
    if not _same(fd, path):
        os.close(fd)
        raise Busy(because(Code.JANITOR_LOCK_REPLACED, path=lock))
    return fd


def _close_to_others(file: int | str) -> None:
    """Remove access that an earlier janitor, or the boot stage's shell script, gave to others."""
    mode = stat.S_IMODE(os.stat(file).st_mode)
    if mode & 0o077:
        os.chmod(file, mode & 0o700)
