"""Who has done something over netlink: from a message's port to the process that holds the socket.

The kernel writes the sender's port ID into the notification (struct nlmsghdr, nlmsg_pid). /proc/net/netlink says
which socket has that port, and /proc/<pid>/fd who holds it. The port is often the process's ID, but not where systemd
made the socket before it started the process (systemd-networkd.socket), so the holder is what counts.
"""

import os
from dataclasses import dataclass, field
from typing import Final, Literal

from janitor.core.evidence import Unknown
from janitor.host.files import read_bounded
from janitor.host.procfs import Proc, clock

NETWORKD: Final = "systemd-networkd"
_COMM: Final = NETWORKD[:15]  # TASK_COMM_LEN
_LIMIT = 16 << 20
_AFTERWARDS_NS: Final = 1_000_000_000

Kind = Literal["networkd", "process", "kernel", "gone", "unseen"]


@dataclass(frozen=True, slots=True)
class Doer:
    """`gone`: the socket is closed already. `unseen`: it is open, but nobody who could be looked at holds it."""

    kind: Kind
    pid: int = 0
    name: str = ""

    def __str__(self) -> str:
        if self.kind in ("networkd", "process"):
            return f"{self.name} (process {self.pid})"
        return {"kernel": "the kernel", "gone": "somebody who has ended since", "unseen": "somebody out of sight"}[
            self.kind
        ]


@dataclass(slots=True)
class Attribution:
    """Answers for one node.

    It remembers systemd-networkd's sockets, so that the answer takes well under a millisecond, and is right for a
    while after networkd has ended: what it deleted last may be read only then.
    """

    proc: Proc | Unknown
    networkd: int = 0  # where it was last seen
    _sockets: dict[int, tuple[str, int]] = field(default_factory=dict)  # its ports: inode, when last seen (BOOTTIME)
    _others: dict[tuple[int, str], Doer] = field(default_factory=dict)

    def who(self, port: int) -> Doer:
        """Who holds the socket with this port right now. Never raises."""
        if port == 0:
            return Doer("kernel")
        if isinstance(self.proc, Unknown):
            return Doer("unseen")
        now = clock().boottime_ns
        known_inode, seen_ns = self._sockets.get(port, ("", 0))
        try:
            inode = self._inode(port)
        except OSError:
            return Doer("unseen")
        if inode is None:
            just_now = known_inode and now - seen_ns < _AFTERWARDS_NS
            return Doer("networkd", self.networkd, NETWORKD) if just_now else Doer("gone")
        if inode == known_inode:
            # The very socket that it was seen to hold; that PID 1 may go on holding it for the next one says nothing.
            self._sockets[port] = (inode, now)
            return Doer("networkd", self.networkd, NETWORKD)
        for pid in (self.networkd, port):
            if pid and is_networkd(self.proc, pid) and self._holds(pid, inode):
                return self._is_networkd(pid, port, inode)
        if (port, inode) not in self._others:
            found = self._search(inode)
            if found.kind == "unseen" and self._closed(port, inode):
                return Doer("gone")  # it ended while it was looked for
            if found.kind == "networkd":
                return self._is_networkd(found.pid, port, inode)
            if len(self._others) > 100:
                self._others.clear()
            self._others[port, inode] = found
        return self._others[port, inode]

    def remember(self, pid: int) -> None:
        """systemd-networkd is this process: note its sockets, while it holds them."""
        if not pid or isinstance(self.proc, Unknown):
            return
        self.networkd = pid
        directory, now = f"{self.proc.path}/{pid}/fd", clock().boottime_ns
        try:
            held = {_link(f"{directory}/{fd}") for fd in os.listdir(directory)}
            rows = self._rows()
        except OSError:
            return
        self._sockets |= {int(row[2]): (row[9], now) for row in rows if f"socket:[{row[9]}]" in held}

    def _is_networkd(self, pid: int, port: int, inode: str) -> Doer:
        self.networkd = pid
        self._sockets[port] = (inode, clock().boottime_ns)
        return Doer("networkd", pid, NETWORKD)

    def _inode(self, port: int) -> str | None:
        """The inode of the rtnetlink socket with this port, in the node's network namespace. OSError."""
        return next((row[9] for row in self._rows() if row[2] == str(port)), None)

    def _rows(self) -> list[list[str]]:
        """The rtnetlink sockets of the node's network namespace: sk, protocol, port, …, inode. OSError."""
        assert isinstance(self.proc, Proc)  # noqa: S101 (for the type checker: `who` and `blind` have looked)
        table = read_bounded(f"{self.proc.path}/1/net/netlink", _LIMIT).decode("ascii", "replace")
        rows = [line.split() for line in table.splitlines()]
        return [row for row in rows if len(row) >= 10 and row[1] == "0"]

    def blind(self) -> bool:
        """Whether somebody holds an rtnetlink socket of this node and cannot be seen: no host PID namespace."""
        if isinstance(self.proc, Unknown):
            return True
        try:
            ports = {int(row[2]): row[9] for row in self._rows() if row[2] != "0"}
        except (OSError, ValueError):
            return True
        return any(
            self._search(inode).kind == "unseen" and not self._closed(port, inode) for port, inode in ports.items()
        )

    def _closed(self, port: int, inode: str) -> bool:
        try:
            return self._inode(port) != inode
        except OSError:
            return False

    def _holds(self, pid: int, inode: str) -> bool:
        assert isinstance(self.proc, Proc)  # noqa: S101 (as above)
        socket = f"socket:[{inode}]"
        directory = f"{self.proc.path}/{pid}/fd"
        try:
            return any(_link(f"{directory}/{fd}") == socket for fd in os.listdir(directory))
        except OSError:
            return False

    def _search(self, inode: str) -> Doer:
        """Everybody, networkd before all: where PID 1 made the socket for it, both hold it."""
        assert isinstance(self.proc, Proc)  # noqa: S101 (as above)
        try:
            pids = self.proc.pids()
        except OSError:
            return Doer("unseen")
        first = [pid for pid in pids if self.proc.name(pid) == _COMM]
        for pid in first:
            if is_networkd(self.proc, pid) and self._holds(pid, inode):
                return Doer("networkd", pid, NETWORKD)
        for pid in reversed(pids):
            if self._holds(pid, inode):
                # systemd itself deletes no rules: it holds this one for networkd (systemd-networkd.socket).
                kept_for_it = pid == 1 and self.proc.name(pid) == "systemd"
                return Doer("networkd" if kept_for_it else "process", pid, self.proc.name(pid))
        return Doer("unseen")


def is_networkd(proc: Proc, pid: int) -> bool:
    """Whether the process runs systemd's own systemd-networkd; an upgrade may have replaced the file under it."""
    executable = _link(f"{proc.path}/{pid}/exe").removesuffix(" (deleted)")
    return executable.endswith(f"/lib/systemd/{NETWORKD}")


def find_networkd(proc: Proc) -> int:
    """The process ID of systemd-networkd, 0 where it does not run. OSError where /proc cannot be read."""
    return next((p for p in proc.pids() if proc.comm(p) == _COMM and is_networkd(proc, p)), 0)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
