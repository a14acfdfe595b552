"""Finds everything that refers to a network namespace: threads, open files, mounts and tap devices.

kcmp(2) tells which threads of a process share its descriptors and mounts. Only what is not shared is read again: an
ordinary process costs one list of files, and a pod's hundreds of processes that share one large table cost one reading
of it. If the first thread of a process has ended, another thread is read instead.

Shares of the budget, and what happens when one is used up, are in host/kernel/budget.py. Standard library only.
"""

import errno
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from janitor.host.files import open_quietly, printable
from janitor.host.kernel import kcmp
from janitor.host.kernel.budget import Allowance, Budget, each
from janitor.host.kernel.mounts import namespace_pins
from janitor.host.kernel.namespaces import CLONE_FS, CLONE_NEWNS, call, in_thread
from janitor.host.kernel.nsfile import Kind, identity, kind_of, open_mounted, open_namespace
from janitor.host.kernel.nsfile import device as nsfs_device
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.taps import namespace_of

ENDED: Final = (errno.ENOENT, errno.ESRCH, errno.EINVAL)  # how /proc reports a process that has just ended
_LINK: Final = re.compile(r"(net|mnt):\[(\d+)\]")
_MOST: Final = 16  # places kept per namespace
_SHARED_FROM: Final = 256  # a descriptor table with this many entries is remembered, in case other processes share it
_MOST_TAPS: Final = 32  # per process
_DEEPEST: Final = 16  # mount namespaces nested in one another
_MOST_OPENED: Final = 256  # for all pods together
_TUN: Final = "/tun"
_OURS: Final = "/proc/self/fd/"


@dataclass(frozen=True, slots=True)
class Handle:
    """A way to open a namespace: a mount point below a process's root directory, a link of /proc, or our own file."""

    pid: int
    where: str
    path: str
    root: str = ""  # the root directory below which `path` is a mount point; "" for a link

    def open(self, inode: int) -> int:
        """A descriptor of the namespace with this inode number. OSError, also if something else is there now."""
        if not self.path:
            raise FileNotFoundError(errno.ENOENT, "it lies hidden under another mount", self.where)
        if self.root:
            return open_mounted(self.root, self.path, inode)
        return open_namespace(self.path, inode)


@dataclass(slots=True)
class Places:
    """Where one namespace was seen: the threads in it, with their process IDs, and ways to open it."""

    tasks: list[tuple[int, str]] = field(default_factory=list)  # (7, "/proc/7/task/9")
    handles: list[Handle] = field(default_factory=list)


@dataclass(slots=True)
class Census:
    """What was found on the whole node. Mount namespaces are kept only for the namespaces mounted in them."""

    networks: dict[int, Places] = field(default_factory=lambda: defaultdict(Places))
    mount_handles: dict[int, Handle] = field(default_factory=dict)
    mounts_seen: set[int] = field(default_factory=set)
    mount_tables: set[tuple[int, int, int]] = field(default_factory=set)  # (mount namespace, device, inode of root)
    opened: list[int] = field(default_factory=list)  # of mount namespaces without a process, and of tap devices
    shared: kcmp.SharedTables = field(default_factory=lambda: kcmp.SharedTables("/proc"))

    def close(self) -> None:
        """Close everything that was opened."""
        for fd in self.opened:
            os.close(fd)
        self.opened.clear()
        self.shared.close()


@dataclass(slots=True)
class _Seen:
    """What one process showed, before it is merged into the census."""

    tasks: list[tuple[int, str]] = field(default_factory=list)
    handles: list[tuple[Kind, int, Handle]] = field(default_factory=list)
    tables: list[tuple[int, int, int]] = field(default_factory=list)
    large: list[int] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    taps: int = 0


def take(proc: Proc, census: Census, budget: Budget) -> None:
    """Look at every process. OSError if one of the node's own cannot be read."""

    def add(pid: int, seen: _Seen) -> None:
        if seen.opened and len(census.opened) > _MOST_OPENED and budget.whose(pid).confined:
            seen.cut.append("its namespaces")
            seen.handles = [one for one in seen.handles if not one[2].path.startswith(_OURS)]
            while seen.opened:
                os.close(seen.opened.pop())
        for inode, task in seen.tasks:
            tasks = census.networks[inode].tasks
            if len(tasks) < _MOST:
                tasks.append((pid, task))
        for kind, inode, handle in seen.handles:
            if kind == "mnt":
                census.mount_handles.setdefault(inode, handle)
            else:
                handles = census.networks[inode].handles
                # A pod that makes any number of handles must not crowd out the node's own.
                if len(handles) < _MOST or (len(handles) < 2 * _MOST and not budget.whose(pid).confined):
                    handles.append(handle)
        census.mount_tables.update(seen.tables)
        census.mounts_seen.update(table[0] for table in seen.tables)
        census.opened += seen.opened
        for thread in seen.large:
            census.shared.add(thread)
        for what in seen.cut:
            budget.give_up(pid, what)

    each(proc.pids(), budget, lambda pid: _patiently(pid, proc, census, budget), add)
    # A mount namespace that only a mount or an open file keeps alive has no process to show its mounts: it has to be
    # entered. It may hold another such namespace.
    for _ in range(_DEEPEST):
        by_pid: dict[int, list[tuple[int, Handle]]] = defaultdict(list)
        for inode, handle in census.mount_handles.items():
            if inode not in census.mounts_seen:
                by_pid[handle.pid].append((inode, handle))
                census.mounts_seen.add(inode)
        if not by_pid:
            return
        each(sorted(by_pid), budget, lambda pid, by_pid=by_pid: _visit_all(pid, by_pid[pid], proc, budget), add)  # type: ignore[misc]


