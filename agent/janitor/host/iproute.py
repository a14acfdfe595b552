"""Links, addresses, routes, and what the kernel would do with a packet, as pyroute2 asks for them."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from janitor.core.routing import Link, Probe, Route
from janitor.core.rules import Family
from janitor.host.files import printable

MAIN: Final = 254
LOCAL: Final = 255
_FAMILIES: Final[dict[int, Family]] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_IFF_UP: Final = 1
_KINDS: Final = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable",
                 8: "prohibit", 9: "throw"}  # fmt: skip

_LOOKUP_TABLE: Final = 0x1000  # RTM_F_LOOKUP_TABLE of linux/rtnetlink.h: without it the kernel always says main


def links() -> tuple[Link, ...]:
    """Every interface of this thread's network namespace, with its addresses. OSError."""
    addresses: dict[int, list[str]] = {}
    for message in _dumped(lambda route: route.get_addr()):
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if address:
            addresses.setdefault(message["index"], []).append(f"{address}/{message['prefixlen']}")
    return tuple(
        Link(
            message["index"],
            printable(message.get_attr("IFLA_IFNAME") or ""),
            bool(message["flags"] & _IFF_UP) and message.get_attr("IFLA_OPERSTATE") != "DOWN",
            str(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""),
            tuple(addresses.get(message["index"], ())),
        )
        for message in _dumped(lambda route: route.get_links())
    )


def routes(tables: frozenset[int], known_links: tuple[Link, ...]) -> tuple[Route, ...]:
    """The routes of these tables. OSError."""
    by_index = {link.index: link.name for link in known_links}
    found = [message for table in sorted(tables) for message in _routes(table)]
    # A kernel may have one IPv6 table only, and call it by any number.
    found += _dumped(lambda route: route.get_routes(family=socket.AF_INET6), strict=True)
    return tuple(
        Route(
            _FAMILIES[message["family"]],
            table,
            f"{message.get_attr('RTA_DST') or ('::' if message['family'] == socket.AF_INET6 else '0.0.0.0')}"
            f"/{message['dst_len']}",
            by_index.get(message.get_attr("RTA_OIF"), ""),
            str(message.get_attr("RTA_GATEWAY") or ""),
            message["proto"],
            _KINDS.get(message["type"], f"type {message['type']}"),
        )
        for message in found
        if message["family"] in _FAMILIES and (table := message.get_attr("RTA_TABLE") or message["table"]) in tables
    )


def route_get(destination: str, source: str, interface: str) -> Probe:
    """What the kernel would do with a packet from `source` coming in on `interface`: `ip route get`. Never raises."""
    try:
        with IPRoute() as route:
            index = route.link_lookup(ifname=interface)
            answer = next(iter(route.route("get", dst=destination, src=source, iif=index[0], flags=_LOOKUP_TABLE)))
            outgoing = answer.get_attr("RTA_OIF")
            device = next((m.get_attr("IFLA_IFNAME") for m in route.get_links(outgoing)), "") if outgoing else ""
            return Probe(destination, source, printable(device), int(answer.get_attr("RTA_TABLE") or answer["table"]))
    except (NetlinkError, OSError, IndexError, StopIteration) as error:
        number = getattr(error, "code", None) or getattr(error, "errno", None)
        return Probe(destination, source, "", 0, os.strerror(number) if number else type(error).__name__)


def _routes(table: int) -> list[Any]:
    try:
        return _dumped(lambda route: route.get_routes(family=socket.AF_INET, table=table), strict=True)
    except OSError as error:
        if error.errno == errno.ENOENT:  # nobody has made this table
            return []
        raise


def _dumped(ask: Callable[[AsyncIPRoute], Any], *, strict: bool = False) -> list[Any]:
    """All messages of one dump. OSError where the kernel refuses.

    `strict`: the kernel, not we, looks for what was asked for (NETLINK_GET_STRICT_CHK, Linux 4.20), much quicker
    on a node with hundreds of pods. Without it the answers are the same: pyroute2 looks once more. Asynchronous,
    because the other face of pyroute2 starts and stops an event loop for each message, which takes as long again.
    """

    async def read() -> list[Any]:
        try:
            opened = AsyncIPRoute(strict_check=strict)
        except OSError:
            if not strict:
                raise
            opened = AsyncIPRoute()
        async with opened as route:
            return [message async for message in await ask(route)]

    try:
        return asyncio.run(read())
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from None
