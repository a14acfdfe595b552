"""The kernel witness: every network namespace of the node, its addresses and its host routes.

A namespace is alive while a process, a thread, a mount or an open file refers to it, so all four are enumerated, in
every mount namespace there is, those without a process included. Addresses come from `/proc/<pid>/net`, which
needs no change of namespace; only a namespace without a process is entered, by a thread of its own that ends at
once (host/namespaces.py).

What nothing but an open socket keeps alive is not found: the kernel lists such a namespace nowhere. No container
runtime relies on that. Standard library only.
"""

import errno
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from janitor.core.evidence import NetworkNamespace, Unknown
from janitor.host.files import read_bounded, unknown
from janitor.host.mounts import Mounts, read_mounts
from janitor.host.namespaces import CLONE_FS, CLONE_NEWNET, CLONE_NEWNS, call, in_thread
from janitor.host.procfs import Proc

_LIMIT = 256 << 20
_LINK = re.compile(r"(net|mnt):\[(\d+)\]")
_TRIE_LEAF = re.compile(r"^\s+\|-- (\S+)$")
_TRIE_ENTRY = re.compile(r"^\s+/32 \S+ (LOCAL|UNICAST)\b")
_ENDED = (errno.ENOENT, errno.ESRCH, errno.EINVAL)  # what /proc says of a process that has just ended

_Tables = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(slots=True)
class _Places:
    """Where one namespace was seen: directories like `/proc/7/task/7`, and (path to open, description)."""

    tasks: list[str] = field(default_factory=list)
    handles: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Census:
    """Everything that refers to a namespace. Mount namespaces are needed only for what is mounted in them."""

    networks: dict[int, _Places] = field(default_factory=lambda: defaultdict(_Places))
    mount_handles: dict[int, tuple[str, str]] = field(default_factory=dict)
    mount_tables: set[tuple[int, int, int]] = field(default_factory=set)  # (mount namespace, device, inode of root)
    mounts_seen: set[int] = field(default_factory=set)
    opened: list[int] = field(
        default_factory=list
    )  # our own descriptors, of pins in mount namespaces without a process


def network_namespaces(proc: Proc) -> tuple[NetworkNamespace, ...] | Unknown:
    """All network namespaces of the node, by inode number. One that cannot be read has Unknown addresses."""
    census = _Census()
    try:
        _take(proc, census)
        found = [_read(inode, seen, proc) for inode, seen in sorted(census.networks.items())]
        return tuple(namespace for namespace in found if namespace is not None)
    except OSError as error:
        return unknown("finding the node's network namespaces", error)
    finally:
        for fd in census.opened:
            os.close(fd)


def pinned(proc: Proc) -> list[str]:
    """Where network namespaces are kept alive by a mount. OSError where the mount tables cannot be read."""
    census = _Census()
    try:
        _take(proc, census)
        return sorted({where for seen in census.networks.values() for _, where in seen.handles})
    finally:
        for fd in census.opened:
            os.close(fd)


def _take(proc: Proc, census: _Census) -> None:
    for pid in proc.pids():
        for look in (_threads, _open_files, _mount_table):
            _patiently(look, pid, proc, census)
    # What is mounted in a mount namespace that only a mount or an open file keeps alive shows nowhere else.
    for inode, (path, where) in list(census.mount_handles.items()):
        if inode not in census.mounts_seen:
            in_thread(lambda path=path, where=where: _visit_mounts(path, where, proc, census))  # type: ignore[misc]


def _patiently(look: Callable[[int, Proc, _Census], None], pid: int, proc: Proc, census: _Census) -> None:
    """Look at one process. A thread that is just ending refuses even root for a moment (EACCES): it is asked again."""
    for attempt in range(5):
        try:
            return look(pid, proc, census)
        except PermissionError:
            if attempt == 4:
                raise
            time.sleep(0.005)
        except OSError as error:
            if error.errno not in _ENDED:
                raise
            return None
    return None


def _threads(pid: int, proc: Proc, census: _Census) -> None:
    """A thread may live in a namespace of its own (ip netns exec, a CNI plugin)."""
    for thread in os.listdir(f"{proc.path}/{pid}/task"):
        task = f"{proc.path}/{pid}/task/{thread}"
        inode = _inode(task)
        if inode is not None:
            census.networks[inode].tasks.append(task)


def _inode(task: str) -> int | None:
    try:
        match = _LINK.fullmatch(os.readlink(f"{task}/ns/net"))
    except OSError as error:
        if error.errno in _ENDED:
            return None  # a zombie has no namespaces any more
        raise
    return int(match[2]) if match else None


def _open_files(pid: int, proc: Proc, census: _Census) -> None:
    for fd in os.listdir(f"{proc.path}/{pid}/fd"):
        path = f"{proc.path}/{pid}/fd/{fd}"
        try:
            match = _LINK.fullmatch(os.readlink(path))
        except OSError as error:
            if error.errno in _ENDED:
                continue
            raise
        if match:
            _note(match, path, f"an open file of process {pid} ({proc.name(pid)})", census)


def _note(match: re.Match[str], path: str, where: str, census: _Census) -> None:
    if match[1] == "net":
        census.networks[int(match[2])].handles.append((path, where))
    else:
        census.mount_handles.setdefault(int(match[2]), (path, where))


