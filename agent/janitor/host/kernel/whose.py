"""Whose a process is, as far as the kernel shows it. No other module identifies a process as a node component.

A pod may give its processes any name and any arguments, and put a file of any name at any path in its root directory.
An unprivileged user of the node may do the same. So a name alone proves nothing. A process is a component of the node
if all of this holds: it is in process 1's PID, user and network namespaces; all four of its user IDs are root's; it is
in the control group of a system service, of process 1, or of a session of root's; and its program lies in process 1's
mount namespace, where only root can have put it. The program's name then says which component it is.

Any other process is not believed, and the reason is kept for a finding. Standard library only.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Disowned, Unknown
from janitor.core.model.reason import Reason, because
from janitor.host.files import failed, printable, read_bounded
from janitor.host.kernel import control_groups, trusted
from janitor.host.kernel.budget import Budget, each
from janitor.host.kernel.control_groups import Groups, Place
from janitor.host.kernel.exposed import exposed_mounts
from janitor.host.kernel.nsfile import identity
from janitor.host.kernel.procfs import Proc

Role = Literal["kubelet", "runtime"]

PROGRAMS: Final[dict[Role, frozenset[str]]] = {
    # One binary is kubelet, runtime and more in k3s, RKE2, k0s and microk8s.
    "kubelet": frozenset({"kubelet", "hyperkube", "kubelite", "k3s", "rke2", "k0s"}),
    "runtime": frozenset({"containerd", "crio", "cri-dockerd", "dockerd", "k3s", "k0s", "docker-containerd"}),
}
CAP_NET_ADMIN: Final = 12
_NAMESPACES: Final = ("pid", "user", "net", "mnt")
_SHARED: Final = {"pid": "PID", "user": "user", "net": "network"}
_NS_GET_USERNS: Final = 0xB701  # ioctl_nsfs(2)
_DELETED: Final = " (deleted)"
_LIMIT: Final = 1 << 16
_COMM: Final = 15  # TASK_COMM_LEN, less its NUL
_MOST_DISOWNED: Final = 64


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel shows of one process. The start time was the same before and after all of it was read."""

    pid: int
    started_ns: int
    namespaces: dict[str, int]  # inode numbers
    user_ids: tuple[int, ...]  # real, effective, saved, file system
    effective: int  # capabilities, as a bit mask
    program: str  # the executable's path as the process sees it
    deleted: bool
    file: tuple[int, int]  # the executable's device and inode
    groups: Groups

    @property
    def name(self) -> str:
        """The file name of the executable."""
        return self.program.rpartition("/")[2]


