"""The node's /proc: which one it is, who is in it, and the kernel's clocks.

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
    """A mounted procfs, by its path as seen from here.

    `ours` says that a process has the same number there as it has for us: a procfs is of one PID namespace.
    """

    path: str
    ours: bool = True

    @property
    def kernel(self) -> bool:
        """Whether it is one, by its root's inode (PROC_ROOT_INO), and no directory that was made to look like one.

        In such a tree, as tests and collected nodes have them, no kernel shows whose a process is.
        """
        try:
            return os.stat(self.path).st_ino == 1
        except OSError:
            return True

    def pids(self) -> list[int]:
        """Every process, in order. OSError where the directory cannot be listed."""
        return sorted(int(name) for name in os.listdir(self.path) if name.isdecimal())

    def name(self, pid: int) -> str:
        """The process's name as in comm, or "?" when it has ended or cannot be read."""
        try:
            return self.comm(pid)
        except OSError:
            return "?"

    def comm(self, pid: int) -> str:
        """The same for whoever looks for a process: OSError where it is there and cannot be read."""
        try:
            return printable(os.fsdecode(read_bounded(f"{self.path}/{pid}/comm", 64)).strip())
        except (FileNotFoundError, ProcessLookupError):
            return "?"

    def started_ns(self, pid: int) -> int:
        """When the process started, on CLOCK_BOOTTIME (field 22 of stat, in clock ticks). OSError when gone."""
        text = read_bounded(f"{self.path}/{pid}/stat", 4096).decode("utf-8", "replace")
        # The name in parentheses may itself hold spaces and parentheses; the last one ends it.
        return int(text.rpartition(")")[2].split()[19]) * _TICK_NS


def find_proc(root: str) -> Proc | Unknown:
    """The procfs of the node under `root`, or why there is none: a disk at rest has no processes to ask."""
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
    # Fixture trees are no procfs and have no process that could be us.
    mount = own_mounts().mount_of(path)
    real = mount is None or mount.filesystem == "proc"
    return Proc(path, ours=not real or _shown_as(path) == str(os.getpid()))


def mounted_parts(root: str) -> tuple[str, ...]:
    """What of a node is mounted below `root`, which itself is no node's: a container that was given its parts.

    Paths are as the node names them.
    """
    if root == "/":
        return ()
    below = f"{root.rstrip('/')}/"
    points = sorted({mount.point for mount in own_mounts().mounts if mount.point.startswith(below)})
    # A mount within a part, as runtimes have them for each container, comes with it.
    return tuple(p.removeprefix(root.rstrip("/")) for p in points if not any(p.startswith(f"{q}/") for q in points))


def _beside(root: str, parts: tuple[str, ...]) -> Proc | Unknown:
    """Our own /proc, if its first process is the node's whose parts are at `root`: if it sees the same ones."""
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
    """The whole root of the node of which `root` has parts: as its first process sees it. Else `root` itself.

    For what is only read, and for programs of the node that are to be run where they were installed.
    """
    proc = find_proc(root) if mounted_parts(root) else None
    return NODE_ROOT if isinstance(proc, Proc) and proc.path == "/proc" else root


def _shown_as(path: str) -> str:
    try:
        return os.readlink(f"{path}/self")
    except OSError:
        return ""  # a procfs of a PID namespace that we are not in


def clock() -> Clock:
    """Both clocks, now."""
    # In this order, what passes between the two readings counts as sleep, and so for nothing.
    awake_ns, boottime_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Clock(time.clock_gettime_ns(time.CLOCK_REALTIME), boottime_ns, boottime_ns - awake_ns)


def boot_id(proc: Proc | Unknown) -> str | Unknown:
    """The kernel's ID of this boot (random(4)), 36 characters."""
    if isinstance(proc, Unknown):
        return proc
    try:
        return read_bounded(f"{proc.path}/sys/kernel/random/boot_id", 64).decode("ascii").strip()
    except OSError as error:
        return unknown(Code.CANNOT_READ_BOOT_ID, error)
