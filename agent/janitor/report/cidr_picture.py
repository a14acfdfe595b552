"""An address plan as a picture: strips of cells, and which ranges overlap. Letters carry it; colour only helps."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from janitor.core.address_plan.plan import Layout, Net, overlap, slot_count, slots_of
from janitor.core.model.text import count

CELLS = 64

LEGEND: Final = {
    "P": "pods", "S": "Services", "n": "nodes", "+": "several, no overlap", "!": "COLLISION", ".": "free",
}  # fmt: skip
_LETTERS = {"pods": "P", "Services": "S", "nodes": "n"}


@dataclass(frozen=True, slots=True)
class Row:
    """One range. `kind` is network, pods, Services or nodes; `overlaps` names what it collides with."""

    kind: str
    name: str
    cidr: str
    first: str
    last: str
    overlaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """A piece of address space from `first` to `last`, divided into `cells`, one letter of LEGEND each."""

    title: str
    first: str
    last: str
    each: str  # the size of one cell
    cells: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Strips and rows, in address order."""

    strips: tuple[Strip, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str
    name: str
    net: Net


def draw(layout: Layout) -> Picture:
    """The whole address space, then each pod range by its slots."""
    parts = _parts(layout)
    used = [part for part in parts if part.kind != "network"]
    rows = tuple(
        Row(
            part.kind, part.name, str(part.net), str(part.net.network_address), str(part.net.broadcast_address),
            tuple(f"{other.name} {other.net}" for other in used if _collide(part, other)),
        )
        for part in sorted(parts, key=lambda p: (p.net.version, int(p.net.network_address), p.net.prefixlen))
    )  # fmt: skip
    strips = [strip for version in (4, 6) if (strip := _whole(layout, parts, version))]
    strips += [_slots(part.net, layout.plan.mask(part.net), used) for part in parts if part.kind == "pods"]
    return Picture(tuple(strips), rows)


def _parts(layout: Layout) -> list[_Part]:
    found = [_Part("network", "network", layout.network.net)] if layout.network else []
    found += [_Part("pods", "pods", part.net) for part in layout.pods]
    found += [_Part("Services", "Services", part.net) for part in layout.services]
    return found + [_Part("nodes", name, net) for name, net in layout.occupied]


def _collide(one: _Part, other: _Part) -> bool:
    """Whether two ranges overlap that must not. The network, and node subnets among themselves, may."""
    kinds = {one.kind, other.kind}
    return one is not other and "network" not in kinds and len(kinds) == 2 and overlap(one.net, other.net) is not None


def _whole(layout: Layout, parts: list[_Part], version: int) -> Strip | None:
    nets = [part.net for part in parts if part.net.version == version]
    if not nets:
        return None
    low, high = min(int(n.network_address) for n in nets), max(int(n.broadcast_address) for n in nets)
    bits = 32 if version == 4 else 128
    prefix = bits - max((low ^ high).bit_length(), 1)
    size = 1 << (bits - prefix)
    start = low >> (bits - prefix) << (bits - prefix)
    whole = layout.network is not None and layout.network.net.version == version and start == int(
        layout.network.net.network_address
    ) and prefix == layout.network.net.prefixlen  # fmt: skip
    cells = min(CELLS, size)
    title = f"the network {layout.network}" if whole else f"{_text(start, version)}/{prefix}, which contains all ranges"
    each = f"/{prefix + (cells - 1).bit_length()}"
    return _strip(title, start, size, cells, each, [p for p in parts if p.kind != "network"], version)


def _slots(pods: Net, mask: int, parts: list[_Part]) -> Strip:
    slots = slot_count(pods, mask)
    cells = min(CELLS, slots) or 1
    each = count(slots // cells, "slot") + f" of /{mask}" if slots else "no slot"
    title = f"pods {pods}: {count(slots, 'slot')}"
    hit = sorted({i for p in parts if p.kind != "pods" for i in _some(slots_of(p.net, pods, mask))})
    if hit:
        title += f", colliding: {_spans(hit)}"
    return _strip(title, int(pods.network_address), pods.num_addresses, cells, each, parts, pods.version)


def _some(touched: range) -> range:
    return touched if len(touched) <= 4096 else range(touched.start, touched.start + 4096)


def _spans(indices: list[int]) -> str:
    """`0, 3-5, 9`"""
    spans: list[tuple[int, int]] = []
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], index)
        else:
            spans.append((index, index))
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in spans[:8]]
    return ", ".join(shown) + (" …" if len(spans) > 8 else "")


def _strip(title: str, start: int, size: int, cells: int, each: str, parts: list[_Part], version: int) -> Strip:
    letters = ""
    mine = [part for part in parts if part.net.version == version]
    for number in range(cells):
        low, high = start + size * number // cells, start + size * (number + 1) // cells - 1
        letters += _letter([p for p in mine if _touches(p.net, low, high)], low, high)
    return Strip(title, _text(start, version), _text(start + size - 1, version), each, letters)


def _letter(here: list[_Part], low: int, high: int) -> str:
    for one in here:
        for other in here:
            common = overlap(one.net, other.net)
            if _collide(one, other) and common is not None and _touches(common, low, high):
                return "!"
    kinds = {part.kind for part in here}
    if not kinds:
        return "."
    return _LETTERS[kinds.pop()] if len(kinds) == 1 else "+"


def _touches(net: Net, low: int, high: int) -> bool:
    return int(net.network_address) <= high and low <= int(net.broadcast_address)


def _text(number: int, version: int) -> str:
    return str(IPv4Address(number) if version == 4 else IPv6Address(number))
