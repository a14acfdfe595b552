"""Links, addresses, routes, and what the kernel would do with a packet (ip-link(8), ip-route(8)). Reads only.

The numbers are those of linux/if_link.h, linux/if_addr.h and linux/rtnetlink.h. Standard library only.
"""

import errno
import os
import socket
import struct
import sys
from contextlib import closing
from typing import Final

from janitor.core.routing import Link, Probe, Route
from janitor.core.rules import Family
from janitor.host import rtnetlink
from janitor.host.files import printable

MAIN: Final = 254
LOCAL: Final = 255
_FAMILIES: Final[dict[int, Family]] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 22, 24, 26
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=4BI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE: Final = struct.Struct("=8BI")  # struct rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_IFF_UP: Final = 1
_IFLA_IFNAME, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_EXT_MASK = 3, 16, 18, 1, 29
_OPER_DOWN: Final = 2
_SKIP_STATS: Final = 8
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 2, 3, 4, 5, 15
_KINDS: Final = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable",
                 8: "prohibit", 9: "throw"}  # fmt: skip
_LOOKUP_TABLE: Final = 0x1000  # RTM_F_LOOKUP_TABLE: say which table it was; otherwise the kernel says main
_ATTEMPTS: Final = 5


def links() -> tuple[Link, ...]:
    """Every interface of this thread's network namespace, with its addresses. OSError."""
    addresses: dict[int, list[str]] = {}
    with closing(rtnetlink.open_socket()) as talk:
        for payload in _dump(talk, _GETADDR, _ADDRESS.pack(*[0] * 5), _NEWADDR):
            family, length, _, _, index = _ADDRESS.unpack_from(payload)
            told = _attributes(payload, _ADDRESS.size)
            address = told.get(_IFA_LOCAL) or told.get(_IFA_ADDRESS)
            if address and family in _FAMILIES:
                addresses.setdefault(index, []).append(f"{socket.inet_ntop(family, address)}/{length}")
        mask = rtnetlink.attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATS))
        found = _dump(talk, _GETLINK, _LINK.pack(*[0] * 5) + mask, _NEWLINK)
    return tuple(_link(payload, addresses) for payload in found)


def _link(payload: bytes, addresses: dict[int, list[str]]) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    told = _attributes(payload, _LINK.size)
    down = told.get(_IFLA_OPERSTATE, b"")[:1] == bytes([_OPER_DOWN])
    kind = _attributes(told.get(_IFLA_LINKINFO, b""), 0).get(_IFLA_INFO_KIND, b"")
    up = bool(flags & _IFF_UP) and not down
    return Link(index, _name(told.get(_IFLA_IFNAME, b"")), up, _name(kind), tuple(addresses.get(index, ())))


def routes(tables: frozenset[int], known_links: tuple[Link, ...]) -> tuple[Route, ...]:
    """The routes of these tables. OSError."""
    by_index = {link.index: link.name for link in known_links}
    found: list[Route] = []
    with closing(rtnetlink.open_socket()) as talk:
        for family in _FAMILIES:
            for payload in _dump(talk, _GETROUTE, _ROUTE.pack(family, *[0] * 8), _NEWROUTE):
                _, length, _, _, low, protocol, _, kind, _ = _ROUTE.unpack_from(payload)
                told = _attributes(payload, _ROUTE.size)
                table = _number(told, _RTA_TABLE) or low
                if table in tables:
                    destination = _address(family, told.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16)))
                    found.append(
                        Route(
                            _FAMILIES[family], table, f"{destination}/{length}",
                            by_index.get(_number(told, _RTA_OIF), ""), _address(family, told.get(_RTA_GATEWAY, b"")),
                            protocol, _KINDS.get(kind, f"type {kind}"),
                        )
                    )  # fmt: skip
    return tuple(found)


def route_get(destination: str, source: str, interface: str) -> Probe:
    """What the kernel would do with a packet from `source` coming in on `interface`: `ip route get`. Never raises."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    length = 128 if family == socket.AF_INET6 else 32
    try:
        question = (
            _ROUTE.pack(family, length, length, 0, 0, 0, 0, 0, _LOOKUP_TABLE)
            + rtnetlink.attribute(_RTA_DST, socket.inet_pton(family, destination))
            + rtnetlink.attribute(_RTA_SRC, socket.inet_pton(family, source))
            + rtnetlink.attribute(_RTA_IIF, struct.pack("=I", socket.if_nametoindex(interface)))
        )
        with closing(rtnetlink.open_socket()) as talk:
            payload = rtnetlink.ask(talk, _GETROUTE, question, _NEWROUTE)
        told = _attributes(payload, _ROUTE.size)
        index = _number(told, _RTA_OIF)
        device = printable(socket.if_indextoname(index)) if index else ""
    except OSError as error:
        return Probe(destination, source, "", 0, os.strerror(error.errno) if error.errno else str(error))
    return Probe(destination, source, device, _number(told, _RTA_TABLE) or payload[4])


def _dump(talk: socket.socket, question: int, payload: bytes, answer: int) -> list[bytes]:
    """A dump during which nothing changed; of a family that the kernel does not have, nothing. OSError."""
    for _ in range(_ATTEMPTS):
        try:
            found = rtnetlink.dump(talk, question, payload, answer)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                raise
            return []
        if found is not None:
            return found
    raise OSError(errno.EINTR, f"links or routes changed during each of {_ATTEMPTS} dumps")


def _attributes(payload: bytes, offset: int) -> dict[int, bytes]:
    return {kind: value for kind, _, value in rtnetlink.attributes(payload, offset)}


def _number(told: dict[int, bytes], kind: int) -> int:
    value = told.get(kind, b"")
    return int.from_bytes(value, sys.byteorder) if len(value) == 4 else 0


def _address(family: int, value: bytes) -> str:
    return socket.inet_ntop(family, value) if len(value) == (4 if family == socket.AF_INET else 16) else ""


def _name(value: bytes) -> str:
    return printable(os.fsdecode(value.rstrip(b"\0")))
