"""Address arithmetic on host-local's ranges."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, ip_address, ip_network

from janitor.core.model.evidence import AddressRange
from janitor.core.model.lease import Address


def make_range(subnet: str, start: str = "", end: str = "", gateway: str = "") -> AddressRange:
    """A range as host-local's `Canonicalize` completes it (allocator/range.go). ValueError for what it rejects.

    The gateway, by default the first usable address, is never given to a pod. The last address of an IPv4 subnet is its
    broadcast address and not in the range; the last address of an IPv6 subnet is in the range.
    """
    net = ip_network(subnet, strict=True)
    if net.prefixlen > net.max_prefixlen - 2:
        raise ValueError(f"subnet {subnet} is too small to allocate from")
    first = net.network_address + 1
    last = net.broadcast_address - 1 if isinstance(net, IPv4Network) else net.broadcast_address
    low, high = (ip_address(start) if start else first), (ip_address(end) if end else last)
    for name, address in (("rangeStart", low), ("rangeEnd", high)):
        if address not in net:
            raise ValueError(f"{name} {address} is not in subnet {subnet}")
    if int(low) > int(high):
        raise ValueError(f"rangeStart {low} comes after rangeEnd {high}")
    return AddressRange(str(net), str(low), str(high), str(ip_address(gateway) if gateway else first))


def in_range(address: Address, part: AddressRange) -> bool:
    """Whether host-local could have allocated `address` from `part`."""
    version, start, end = _span(part)
    return version == address.version and start <= int(address) <= end


@lru_cache(maxsize=256)
def _span(part: AddressRange) -> tuple[int, int, int]:
    start = ip_address(part.start)
    return start.version, int(start), int(ip_address(part.end))


def in_ranges(address: Address, range_sets: Iterable[Iterable[AddressRange]]) -> bool:
    """Whether `address` is in any range of any set."""
    return any(in_range(address, part) for parts in range_sets for part in parts)


def capacity(range_set: Iterable[AddressRange]) -> int:
    """How many pods a range set can hold: its distinct addresses without the gateways."""
    spans: list[tuple[int, int]] = []
    gateways: set[int] = set()
    for part in range_set:
        spans.append((int(ip_address(part.start)), int(ip_address(part.end))))
        gateways.add(int(ip_address(part.gateway)))
    total, upto = 0, -1
    for low, high in sorted(spans):
        total += max(0, high - max(low, upto + 1) + 1)
        upto = max(upto, high)
    return total - sum(any(low <= gateway <= high for low, high in spans) for gateway in gateways)


def reserved(range_set: Iterable[AddressRange]) -> dict[str, str]:
    """The addresses of the set's subnets that no pod gets, each with what it is."""
    found: dict[str, str] = {}
    for part in range_set:
        net = ip_network(part.subnet)
        found[str(net.network_address)] = "the network's own address"
        if isinstance(net, IPv4Network):
            found[str(net.broadcast_address)] = "the broadcast address"
        found[part.gateway] = "the gateway"
    return found


def describe(range_sets: Iterable[Iterable[AddressRange]]) -> str:
    """The subnets as an operator writes them: `10.42.0.0/24, fd00:42::/64`."""
    return ", ".join(dict.fromkeys(part.subnet for parts in range_sets for part in parts))
