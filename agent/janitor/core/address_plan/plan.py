"""The address plan of a cluster: its ranges, and how they overlap.

Four things share one address space: the provider's private network of the nodes (N), the subnets and addresses that
nodes have in it (U), the range of pod addresses (C, cut into one slot per node), and the range of Services (V). C and V
may lie inside N; neither may overlap the other, or U. The rules are in core/address_plan/ranges.py and
core/address_plan/limits.py; core/address_plan/values.py checks single values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Net = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

KUBE_HETZNER = "kube-hetzner"
_MOST_LISTED = 64


@dataclass(frozen=True, slots=True)
class Stated:
    """A value as it was written, and where."""

    value: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.source})" if self.source else self.value


@dataclass(frozen=True, slots=True)
class NodeSubnet:
    """A subnet with addresses of nodes, load balancers or routers. `agent_pool`: a scheme made it for an agent pool."""

    name: str
    cidr: Stated
    agent_pool: bool = False


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node. `pods` are its assigned ranges; empty while it has none.

    `generated` nodes follow from a scheme, or are known by only one of their addresses: nobody has listed them.
    """

    name: str
    address: Stated
    pods: tuple[str, ...] = ()
    generated: bool = False


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The values of a plan. `routes`: whether the cloud controller makes a route per node; None if unknown.

    `node_count` includes nodes that may still join, so `nodes` may be fewer. `allocated`: the nodes' pod ranges are
    those of a running cluster; otherwise the first slots go to the nodes that join first.
    """

    network: Stated | None = None
    pods: tuple[Stated, ...] = ()
    services: tuple[Stated, ...] = ()
    dns: tuple[Stated, ...] = ()
    subnets: tuple[NodeSubnet, ...] = ()
    nodes: tuple[PlannedNode, ...] = ()
    node_count: int = 0
    node_mask: int = 24
    node_mask_v6: int = 64
    max_pods: int = 110
    routes: bool | None = None
    hetzner: bool = False
    scheme: str = ""
    pools: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # of a scheme: nodes of each control-plane and agent pool
    subnet_count: int = 256  # of a scheme: number of subnets of the network, a power of two
    allocated: bool = False
    skips_services: bool = False  # kube-controller-manager knows the service range, and skips its slots

    def mask(self, net: Net) -> int:
        """The prefix length of a node's pod range within `net`."""
        return self.node_mask if net.version == 4 else self.node_mask_v6


@dataclass(frozen=True)
class Range:
    """A range of the plan that could be parsed, with its source."""

    net: Net
    stated: Stated

    def __str__(self) -> str:
        return str(self.net)


@dataclass(frozen=True)
class Layout:
    """A plan with its values parsed. Values that cannot be parsed are left out; CIDR001 reports them."""

    plan: AddressPlan

    @cached_property
    def network(self) -> Range | None:
        """N."""
        return next(iter(_ranges((self.plan.network,) if self.plan.network else ())), None)

    @cached_property
    def pods(self) -> tuple[Range, ...]:
        """C: one range, or one per family."""
        return tuple(_ranges(self.plan.pods))

    @cached_property
    def services(self) -> tuple[Range, ...]:
        """V: one range, or one per family."""
        return tuple(_ranges(self.plan.services))

    @cached_property
    def subnets(self) -> tuple[tuple[str, Range], ...]:
        """U, by name."""
        return tuple((s.name, r) for s in self.plan.subnets for r in _ranges((s.cidr,)))

    @cached_property
    def nodes(self) -> tuple[tuple[PlannedNode, Address], ...]:
        """The nodes with a valid address."""
        return tuple((n, a) for n in self.plan.nodes for a in addresses((n.address,)))

    @cached_property
    def occupied(self) -> tuple[tuple[str, Net], ...]:
        """U, and the nodes outside it, by name."""
        outside = [(n.name, ip_network(a)) for n, a in self.nodes if not any(a in r.net for _, r in self.subnets)]
        return (*((name, r.net) for name, r in self.subnets), *outside)

    @cached_property
    def joining(self) -> int:
        """How many nodes there are or will be, according to the plan; 0 if it does not say."""
        return max(self.plan.node_count, len({n.name for n, _ in self.nodes}))


def parse(value: str) -> Net | None:
    """A range; host bits are allowed. None if it is not a range."""
    try:
        return ip_network(value.strip(), strict=False) if "/" in value else None
    except ValueError:
        return None


def as_address(value: str) -> Address | None:
    """An address; None if it is not one."""
    try:
        return ip_address(value.strip())
    except ValueError:
        return None


def addresses(values: tuple[Stated, ...]) -> Iterator[Address]:
    """The valid addresses among `values`."""
    return (address for stated in values if (address := as_address(stated.value)) is not None)


def _ranges(values: tuple[Stated, ...]) -> Iterator[Range]:
    for stated in values:
        net = parse(stated.value)
        if net is not None:
            yield Range(net, stated)


