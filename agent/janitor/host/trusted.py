"""Opening what is the node's own: root's all the way down, and nothing that a pod could have put there.

For programs that janitor runs as root in the node's namespaces. A container's root is root: what it makes in its
volumes is root's too, so the owner of a file says little where a pod's mounts lead. Whatever is in doubt is not
trusted, and then it is not run. Standard library only.
"""

import ctypes
import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Final

from janitor.core.evidence import Unknown
from janitor.host import patience
from janitor.host.files import printable, said, unknown
from janitor.host.namespaces import CLONE_FS, CLONE_NEWNS, call, in_thread
from janitor.host.nsfile import identity
from janitor.host.procfs import Proc

_LINKS: Final = 40  # as the kernel's own (path_resolution(7))
_COMPONENTS: Final = 400
_TABLE: Final = 32 << 20  # bytes of one mount table; the kernel's own bound is 100,000 mounts in one namespace
_ENTRIES: Final = 100_000
_VIEWS: Final = 8192
_PIDS: Final = 200_000
_SECONDS: Final = 10.0
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.005

_ENDED: Final = (errno.ENOENT, errno.ESRCH, errno.EINVAL)  # a zombie's mount table cannot be opened: EINVAL

_OPENAT2: Final = 437  # on every architecture
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_PATH: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
# A kubelet's volumes, wherever its --root-dir is: they are pods' before and after those run.
_VOLUMES: Final = re.compile(r"/pods/[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(/|$)")
_PODS_PLACES: Final = (
    "/var/lib/kubelet/pods", "/var/lib/k0s/kubelet/pods", "/var/snap/microk8s/common/var/lib/kubelet/pods",
    "/var/lib/rancher/k3s/agent/kubelet/pods", "/var/lib/rancher/rke2/agent/kubelet/pods",
    "/var/lib/containerd", "/var/lib/k0s/containerd", "/var/snap/microk8s/common/var/lib/containerd",
    "/var/lib/rancher/k3s/agent/containerd", "/var/lib/rancher/rke2/agent/containerd",
    "/var/lib/docker", "/var/lib/cri-dockerd", "/var/lib/containers", "/var/lib/lxc", "/var/lib/lxd",
    "/var/lib/machines", "/var/lib/buildkit", "/var/lib/nerdctl", "/var/lib/rancher/k3s/storage",
    "/run/containerd", "/run/k0s", "/run/k3s", "/run/docker", "/run/containers", "/run/crio", "/run/netns",
    "/var/snap/microk8s/common/run",
)  # fmt: skip
"""Where kubelets and runtimes keep what pods write: volumes, root file systems, and their own state."""


class Untrusted(Exception):  # noqa: N818 (it is a verdict)
    """One sentence: which component of which path is not trusted, and why."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """What pods may write to: (device as `major:minor`, root within the file system) -> whose it is, as text."""

    mounts: Mapping[tuple[str, str], str]

    def covers(self, device: str, path: str) -> str:
        """Whose mount shows this `path` within the file system on `device`; "" where none does."""
        while True:
            if whose := self.mounts.get((device, path), ""):
                return whose
            if path in ("/", ""):
                return ""
            path = path.rpartition("/")[0] or "/"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of a mount table."""

    device: str
    root: str
    point: str
    writable: bool


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
        node = read_table(f"{proc.path}/1/mountinfo")
        roots = [mount for mount in node.values() if mount.point == "/"]
        if not roots:
            return Unknown("looking for the mounts that pods see: the node's own / is not in its mount table")
        found.update(_places(f"{proc.path}/1/root", node))
        # Only what is on a file system of the node's can be met on a path there.
        devices = {mount.device for mount in node.values()}
        left_out = {os.readlink(f"{proc.path}/1/ns/mnt"), os.readlink("/proc/self/ns/mnt")}
        views: set[tuple[str, ...]] = set()
        pids = proc.pids()
        if len(pids) > _PIDS:
            return Unknown(f"looking for the mounts that pods see: there are more than {_PIDS} processes")
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
                if not any(m.device == roots[-1].device and _within(roots[-1].root, m.root) for m in table):
                    found.update({(mount.device, mount.root): whose for mount in table})
            if len(found) > _ENTRIES or len(views) > _VIEWS or time.monotonic() > until:
                return Unknown(f"looking for the mounts that pods see: there are too many, of {whose} for one")
    except OSError as error:
        return unknown("looking for the mounts that pods see", error)
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


