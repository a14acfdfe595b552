"""Links, addresses, routes, and what the kernel would do with a packet, as pyroute2 asks for them."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

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

_T = TypeVar("_T")
_LOOKUP_TABLE: Final = 0x1000  # RTM_F_LOOKUP_TABLE of linux/rtnetlink.h: without it the kernel always says main


def links() -> tuple[Link, ...]:
    """Every interface of this thread's network namespace, with its addresses. OSError."""
    addresses: dict[int, list[str]] = {}
    for index, address in _dumped(lambda route: route.get_addr(), _address):
        addresses.setdefault(index, []).extend(address)

    def link(message: Any) -> Link:
        return Link(
            message["index"],
            printable(message.get_attr("IFLA_IFNAME") or ""),
            bool(message["flags"] & _IFF_UP) and message.get_attr("IFLA_OPERSTATE") != "DOWN",
            str(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""),
            tuple(addresses.get(message["index"], ())),
        )

    return tuple(_dumped(lambda route: route.get_links(), link))


def _address(message: Any) -> tuple[int, list[str]]:
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return message["index"], [f"{address}/{message['prefixlen']}"] if address else []


def routes(tables: frozenset[int], known_links: tuple[Link, ...]) -> tuple[Route, ...]:
    """The routes of these tables. OSError."""
    by_index = {link.index: link.name for link in known_links}

    def route(message: Any) -> Route | None:
        table = message.get_attr("RTA_TABLE") or message["table"]
        if message["family"] not in _FAMILIES or table not in tables:
            return None
        everywhere = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"
        return Route(
            _FAMILIES[message["family"]],
            table,
            f"{message.get_attr('RTA_DST') or everywhere}/{message['dst_len']}",
            by_index.get(message.get_attr("RTA_OIF"), ""),
            str(message.get_attr("RTA_GATEWAY") or ""),
            message["proto"],
            _KINDS.get(message["type"], f"type {message['type']}"),
        )

    found: list[Route | None] = []
    for table in sorted(tables):
        try:
            found += _dumped(partial(_ask_routes, family=socket.AF_INET, table=table), route, strict=True)
        except OSError as error:
            if error.errno != errno.ENOENT:  # that nobody has made this table
                raise
    # A kernel may have one IPv6 table only, and call it by any number.
    found += _dumped(partial(_ask_routes, family=socket.AF_INET6), route, strict=True)
    return tuple(one for one in found if one is not None)


def _ask_routes(kernel: Any, **wanted: int) -> Any:
    return kernel.get_routes(**wanted)


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


def _dumped(ask: Callable[[AsyncIPRoute], Any], take: Callable[[Any], _T], *, strict: bool = False) -> list[_T]:
    """What `take` makes of each message of one dump; none is kept. OSError where the kernel refuses.

    `strict`: the kernel, not we, looks for what was asked for (NETLINK_GET_STRICT_CHK, Linux 4.20), much quicker
    on a node with hundreds of pods. Without it the answers are the same: pyroute2 looks once more. Asynchronous,
    because the other face of pyroute2 starts and stops an event loop for each message, which takes as long again.
    """

    async def read() -> list[_T]:
        try:
            opened = AsyncIPRoute(strict_check=strict)
        except OSError:
            if not strict:
                raise
            opened = AsyncIPRoute()
        async with opened as route:
            return [take(message) async for message in await ask(route)]

    try:
        return asyncio.run(read())
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from None