def _patiently(pid: int, proc: Proc, census: Census, budget: Budget) -> _Seen:
    """Look at one process, with retries: a thread that is just ending refuses even root for a moment (EACCES)."""
    for attempt in range(5):
        seen = _Seen()
        try:
            with Allowance(budget, pid) as allowance:
                _process(pid, proc, census, allowance, seen)
                return seen
        except PermissionError:
            if attempt == 4:
                raise
            time.sleep(0.005)
        except OSError as error:
            if error.errno not in ENDED:  # a pod may have caused any other error
                if not budget.whose(pid).confined:
                    raise
                seen.cut.append(f"its entries in /proc ({error.strerror})")
            return seen
    return seen


def _process(pid: int, proc: Proc, census: Census, allowance: Allowance, seen: _Seen) -> None:
    directory = f"{proc.path}/{pid}"
    leader = f"{directory}/task/{pid}"
    inode = inode_of(leader)
    if inode is not None:
        seen.tasks.append((inode, leader))
    if not allowance.left():
        # The budget is used up, but the network namespace is looked up for every process.
        seen.tasks += [] if inode is not None else _one_of_its_threads(directory)
        seen.cut.append("its processes")
        return
    # A thread may have descriptors and mounts of its own. Usually it shares those of the first live thread.
    first = pid if inode is not None else 0
    own_files: list[str] = []
    own_mounts: list[str] = []
    with _listing(f"{directory}/task") as threads:
        for entry in threads:
            if not allowance.step():
                seen.cut.append("its threads")
                break
            thread = int(entry.name)
            if thread == pid:
                continue
            task = f"{directory}/task/{entry.name}"
            inode = inode_of(task)
            if inode is None:
                continue
            seen.tasks.append((inode, task))
            if not first:
                first = thread
                continue
            for kind, found in ((kcmp.FILES, own_files), (kcmp.FS, own_mounts)):
                if not proc.ours or kcmp.compare(first, thread, kind) != 0:
                    found.append(task)
    place = f"{directory}/task/{first}" if first not in (0, pid) else directory
    for look, own in ((_open_files, own_files), (_mount_table, own_mounts)):
        for task in (place, *own):
            if not _still(look, task, pid, proc, census, allowance, seen):
                break


def _one_of_its_threads(directory: str) -> list[tuple[int, str]]:
    """The network namespace of a process whose first thread has ended: that of one live thread among the first few."""
    with _listing(f"{directory}/task") as threads:
        for entry in islice(threads, _MOST):
            task = f"{directory}/task/{entry.name}"
            inode = inode_of(task)
            if inode is not None:
                return [(inode, task)]
    return []


_Look = Callable[[str, int, Proc, Census, Allowance, _Seen], bool]


def _still(look: _Look, task: str, pid: int, proc: Proc, census: Census, allowance: Allowance, seen: _Seen) -> bool:
    """Look at one thread. If it has ended, the others are still read. False if the budget is used up."""
    try:
        return look(task, pid, proc, census, allowance, seen)
    except OSError as error:
        if error.errno not in ENDED:
            raise
        return True


class _listing:  # noqa: N801 (reads as the function it stands for)
    """A directory's entries, streamed: a pod decides how long a list of them would be."""

    def __init__(self, path: str) -> None:
        self.fd = open_quietly(path, os.O_RDONLY | os.O_DIRECTORY)
        self.entries = os.scandir(self.fd)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self.entries

    def __exit__(self, *_: object) -> None:
        self.entries.close()
        os.close(self.fd)


def inode_of(task: str) -> int | None:
    """The network namespace that a thread is in; None once it has ended, since a zombie has none. OSError."""
    try:
        match = _LINK.fullmatch(os.readlink(f"{task}/ns/net"))
    except OSError as error:
        if error.errno in ENDED:
            return None
        raise
    return int(match[2]) if match else None


