"""Rules about overlaps: pods, Services, nodes and the network (CIDR003-009, CIDR028)."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from janitor.core.address_plan.plan import (
    Address,
    Layout,
    Net,
    PlannedNode,
    Range,
    host,
    overlap,
    parse,
    slot,
    slot_count,
    slots_of,
    within,
)
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix, Part
from janitor.core.model.text import count, listing

_APART = "choose pod and node ranges that do not overlap; a running cluster has to be replaced for that"


@dataclass(frozen=True, slots=True)
class Collision:
    """A node's address inside a pod range that is allocated, or that is among the first to be.

    `owners` are the nodes that have the range; empty if nobody has it yet. `own`: the range is the node's own, or may
    become it.
    """

    node: PlannedNode
    address: Address
    pods: Net
    owners: tuple[str, ...]
    own: bool


def check(layout: Layout) -> Iterator[Finding]:
    """All rules of this file."""
    yield from _pods_and_services(layout)
    found = collisions(layout)
    own = [collision for collision in found if collision.own]
    if own:
        yield _own_range(own, layout)
    others = [c for c in found if (set(c.owners) - {c.node.name} if c.owners else layout.joining > 1)]
    if others:
        yield _others_range(others)
    yield from _latent(layout, found)
    yield from _services_and_nodes(layout)
    yield from _network(layout)


def collisions(layout: Layout) -> list[Collision]:
    """Every node whose address lies in a range that a node has, or that is among the first to be allocated."""
    return _facts(layout) if layout.plan.allocated else _expected(layout)


def _facts(layout: Layout) -> list[Collision]:
    owners: dict[Net, list[str]] = {}
    for node in layout.plan.nodes:
        for net in map(parse, node.pods):
            if net is not None and node.name not in owners.setdefault(net, []):
                owners[net].append(node.name)
    lengths = sorted({(net.version, net.prefixlen) for net in owners}, reverse=True)
    found = []
    for node, address in layout.nodes:
        for version, length in lengths:
            net = ip_network(f"{address}/{length}", strict=False) if version == address.version else None
            if net in owners:
                found.append(Collision(node, address, net, tuple(owners[net]), node.name in owners[net]))
    return found


def _expected(layout: Layout) -> list[Collision]:
    found = []
    for node, address in layout.nodes:
        for part in layout.pods:
            mask = layout.plan.mask(part.net)
            if address in part.net and slot_count(part.net, mask):
                (index,) = slots_of(ip_network(address), part.net, mask)
                if index < layout.joining:
                    found.append(Collision(node, address, slot(part.net, mask, index), (), True))
    return found


def _pods_and_services(layout: Layout) -> Iterator[Finding]:
    for pods in layout.pods:
        for services in layout.services:
            common = overlap(pods.net, services.net)
            if common is None:
                continue
            tolerated = layout.plan.skips_services and within(services.net, pods.net)
            yield Finding.of(
                FindingId.CIDR003, str(common),
                f"pod range {pods} and Service range {services} overlap in {common}",
                (f"pod range: {pods.stated}", f"Service range: {services.stated}"),
                "A pod that gets the address of a Service is unreachable. k3s and kubeadm accept this silently "
                "(k3s#10380, kubeadm#3312)"
                + (
                    "; here kube-controller-manager knows the Service range and does not assign its slots "
                    "(kops#16340)."
                    if tolerated
                    else "."
                ),
                Fix.of("choose two ranges that do not overlap; neither can be changed in a running cluster"),
                severity=Severity.WARNING if tolerated else Severity.ERROR,
            )  # fmt: skip


def _own_range(found: list[Collision], layout: Layout) -> Finding:
    collision = found[0]
    node, pods = collision.node, collision.pods
    more = [f"also {c.node.name}: {c.address} in {c.pods}" for c in found[1:8]]
    if collision.owners:
        what = f"{node.name} has address {collision.address} inside its own pod range {pods}"
        when = f"pod range of {node.name}: {pods}"
    else:
        what = f"{node.name} has address {collision.address} inside {pods}, one of the first pod ranges to be assigned"
        first = count(layout.joining, "pod range")
        when = f"the nodes of the plan get the first {first}, so {pods} can be assigned to this node"
    return Finding.of(
        FindingId.CIDR004, node.name, what, (f"address of {node.name}: {node.address}", when, *more),
        "The gateway of the node's route would lie inside the route's destination. Hetzner refuses that ('invalid "
        "gateway'), the node stays NetworkUnavailable, and replies of its pods to the node never leave the bridge. "
        "Only this node fails, so it looks like a problem of the node (kube-hetzner#1221).",
        Fix.of(_APART),
    )  # fmt: skip


def _others_range(found: list[Collision]) -> Finding:
    lines = [
        f"{c.node.name} {c.address} lies in {c.pods}"
        + (f", the pod range of {listing([o for o in c.owners if o != c.node.name])}" if c.owners else "")
        for c in found
    ]
    names = list(dict.fromkeys(c.node.name for c in found))
    whose = "the pod range of another node" if found[0].owners else "a pod range that another node may get"
    return Finding.of(
        FindingId.CIDR005, listing(names, 3),
        f"{count(len(names), 'node')} with an address inside {whose}: {listing(names, 3)}",
        tuple(lines[:8]),
        "The node that has the pod range sends packets for the other node into its own bridge, where nothing answers. "
        "These two nodes cannot reach each other; all others can (kube-hetzner#1221).",
        Fix.of(_APART),
    )  # fmt: skip


def latent_slots(layout: Layout) -> list[tuple[str, Net, Range, range]]:
    """What nodes occupy inside the pod range: (name, intersection, pod range, touched slots)."""
    found = []
    for name, net in layout.occupied:
        for part in layout.pods:
            common = overlap(net, part.net)
            if common is not None:
                found.append((name, common, part, slots_of(common, part.net, layout.plan.mask(part.net))))
    return found


def _latent(layout: Layout, found: list[Collision]) -> Iterator[Finding]:
    """Slots that collide once they are allocated. What CIDR004 and CIDR005 already report is left out."""
    said = [c.pods for c in found]
    given = [net for node in layout.plan.nodes for net in map(parse, node.pods) if net]
    late = []
    for name, common, part, touched in latent_slots(layout):
        mask = layout.plan.mask(part.net)
        inside = {slot(part.net, mask, i) for i in (*touched[:4096], *touched[-1:])}
        if inside and inside <= set(said):
            continue
        if layout.plan.allocated and any(overlap(common, net) for net in said):
            continue
        late.append((name, common, part, touched))
    if not late:
        return
    late.sort(key=lambda item: item[3].start)
    name, common, part, touched = late[0]
    total = slot_count(part.net, layout.plan.mask(part.net))
    used = len({n for n in given if within(n, part.net)}) if layout.plan.allocated else layout.joining
    left = max(0, touched.start - used) if touched else 0
    early = (
        "It works at first."
        if left
        else "The slots before these are used, or will be used by the nodes of the plan, so one of these is next."
    )
    evidence = [f"pod range: {part.stated}"]
    evidence += [f"{n} ({c}) takes {_indices(t)} of {total} from the pods" for n, c, _, t in late[:10]]
    evidence.append(
        f"slots assigned: {used}; the first that collides is slot {touched.start}"
        if layout.plan.allocated
        else f"{count(left, 'slot')} left before the first of them, after those of the plan's {count(used, 'node')}"
    )
    yield Finding.of(
        FindingId.CIDR006, str(common),
        f"pod range {part} overlaps {count(len(late), 'node subnet')}: {listing([n for n, *_ in late], 4)}",
        tuple(evidence),
        f"{early} kube-controller-manager assigns the slots in order and reuses a freed one only when it has been "
        "through all of them, so with an autoscaler every slot is assigned at some point. The node that gets one of "
        "these fails as in CIDR004 or CIDR005 (kube-hetzner#1221).",
        Fix.of("choose a pod range that does not overlap them"),
    )  # fmt: skip


def _indices(touched: range) -> str:
    if not touched:
        return "no whole slot"
    return f"slot {touched.start}" if len(touched) == 1 else f"slots {touched.start} to {touched.stop - 1}"


def _services_and_nodes(layout: Layout) -> Iterator[Finding]:
    for services in layout.services:
        hit = [(n.name, str(a)) for n, a in layout.nodes if a in services.net]
        parts = [(name, str(net)) for name, net in layout.occupied if overlap(net, services.net)]
        if hit or parts:
            yield Finding.of(
                FindingId.CIDR007, str(services),
                f"Service range {services} overlaps {listing([name for name, _ in dict(hit or parts).items()], 4)}",
                (f"Service range: {services.stated}", *(f"{name}: {value}" for name, value in (hit + parts)[:8])),
                "A Service can get the address of a node or a load balancer, and packets for one then reach the "
                "other.",
                Fix.of("choose a Service range outside every node subnet; it cannot be changed in a running cluster"),
                severity=Severity.CRITICAL if hit else Severity.ERROR,
            )  # fmt: skip


def adding_route(pods: Net, gateway: Address | None) -> tuple[str | Part, ...]:
    """The commands and words for giving one node a route to the other nodes' pods, now and after a reboot."""
    command = Command.of("ip", "route", "add", str(pods), "via", str(gateway))
    return (command, ", and add the same route to its network configuration: the command does not survive a reboot")