def _mount_table(pid: int, proc: Proc, census: _Census) -> None:
    """The mounts this process sees. One in a chroot sees fewer than its neighbours in the same mount namespace."""
    match = _LINK.fullmatch(os.readlink(f"{proc.path}/{pid}/ns/mnt"))
    root = os.stat(f"{proc.path}/{pid}/root")
    key = (int(match[2]) if match else 0, root.st_dev, root.st_ino)
    if key in census.mount_tables:
        return
    mounts = read_mounts(f"{proc.path}/{pid}/mountinfo")
    census.mount_tables.add(key)
    census.mounts_seen.add(key[0])
    for pin, where in _pins(mounts):
        _note(pin, f"{proc.path}/{pid}/root{where}", where, census)


def _pins(mounts: Mounts) -> list[tuple[re.Match[str], str]]:
    """Namespaces bound to a file, like /run/netns/…"""
    matches = ((_LINK.fullmatch(m.root), m.point) for m in mounts.mounts if m.filesystem == "nsfs")
    return [(match, point) for match, point in matches if match]


def _visit_mounts(path: str, where: str, proc: Proc, census: _Census) -> None:
    """Enter a mount namespace without a process, and open the network namespaces that are mounted there."""
    procfs = os.open(proc.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("unshare", CLONE_FS)  # threads share their root directory, and setns(2) refuses those that do
            call("setns", fd, CLONE_NEWNS)
        finally:
            os.close(fd)
        mounts = read_mounts("thread-self/mountinfo", dir_fd=procfs)
        for match, point in _pins(mounts):
            if match[1] == "net":
                pin = os.open(point, os.O_RDONLY | os.O_CLOEXEC)
                census.opened.append(pin)
                _note(match, f"/proc/self/fd/{pin}", f"{point} in the mount namespace of {where}", census)
    finally:
        os.close(procfs)


def _read(inode: int, seen: _Places, proc: Proc) -> NetworkNamespace | None:
    """Try every way in. None for a namespace that has ended meanwhile: nothing refers to it any more."""
    where = seen.handles[0][1] if seen.handles else _describe(seen.tasks[0], proc)
    problem: OSError | None = None
    for task in seen.tasks:
        try:
            addresses, routes = tables(f"{task}/net")
            if _inode(task) == inode:
                return NetworkNamespace(inode, where, addresses, routes)
        except OSError as error:
            if error.errno not in _ENDED:
                problem = error
                break
    for path, _ in seen.handles:
        try:
            addresses, routes = in_thread(lambda path=path: _enter(path, inode))  # type: ignore[misc]
            return NetworkNamespace(inode, where, addresses, routes)
        except OSError as error:
            if error.errno != errno.ENOENT:
                problem = error
    if _gone(inode, proc):
        return None
    reason = problem or OSError(0, "it could not be entered by any of the ways it was seen")
    lost = unknown(f"reading the addresses in the network namespace {inode} of {where}", reason)
    return NetworkNamespace(inode, where, lost, lost)


def _gone(inode: int, proc: Proc) -> bool:
    """Whether a second census no longer finds the namespace. What cannot be enumerated is not gone."""
    census = _Census()
    try:
        _take(proc, census)
    except OSError:
        return False
    finally:
        for fd in census.opened:
            os.close(fd)
    return inode not in census.networks


def _describe(task: str, proc: Proc) -> str:
    pid = task.removeprefix(f"{proc.path}/").partition("/")[0]
    return f"process {pid} ({proc.name(int(pid))})"


def _enter(path: str, inode: int) -> _Tables:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_ino != inode:
            raise FileNotFoundError(errno.ENOENT, "another namespace is there now", path)
        call("setns", fd, CLONE_NEWNET)
    finally:
        os.close(fd)
    return tables("/proc/thread-self/net")


def tables(net: str) -> _Tables:
    """Local addresses and host routes, from the tables in a `net` directory of proc(5).

    `fib_trie` holds every IPv4 routing table, local addresses as `/32 host LOCAL`; `if_inet6` every IPv6 address;
    `ipv6_route` every IPv6 route. A kernel without IPv6 has no such files. Lines end in names of interfaces, which
    anybody may choose nearly at will. OSError also for a table that cannot be understood.
    """
    try:
        local, routes = _fib_trie(read_bounded(f"{net}/fib_trie", _LIMIT).decode("ascii"))
        for fields in _lines(f"{net}/if_inet6"):
            local.add(_ipv6(fields[0]))
        for fields in _lines(f"{net}/ipv6_route"):
            if fields[1] == b"80":  # a prefix of 128 bits
                routes.add(_ipv6(fields[0]))
    except (ValueError, IndexError) as error:
        raise OSError(errno.EBADMSG, f"its tables cannot be understood ({error})", net) from None
    return tuple(sorted(local)), tuple(sorted(routes - local))


def _lines(path: str) -> list[list[bytes]]:
    try:
        return [line.split(b" ", 2) for line in read_bounded(path, _LIMIT).split(b"\n") if line]
    except FileNotFoundError:
        return []


def _fib_trie(text: str) -> tuple[set[str], set[str]]:
    local: set[str] = set()
    routes: set[str] = set()
    leaf = ""
    for line in text.split("\n"):
        if match := _TRIE_LEAF.match(line):
            leaf = match[1]
        elif match := _TRIE_ENTRY.match(line):
            (local if match[1] == "LOCAL" else routes).add(_ipv4(leaf))
    return local, routes


# Most namespaces have most of their entries in common: the loopback's.
@lru_cache(maxsize=4096)
def _ipv4(text: str) -> str:
    return str(IPv4Address(text))


@lru_cache(maxsize=4096)
def _ipv6(digits: bytes) -> str:
    return str(IPv6Address(int(digits, 16)))
