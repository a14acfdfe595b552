"""The nearest plan without a finding: as few and as small changes as possible.

Every candidate is checked by the same rules as the plan itself; nothing here knows what a good plan is. Subnets and
nodes are facts and stay. Those that follow from a scheme follow from the proposed network instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice

from janitor.core.address_plan.check import examine
from janitor.core.address_plan.plan import (
    KUBE_HETZNER,
    AddressPlan,
    Layout,
    Net,
    Stated,
    host,
    kube_hetzner,
    parse,
    scheme_mask,
    within,
)
from janitor.core.address_plan.values import HETZNER_GATEWAY, PRIVATE, RESERVED, SHARED
from janitor.core.model.finding_ids import FindingId, Severity

BEYOND_RANGES = (FindingId.CIDR014,)  # the limits of a Hetzner network cannot be changed
_SOURCE = "proposed"
_DOCKER = ip_network("172.17.0.0/16")  # docker0's default
_BLOCKS = 4096  # aligned blocks examined in one search space, the nearest first
_CANDIDATES = 12  # of each range that are tried against each other
_DEFAULTS = {("pods", 4): "10.42.0.0/16", ("services", 4): "10.43.0.0/16", ("pods", 6): "fd00:42::/56",
             ("services", 6): "fd00:43::/112"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One changed value: its name, its old value ("" if there was none) and its new value."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan without a finding of warning or above that ranges could fix, and its difference from the given one."""

    plan: AddressPlan
    changes: tuple[Change, ...]


def clean(plan: AddressPlan) -> bool:
    """Whether the plan has no finding of warning or above that other ranges could fix."""
    return all(f.severity.rank < Severity.WARNING.rank or f.id in BEYOND_RANGES for f in examine(plan))


def propose(plan: AddressPlan) -> Proposal | None:
    """The nearest clean plan, or None if there is none."""
    for network in _networks(plan):
        base = _with_network(plan, network)
        for mask, mask_v6 in _masks(base):
            found = _ranges(replace(base, node_mask=mask, node_mask_v6=mask_v6))
            if found is not None:
                return Proposal(found, changes(plan, found))
    return None


def _networks(plan: AddressPlan) -> Iterator[Stated | None]:
    """The network as it is; then, for a scheme that needs more room, larger ones around it: it can only be extended."""
    if plan.network is None:
        yield None
        return
    net = parse(plan.network.value)
    if net is None:
        return
    yield plan.network if str(net) == plan.network.value else Stated(str(net), _SOURCE)
    if plan.scheme == KUBE_HETZNER and isinstance(net, IPv4Network):
        roomy = 24 - scheme_mask(net, plan.subnet_count) + net.prefixlen
        for prefix in range(min(roomy, net.prefixlen - 1), 7, -1):
            larger = net.supernet(new_prefix=prefix)
            if any(within(larger, block) for block in PRIVATE):
                yield Stated(str(larger), _SOURCE)


def _with_network(plan: AddressPlan, network: Stated | None) -> AddressPlan:
    if network == plan.network or network is None or plan.scheme != KUBE_HETZNER:
        return replace(plan, network=network)
    subnets, nodes = kube_hetzner(network, *plan.pools, plan.subnet_count)
    own = tuple(node for node in plan.nodes if not node.generated)
    return replace(plan, network=network, subnets=subnets, nodes=(*nodes, *own))


def _masks(plan: AddressPlan) -> Iterator[tuple[int, int]]:
    """The present masks; then the lengths between them and those that are sure to fit, the nearest first.

    A mask shorter than the pods' prefix is the mistake itself, so the usual masks come before it.
    """
    bits = (plan.max_pods + 2).bit_length()  # three are taken: the network's address, the last one and the bridge
    fit = 32 - bits if bits < 31 else 24
    ends = (24, fit, plan.node_mask if plan.node_mask <= 30 else 24)
    near = sorted(range(min(ends), max(ends) + 1), key=lambda mask: (abs(mask - plan.node_mask), mask))
    prefix = max((part.net.prefixlen for part in Layout(plan).pods if part.net.version == 4), default=0)
    usual = [mask for mask in (24, fit) if mask >= prefix > plan.node_mask]
    for v6 in dict.fromkeys((plan.node_mask_v6, 64)):
        for mask in dict.fromkeys((*usual, plan.node_mask, *near)):
            yield mask, v6


