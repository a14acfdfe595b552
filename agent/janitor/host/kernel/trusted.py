"""Opening files that are the node's own: only root can have put them there, and no pod.

For programs that janitor runs as root in the node's namespaces. Root in a container is root on the node: its files in
volumes belong to root, too, so ownership proves little where a pod's mounts lead. Anything in doubt is not trusted and
not run. Standard library only.
"""

import ctypes
import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from janitor.host.files import printable
from janitor.host.kernel.mounts import Mount, mount_table

_LINKS: Final = 40  # the kernel's own limit (path_resolution(7))
_COMPONENTS: Final = 400

_OPENAT2: Final = 437  # on every architecture
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_PATH: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW

# A kubelet's volumes, for any --root-dir. They belong to pods even when those do not run.
_VOLUMES: Final = re.compile(r"/pods/[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(/|$)")
PODS_PLACES: Final = (
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
    """What pods may write to: (device as `major:minor`, root within the file system) -> whose it is, for people."""

    mounts: Mapping[tuple[str, str], str]

    def covers(self, device: str, path: str) -> str:
        """Whose mount shows `path` of the file system on `device`; "" if none does."""
        while True:
            if whose := self.mounts.get((device, path), ""):
                return whose
            if path in ("/", ""):
                return ""
            path = path.rpartition("/")[0] or "/"


def open_trusted(
    base: str, path: str, exposed: Exposed, *, directory: bool = False, mounts: Mapping[str, Mount] | None = None
) -> int:
    """A descriptor (O_PATH) of the regular file, or directory, at `path` in the node's root `base`.

    Every directory on the way is owned by root, writable by nobody else, and under no mount of `exposed`. A link is
    followed if root owns it in such a directory. `base` is "/", "/proc/1/root" or the mount point of a disk, and itself
    trusted. `mounts` is its mount table, for callers that open many files. Raises Untrusted, or OSError if there is no
    such file.
    """
    table = mount_table(table_of(base)) if mounts is None else mounts
    stack = resolve(base, path, table, lambda place, name: _judge(place, name, path, exposed))
    try:
        fd = stack[-1].fd
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)):
            raise Untrusted(f"{path} is not a {'directory' if directory else 'regular file'}")
        return os.dup(fd)
    finally:
        close(stack)


@dataclass(frozen=True, slots=True)
class _Place:
    """One step on the way: its descriptor, its mount, its path within the file system, and its path on the node."""

    fd: int
    mount: str
    device: str
    inner: str
    named: str


def resolve(
    base: str, path: str, mounts: Mapping[str, Mount], judge: Callable[[_Place, "_Place | None"], None]
) -> list[_Place]:
    """Walk the path. Each component is judged, with the directory it is in, before the next one is opened.

    The caller closes the descriptors of the result.
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
                close(stack[1:])
                stack = stack[:1]
            todo = target.split("/") + todo
    except BaseException:
        close(stack)
        raise
    return stack


def _judge(here: _Place, above: _Place | None, path: str, exposed: Exposed) -> None:
    """Raises Untrusted if others than root can write to the component, or if it is in a pod's mount."""
    status = os.fstat(here.fd)
    name = printable(here.named)
    of = "" if name == path else f", on the way to {path},"
    if status.st_uid != 0:
        raise Untrusted(f"{name}{of} is owned by user {status.st_uid}, not by root")
    whose = exposed.covers(here.device, here.inner) or _pods_place(here)
    if whose:
        raise Untrusted(f"{name}{of} is in a mount that {whose} can write to")
    if above is not None and os.fstat(above.fd).st_mode & stat.S_ISVTX and here.mount != above.mount:
        raise Untrusted(f"{name}{of} is mounted where anybody may mount")
    if stat.S_ISLNK(status.st_mode):
        return  # a link's mode means nothing, and only root can replace it in a directory of root's
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & stat.S_IWOTH and not sticky:
        raise Untrusted(f"{name}{of} can be written by everybody")
    if status.st_mode & stat.S_IWGRP and not sticky and (status.st_gid != 0 or _has_list(here.fd)):
        raise Untrusted(f"{name}{of} can be written by its group, or by others in its access list")


def _pods_place(here: _Place) -> str:
    """Also by name: the directory may appear while we look, and the kubelet's may be elsewhere than usual."""
    for path in (here.named, here.inner):
        if _VOLUMES.search(path):
            return "a pod"
    return "a pod" if any(within(here.named, place) for place in PODS_PLACES) else ""


def _has_list(fd: int) -> bool:
    """Whether an access control list gives rights to others. The group bits then show its mask (acl(5))."""
    try:
        return bool(os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access"))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)


def _place(fd: int, above: _Place | None, name: str, base: str, mounts: Mapping[str, Mount]) -> _Place:
    """Where a descriptor is. OSError if that cannot be determined; the descriptor is closed then."""
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
    raise OSError(errno.ENOTSUP, "this kernel does not show which mount a file descriptor is on")


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _step(name: str, above: int, path: str) -> int:
    """Open one component, without following a link: openat2(2), or openat(2) before Linux 5.6."""
    how = _How(_PATH, 0, _NO_MAGICLINKS | _NO_SYMLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    word = os.fsencode(name)
    fd: int = libc.syscall(_OPENAT2, above, ctypes.c_char_p(word), ctypes.byref(how), ctypes.sizeof(how))
    if fd >= 0:
        return fd
    error = ctypes.get_errno()
    # A seccomp filter older than openat2 returns EPERM.
    if error in (errno.ENOSYS, errno.EPERM):
        return os.open(name, _PATH, dir_fd=above)
    raise OSError(error, os.strerror(error), path)


def close(stack: list[_Place]) -> None:
    """Close the descriptors of these places."""
    for place in stack:
        os.close(place.fd)


def table_of(base: str) -> str:
    """The path of the mount table that a root directory belongs to."""
    return f"{base.removesuffix('root')}mountinfo" if base.endswith("/1/root") else "/proc/thread-self/mountinfo"


def within(path: str, above: str) -> bool:
    """Whether `path` is `above` or below it."""
    return path == above or path.startswith(f"{above.rstrip('/')}/")
