"""The node's /proc: which one it is, who is in it, and the kernel's clocks.

Standard library only. What needs a process's command line or environment is in host/processes.py.
"""

import os
import time
from dataclasses import dataclass

from janitor.core.evidence import Clock, Unknown
from janitor.host.files import printable, read_bounded, unknown
from janitor.host.mounts import own_mounts

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Proc:
    """A mounted procfs, by its path as seen from here.

    `ours` says that a process has the same number there as it has for us: a procfs is of one PID namespace.
    """

    path: str
    ours: bool = True

    def pids(self) -> list[int]:
        """Every process, in order. OSError where the directory cannot be listed."""
        return sorted(int(name) for name in os.listdir(self.path) if name.isdecimal())

    def name(self, pid: int) -> str:
        """The process's name as in comm, or "?" when it has ended."""
        try:
            return printable(os.fsdecode(read_bounded(f"{self.path}/{pid}/comm", 64)).strip())
        except OSError:
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
        return unknown(f"looking at the node's processes in {path}", error)
    except OSError:
        return Unknown(
            f"no /proc is mounted at {path}: a disk at rest has no processes and no network namespaces",
            "run janitor on the running node",
        )
    if (first.st_dev, first.st_ino) != (here.st_dev, here.st_ino):
        return Unknown(
            f"the processes in {path} are not those of the node at {root}: their first one has another root directory",
            "run janitor on the running node, with --root where its / is mounted",
        )
    # Fixture trees are no procfs and have no process that could be us.
    mount = own_mounts().mount_of(path)
    real = mount is None or mount.filesystem == "proc"
    return Proc(path, ours=not real or _shown_as(path) == str(os.getpid()))


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
        return unknown("reading the boot ID", error)
