"""What pods see of the node's file systems and may write to: the mounts of their namespaces, and runtimes' own places.

Nothing that is there is run (trusted.py). Standard library only.
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
_ENDED: Final = (errno.ENOENT, errno.ESRCH, errno.EINVAL)  # a zombie's mount table cannot be opened: EINVAL


def exposed_mounts(proc: Proc, contained: Callable[[int], bool]) -> Exposed | Unknown:
    """What the mount namespaces of contained processes show and let be written, and where runtimes keep such.

    Each namespace is entered besides, because a process that has changed its root directory sees less than it can
    reach. A mount table that shows, writable, the whole of the file system with the node's `/` is left out: whoever
    sees it (a pod with a hostPath of `/`) is root on the node already, and nothing could be trusted any more. What a
    process holds only by a descriptor, of a mount that no namespace has any more, is not seen; nor is a container that
    comes later. Unknown where anything cannot be read, or there is more of it than the bounds allow: then nothing is
    trusted.
    """
    until = time.monotonic() + _SECONDS
    found: dict[tuple[str, str], str] = {}
    try:
        node = mount_table(f"{proc.path}/1/mountinfo")
        roots = [mount for mount in node.values() if mount.point == "/"]
        if not roots:
            return unseen(Code.ROOT_NOT_IN_MOUNT_TABLE)
        found.update(_places(f"{proc.path}/1/root", node))
        # Only what is on a file system of the node's can be met on a path there.
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
                # Its mount table is shown all the same, and more than that it does not see while it waits.
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
    """What a contained process adds to `views`, and its tables of writable mounts; nothing for others. OSError."""
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
        # One that has ended or has gone elsewhere meanwhile does not speak for others that see the same.
        seen |= {view} if _view(proc, pid) == view else set()
    return tables, seen


def _view(proc: Proc, pid: int) -> tuple[str, ...] | None:
    """What a process sees: its mount namespace, and its root directory in it. None where it has ended.

    One that is just ending refuses even root for a moment (EACCES), of which a pod may have any number: it is asked
    again.
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
    """The writable mounts below the root directory of a process; none where it has ended."""
    try:
        return _writable(f"{proc.path}/{pid}/mountinfo", devices)
    except OSError as error:
        if error.errno in _ENDED:
            return []
        raise


def _whole_table(proc: Proc, pid: int, name: str, devices: set[str]) -> tuple[tuple[str, ...], list[Mount]]:
    """The root of the mount namespace `name` of a process, and all writable mounts there.

    Nothing where it has ended or is in another one by now.
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
            call("unshare", CLONE_FS)  # threads share their root directory, and setns(2) refuses those that do
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
    """The mounts of file systems on these devices that are not read-only."""
    return [mount for mount in each_mount(path, devices=devices, dir_fd=dir_fd) if mount.writable]


def _places(base: str, mounts: Mapping[str, Mount]) -> dict[tuple[str, str], str]:
    """The same places by where they are on their file systems, which other paths may lead to as well."""
    found = {}
    for path in PODS_PLACES:
        try:
            stack = resolve(base, path, mounts, lambda _place, _above: None)
        except OSError:
            continue  # it is not there
        found[stack[-1].device, stack[-1].inner] = "a pod"
        close(stack)
    return found