def listed(values: str, source: str = "") -> tuple[Stated, ...]:
    """Several values in one, as flags and files have them: `10.42.0.0/16,fd00:42::/56`. The first 64 of them.

    No component accepts more than a few, but any process may claim to be a component and list any number; each value is
    compared with each.
    """
    parts = values.split(",", _MOST_LISTED)[:_MOST_LISTED]
    return tuple(Stated(part.strip(), source) for part in parts if part.strip())


def overlap(one: Net, other: Net) -> Net | None:
    """The intersection of two ranges: the smaller one, or None."""
    if one.version != other.version or not one.overlaps(other):
        return None
    return max(one, other, key=lambda net: net.prefixlen)


def within(inner: Net, outer: Net) -> bool:
    """Whether `outer` contains all of `inner`."""
    return overlap(inner, outer) == inner


def slot_count(pods: Net, mask: int) -> int:
    """How many nodes can get a range of their own; 0 if none can."""
    return 1 << (mask - pods.prefixlen) if pods.prefixlen <= mask <= pods.max_prefixlen else 0


def slots_of(part: Net, pods: Net, mask: int) -> range:
    """The slots of `pods` that `part` touches, by index. Slots are first allocated in this order."""
    common = overlap(part, pods)
    if common is None or not slot_count(pods, mask):
        return range(0)
    size = pods.max_prefixlen - mask
    start = int(pods.network_address)
    first = (int(common.network_address) - start) >> size
    return range(first, ((int(common.broadcast_address) - start) >> size) + 1)


def slot(pods: Net, mask: int, index: int) -> Net:
    """The range of one slot."""
    start = int(pods.network_address) + (index << (pods.max_prefixlen - mask))
    return ip_network((start, mask)) if pods.version == 4 else IPv6Network((start, mask))


def host(net: Net, index: int) -> Address | None:
    """The address of `net` at `index`, counted from the end if negative; None if out of range."""
    number = int(net.network_address) + index if index >= 0 else int(net.broadcast_address) + 1 + index
    if not int(net.network_address) <= number <= int(net.broadcast_address):
        return None
    return IPv4Address(number) if net.version == 4 else IPv6Address(number)


def kube_hetzner(
    network: Stated, control_planes: tuple[int, ...], agents: tuple[int, ...], subnet_count: int = 256
) -> tuple[tuple[NodeSubnet, ...], tuple[PlannedNode, ...]]:
    """Subnets and nodes in kube-hetzner's layout. `control_planes` and `agents` are the node counts of each pool.

    From locals.tf and main.tf (terraform-hcloud-kube-hetzner v2.18): the network is cut into 256 or `subnet_amount`
    subnets. Agent pool i has the i-th, control-plane pool j the j-th from the end, the NAT router the 200th and the
    vSwitch the 201st. Nodes start at host 101. Empty if the network is too small for that.
    """
    net = parse(network.value)
    mask = scheme_mask(net, subnet_count) if net else 0
    if net is None or net.version != 4 or mask > 30:
        return (), ()
    source = f"{KUBE_HETZNER}'s scheme"
    pools = [(f"control-plane pool {j}", subnet_count - 1 - j, n, False) for j, n in enumerate(control_planes)]
    pools += [(f"agent pool {i}", i, n, True) for i, n in enumerate(agents)]
    pools = [pool for pool in pools if 0 <= pool[1] < subnet_count]
    subnets = [NodeSubnet(name, Stated(str(slot(net, mask, i)), source), agent) for name, i, _, agent in pools]
    subnets += [
        NodeSubnet(name, Stated(str(slot(net, mask, index)), source))
        for name, index in (("the optional NAT router", 200), ("the optional vSwitch", 201))
        if index < subnet_count
    ]
    nodes = [
        PlannedNode(f"node {number} of {name}", Stated(str(address), source), (), True)
        for name, index, count, _ in pools
        for number in range(count)
        if (address := host(slot(net, mask, index), 101 + number)) is not None
    ]
    return tuple(subnets), tuple(nodes)


def scheme_mask(network: Net, subnet_count: int) -> int:
    """The prefix length of each of `subnet_count` subnets; above 32 if they do not fit."""
    return network.prefixlen + subnet_count.bit_length() - 1


def agent_pools_free(layout: Layout) -> int:
    """How many agent pools of kube-hetzner's scheme fit before the first whose subnet is taken."""
    net = layout.network.net if layout.network else None
    count = layout.plan.subnet_count
    mask = scheme_mask(net, count) if net else 0
    if net is None or mask > 30:
        return 0
    ranges = [r.net for r in (*layout.pods, *layout.services)]
    others = {int(r.net.network_address) for s in layout.plan.subnets if not s.agent_pool for r in _ranges((s.cidr,))}
    for index in range(count):
        subnet = slot(net, mask, index)
        if int(subnet.network_address) in others or any(overlap(subnet, other) for other in ranges):
            return index
    return count
