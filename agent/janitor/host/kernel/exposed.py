"""Which of the node's file systems pods can write to: mounts in their namespaces, and directories of runtimes.

trusted.py runs nothing from there. Standard library only.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.unknown import unseen
from janitor.host.files import describe_os_error, unknown
from janitor.host.kernel import patience
from janitor.host.kernel.mounts import Mount, each_mount, mount_table
from janitor.host.kernel.namespaces import CLONE_FS, CLONE_NEWNS, call, in_thread
from janitor.host.kernel.nsfile import identity
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.trusted import PODS_PLACES, Exposed, close, resolve, within

_ENTRIES: Final = 100_000
_VIEWS: Final = 8192
_PIDS: Final = 200_000
_SECONDS: Final = 10.0
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.005
_ENDED: Final = (errno.ENOENT, errno.ESRCH, errno.EINVAL)  # the mount table of a zombie cannot be opened: EINVAL


def exposed_mounts(proc: Proc, contained: Callable[[int], bool]) -> Exposed | Unknown:
    """The writable mounts of contained processes, and the directories where runtimes keep pods' files.

    Each namespace is also entered, because a process that has changed its root directory shows less than it can reach.
    A mount table with a writable mount of the whole file system that holds the node's `/` is left out: a pod that has
    it (a hostPath of `/`) is already root on the node, and otherwise nothing could be trusted. Not seen are a mount
    that only a descriptor keeps, and a container that starts later. Unknown if anything cannot be read or exceeds the
    limits: then nothing is trusted.
    """
    until = time.monotonic() + _SECONDS
    found: dict[tuple[str, str], str] = {}
    try:
        node = mount_table(f"{proc.path}/1/mountinfo")
        roots = [mount for mount in node.values() if mount.point == "/"]
        if not roots:
            return unseen(Code.ROOT_NOT_IN_MOUNT_TABLE)
        found.update(_places(f"{proc.path}/1/root", node))
        # Only a mount of one of the node's own file systems can show up under a path of the node.
        devices = {mount.device for mount in node.values()}
        left_out = {os.readlink(f"{proc.path}/1/ns/mnt"), os.readlink("/proc/self/ns/mnt")}
        views: set[tuple[str, ...]] = set()
        pids = proc.pids()
        if len(pids) > _PIDS:
            return unseen(Code.TOO_MANY_PROCESSES_FOR_MOUNTS, most=_PIDS)
        for pid in pids:
            try:
                look = partial(_tables, proc, pid, contained, devices, left_out, views)
                tables, seen = patience.ask(pid, look)
            except TimeoutError:
                # It does not answer, as during an execve(2) that waits. Its own mount table can be read all the same,
                # and it sees no more than that while it waits.
                tables, seen = [_own_table(proc, pid, devices)], set()
            if not tables:
                continue
            views |= seen
            whose = f"process {pid} ({proc.name(pid)})"
            for table in tables:
                if not any(m.device == roots[-1].device and within(roots[-1].root, m.root) for m in table):
                    found.update({(mount.device, mount.root): whose for mount in table})
            if len(found) > _ENTRIES or len(views) > _VIEWS or time.monotonic() > until:
                return unseen(Code.TOO_MANY_POD_MOUNTS, whose=whose)
    except OSError as error:
        return unknown(Code.CANNOT_READ_POD_MOUNTS, error)
    return Exposed(found)


def _tables(
    proc: Proc,
    pid: int,
    contained: Callable[[int], bool],
    devices: set[str],
    left_out: set[str],
    views: AbstractSet[tuple[str, ...]],
) -> tuple[list[list[Mount]], set[tuple[str, ...]]]:
    """What a contained process adds to `views`, and its writable mounts; nothing for other processes. OSError."""
    tables: list[list[Mount]] = []
    seen: set[tuple[str, ...]] = set()
    view = _view(proc, pid)
    if view is None or view[0] in left_out or view in views or not contained(pid):
        return tables, seen
    if view[:1] not in views:
        root, table = _whole_table(proc, pid, view[0], devices)
        tables.append(table)
        seen |= {view[:1], (view[0], *root)} if root else set()
    if view not in views and view not in seen:
        tables.append(_own_table(proc, pid, devices))
        # If it has ended or moved meanwhile, its table does not stand for other processes with the same view.
        seen |= {view} if _view(proc, pid) == view else set()
    return tables, seen


def _view(proc: Proc, pid: int) -> tuple[str, ...] | None:
    """What a process sees: its mount namespace and its root directory. None if it has ended.

    A process that is just ending refuses even root for a moment (EACCES), so it is asked again. A pod may have any
    number of these.
    """
    for attempt in range(_ATTEMPTS):
        try:
            device, inode = identity(f"{proc.path}/{pid}/root")
            return (os.readlink(f"{proc.path}/{pid}/ns/mnt"), str(device), str(inode))
        except (FileNotFoundError, ProcessLookupError):
            return None
        except PermissionError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_S)
    return None


def _own_table(proc: Proc, pid: int, devices: set[str]) -> list[Mount]:
    """The writable mounts below the root directory of a process; none if it has ended."""
    try:
        return _writable(f"{proc.path}/{pid}/mountinfo", devices)
    except OSError as error:
        if error.errno in _ENDED:
            return []
        raise


def _whole_table(proc: Proc, pid: int, name: str, devices: set[str]) -> tuple[tuple[str, ...], list[Mount]]:
    """The root of a process's mount namespace, which is called `name`, and all writable mounts in it.

    Empty if the process has ended or is in another one by now.
    """
    procfs = os.open(proc.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            namespace = os.open(f"{proc.path}/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return (), []
        except PermissionError:
            if _view(proc, pid) is None:
                return (), []  # it was about to end
            raise

        if f"mnt:[{os.fstat(namespace).st_ino}]" != name:
            os.close(namespace)
            return (), []

        def visit() -> tuple[tuple[str, ...], list[Mount]]:
            call("unshare", CLONE_FS)  # setns(2) refuses a thread that shares its root directory with others
            call("setns", namespace, CLONE_NEWNS)
            device, inode = identity("/")
            return (str(device), str(inode)), _writable("thread-self/mountinfo", devices, dir_fd=procfs)

        try:
            return in_thread(visit)
        except OSError as error:
            raise OSError(
                error.errno, f"entering the mount namespace of process {pid}: {describe_os_error(error)}"
            ) from None
        finally:
            os.close(namespace)
    finally:
        os.close(procfs)


def _writable(path: str, devices: set[str], *, dir_fd: int | None = None) -> list[Mount]:
    """The mounts that are not read-only and are on one of these devices."""
    return [mount for mount in each_mount(path, devices=devices, dir_fd=dir_fd) if mount.writable]


def _places(base: str, mounts: Mapping[str, Mount]) -> dict[tuple[str, str], str]:
    """The runtimes' directories by their place on their file systems, since other paths may lead there, too."""
    found = {}
    for path in PODS_PLACES:
        try:
            stack = resolve(base, path, mounts, lambda _place, _above: None)
        except OSError:
            continue  # it does not exist
        found[stack[-1].device, stack[-1].inner] = "a pod"
        close(stack)
    return found