def _ranges(plan: AddressPlan) -> AddressPlan | None:
    """The pod and Service ranges: the present ones, or the nearest to them, one family after the other."""
    families = _families(plan)
    if not families:
        return None
    for family in families:
        pods, services = (_of_family(values, family) for values in (plan.pods, plan.services))
        if pods is None or services is None or not clean(_only(plan, pods, services, family)):
            choice = next(_choices(plan, pods, services, family), None)
            if choice is None:
                return None
            pods, services = choice
        plan = replace(plan, pods=_put(plan.pods, pods, family), services=_put(plan.services, services, family))
    ordered = [tuple(s for f in families if (s := _of_family(v, f))) for v in (plan.pods, plan.services)]
    plan = replace(plan, pods=ordered[0], services=ordered[1])
    plan = replace(plan, dns=_dns(plan))
    return plan if clean(plan) else None


def _families(plan: AddressPlan) -> list[int]:
    """The families of the plan, in the order of the pods; only those that the nodes have, if that is known."""
    layout = Layout(plan)
    wanted: list[int] = list(dict.fromkeys(p.net.version for p in (*layout.pods, *layout.services))) or [4]
    has = {a.version for n, a in layout.nodes if not n.generated}
    return [family for family in wanted if family in has] if has else wanted


def _of_family(values: tuple[Stated, ...], family: int) -> Stated | None:
    found = ((stated, parse(stated.value)) for stated in values)
    for stated, net in found:
        if net is not None and net.version == family:
            return stated if str(net) == stated.value else Stated(str(net), _SOURCE)
    return None


def _put(values: tuple[Stated, ...], new: Stated, family: int) -> tuple[Stated, ...]:
    kept = tuple(v for v in values if (net := parse(v.value)) is not None and net.version != family)
    return (*kept, new)


def _only(plan: AddressPlan, pods: Stated, services: Stated, family: int) -> AddressPlan:
    """The part of the plan that is of one family, so that each family can be settled separately."""
    layout = Layout(plan)
    nodes = tuple(node for node, address in layout.nodes if address.version == family)
    return replace(plan, pods=(pods,), services=(services,), dns=(), nodes=nodes)


def _choices(
    plan: AddressPlan, pods: Stated | None, services: Stated | None, family: int
) -> Iterator[tuple[Stated, Stated]]:
    """Clean pairs of ranges: first only Services changed (the smaller change), then only the pods, then both."""
    mask = plan.node_mask if family == 4 else plan.node_mask_v6
    if pods is not None:
        for one in islice(_near(plan, services, "services", family, pods), _CANDIDATES):
            if clean(_only(plan, pods, one, family)):
                yield pods, one
    for one in islice(_near(plan, pods, "pods", family, services, mask), _CANDIDATES):
        if services is not None and clean(_only(plan, one, services, family)):
            yield one, services
    for one in islice(_near(plan, pods, "pods", family, None, mask), _CANDIDATES):
        for other in islice(_near(plan, services, "services", family, one), _CANDIDATES):
            if clean(_only(plan, one, other, family)):
                yield one, other


