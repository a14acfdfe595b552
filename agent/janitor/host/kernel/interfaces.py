"""The node's own addresses and its main routing table, from /proc/1/net.

Standard library only. Other network namespaces are in host/kernel/netns.py.
"""

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.routing import Route
from janitor.core.model.unknown import unseen
from janitor.host.files import printable, read_bounded, unknown
from janitor.host.kernel import netns
from janitor.host.kernel.procfs import Proc

_LIMIT = 16 << 20
_UP, _LOCAL = 0x1, 0x80000000
_SKIPPED = (IPv6Network("fe80::/10"), IPv6Network("ff00::/8"))


def routes(proc: Proc) -> tuple[Route, ...] | Unknown:
    """The main table, IPv4 first. ipv6_route lists all tables; local and multicast routes are left out."""
    net = f"{proc.path}/1/net"
    try:
        return (*_ipv4(_text(f"{net}/route")), *_ipv6(_text(f"{net}/ipv6_route")))
    except OSError as error:
        return unknown(Code.CANNOT_READ_NODE_ROUTES, error)
    except (ValueError, IndexError, struct.error) as error:
        return unseen(Code.BAD_NODE_ROUTES, path=net, error=str(error))


def addresses(proc: Proc) -> tuple[str, ...] | Unknown:
    """Every local address of the node itself, loopback included."""
    try:
        return netns.tables(f"{proc.path}/1/net")[0]
    except OSError as error:
        return unknown(Code.CANNOT_READ_NODE_ADDRESSES, error)


def _text(path: str) -> str:
    try:
        return read_bounded(path, _LIMIT).decode("utf-8", "surrogateescape")
    except OSError as error:
        if error.errno == errno.ENOENT and path.endswith("ipv6_route"):
            return ""  # a kernel without IPv6
        raise


def _ipv4(text: str) -> list[Route]:
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split("\t")
        if not int(fields[3], 16) & _UP:
            continue
        destination, gateway, mask = (_little_endian(fields[i]) for i in (1, 2, 7))
        net = IPv4Network(f"{destination}/{mask}")
        via = "" if gateway == IPv4Address(0) else str(gateway)
        found.append(Route(str(net), via, printable(fields[0].strip()), int(fields[6])))
    return found


def _little_endian(text: str) -> IPv4Address:
    return IPv4Address(socket.ntohl(int(text, 16)))


def _ipv6(text: str) -> list[Route]:
    found = []
    for line in text.splitlines():
        fields = line.split()
        flags = int(fields[8], 16)
        net = IPv6Network((int(fields[0], 16), int(fields[1], 16)))
        if not flags & _UP or flags & _LOCAL or fields[9] == "lo" or any(net.subnet_of(skip) for skip in _SKIPPED):
            continue
        gateway = IPv6Address(int(fields[4], 16))
        via = "" if gateway == IPv6Address(0) else str(gateway)
        found.append(Route(str(net), via, printable(fields[9]), int(fields[5], 16)))
    return found