def open_trusted(
    base: str, path: str, exposed: Exposed, *, directory: bool = False, mounts: Mapping[str, Mount] | None = None
) -> int:
    """A descriptor (O_PATH) of the regular file, or directory, that `path` names in the node's root `base`.

    Every directory on the way is root's, writable by nobody else, and under no mount of `exposed`; a link is followed
    where root owns it in such a directory. `base` is "/", "/proc/1/root" or where a disk is mounted, itself trusted;
    `mounts` is its mount table, for whoever opens much at once. Raises Untrusted, or OSError for what is not there.
    """
    table = read_table(table_of(base)) if mounts is None else mounts
    stack = _resolve(base, path, table, lambda place, name: _judge(place, name, path, exposed))
    try:
        fd = stack[-1].fd
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)):
            raise Untrusted(f"{path} is no {'directory' if directory else 'regular file'}")
        return os.dup(fd)
    finally:
        _close(stack)


@dataclass(frozen=True, slots=True)
class _Place:
    """One step of the way: its descriptor, its mount, where it is in the file system, and as the node names it."""

    fd: int
    mount: str
    device: str
    inner: str
    named: str


def _resolve(
    base: str, path: str, mounts: Mapping[str, Mount], judge: Callable[[_Place, "_Place | None"], None]
) -> list[_Place]:
    """Go there component by component; each is judged, with the directory it was found in, before the next is opened.

    The caller closes the descriptors of what it returns.
    """
    stack = [_place(os.open(base, os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY), None, "", base, mounts)]
    try:
        judge(stack[0], None)
        todo, links, steps = path.split("/"), 0, 0
        while todo:
            part, steps = todo.pop(0), steps + 1
            if steps > _COMPONENTS:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
            if part in ("", "."):
                continue
            if part == "..":
                if len(stack) > 1:
                    os.close(stack.pop().fd)
                continue
            here = _place(_step(part, stack[-1].fd, path), stack[-1], part, base, mounts)
            stack.append(here)
            judge(here, stack[-2])
            if not stat.S_ISLNK(os.fstat(here.fd).st_mode):
                continue
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink("", dir_fd=here.fd)
            os.close(stack.pop().fd)
            if target.startswith("/"):
                _close(stack[1:])
                stack = stack[:1]
            todo = target.split("/") + todo
    except BaseException:
        _close(stack)
        raise
    return stack


def _judge(here: _Place, above: _Place | None, path: str, exposed: Exposed) -> None:
    """Untrusted where the component is not root's alone, or a pod has it in its mounts."""
    status = os.fstat(here.fd)
    name = printable(here.named)
    of = "" if name == path else f", on the way to {path},"
    if status.st_uid != 0:
        raise Untrusted(f"{name}{of} is not root's but user {status.st_uid}'s")
    whose = exposed.covers(here.device, here.inner) or _pods_place(here)
    if whose:
        raise Untrusted(f"{name}{of} is in a mount that {whose} can write to")
    if above is not None and os.fstat(above.fd).st_mode & stat.S_ISVTX and here.mount != above.mount:
        raise Untrusted(f"{name}{of} is mounted where anybody may mount")
    if stat.S_ISLNK(status.st_mode):
        return  # its mode says nothing, and nobody else may replace it in a directory that is root's
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not sticky:
        raise Untrusted(f"{name}{of} can be written by everybody")
    if status.st_mode & stat.S_IWGRP and not sticky and (status.st_gid != 0 or _has_list(here.fd)):
        raise Untrusted(f"{name}{of} can be written by its group, or by others in its access list")


def _pods_place(here: _Place) -> str:
    """By name as well: the place may come to be while we look, or the kubelet's directory be another than usual."""
    for path in (here.named, here.inner):
        if _VOLUMES.search(path):
            return "a pod"
    return "a pod" if any(_within(here.named, place) for place in _PODS_PLACES) else ""