def _near(
    plan: AddressPlan, value: Stated | None, kind: str, family: int, other: Stated | None, mask: int = 0
) -> Iterator[Stated]:
    """Free blocks of the size of `value` or smaller, then larger; those of one size by their distance from it."""
    wish = (parse(value.value) if value else None) or ip_network(_DEFAULTS[kind, family])
    taken = [net for _, net in Layout(plan).occupied]
    taken += [*RESERVED, SHARED, HETZNER_GATEWAY, _DOCKER]
    for stated in (other, plan.network):
        net = parse(stated.value) if stated else None
        if net is not None:
            taken.append(net if stated is other else ip_network(host(net, 1) or net.network_address))
    smallest = _smallest(plan, kind, wish, mask)
    largest = wish.prefixlen
    if kind == "services":
        largest = max(largest, wish.max_prefixlen - 20)
    elif wish.version == 6:
        largest = max(largest, mask - 16)
    spans = [(int(n.network_address), int(n.broadcast_address)) for n in taken if n.version == wish.version]
    for prefix in (*range(min(largest, smallest), smallest + 1), *range(largest - 1, 7, -1)):
        size = 1 << (wish.max_prefixlen - prefix)
        for start in _blocks(plan, wish, prefix):
            if not any(low < start + size and start <= high for low, high in spans):
                net = IPv4Network((start, prefix)) if wish.version == 4 else IPv6Network((start, prefix))
                yield Stated(str(net), _SOURCE)


def _smallest(plan: AddressPlan, kind: str, wish: Net, mask: int) -> int:
    """The longest prefix that is still useful: slots for all nodes and a quarter more, or a few Services."""
    if kind == "services":
        return max(min(wish.max_prefixlen - 4, wish.prefixlen), wish.max_prefixlen - 12)
    needed = max(1, Layout(plan).joining) * 5 // 4 + 1
    return max(mask - (needed - 1).bit_length(), 0)


def _blocks(plan: AddressPlan, wish: Net, prefix: int) -> list[int]:
    """Starts of aligned blocks of one size, the nearest to `wish` first; inside the network if there is one."""
    network = parse(plan.network.value) if plan.network else None
    spaces: list[Net] = [network] if network is not None and network.version == wish.version else []
    if not spaces:
        spaces = list(PRIVATE) if wish.version == 4 else [ip_network("fd00::/8")]
    size, wanted = wish.max_prefixlen - prefix, int(wish.network_address)
    found: list[int] = []
    for space in spaces:
        if space.prefixlen <= prefix <= space.max_prefixlen:
            first, count = int(space.network_address) >> size, 1 << (prefix - space.prefixlen)
            low = max(first, min((wanted >> size) - _BLOCKS // 2, first + count - _BLOCKS))
            found += [index << size for index in range(low, min(first + count, low + _BLOCKS))]
    return sorted(found, key=lambda start: abs(start - wanted))


def _dns(plan: AddressPlan) -> tuple[Stated, ...]:
    """The present DNS addresses if they fit; else the tenth address of each Service range, by convention."""
    if not plan.dns or (len(plan.dns) <= len(plan.services) and clean(plan)):
        return plan.dns if clean(plan) else ()
    nets = [net for net in (parse(s.value) for s in plan.services) if net is not None]
    return tuple(Stated(str(host(net, 10) or host(net, 2)), _SOURCE) for net in nets[: len(plan.dns)])


def changes(before: AddressPlan, after: AddressPlan) -> tuple[Change, ...]:
    """The differences, value by value."""
    found = []
    for name in ("network", "pods", "services", "dns"):
        old, new = (_text(getattr(plan, name)) for plan in (before, after))
        if old != new:
            found.append(Change(name, old, new))
    for name, family in (("node_mask", 4), ("node_mask_v6", 6)):
        old, new = str(getattr(before, name)), str(getattr(after, name))
        if old != new and any(net.net.version == family for net in Layout(after).pods):
            found.append(Change(name, f"/{old}", f"/{new}"))
    return tuple(found)


def _text(value: Stated | tuple[Stated, ...] | None) -> str:
    if value is None:
        return ""
    return ",".join(v.value for v in value) if isinstance(value, tuple) else value.value
