"""Links, addresses, routes and route lookups, through pyroute2."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypeVar

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from janitor.core.model.routing import Link, Probe, Route
from janitor.core.model.rules import Family
from janitor.host.files import printable

LOCAL: Final = 255
_FAMILIES: Final[dict[int, Family]] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_IFF_UP: Final = 1
_KINDS: Final = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable",
                 8: "prohibit", 9: "throw"}  # fmt: skip

_T = TypeVar("_T")
_LOOKUP_TABLE: Final = 0x1000  # RTM_F_LOOKUP_TABLE of linux/rtnetlink.h: without it the kernel always answers "main"


def links() -> tuple[Link, ...]:
    """Every interface of this thread's network namespace, with its addresses. OSError."""
    addresses: dict[int, list[str]] = {}
    for index, address in _dumped([_addresses], _address):
        addresses.setdefault(index, []).extend(address)

    def link(message: Any) -> Link:
        return Link(
            message["index"],
            printable(message.get_attr("IFLA_IFNAME") or ""),
            bool(message["flags"] & _IFF_UP) and message.get_attr("IFLA_OPERSTATE") != "DOWN",
            str(message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""),
            tuple(addresses.get(message["index"], ())),
        )

    return tuple(_dumped([_links], link))


async def _links(kernel: AsyncIPRoute) -> list[Any]:
    return [message async for message in await kernel.get_links()]


async def _addresses(kernel: AsyncIPRoute) -> list[Any]:
    return [message async for message in await kernel.get_addr()]


def _address(message: Any) -> tuple[int, list[str]]:
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return message["index"], [f"{address}/{message['prefixlen']}"] if address else []


def routes(tables: frozenset[int], known_links: tuple[Link, ...]) -> tuple[Route, ...]:
    """The routes of these tables. OSError."""
    by_index = {link.index: link.name for link in known_links}

    def route(message: Any) -> Route:
        everywhere = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"
        return Route(
            f"{message.get_attr('RTA_DST') or everywhere}/{message['dst_len']}",
            str(message.get_attr("RTA_GATEWAY") or ""),
            by_index.get(message.get_attr("RTA_OIF"), ""),
            int(message.get_attr("RTA_PRIORITY") or 0),
            _table(message),
            message["proto"],
            _KINDS.get(message["type"], f"type {message['type']}"),
        )

    questions = [partial(_in_table, table, family) for family in _FAMILIES for table in sorted(tables)]
    return tuple(_dumped(questions, route))


async def _in_table(table: int, family: int, kernel: AsyncIPRoute) -> list[Any]:
    """The messages of one table, filtered by the kernel (`dump_filter`) rather than by pyroute2.

    A kernel that cannot filter (before Linux 4.20), or that has a single table for IPv6, sends more than was asked for.
    """
    try:
        answers = await kernel.route("dump", dump_filter=None, family=family, table=table)
        return [message async for message in answers if (message["family"], _table(message)) == (family, table)]
    except NetlinkError as error:
        if error.code in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # no such table, or no IPv6 at all
            return []
        raise


def _table(message: Any) -> int:
    return int(message.get_attr("RTA_TABLE") or message["table"])


def route_get(destination: str, source: str, interface: str) -> Probe:
    """Where the kernel would route a packet from `source` arriving on `interface`: `ip route get`. Never raises."""
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


def _dumped(questions: Iterable[Callable[[AsyncIPRoute], Any]], take: Callable[[Any], _T]) -> list[_T]:
    """What `take` returns for each message that answers one of the questions. OSError if the kernel refuses.

    Uses asyncio, because pyroute2's synchronous API starts and stops an event loop for each message and takes twice as
    long. Uses the kernel's strict checks, because without them it ignores the filter.
    """

    async def read() -> list[_T]:
        try:
            opened = AsyncIPRoute(strict_check=True)
        except OSError:  # before Linux 4.20
            opened = AsyncIPRoute()
        async with opened as kernel:
            return [take(message) for ask in questions for message in await ask(kernel)]

    try:
        return asyncio.run(read())
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from None
