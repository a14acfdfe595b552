"""The node's /proc: which one it is, the processes in it, and the kernel's clocks.

Standard library only. What needs a process's command line or environment is in host/kernel/processes.py.
"""

import os
import time
from dataclasses import dataclass
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Clock, Unknown
from janitor.core.model.unknown import unseen
from janitor.host.files import printable, read_bounded, unknown
from janitor.host.kernel.mounts import own_mounts

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
NODE_ROOT: Final = "/proc/1/root"


@dataclass(frozen=True, slots=True)
class Proc:
    """A mounted procfs, by its path as janitor sees it.

    `ours`: process IDs in it are the same as in our own PID namespace. A procfs shows one PID namespace.
    """

    path: str
    ours: bool = True

    @property
    def kernel(self) -> bool:
        """Whether it is a real procfs, by its root's inode (PROC_ROOT_INO), and not a directory that looks like one.

        In such a directory, as in tests and collected nodes, no kernel shows whose a process is.
        """
        try:
            return os.stat(self.path).st_ino == 1
        except OSError:
            return True

    def pids(self) -> list[int]:
        """Every process ID, sorted. OSError if the directory cannot be listed."""
        return sorted(int(name) for name in os.listdir(self.path) if name.isdecimal())

    def name(self, pid: int) -> str:
        """The process's name as in comm; "?" if it has ended or cannot be read."""
        try:
            return self.comm(pid)
        except OSError:
            return "?"

    def comm(self, pid: int) -> str:
        """The same, but OSError if the process exists and cannot be read. For callers that search for a process."""
        try:
            return printable(os.fsdecode(read_bounded(f"{self.path}/{pid}/comm", 64)).strip())
        except (FileNotFoundError, ProcessLookupError):
            return "?"

    def started_ns(self, pid: int) -> int:
        """When the process started, on CLOCK_BOOTTIME (field 22 of stat, in clock ticks). OSError if it has ended."""
        text = read_bounded(f"{self.path}/{pid}/stat", 4096).decode("utf-8", "replace")
        # The name in parentheses may itself contain spaces and parentheses: the last ")" ends it.
        return int(text.rpartition(")")[2].split()[19]) * _TICK_NS


def find_proc(root: str) -> Proc | Unknown:
    """The procfs of the node under `root`, or why there is none: an unmounted node's disk has no processes."""
    path = "/proc" if root == "/" else f"{root.rstrip('/')}/proc"
    try:
        first, here = os.stat(f"{path}/1/root"), os.stat(root)
        os.lstat(f"{path}/self")
    except PermissionError as error:
        return unknown(Code.CANNOT_READ_NODE_PROCESSES, error, path=path)
    except OSError:
        parts = mounted_parts(root)
        if parts:
            return _beside(root, parts)
        return unseen(Code.NO_PROC, path=path)
    if (first.st_dev, first.st_ino) != (here.st_dev, here.st_ino):
        return unseen(Code.PROC_OF_ANOTHER_ROOT, path=path, root=root)
    # Fixture trees are no procfs, and no process in them could be ours.
    mount = own_mounts().mount_of(path)
    real = mount is None or mount.filesystem == "proc"
    return Proc(path, ours=not real or _shown_as(path) == str(os.getpid()))


def mounted_parts(root: str) -> tuple[str, ...]:
    """The parts of a node that are mounted below `root`, if `root` itself is no node's: janitor runs in a container.

    The paths are as the node names them.
    """
    if root == "/":
        return ()
    below = f"{root.rstrip('/')}/"
    points = sorted({mount.point for mount in own_mounts().mounts if mount.point.startswith(below)})
    # A mount within a part comes with that part; runtimes have one for each container.
    return tuple(p.removeprefix(root.rstrip("/")) for p in points if not any(p.startswith(f"{q}/") for q in points))


def _beside(root: str, parts: tuple[str, ...]) -> Proc | Unknown:
    """Our own /proc, if its process 1 is the node's, i.e. sees the same parts as those mounted at `root`."""
    for part in parts:
        try:
            here = os.stat(f"{root}{part}")
            theirs = os.stat(f"{NODE_ROOT}{part}")
            same = (theirs.st_dev, theirs.st_ino) == (here.st_dev, here.st_ino)
        except FileNotFoundError:
            same = False
        except OSError as error:
            return unknown(Code.CANNOT_READ_NODE_PROCESSES, error, path="/proc")
        if not same:
            return unseen(Code.PROC_SEES_ANOTHER_PART, root=root, part=part)
    return Proc("/proc")


def node_root(root: str) -> str:
    """The complete root of the node whose parts are at `root`, as process 1 sees it. Otherwise `root` itself.

    For what is only read, and for programs of the node that have to run where they are installed.
    """
    proc = find_proc(root) if mounted_parts(root) else None
    return NODE_ROOT if isinstance(proc, Proc) and proc.path == "/proc" else root


def _shown_as(path: str) -> str:
    try:
        return os.readlink(f"{path}/self")
    except OSError:
        return ""  # a procfs of a PID namespace that we are not in


def clock() -> Clock:
    """All clocks, now."""
    # In this order, time between the two readings counts as sleep, never as time awake.
    awake_ns, boottime_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Clock(time.clock_gettime_ns(time.CLOCK_REALTIME), boottime_ns, boottime_ns - awake_ns)


def boot_id(proc: Proc | Unknown) -> str | Unknown:
    """The kernel's boot ID (random(4)), 36 characters."""
    if isinstance(proc, Unknown):
        return proc
    try:
        return read_bounded(f"{proc.path}/sys/kernel/random/boot_id", 64).decode("ascii").strip()
    except OSError as error:
        return unknown(Code.CANNOT_READ_BOOT_ID, error)
