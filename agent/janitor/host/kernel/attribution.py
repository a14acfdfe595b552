"""Who has done something over netlink: from a message's port to the process that holds the socket.

The kernel writes the sender's port ID into the notification (struct nlmsghdr, nlmsg_pid). The port is often the
process's ID, but not where systemd made the socket before it started the process (systemd-networkd.socket), so the
holder is what counts. One question decides: is it systemd-networkd's? That is what runs in the control group of its
system unit, whatever else calls itself so; its sockets are looked at through copies of its descriptors
(pidfd_getfd(2)). Nothing here reads all processes, or a table that somebody else can fill.
"""

import ctypes
import errno
import os
import socket
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

from janitor.core.model.evidence import Unknown
from janitor.host.files import read_bounded
from janitor.host.kernel import patience
from janitor.host.kernel.control_groups import unit_processes
from janitor.host.kernel.procfs import Proc, clock

NETWORKD: Final = "systemd-networkd"
UNIT: Final = f"{NETWORKD}.service"
_AFTERWARDS_NS: Final = 1_000_000_000
_libc: Final = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD: Final = 438  # on every architecture; Linux 5.6
_INITIAL_PIDS: Final = 0xEFFFFFFC  # the inode of the machine's first PID namespace (linux/proc_ns.h)
_INITS: Final = ("systemd", "init", "openrc-init", "runit", "s6-svscan")
_MOST_DESCRIPTORS: Final = 1024
_TABLE_LIMIT: Final = 1 << 20
_WHOLE_TABLE: Final = 16 << 20
_PID_BITS: Final = (1 << 22) - 1  # PID_MAX_LIMIT; libraries put a counter above it into the port

Kind = Literal["networkd", "process", "kernel", "gone", "unseen"]


@dataclass(frozen=True, slots=True)
class Actor:
    """`gone`: not networkd, but the socket is closed, so nobody is named. `unseen`: networkd would be out of sight."""

    kind: Kind
    pid: int = 0
    name: str = ""

    def __str__(self) -> str:
        if self.kind in ("networkd", "process"):
            return f"{self.name} (process {self.pid})"
        return {
            "kernel": "the kernel", "gone": "somebody whose socket is closed", "unseen": "somebody out of sight",
        }[self.kind]  # fmt: skip


@dataclass(slots=True)
class Attribution:
    """Answers for one node.

    It remembers systemd-networkd's sockets, so that the answer is right for a while after networkd has ended: what it
    deleted last may be read only then.
    """

    proc: Proc | Unknown
    networkd: int = 0  # where it was last seen
    _ports: dict[int, int] = field(default_factory=dict)  # its sockets' ports: when last seen (CLOCK_BOOTTIME)

    def who(self, port: int) -> Actor:
        """Who holds the rtnetlink socket with this port right now. Never raises."""
        if port == 0:
            return Actor("kernel")
        if isinstance(self.proc, Unknown):
            return Actor("unseen")
        now = clock().boottime_ns
        try:
            for pid in networkd_processes(self.proc):
                if self._look(pid, now, port):
                    return Actor("networkd", pid, NETWORKD)
        except OutOfSightError:
            # Of what is closed again this much is sure: networkd keeps its own.
            return Actor("unseen" if self._open(port) else "gone")
        except OSError:
            return Actor("unseen")
        if now - self._ports.get(port, -_AFTERWARDS_NS) < _AFTERWARDS_NS:
            return Actor("networkd", self.networkd, NETWORKD)  # it has just ended
        return self._somebody(port)

    def remember(self, pid: int) -> None:
        """systemd-networkd is this process: note its sockets, while it holds them."""
        if pid and not isinstance(self.proc, Unknown):
            try:
                self._look(pid, clock().boottime_ns, None)
            except OSError:
                return

    def blind(self) -> bool:
        """Whether systemd-networkd could not be seen if it ran: no host PID namespace."""
        if isinstance(self.proc, Unknown):
            return True
        try:
            networkd_processes(self.proc)
        except OSError:
            return True
        return False

    def _look(self, pid: int, now: int, port: int | None) -> bool:
        """Note networkd's ports; whether `port` is among them. OSError where its descriptors cannot be looked at."""
        assert isinstance(self.proc, Proc)  # noqa: S101 (for the type checker: all who call have looked)
        self.networkd = pid
        ports = netlink_ports(self.proc, pid)
        self._ports = {p: at for p, at in self._ports.items() if now - at < _AFTERWARDS_NS} | dict.fromkeys(ports, now)
        return port in ports

    def _somebody(self, port: int) -> Actor:
        """Whoever has chosen his process ID for the port, as the kernel proposes. It is for the log alone."""
        proc = self.proc
        assert isinstance(proc, Proc)  # noqa: S101 (as above)
        pid = port & _PID_BITS
        try:
            if port in patience.ask(pid, lambda: netlink_ports(proc, pid)):
                return Actor("process", pid, proc.name(pid))
        except OSError:
            pass  # it has ended, or it is somebody else
        return Actor("gone")

    def _open(self, port: int) -> bool:
        """Whether a socket with this port is open; one that is not in what could be read of the table may be."""
        assert isinstance(self.proc, Proc)  # noqa: S101 (as above)
        try:
            table = read_bounded(f"{self.proc.path}/1/net/netlink", _TABLE_LIMIT)
        except OSError:
            return True
        rows = [line.split() for line in table.split(b"\n")]
        there = any(len(row) > 2 and row[1] == b"0" and row[2] == str(port).encode() for row in rows)
        return there or len(table) >= _TABLE_LIMIT