def _has_list(fd: int) -> bool:
    """Whether an access control list gives rights to others; its mask is what the group's bits show then (acl(5))."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access"))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)


def _place(fd: int, above: _Place | None, name: str, base: str, mounts: Mapping[str, Mount]) -> _Place:
    """Where a descriptor is. It is closed where that cannot be told: OSError."""
    try:
        number = _mount_of(fd)
        mount = mounts.get(number)
        named = "/" if above is None else f"{above.named.rstrip('/')}/{name}"
        if mount is None:
            raise OSError(errno.EXDEV, "it is on a mount that is not in the node's mount table", named)
        if above is None:
            inner = _join(mount.root, _base_in(mount, base))
        else:
            inner = _join(above.inner, name) if number == above.mount else mount.root
        return _Place(fd, number, mount.device, inner, named)
    except BaseException:
        os.close(fd)
        raise


def _base_in(mount: Mount, base: str) -> str:
    """The path of `base` within its mount."""
    path = "/" if base.endswith("/1/root") else os.path.realpath(base)
    return "/" if path == mount.point else f"/{os.path.relpath(path, mount.point)}"


def _join(above: str, name: str) -> str:
    return f"{above.rstrip('/')}/{name.lstrip('/')}" if name != "/" else above


def _mount_of(fd: int) -> str:
    """The ID of the mount that a descriptor is on (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("mnt_id:"):
                return line.split()[1]
    raise OSError(errno.ENOTSUP, "this kernel does not say which mount a descriptor is on")


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _step(name: str, above: int, path: str) -> int:
    """One component, which is not followed where it is a link: openat2(2), or openat(2) before Linux 5.6."""
    how = _How(_PATH, 0, _NO_MAGICLINKS | _NO_SYMLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    word = os.fsencode(name)
    fd: int = libc.syscall(_OPENAT2, above, ctypes.c_char_p(word), ctypes.byref(how), ctypes.sizeof(how))
    if fd >= 0:
        return fd
    error = ctypes.get_errno()
    # A filter of system calls that is older than openat2 says EPERM.
    if error in (errno.ENOSYS, errno.EPERM):
        return os.open(name, _PATH, dir_fd=above)
    raise OSError(error, os.strerror(error), path)


def _close(stack: list[_Place]) -> None:
    for place in stack:
        os.close(place.fd)


def table_of(base: str) -> str:
    """Where the mount table is that a root directory belongs to."""
    return f"{base.removesuffix('root')}mountinfo" if base.endswith("/1/root") else "/proc/thread-self/mountinfo"


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
            raise OSError(error.errno, f"entering the mount namespace of process {pid}: {said(error)}") from None
        finally:
            os.close(namespace)
    finally:
        os.close(procfs)


def _writable(path: str, devices: set[str], *, dir_fd: int | None = None) -> list[Mount]:
    """The mounts of file systems on these devices that are not read-only."""
    table = _parsed(path, dir_fd, {device.encode() for device in devices})
    return [mount for _, mount in table if mount.writable]


def read_table(path: str) -> dict[str, Mount]:
    """Mounts by their ID. OSError where the table cannot be read, is too long, or has a line of no known shape."""
    return dict(_parsed(path, None, None))


def _parsed(path: str, dir_fd: int | None, wanted: set[bytes] | None) -> Iterator[tuple[str, Mount]]:
    for line in _lines(path, dir_fd):
        # Most mounts of a container are of file systems of its own, which nobody meets on the node.
        if wanted is not None and (device := line.split(b" ", 3)[2:3]) and device[0] not in wanted:
            continue
        left, separator, right = line.partition(b" - ")
        fields, rest = left.split(b" "), right.split(b" ")
        if not separator or len(fields) < 6 or len(rest) < 3:
            raise OSError(errno.EBADMSG, "a line of it cannot be understood", path)
        writable = b"ro" not in fields[5].split(b",") and b"ro" not in rest[-1].split(b",")
        yield (
            fields[0].decode("ascii", "replace"),
            Mount(fields[2].decode("ascii", "replace"), _unescape(fields[3]), _unescape(fields[4]), writable),
        )


def _lines(path: str, dir_fd: int | None) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    rest, size = b"", 0
    try:
        while data := os.read(fd, 1 << 20):
            size += len(data)
            if size > _TABLE:
                raise OSError(errno.EFBIG, f"it is longer than {_TABLE >> 20} MiB", path)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
    finally:
        os.close(fd)


def _unescape(text: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), text))


def _places(base: str, mounts: Mapping[str, Mount]) -> dict[tuple[str, str], str]:
    """The same places by where they are on their file systems, which other paths may lead to as well."""
    found = {}
    for path in _PODS_PLACES:
        try:
            stack = _resolve(base, path, mounts, lambda _place, _above: None)
        except OSError:
            continue  # it is not there
        found[stack[-1].device, stack[-1].inner] = "a pod"
        _close(stack)
    return found


def _within(path: str, above: str) -> bool:
    return path == above or path.startswith(f"{above.rstrip('/')}/")
