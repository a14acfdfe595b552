"""A /proc written by hand, for a simulated node: the parts of proc(5) that identify processes.

Process IDs are above the kernel's maximum, so that none can be mistaken for a process of this machine. The exception is
the simulated runtime, whose real process ID its socket shows.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

NODE_NET, NODE_MNT = 4026531840, 4026531841
FIRST_PID_NAMESPACE = 4026531836  # PROC_PID_INIT_INO: the node is a machine, not a container
FIRST_PID = 5_000_000  # PID_MAX_LIMIT is 4194304


class FakeProc:
    """The directory, and the numbers used so far."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._last_pid = FIRST_PID
        self._last_inode = NODE_MNT + 300

    def boot(self, boot_id: str, runtime: int) -> None:
        """Start again: the kernel's own files, PID 1, and the runtime under its real PID."""
        shutil.rmtree(self.directory, ignore_errors=True)
        random = self.directory / "sys/kernel/random"
        random.mkdir(parents=True)
        (random / "boot_id").write_text(f"{boot_id}\n")
        up = time.clock_gettime(time.CLOCK_BOOTTIME)
        (self.directory / "uptime").write_text(f"{up:.2f} {up:.2f}\n")
        booted = int(time.time() - up)
        (self.directory / "stat").write_text(f"cpu  1 0 1 1 0 0 0 0 0 0\nbtime {booted}\nprocesses 100\n")
        self.add("init", ["/sbin/init"], pid=1)
        self.add("containerd", ["/usr/bin/containerd"], pid=runtime, parent=1)
        (self.directory / "self").symlink_to(str(runtime))

    def new_namespace(self) -> int:
        """The inode number of a new network namespace."""
        self._last_inode += 1
        return self._last_inode

    def add(
        self,
        name: str,
        argv: Sequence[str],
        *,
        pid: int | None = None,
        parent: int = 1,
        environment: Mapping[str, str] | None = None,
        net: int = NODE_NET,
        mnt: int = NODE_MNT,
    ) -> int:
        """Add a process that starts now; returns its PID."""
        if pid is None:
            self._last_pid += 1
            pid = self._last_pid
        directory = self.directory / str(pid)
        task = directory / "task" / str(pid)
        for part in (directory / "ns", task / "ns"):
            part.mkdir(parents=True)
        ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
        # proc(5): field 22 is the start time.
        before = f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 4194560 100 0 0 0 1 1 0 0 20 0 1 0"
        (directory / "stat").write_text(f"{before} {ticks} 1000000 100 {' '.join(['0'] * 28)}\n")
        (directory / "comm").write_text(f"{name}\n")
        (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
        variables = {"PATH": "/usr/sbin:/usr/bin"} | dict(environment or {})
        (directory / "environ").write_bytes(b"".join(f"{k}={v}\0".encode() for k, v in variables.items()))
        (directory / "status").write_text(
            f"Name:\t{name}\nState:\tS (sleeping)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{parent}\nNSpid:\t{pid}\n"
        )
        (directory / "mountinfo").write_text("22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n")
        (directory / "root").symlink_to(self.directory.parent)
        for kind, inode in (("net", net), ("mnt", mnt), ("pid", FIRST_PID_NAMESPACE)):
            (directory / "ns" / kind).symlink_to(f"{kind}:[{inode}]")
            (task / "ns" / kind).symlink_to(f"{kind}:[{inode}]")
        (task / "net").symlink_to("../../net")
        if net == NODE_NET and pid != 1:
            (directory / "net").symlink_to("../1/net")
        else:
            (directory / "net").mkdir()
            self.set_network(pid, [], [])
        return pid

    def remove(self, pid: int) -> None:
        """The process has ended."""
        shutil.rmtree(self.directory / str(pid))

    def set_network(self, pid: int, addresses: Iterable[str], host_routes: Iterable[str], device: str = "eth0") -> None:
        """Set what the process's network namespace has besides loopback."""
        net = self.directory / str(pid) / "net"
        local = [ip_address(address) for address in addresses]
        routes = [ip_address(route) for route in host_routes]
        v4 = [(ip, "LOCAL") for ip in local if isinstance(ip, IPv4Address)]
        v4 += [(ip, "UNICAST") for ip in routes if isinstance(ip, IPv4Address)]
        (net / "fib_trie").write_text(_fib_trie([*v4, (IPv4Address("127.0.0.1"), "LOCAL")]))
        lines = [f"{int(IPv6Address('::1')):032x} 01 80 10 80       lo"]
        lines += [f"{int(ip):032x} 02 40 00 80 {device:>8}" for ip in local if isinstance(ip, IPv6Address)]
        (net / "if_inet6").write_text("\n".join(lines) + "\n")
        (net / "ipv6_route").write_text(
            "".join(
                f"{int(ip):032x} 80 {0:032x} 00 {0:032x} 00000400 00000001 00000000 00000001 {device:>8}\n"
                for ip in routes
                if isinstance(ip, IPv6Address)
            )
        )
        # Addresses are in the machine's byte order: 10.52.0.2 is 0200340A.
        rows = [f"{device}\t{int.from_bytes(ip.packed, 'little'):08X}\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
                for ip in routes if isinstance(ip, IPv4Address)]  # fmt: skip
        header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        (net / "route").write_text(header + "".join(rows))


def _fib_trie(leaves: list[tuple[IPv4Address, str]]) -> str:
    lines = ["  +-- 0.0.0.0/0 3 0 5"]
    for address, kind in sorted(leaves):
        lines += [f"     |-- {address}", f"        /32 host {kind}"]
    table = "\n".join(lines)
    return f"Main:\n{table}\nLocal:\n{table}\n"