def _open_files(task: str, pid: int, proc: Proc, census: Census, allowance: Allowance, seen: _Seen) -> bool:
    thread = int(task.rpartition("/")[2])
    if proc.ours and census.shared.seen(thread):
        return True
    number = 0
    listing = _listing(f"{task}/fd")
    with listing as files:
        for entry in files:
            number += 1
            if not allowance.step():
                seen.cut.append("its open files")
                return False
            try:
                target = os.readlink(entry.name, dir_fd=listing.fd)
            except OSError as error:
                if error.errno in (*ENDED, errno.ENAMETOOLONG):  # too long to be a namespace's name
                    continue
                raise
            if target[3:5] == ":[" and (match := _LINK.fullmatch(target)):
                kind: Kind = "net" if match[1] == "net" else "mnt"
                seen.handles.append((kind, int(match[2]), _file(task, entry.name, pid, proc)))
            elif target[:1] == "/" and (found := _pinned_once(task, entry.name, listing.fd)):
                seen.handles.append((*found, _file(task, entry.name, pid, proc)))
            elif target.endswith(_TUN) and proc.ours and not _tap(thread, int(entry.name), pid, proc, seen):
                seen.cut.append("its tap devices")
                return False
    if number >= _SHARED_FROM and proc.ours:
        seen.large.append(thread)
    return True


def _file(task: str, number: str, pid: int, proc: Proc) -> Handle:
    return Handle(pid, f"an open file of process {pid} ({proc.name(pid)})", f"{task}/fd/{number}")


def _pinned_once(task: str, number: str, listing: int) -> tuple[Kind, int] | None:
    """A file opened at a mount point (`/run/netns/x`) keeps that name, even after the mount is gone: check the file."""
    try:
        device, inode = identity(number, listing)
        if device != nsfs_device():
            return None
        kind = kind_of(f"{task}/fd/{number}", inode)
    except OSError:
        return None  # closed meanwhile, or its file system does not answer
    return None if kind is None else (kind, inode)


def _tap(thread: int, number: int, pid: int, proc: Proc, seen: _Seen) -> bool:
    """Add a tap device's namespace: its descriptor in a VM's monitor may be all that keeps a pod's network alive."""
    seen.taps += 1
    namespace = namespace_of(f"{proc.path}/{pid}/task/{thread}", number) if seen.taps < _MOST_TAPS else None
    if namespace is not None:
        seen.opened.append(namespace)
        where = f"a tap device of process {pid} ({proc.name(pid)})"
        seen.handles.append(("net", os.fstat(namespace).st_ino, Handle(pid, where, f"{_OURS}{namespace}")))
    return seen.taps < _MOST_TAPS


def _mount_table(task: str, pid: int, _: Proc, census: Census, allowance: Allowance, seen: _Seen) -> bool:
    """Read the mounts that a thread sees. In a chroot it sees fewer than others in the same mount namespace."""
    match = _LINK.fullmatch(os.readlink(f"{task}/ns/mnt"))
    key = (int(match[2]) if match else 0, *identity(f"{task}/root"))
    if key in census.mount_tables or key in seen.tables:
        return True
    pins = namespace_pins(f"{task}/mountinfo", allowance.left)
    for kind, inode, point in pins.found:
        seen.handles.append((kind, inode, Handle(pid, printable(point), point, f"{task}/root")))
    if pins.cut:
        seen.cut.append("its mounts")
        return False
    seen.tables.append(key)
    return True


def _visit_all(pid: int, places: list[tuple[int, Handle]], proc: Proc, budget: Budget) -> _Seen:
    """Enter the mount namespaces without a process that `pid` keeps alive."""
    seen = _Seen()
    with Allowance(budget, pid) as allowance:
        for inode, handle in places:
            if not allowance.left() or len(seen.opened) >= _MOST:
                seen.cut.append("its mounts")
                break
            try:
                in_thread(lambda inode=inode, handle=handle: _visit(inode, handle, proc, allowance, seen))  # type: ignore[misc]
            except OSError as error:
                if error.errno in ENDED and not os.path.exists(f"{proc.path}/{pid}"):
                    continue  # it ended with the process that kept it
                if not budget.whose(pid).confined:
                    raise
                seen.cut.append("its mounts")
    return seen


def _visit(inode: int, handle: Handle, proc: Proc, allowance: Allowance, seen: _Seen) -> None:
    """Enter a mount namespace without a process, and open the network namespaces that are mounted there."""
    procfs = os.open(proc.path if proc.ours else "/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = handle.open(inode)
        try:
            call("unshare", CLONE_FS)  # setns(2) refuses a thread that shares its root directory with others
            call("setns", fd, CLONE_NEWNS)
        finally:
            os.close(fd)
        pins = namespace_pins("thread-self/mountinfo", allowance.left, dir_fd=procfs)
        if pins.cut:
            seen.cut.append("its mounts")
        for kind, there, point in pins.found:
            if len(seen.opened) >= _MOST:
                seen.cut.append("its mounts")
                break
            where = f"{printable(point)} in the mount namespace of {handle.where}"
            try:
                pin = open_mounted("/", point, there, procfs=procfs)
            except OSError:  # its owner has hidden it under another mount
                seen.handles.append((kind, there, Handle(handle.pid, where, "")))
                continue
            seen.opened.append(pin)
            seen.handles.append((kind, there, Handle(handle.pid, where, f"{_OURS}{pin}")))
    finally:
        os.close(procfs)
