"""What the tables of a network namespace say about the addresses of interest.

Processes in the namespace decide how long the tables in their `net` directory (proc(5)) are. So they are read in
pieces, and only what is of interest is kept. `fib_trie` has every IPv4 routing table, with local addresses as `/32 host
LOCAL`; `if_inet6` has every IPv6 address; `ipv6_route` every IPv6 route. Standard library only.
"""

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from janitor.host.files import open_quietly

_PIECE: Final = 1 << 18
_MOST_BYTES: Final = 256 << 20
MOST_KEPT: Final = 1024  # addresses per kind that are asked about only by range
_LEAF: Final = re.compile(rb"\|-- ([0-9.]+)\n((?: +/\d+ [^\n]*\n)+)")
_HOST: Final = re.compile(rb" /32 [a-z0-9]+ (LOCAL|UNICAST)\b")


@dataclass(frozen=True, slots=True)
class Asked:
    """The addresses of interest, canonical, and networks in which every address is.

    `everything`: all addresses are of interest, on nodes where nothing has been leased yet.
    """

    addresses: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Tables:
    """What was found, sorted. `more`: not all addresses in the networks were kept.

    `cut`: the tables were not read to the end, so an address that was not found may still be up.
    """

    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    more: bool = False
    cut: bool = False


class Filter:
    """Asked, in the kernel's notation."""

    def __init__(self, asked: Asked, most: int = MOST_KEPT) -> None:
        self.asked = asked
        self.most = most
        self.everything = asked.everything
        self.v4 = {a.encode("ascii"): a for a in asked.addresses if ":" not in a}
        self.v6 = {b"%032x" % int(IPv6Address(a)): a for a in asked.addresses if ":" in a}
        networks = [ip_network(name) for name in asked.networks]
        self.spans4 = [_span(net.network_address, net.netmask) for net in networks if net.version == 4]
        self.spans6 = [_span(net.network_address, net.netmask) for net in networks if net.version == 6]


def _span(first: object, mask: object) -> tuple[int, int]:
    return int(first), int(mask)  # type: ignore[call-overload]


@dataclass(slots=True)
class _Kept:
    """Addresses of one kind: the named ones, and up to `filter.most` of those in the networks."""

    filter: Filter
    named: set[str] = field(default_factory=set)
    ranged: set[str] = field(default_factory=set)
    more: bool = False

    def v4(self, text: bytes) -> None:
        if address := self.filter.v4.get(text):
            self.named.add(address)
        elif self.filter.spans4 or self.filter.everything:
            try:
                number = int.from_bytes(socket.inet_aton(text.decode("ascii")), "big")
            except OSError:
                raise ValueError(f"{text!r} is not an address") from None
            self._ranged(number, self.filter.spans4, IPv4Address)

    def v6(self, digits: bytes) -> None:
        if address := self.filter.v6.get(digits):
            self.named.add(address)
        elif self.filter.spans6 or self.filter.everything:
            self._ranged(int(digits, 16), self.filter.spans6, IPv6Address)

    def _ranged(self, number: int, spans: list[tuple[int, int]], kind: Callable[[int], object]) -> None:
        if self.filter.everything or any(number & mask == first for first, mask in spans):
            if len(self.ranged) < self.filter.most:
                self.ranged.add(str(kind(number)))
            elif not self.more:
                self.more = str(kind(number)) not in self.ranged

    def all(self) -> set[str]:
        return self.named | self.ranged


def read_tables(net: str, wanted: Filter, seconds: float) -> Tables:
    """The tables in this directory, read for at most `seconds`. OSError, also for a table that cannot be parsed.

    A kernel without IPv6 lacks these files. A line ends with the interface's name, which its owner chooses almost
    freely.
    """
    local, routes = _Kept(wanted), _Kept(wanted)
    until = time.monotonic() + seconds
    try:
        cut = not _fib_trie(f"{net}/fib_trie", until, local, routes)
        with suppress(FileNotFoundError):
            for text in _pieces(f"{net}/if_inet6", b"\n", until):
                cut = cut or text is None
                for line in filter(None, (text or b"").split(b"\n")):
                    local.v6(line.split(b" ", 1)[0])
        with suppress(FileNotFoundError):
            for text in _pieces(f"{net}/ipv6_route", b"\n", until):
                cut = cut or text is None
                for line in (text or b"").split(b"\n"):
                    if line[33:35] == b"80":  # a prefix of 128 bits
                        routes.v6(line[:32])
                    elif line and line[32:33] != b" ":
                        raise ValueError("a line of ipv6_route has an unknown format")
    except ValueError as error:
        raise OSError(errno.EBADMSG, f"its tables cannot be parsed ({error})", net) from None
    up = local.all()
    return Tables(tuple(sorted(up)), tuple(sorted(routes.all() - up)), local.more, cut)


def _fib_trie(path: str, until: float, local: _Kept, routes: _Kept) -> bool:
    """False if it was not read to the end."""
    for text in _pieces(path, b"|--", until):
        if text is None:
            return False
        for leaf in _LEAF.finditer(text):
            for kind in _HOST.findall(leaf[2]) if b" /32 " in leaf[2] else ():
                (local if kind == b"LOCAL" else routes).v4(leaf[1])
    return True


def _pieces(path: str, before: bytes, until: float) -> Iterator[bytes | None]:
    """The file in pieces that end before `before`, or after it if it is a newline. Ends with None if over budget."""
    fd = open_quietly(path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        rest, total = b"", 0
        while True:
            parts, size = [rest], 0
            while size < _PIECE and (part := os.read(fd, _PIECE)):
                parts.append(part)
                size += len(part)
            text = b"".join(parts)
            total += size
            if size == 0:
                yield text
                return
            at = text.rfind(before)
            cut = at + (1 if before == b"\n" else 0)
            if at > 0 or before == b"\n":
                yield text[:cut]
                rest = text[cut:]
            else:
                rest = text
            if total > _MOST_BYTES or len(rest) > 4 * _PIECE or time.monotonic() > until:
                yield None
                return
    finally:
        os.close(fd)


def up_here(addresses: frozenset[str]) -> set[str]:
    """Those of the addresses that are local in this thread's network namespace: a socket can be bound to them.

    For a namespace whose tables are too long to be read. With net.ipv4.ip_nonlocal_bind a namespace seems to have every
    address, which keeps the leases.
    """
    found: set[str] = set()
    for family, sign in ((socket.AF_INET, False), (socket.AF_INET6, True)):
        asked = [a for a in addresses if (":" in a) is sign]
        while asked:
            try:
                # A socket whose bind failed can be reused: there may be thousands of such namespaces.
                with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
                    address = _bound(probe, asked)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:
                    break  # a kernel without this family
                raise
            found |= {address} if address else set()
    return found


def _bound(probe: socket.socket, asked: list[str]) -> str:
    """Pop addresses from the list up to the first that the socket can be bound to; "" if there is none."""
    while asked:
        address = asked.pop()
        try:
            probe.bind((address, 0))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
                raise
        else:
            return address
    return ""