@dataclass(slots=True)
class Whose:
    """Answers for one look at one node. Needs the node's process 1: without it, no process is accepted."""

    proc: Proc
    root: str = "/"  # the node's root directory, as in `procfs.node_root`
    disowned: list[Disowned] = field(default_factory=list)  # processes that were not believed, and why; the first 64
    _first: Facts | None = None
    _exposed: trusted.Exposed | Unknown | None = None

    def kubelets(self) -> dict[int, int]:
        """The node's kubelets: process ID -> start, in ns of CLOCK_BOOTTIME. OSError if /proc cannot be listed.

        Callers compare the start again after they have read something of the process: process IDs are reused.
        """
        found = {}
        for pid in self.named("kubelet"):
            try:
                started = self.proc.started_ns(pid)
            except OSError:
                continue  # it has ended
            why = self.not_the_nodes(pid, "kubelet")
            if why:
                self.disown(pid, "kubelet", why)
            else:
                found[pid] = started
        return found

    def not_the_nodes(self, pid: int, role: Role) -> Reason | None:
        """Why this process is not the node's component in that role; None if it is."""
        if not self.proc.kernel:
            return None
        try:
            facts, first = self.facts(pid), self.first()
        except OSError as error:
            return failed(Code.UNREADABLE_PROCESS, error)
        except ValueError as error:
            return because(Code.UNREADABLE_PROCESS, error=str(error))
        if facts.name not in PROGRAMS[role]:
            return because(Code.OTHER_PROGRAM, path=printable(facts.program), role=role)
        for kind, name in _SHARED.items():
            if facts.namespaces[kind] != first.namespaces[kind]:
                return because(Code.OTHER_NAMESPACE, kind=name)
        if set(facts.user_ids) != {0}:
            return because(Code.NOT_ROOT, uid=next(u for u in facts.user_ids if u))
        where = self._place(facts)
        return where.why or self._foreign_program(facts, where)

    def contained(self, pid: int) -> bool:
        """Whether a process is or may be in a container: outside process 1's PID and user namespaces and its groups."""
        if not self.proc.kernel:
            return False
        try:
            facts, first = self.facts(pid, program=False), self.first()
        except (FileNotFoundError, ProcessLookupError):
            return False  # it has ended
        except (OSError, ValueError):
            return True
        where = self._place(facts)
        if where.why:
            return True
        return not where.unit and any(facts.namespaces[kind] != first.namespaces[kind] for kind in ("pid", "user"))

    def makes_rules(self, pid: int) -> bool:
        """Whether it can make rules in the node's network: it has CAP_NET_ADMIN in that network's user namespace.

        A pod in the node's network that can make rules could also delete them. So it is believed to be their owner, but
        its word is used for nothing else. OSError if that cannot be determined.
        """
        if not self.proc.kernel:
            return True
        facts, first = self.facts(pid, program=False), self.first()
        if facts.namespaces["net"] != first.namespaces["net"]:
            return False
        if facts.namespaces["user"] != self._owner() or not facts.effective >> CAP_NET_ADMIN & 1:
            return False
        return not self._borrowed(facts)

    def _borrowed(self, facts: Facts) -> bool:
        """Whether its privileges may be a setuid file's, run under another name: for example su, through a link.

        A script's name differs from its program's, too. But that program is an ordinary one, and root runs it. OSError.
        """
        exe = f"{self.proc.path}/{facts.pid}/exe"
        program = os.readlink(exe).removesuffix(_DELETED).rpartition("/")[2]
        if printable(program[:_COMM]) == self.proc.comm(facts.pid):
            return False
        return set(facts.user_ids) != {0} or bool(os.stat(exe).st_mode & (stat.S_ISUID | stat.S_ISGID))

    def serves_the_node(self, pid: int) -> bool:
        """Whether it may be a part of Kubernetes on this node: in the node's network, and either root's or in a pod.

        A pod in the node's network may claim anything, so use this only for information that is shown to people.
        OSError (EACCES without the privilege to look) or ValueError if it cannot be determined.
        """
        if not self.proc.kernel:
            return True
        facts, first = self.facts(pid, program=False), self.first()
        if any(facts.namespaces[kind] != first.namespaces[kind] for kind in ("net", "user")):
            return False
        if set(facts.user_ids) == {0}:
            return True
        users = control_groups.of_a_user(facts.groups, control_groups.top(first.groups))
        return bool(self._place(facts).why) and not users

    def in_system_unit(self, pid: int) -> bool:
        """Whether it is a process of a system service. OSError if that cannot be determined."""
        if not self.proc.kernel:
            return False
        where = self._place(self.facts(pid, program=False))
        return not where.why and bool(where.unit)

    # What the kernel shows.

    def first(self) -> Facts:
        """The facts of process 1. OSError."""
        if self._first is None:
            self._first = self.facts(1, program=False)
        return self._first

    def facts(self, pid: int, *, program: bool = True) -> Facts:
        """The facts of any process; without its program if `program` is False. OSError or ValueError."""
        at = f"{self.proc.path}/{pid}"
        before = self.proc.started_ns(pid)
        status = dict(line.split(b":", 1) for line in read_bounded(f"{at}/status", _LIMIT).split(b"\n") if b":" in line)
        namespaces = {kind: _inode(os.readlink(f"{at}/ns/{kind}")) for kind in _NAMESPACES}
        path = os.readlink(f"{at}/exe") if program else ""
        file = identity(f"{at}/exe") if program else (0, 0)  # stat(2) on a pod's file system may never return
        own = control_groups.seen_from_the_node(self.proc, lambda: control_groups.groups(self.proc, pid))
        if self.proc.started_ns(pid) != before:
            raise ValueError("another process now has its PID")
        return Facts(
            pid,
            before,
            namespaces,
            tuple(int(word) for word in status[b"Uid"].split()),
            int(status[b"CapEff"], 16),
            path.removesuffix(_DELETED),
            path.endswith(_DELETED),
            file,
            own,
        )

    def _place(self, facts: Facts) -> Place:
        openrc = os.path.exists(f"{self.proc.path}/1/root/run/openrc/softlevel")
        return control_groups.place(facts.groups, control_groups.top(self.first().groups), openrc)

    def _owner(self) -> int:
        """The user namespace that owns the node's network namespace (NS_GET_USERNS). OSError."""
        fd = os.open(f"{self.proc.path}/1/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            owner = fcntl.ioctl(fd, _NS_GET_USERNS)
        finally:
            os.close(fd)
        try:
            return os.fstat(owner).st_ino
        finally:
            os.close(owner)

    def _foreign_program(self, facts: Facts, where: Place) -> Reason | None:
        """Why the program may not be the node's own; None if it is."""
        if facts.deleted:  # an upgrade has replaced it under the running process
            return None if where.unit else because(Code.PROGRAM_DELETED)
        # Whoever can write to a program of root's units is root already, whether it is believed here or not.
        exposed = trusted.Exposed({}) if where.unit else self.exposed()
        if isinstance(exposed, Unknown):
            return exposed.reason
        try:
            # janitor sees the node's root in one of two places; either is process 1's, with its mount table.
            base = "/" if self.root == "/" else f"{self.proc.path}/1/root"
            fd = trusted.open_trusted(base, facts.program, exposed)
        except trusted.Untrusted as error:
            return because(Code.PROGRAM_NOT_TRUSTED, error=str(error))
        except OSError as error:
            return failed(Code.PROGRAM_NOT_ON_NODE, error, path=printable(facts.program))
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
        if (info.st_dev, info.st_ino) != facts.file or not stat.S_ISREG(info.st_mode):
            return because(Code.PROGRAM_REPLACED, path=printable(facts.program))
        return None

    def exposed(self) -> trusted.Exposed | Unknown:
        """What pods may write to. Read once."""
        if self._exposed is None:
            self._exposed = exposed_mounts(self.proc, self.contained)
        return self._exposed

    # Searching for processes.

    def named(self, role: Role) -> Iterator[int]:
        """The processes whose executable or own name (comm) is a name of that role. OSError."""
        found: list[int] = []
        each(self.proc.pids(), Budget(self.proc), lambda p: self._called(p, role), lambda p, so: found.extend([p] * so))
        return iter(found)

    def _called(self, pid: int, role: Role) -> bool:
        try:
            program = os.readlink(f"{self.proc.path}/{pid}/exe").removesuffix(_DELETED).rpartition("/")[2]
        except OSError:
            program = ""
        return program in PROGRAMS[role] or self.proc.name(pid) == role

    def disown(self, pid: int, role: Role, why: Reason) -> None:
        """Note a process that is not believed."""
        if len(self.disowned) < _MOST_DISOWNED:
            self.disowned.append(Disowned(role, pid, self.proc.name(pid), why))


def _inode(link: str) -> int:
    """The number in `net:[4026531840]`, as in /proc/<pid>/ns. ValueError."""
    return int(link.rpartition("[")[2].removesuffix("]"))
