"""The kernel witness: every network namespace of the node, with its addresses and host routes.

host/kernel/census.py finds what refers to a namespace; this module reads each one. Addresses come from
`/proc/<pid>/net`, without changing namespaces. Only a namespace without a process is entered, by a short-lived thread.

A namespace is not found if only one of these keeps it alive: an open socket, a descriptor in flight through a socket,
or a mount in an unattached tree (open_tree(2)). The kernel lists such namespaces nowhere, and no runtime keeps a pod's
network by these alone. Standard library only.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Holder, NetworkNamespace, Overlooked, Unknown
from janitor.core.model.unknown import unseen
from janitor.host.files import unknown
from janitor.host.kernel.budget import FREE_S, HALF_S, SHARE_S, WHOLE_S, Budget
from janitor.host.kernel.census import ENDED, Census, Handle, Places, inode_of, take
from janitor.host.kernel.namespaces import CLONE_NEWNET, call, in_thread
from janitor.host.kernel.net_tables import Asked, Filter, Tables, read_tables, up_here
from janitor.host.kernel.procfs import Proc

_NODE_S: Final = 20.0  # for the node's own tables
_LATE_S: Final = (HALF_S + WHOLE_S) / 2
_NODE_ADDRESSES: Final = 65_536  # kube-proxy's IPVS mode assigns every Service's address to the node
EVERYTHING: Final = Asked(everything=True)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Witnessed:
    """All network namespaces by inode number, and the processes that had too much to be read completely."""

    namespaces: tuple[NetworkNamespace, ...] | Unknown
    overlooked: tuple[Overlooked, ...] = ()


def witnessed(proc: Proc, asked: Asked) -> Witnessed:
    """Every network namespace of the node, as far as it matters for these addresses.

    A namespace that cannot be read gets Unknown addresses, which keeps every lease. The exception is a namespace in
    which nothing runs and that only confined processes keep, by descriptors or mounts (host/kernel/holders.py): it is
    reported as overlooked. It cannot be a pod's: a pod's network has its processes or its virtual machine's monitor in
    it, and the runtime keeps it by a mount or a process of the node's own. So a pod can hide its own namespaces, but no
    other pod's. A namespace with processes is always read: if its tables are too long, the kernel is asked about each
    address.
    """
    budget = Budget(proc)
    with closing(Census()) as census:
        try:
            take(proc, census, budget)
            reader = _Reader(proc, budget, Filter(asked), _own(proc))
            found: list[NetworkNamespace] = []
            failed: dict[int, OSError] = {}
            for inode, places in sorted(census.networks.items()):
                try:
                    found.append(reader.read(inode, places))
                except OSError as error:
                    failed[inode] = error
            if failed:
                found += _again(failed, reader)
        except OSError as error:
            return Witnessed(unknown(Code.CANNOT_FIND_NAMESPACES, error), _named(budget))
    return Witnessed(tuple(sorted(found, key=lambda n: n.inode)), _named(budget))


def network_namespaces(proc: Proc, asked: Asked = EVERYTHING) -> tuple[NetworkNamespace, ...] | Unknown:
    """The same for callers that need all of them: Unknown if anything was overlooked."""
    seen = witnessed(proc, asked)
    if seen.overlooked and not isinstance(seen.namespaces, Unknown):
        one = seen.overlooked[0]
        return unseen(Code.NOT_ALL_OF_PROCESS_SEEN, pid=one.pid, name=one.name, what=one.what)
    return seen.namespaces


def pinned(proc: Proc) -> list[str]:
    """Where mounts, open files and tap devices keep network namespaces. OSError if not every process could be read."""
    budget = Budget(proc)
    with closing(Census()) as census:
        take(proc, census, budget)
        if budget.overlooked:
            raise OSError(errno.ETIMEDOUT, "not all processes could be read")
        return sorted({handle.where for seen in census.networks.values() for handle in seen.handles})


def tables(net: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All local addresses and host routes in a `net` directory of proc(5). OSError, also if there are too many."""
    found = read_tables(net, Filter(EVERYTHING, _NODE_ADDRESSES), _NODE_S)
    if found.cut or found.more:
        raise OSError(errno.EFBIG, "its tables are too long to be read", net)
    return found.addresses, found.routes


def _own(proc: Proc) -> int | None:
    """The network namespace of the node itself."""
    return inode_of(f"{proc.path}/1")


def _named(budget: Budget) -> tuple[Overlooked, ...]:
    return tuple(budget.overlooked.values())


def _again(failed: dict[int, OSError], reader: "_Reader") -> list[NetworkNamespace]:
    """Look once more for those that could not be read. If nothing refers to one any more, it has ended meanwhile.

    One census for all of them: a pod may make and end namespaces as fast as it likes.
    """
    found: list[NetworkNamespace] = []
    with closing(Census()) as census:
        take(reader.proc, census, reader.budget)
        for inode, problem in failed.items():
            places = census.networks.get(inode)
            if places is None:
                continue
            try:
                found.append(reader.read(inode, places))
            except OSError as error:
                if reader.nobodys(places):
                    reader.budget.give_up(places.handles[0].pid, "the network namespaces that it hides")
                    continue
                where = reader.where(places)
                reason = problem if error.errno in ENDED else error
                lost = unknown(Code.CANNOT_READ_NAMESPACE, reason, inode=inode, where=where)
                found.append(NetworkNamespace(inode, where, lost, lost))
    return found