def _network(layout: Layout) -> Iterator[Finding]:
    network = layout.network
    if network is None:
        return
    gateway = host(network.net, 1)
    for pods in layout.pods:
        if pods.net.version == network.net.version and not within(pods.net, network.net):
            off = layout.plan.routes is False
            yield Finding.of(
                FindingId.CIDR008, str(pods),
                f"pod range {pods} is not inside the network {network}",
                (f"pod range: {pods.stated}", f"network: {network.stated}"),
                "Routes are off, so nothing depends on it."
                if off
                else "The API accepts such routes, but the route that each server gets automatically covers only the "
                     "network. Without an overlay, packets to pods on other nodes leave through the public interface "
                     "(hccm#329, hccm#115).",
                Fix.of("none is needed")
                if off
                else Fix.of(
                    f"put the pod range inside {network}; or, on each node, ", *adding_route(pods.net, gateway)
                ),
                severity=Severity.INFO if off else Severity.WARNING,
            )  # fmt: skip
    for services in layout.services:
        if services.net.version == network.net.version and not within(services.net, network.net):
            yield Finding.of(
                FindingId.CIDR009, str(services),
                f"Service range {services} is not inside the network {network}",
                (f"Service range: {services.stated}", f"network: {network.stated}"),
                "Service addresses never leave a node, so this is fine.", Fix.of("none is needed"),
            )  # fmt: skip
    for name, part in (*(("pod", p) for p in layout.pods), *(("Service", p) for p in layout.services)):
        if gateway is not None and layout.plan.hetzner and gateway in part.net:
            yield Finding.of(
                FindingId.CIDR028, str(gateway),
                f"{name} range {part} contains the network's gateway {gateway}",
                (f"{name} range: {part.stated}", f"network: {network.stated}"),
                "Hetzner reserves the first address of a network for its router: a pod or Service that gets it is "
                "unreachable.",
                Fix.of(f"choose a {name} range that does not start where the network does"),
            )  # fmt: skip
