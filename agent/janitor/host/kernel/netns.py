"""The kernel witness: every network namespace of the node, its addresses and its host routes.

Who refers to a namespace is in host/kernel/census.py; here each is read. Addresses come from `/proc/<pid>/net`, which
needs no change of namespace; only a namespace without a process is entered, by a thread of its own that ends at once.

Not found is what nothing but one of these keeps alive: an open socket, a descriptor on its way through a socket, a
mount in a tree that is attached nowhere (open_tree(2)). The kernel lists such namespaces nowhere; no runtime keeps a
pod's network by these alone. Standard library only.
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

_NODE_S: Final = 20.0  # for the tables of the node itself
_LATE_S: Final = (HALF_S + WHOLE_S) / 2
_NODE_ADDRESSES: Final = 65_536  # kube-proxy's IPVS mode gives the node every Service's
EVERYTHING: Final = Asked(everything=True)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Witnessed:
    """All network namespaces by inode number, and whose things were too large to be looked at whole."""

    namespaces: tuple[NetworkNamespace, ...] | Unknown
    overlooked: tuple[Overlooked, ...] = ()


def witnessed(proc: Proc, asked: Asked) -> Witnessed:
    """Every network namespace of the node, as far as it matters for these addresses.

    One that cannot be read has Unknown addresses, which keeps every lease. Not so one that nobody keeps but who is
    confined (host/kernel/whose.py), by descriptors or mounts, and in which nothing runs: that is overlooked, and named.
    It is no pod's: in the network of a pod run its processes, or the monitor of its virtual machine, and the runtime
    that has made it keeps it by a mount or a process of the node's own. Whoever hides a namespace so hides its own, and
    no pod can make another one's unseen. A namespace that something runs in is read whatever it is like: if its tables
    are too long, the kernel is asked for each address by itself.
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
    """The same for whoever can leave nothing out: Unknown where something was overlooked."""
    seen = witnessed(proc, asked)
    if seen.overlooked and not isinstance(seen.namespaces, Unknown):
        one = seen.overlooked[0]
        return unseen(Code.NOT_ALL_OF_PROCESS_SEEN, pid=one.pid, name=one.name, what=one.what)
    return seen.namespaces


def pinned(proc: Proc) -> list[str]:
    """Where network namespaces are kept alive by a mount. OSError where the mount tables cannot be read."""
    budget = Budget(proc)
    with closing(Census()) as census:
        take(proc, census, budget)
        if budget.overlooked:
            raise OSError(errno.ETIMEDOUT, "not all processes could be read")
        return sorted({handle.where for seen in census.networks.values() for handle in seen.handles})


def tables(net: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All local addresses and host routes in a `net` directory of proc(5). OSError, also where there are too many."""
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
    """Those that could not be read, looked for once more: what nothing refers to any more has ended meanwhile.

    One look for all of them, for a pod may make and end namespaces as fast as it likes.
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
    """Reads namespaces, one after the other; each in the time that whoever is in it, or keeps it, has left."""

    proc: Proc
    budget: Budget
    filter: Filter
    node: int | None
    spent: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    trusted_mounts: set[str] | None = None  # mount namespaces of the node's own processes, as /proc names them

    def read(self, inode: int, places: Places) -> NetworkNamespace:
        """Try every way in. OSError where none leads there."""
        problem: OSError | None = None
        for pid, task in places.tasks:
            try:
                with self._charged(pid):
                    seconds = self._seconds(inode, pid)
                    # Whoever has used up his share has each address asked for, which takes a tenth of the time.
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
            # Routes to a pod are the node's: what others route to has no address by it.
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
        """One place it was seen, in words."""
        if places.handles:
            return places.handles[0].where
        pid = places.tasks[0][0]
        return f"process {pid} ({self.proc.name(pid)})"

    def nobodys(self, places: Places) -> bool:
        """Whether nothing runs in it, and only who is confined keeps it: see `witnessed`."""
        return not places.tasks and all(
            self.budget.whose(handle.pid).confined and not self._with_the_node(handle) for handle in places.handles
        )

    def _with_the_node(self, handle: Handle) -> bool:
        """Whether it is a mount that one of the node's own sees as well. Asked of all processes once."""
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
        # So that all have been read before the whole of it is over: what is left is for asking for each address.
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