class OutOfSightError(OSError):
    """systemd-networkd may run, and cannot be seen: these are not the node's processes."""


def networkd_processes(proc: Proc) -> tuple[int, ...]:
    """The processes of systemd-networkd's unit, none where it does not run. OSError where that cannot be told."""
    found = unit_processes(proc, UNIT) or ()
    if 0 in found or not _has_an_init(proc):
        raise OutOfSightError(errno.EACCES, "the node's processes cannot be seen", proc.path)
    return found


def find_networkd(proc: Proc) -> int:
    """The process ID of systemd-networkd, 0 where it does not run. OSError where that cannot be told."""
    if not proc.kernel:
        return next((pid for pid in proc.pids() if proc.comm(pid) == NETWORKD[:15]), 0)  # TASK_COMM_LEN
    return next(iter(unit_processes(proc, UNIT) or ()), 0)


def _has_an_init(proc: Proc) -> bool:
    """Whether process 1 is one that runs a machine's services: in a container's PID namespace it is the container's."""
    try:
        if os.stat(f"{proc.path}/1/ns/pid").st_ino == _INITIAL_PIDS:
            return True
        program = os.readlink(f"{proc.path}/1/exe").removesuffix(" (deleted)")
    except OSError:
        return False
    return program.rpartition("/")[2] in _INITS


def netlink_ports(proc: Proc, pid: int) -> frozenset[int]:
    """The ports of a process's rtnetlink sockets, through copies of its descriptors. OSError.

    Needs CAP_SYS_PTRACE. Where the system call is barred (before Linux 5.6, a filter of systemd-nspawn's), the table of
    all netlink sockets is read instead, which takes as long as others make it. Looked at are no more than 1024
    descriptors: what is asked about is systemd-networkd, which has some twenty, and whoever is named in a log.
    """
    sockets: dict[int, str] = {}
    with os.scandir(f"{proc.path}/{pid}/fd") as listing:
        for entry in islice(listing, _MOST_DESCRIPTORS):
            link = _link(entry.path)
            if link.startswith("socket:["):
                sockets[int(entry.name)] = link
    try:
        handle = os.pidfd_open(pid)
        try:
            return frozenset(port for fd in sockets if (port := _port(handle, fd)))
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise
    held, rows = set(sockets.values()), read_bounded(f"{proc.path}/{pid}/net/netlink", _WHOLE_TABLE).split(b"\n")
    fields = (row.split() for row in rows[1:])
    return frozenset(
        int(one[2]) for one in fields if len(one) >= 10 and one[1] == b"0" and f"socket:[{int(one[9])}]" in held
    )


def _port(handle: int, fd: int) -> int:
    """The port of an rtnetlink socket that is somebody's descriptor; 0 for any other socket. OSError."""
    copy = _libc.syscall(_PIDFD_GETFD, handle, fd, 0)
    if copy < 0:
        error = ctypes.get_errno()
        if error == errno.EBADF:
            return 0  # closed meanwhile
        raise OSError(error, f"pidfd_getfd: {os.strerror(error)}")
    with socket.socket(fileno=copy) as one:
        if one.family != socket.AF_NETLINK or one.proto != socket.NETLINK_ROUTE:
            return 0
        name = one.getsockname()
        return int(name[0])


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