@dataclass(slots=True)
class _Reader:
    """Reads one namespace after the other, each within the time left to the processes in it or keeping it."""

    proc: Proc
    budget: Budget
    filter: Filter
    node: int | None
    spent: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    trusted_mounts: set[str] | None = None  # mount namespaces of the node's own processes, as named in /proc

    def read(self, inode: int, places: Places) -> NetworkNamespace:
        """Try every way in. OSError if none works."""
        problem: OSError | None = None
        for pid, task in places.tasks:
            try:
                with self._charged(pid):
                    seconds = self._seconds(inode, pid)
                    # With the share used up, the kernel is asked about each address: that takes a tenth of the time.
                    found = read_tables(f"{task}/net", self.filter, seconds) if seconds else Tables((), (), cut=True)
                if inode_of(task) == inode:
                    way = Handle(pid, "", f"{task}/ns/net")
                    return self._made(inode, places, found, way)
            except OSError as error:
                if error.errno not in ENDED:
                    problem = error
                    break
        for handle in places.handles:
            if not places.tasks and self._left(handle.pid) <= 0:
                problem = problem or OSError(errno.ETIMEDOUT, "too much else had to be read of whoever keeps it")
                continue
            look = partial(read_tables, "/proc/thread-self/net", self.filter, self._seconds(inode, handle.pid))
            try:
                with self._charged(handle.pid):
                    found = self._inside(inode, handle, look)
                return self._made(inode, places, found, handle)
            except OSError as error:
                if problem is None or error.errno not in ENDED:
                    problem = error
        raise problem or OSError(0, "it could not be entered in any of the ways in which it was found")

    def _made(self, inode: int, places: Places, found: Tables, way: Handle) -> NetworkNamespace:
        holders = self._holders(inode, places)
        up, routes = found.addresses, found.routes
        if not found.cut:
            return NetworkNamespace(inode, self.where(places), up, routes, holders, found.more)
        if inode == self.node:
            raise OSError(errno.ETIMEDOUT, "its tables are too long to be read")
        asked = self.filter.asked.addresses
        up = tuple(sorted({*up, *self._inside(inode, way, lambda: up_here(asked))}))
        lost: tuple[str, ...] | Unknown = routes
        pid = places.tasks[0][0] if places.tasks else way.pid
        if self.budget.whose(pid).confined:
            # Only the node's own routes lead to a pod: a route in somebody else's namespace gives it no address.
            self.budget.give_up(pid, "the tables of its network")
        else:
            lost = unseen(Code.TOO_MANY_ROUTES, inode=inode, where=self.where(places))
        return NetworkNamespace(inode, self.where(places), up, lost, holders, True)

    def _inside(self, inode: int, way: Handle, visit: Callable[[], _T]) -> _T:
        def enter() -> _T:
            fd = way.open(inode)
            try:
                call("setns", fd, CLONE_NEWNET)
            finally:
                os.close(fd)
            return visit()

        return in_thread(enter, _NODE_S)

    def where(self, places: Places) -> str:
        """One place where it was seen, for people."""
        if places.handles:
            return places.handles[0].where
        pid = places.tasks[0][0]
        return f"process {pid} ({self.proc.name(pid)})"

    def nobodys(self, places: Places) -> bool:
        """Whether nothing runs in it and only confined processes keep it: see `witnessed`."""
        return not places.tasks and all(
            self.budget.whose(handle.pid).confined and not self._with_the_node(handle) for handle in places.handles
        )

    def _with_the_node(self, handle: Handle) -> bool:
        """Whether one of the node's own processes sees the same mount. All processes are asked once."""
        if self.trusted_mounts is None:
            self.trusted_mounts = set()
            for pid in self.proc.pids():
                name = _mount_namespace(f"{self.proc.path}/{pid}")
                if name not in self.trusted_mounts and not self.budget.whose(pid).confined:
                    self.trusted_mounts.add(name)
        return bool(handle.root) and _mount_namespace(handle.root.removesuffix("/root")) in self.trusted_mounts

    def _holders(self, inode: int, places: Places) -> tuple[Holder, ...]:
        if inode == self.node:
            return ()
        found: dict[Holder, None] = {}
        for pid in dict.fromkeys([pid for pid, _ in places.tasks] or [handle.pid for handle in places.handles]):
            try:
                found[self.budget.register.holder(pid)] = None
            except OSError:
                continue  # it has ended
        return tuple(found)

    def _left(self, pid: int) -> float:
        if self.spent < FREE_S:
            return SHARE_S
        owner = self.budget.whose(pid)
        if not owner.confined:
            return _NODE_S
        # Finish before the whole budget is used up: the rest is for asking about single addresses.
        late = time.monotonic() - self.budget.began > _LATE_S
        return 0.0 if late else SHARE_S - self.shares.get(owner.share, 0.0)

    def _seconds(self, inode: int, pid: int) -> float:
        return _NODE_S if inode == self.node else max(0.0, self._left(pid))

    @contextmanager
    def _charged(self, pid: int) -> Iterator[None]:
        began = time.monotonic()
        if began - self.budget.began > WHOLE_S:
            raise OSError(errno.ETIMEDOUT, "reading all of them took too long")
        try:
            yield
        finally:
            took = time.monotonic() - began
            self.spent += took
            if self.spent > FREE_S or took > SHARE_S:
                share = self.budget.whose(pid).share
                self.shares[share] = self.shares.get(share, 0.0) + took


def _mount_namespace(directory: str) -> str:
    try:
        return os.readlink(f"{directory}/ns/mnt")
    except OSError:
        return ""
