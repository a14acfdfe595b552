"""Rules about capacity: nodes, routes, pods per node (CIDR013-015, CIDR026); and the limits of a plan."""

from collections.abc import Iterator
from dataclasses import dataclass

from janitor.core.address_plan.plan import KUBE_HETZNER, Layout, agent_pools_free, scheme_mask, slot_count
from janitor.core.address_plan.ranges import latent_slots
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Fix, Snippet
from janitor.core.model.text import count

ROUTES_OF_A_NETWORK = 100
ATTACHED_TO_A_NETWORK = 100
_MANY_NODES = 80
_FULL = (
    f"A network takes at most {ATTACHED_TO_A_NETWORK} servers and load balancers, with an overlay too; more nodes need "
    "several networks, or must reach each other by their public addresses"
)
_SPARE = 1.25
_NOT_FOR_PODS = 3  # the network's own address, the broadcast address and the bridge


def check(layout: Layout) -> Iterator[Finding]:
    """All rules of this file."""
    yield from _slots(layout)
    yield from _routes(layout)
    yield from _attached(layout)
    yield from _pods_of_a_node(layout)
    yield from _subnets(layout)


def _slots(layout: Layout) -> Iterator[Finding]:
    nodes = layout.joining
    for part in layout.pods:
        mask = layout.plan.mask(part.net)
        slots = slot_count(part.net, mask)
        if nodes and slots < nodes * _SPARE and slots:
            short = slots < nodes
            yield Finding.of(
                FindingId.CIDR013, str(part),
                f"pod range {part} has {count(slots, 'slot')} of /{mask} for {count(nodes, 'node')}",
                (f"pod range: {part.stated}", f"node mask: /{mask}", f"nodes: {nodes}"),
                "Nodes beyond the last slot get no pod range (CIDRNotAvailable) and run no pods. A replaced node "
                "needs a second slot until the first is freed, so keep some slots spare.",
                Fix.of(f"use a pod range of /{_prefix_for(nodes, mask)}, or smaller slots (--node-cidr-mask-size)"),
                severity=Severity.ERROR if short else Severity.WARNING,
            )  # fmt: skip


def _prefix_for(nodes: int, mask: int) -> int:
    prefix = mask
    while prefix > 1 and (1 << (mask - prefix)) < nodes * _SPARE:
        prefix -= 1
    return prefix


def _routes(layout: Layout) -> Iterator[Finding]:
    if not layout.plan.hetzner or not layout.plan.routes:
        return
    for part in layout.pods:
        slots = slot_count(part.net, layout.plan.mask(part.net))
        if part.net.version == 4 and slots > ROUTES_OF_A_NETWORK:
            many = layout.joining >= _MANY_NODES
            yield Finding.of(
                FindingId.CIDR014, str(part),
                f"{slots} slots, but a Hetzner network takes {ROUTES_OF_A_NETWORK} routes",
                (f"pod range: {part.stated}", *((f"nodes: {layout.joining}",) if many else ())),
                "Each node needs its own route in the network, and Hetzner refuses route 101, however many slots "
                "there are (hccm#342).",
                Fix.of(
                    "use an overlay (Cilium, flannel's VXLAN) with routes off before the last route is used: another "
                    f"range does not help. {_FULL}"
                    if many
                    else f"none is needed for fewer than {_MANY_NODES} nodes; for more, use an overlay (Cilium, "
                         f"flannel's VXLAN) with routes off. {_FULL}"
                ),
                severity=Severity.WARNING if many else Severity.INFO,
            )  # fmt: skip


def _attached(layout: Layout) -> Iterator[Finding]:
    """CIDR014 without routes: an overlay does not lift this limit. Existing nodes may be in several networks."""
    plan = layout.plan
    if plan.hetzner and plan.routes is False and not plan.allocated and layout.joining > ATTACHED_TO_A_NETWORK:
        yield Finding.of(
            FindingId.CIDR014, "network",
            f"{layout.joining} nodes, but a Hetzner network takes {ATTACHED_TO_A_NETWORK} servers and load balancers",
            (f"nodes: {layout.joining}", *((f"network: {layout.network.stated}",) if layout.network else ())),
            "The next server cannot be attached, whatever the ranges are.", Fix.of(_FULL),
        )  # fmt: skip


def _pods_of_a_node(layout: Layout) -> Iterator[Finding]:
    for part in layout.pods:
        mask = layout.plan.mask(part.net)
        usable = (1 << (part.net.max_prefixlen - mask)) - _NOT_FOR_PODS if mask <= part.net.max_prefixlen else 0
        if slot_count(part.net, mask) and usable < layout.plan.max_pods:
            yield Finding.of(
                FindingId.CIDR015, str(part),
                f"a node's /{mask} has {count(usable, 'address', 'addresses') if usable > 0 else 'no address'} for "
                f"{count(layout.plan.max_pods, 'pod')}",
                (f"pod range: {part.stated}", f"node mask: /{mask}", f"max pods: {layout.plan.max_pods}"),
                "Further pods get no address. Leaked leases make this happen sooner: keep some addresses spare.",
                Fix.of(Snippet(f"--max-pods={usable}"), ", or use a shorter node mask")
                if usable > 0
                else Fix.of("use a shorter node mask, such as 24"),
            )  # fmt: skip


def _subnets(layout: Layout) -> Iterator[Finding]:
    network = layout.network
    if layout.plan.scheme != KUBE_HETZNER or network is None or network.net.version != 4:
        return
    many = layout.plan.subnet_count
    mask = scheme_mask(network.net, many)
    if mask > 24:
        yield Finding.of(
            FindingId.CIDR026, str(network),
            f"network {network} is too small for kube-hetzner: "
            + (f"its subnets are /{mask}" if mask <= 30 else f"it has no room for {many} subnets"),
            (f"network: {network.stated}",),
            f"kube-hetzner splits the network into {many} subnets and puts load balancers at host 254 of one, which a "
            "subnet smaller than /24 does not have (kube-hetzner#1913).",
            Fix.of(f"use a network of /{24 - mask + network.net.prefixlen} or larger"),
            severity=Severity.WARNING if mask <= 30 else Severity.ERROR,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limit:
    """How many nodes something allows."""

    nodes: int
    reason: str


def limits(layout: Layout) -> tuple[Limit, ...]:
    """What limits the number of nodes, the tightest first; empty if no pod range is known."""
    found = []
    for part in layout.pods:
        mask = layout.plan.mask(part.net)
        slots = slot_count(part.net, mask)
        found.append(Limit(slots, f"slots of /{mask} in pod range {part}"))
        first = min((t.start for _, _, p, t in latent_slots(layout) if p == part and t), default=None)
        if first is not None:
            found.append(Limit(first, f"slots before the first that collides with a node subnet ({part})"))
    if layout.plan.hetzner and layout.plan.routes:
        found.append(Limit(ROUTES_OF_A_NETWORK, "routes in a Hetzner network"))
    if layout.plan.hetzner and found:
        found.append(
            Limit(ATTACHED_TO_A_NETWORK, "servers and load balancers in a Hetzner network, with an overlay too")
        )
    return tuple(sorted(found, key=lambda limit: limit.nodes))


def pools(layout: Layout) -> str:
    """How many agent pools kube-hetzner's scheme has room for, as text; "" for other plans."""
    if layout.plan.scheme != KUBE_HETZNER or layout.network is None:
        return ""
    return f"{agent_pools_free(layout)}, before a pool's subnet overlaps something else"
