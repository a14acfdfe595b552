"""CIDR008 and CIDR016: the cluster's ranges against this node's actual routes."""

from collections.abc import Iterator

from janitor.core.address_plan.plan import (
    Address,
    AddressPlan,
    Layout,
    Net,
    as_address,
    host,
    overlap,
    parse,
    slot,
    slot_count,
    within,
)
from janitor.core.address_plan.ranges import adding_route
from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix, Part
from janitor.core.model.reason import because
from janitor.core.model.routing import Route
from janitor.core.node.node_plan import connected, is_foreign_bridge, is_pod_interface, is_tunnel, node_plan
from janitor.core.node.node_view import kubernetes_missing, node_ips

_IDS = (FindingId.CIDR008, FindingId.CIDR016)


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """One finding per range that overlaps a foreign route, and one for pods behind the default route only."""
    plan, routes = node_plan(evidence), evidence.node_config.routes
    if missing := kubernetes_missing(evidence.node_config):
        yield Skipped(_IDS, missing)
    elif isinstance(plan, Unknown):
        yield Skipped(_IDS, plan.reason)
    elif isinstance(routes, Unknown):
        yield Skipped(_IDS, routes.reason)
    else:
        yield from _foreign(plan, routes, evidence)
        yield from _reached(plan, routes)


def _foreign(plan: AddressPlan, routes: tuple[Route, ...], evidence: Evidence) -> Iterator[Finding]:
    layout = Layout(plan)
    mine = {address for s in node_ips(evidence) if (address := as_address(s.value))}
    outside = [r for r in routes if not is_pod_interface(evidence, r.device)]
    hops = {address for r in outside if (address := as_address(r.gateway))}
    for name, part in (*(("pod", p) for p in layout.pods), *(("Service", p) for p in layout.services)):
        hit = [(r, common) for r in routes if (common := _collides(r, part.net, plan, evidence))]
        if not hit:
            continue
        needed = [str(a) for a in sorted({*mine, *hops}, key=str) if any(a in common for _, common in hit)]
        route, common = hit[0]
        yield Finding.of(
            FindingId.CIDR016, str(common),
            f"{name} range {part} overlaps this node's route {route.destination} dev {route.device}",
            (
                f"{name} range: {part.stated}",
                *(f"route: {_told(r)}" for r, _ in hit[:8]),
                *(f"{address} is this node's own address or next hop, and lies in that range" for address in needed),
            ),
            "This node has another route into that range, so packets to those pods or Services go there instead. "
            "Docker, libvirt and VPNs choose such ranges by themselves.",
            _moves([one for one, _ in hit[:8]], part.net),
            severity=Severity.CRITICAL if needed else Severity.WARNING,
        )  # fmt: skip


def _collides(route: Route, net: Net, plan: AddressPlan, evidence: Evidence) -> Net | None:
    """The overlap of a foreign route with `net`; None for the CNI's routes and for wider gateway routes.

    A tunnel's routes into the pods' range are correct if it joins the nodes (WireGuard, IPIP, Tailscale). But a network
    that the tunnel has an address in is certainly a different one.
    """
    destination = parse(route.destination)
    if (
        destination is None
        or destination.prefixlen == 0
        or is_pod_interface(evidence, route.device)
        or route.device == "lo"
    ):
        return None
    if is_tunnel(evidence, route.device):
        return overlap(destination, net) if destination in connected(evidence, route.device) else None
    if route.gateway and (within(net, destination) or destination.prefixlen >= plan.mask(net)):
        return None  # to the network that contains it all, or to the pods of one other node (host-gw)
    if not route.gateway and not is_foreign_bridge(route.device):
        return None  # the node's own network: CIDR006 and CIDR007 cover it
    return overlap(destination, net)


def _told(route: Route) -> str:
    return f"{route.destination}{f' via {route.gateway}' if route.gateway else ''} dev {route.device}"


def _moves(routes: list[Route], net: Net) -> Fix:
    """What to do about each route, without repetitions."""
    different = dict.fromkeys(_move(route, net) for route in routes)
    return Fix.of(*(part for number, parts in enumerate(different) for part in ("; ",) * bool(number) + parts))


def _move(route: Route, net: Net) -> tuple[str | Part, ...]:
    if route.device.startswith(("docker", "br-")):
        return (
            (f'give Docker a range outside {net} ("bip" and "default-address-pools" in /etc/docker/daemon.json); or, '
             'if nothing here needs Docker: '), Command("apt-get remove docker.io"), "; ",
            Command.of("ip", "link", "delete", route.device),
        )  # fmt: skip
    via = ("via", route.gateway) if route.gateway else ()
    removing = Command.of("ip", "route", "del", route.destination, *via, "dev", route.device)
    return (f"give {route.device} a range outside {net}, or remove it: ", removing)


def _reached(plan: AddressPlan, routes: tuple[Route, ...]) -> Iterator[Finding | Skipped]:
    """CIDR008: where would this node send a packet to a pod on another node?"""
    layout = Layout(plan)
    network = layout.network
    if plan.network is None:
        yield Skipped((FindingId.CIDR008,), because(Code.PRIVATE_NETWORK_NOT_KNOWN))
    if network is None:
        return
    for pods in layout.pods:
        if pods.net.version != network.net.version or within(pods.net, network.net):
            continue
        target = _elsewhere(pods.net, plan)
        route = _lookup(target, routes) if target else None
        evident = (f"pod range: {pods.stated}", f"network: {network.stated}",
                   f"a packet to {target} would {f'use {_told(route)}' if route else 'have no route'}")  # fmt: skip
        covered = route is not None and not route.destination.endswith("/0")
        off = plan.routes is False or covered
        yield Finding.of(
            FindingId.CIDR008,
            str(pods),
            f"pod range {pods} is not inside the network {network}"
            + ("" if off else ", and only the default route leads to it"),
            evident,
            "The route that a Hetzner server gets automatically covers only the network. Without a route for the pod "
            "range and without an overlay, packets to pods on other nodes leave through the public interface "
            "(hccm#329, hccm#115).",
            Fix.of("none is needed: a route covers it")
            if covered
            else Fix.of("use an overlay; or, on each node: ", *adding_route(pods.net, host(network.net, 1))),
            severity=Severity.INFO if off else Severity.ERROR if plan.routes else Severity.WARNING,
        )


def _elsewhere(pods: Net, plan: AddressPlan) -> Address | None:
    """The first address of a slot that is not this node's."""
    mask = plan.mask(pods)
    own = {parse(c) for node in plan.nodes for c in node.pods}
    for index in range(min(slot_count(pods, mask), 4096) - 1, -1, -1):
        net = slot(pods, mask, index)
        if net not in own:
            return host(net, 1)
    return None


def _lookup(target: Address, routes: tuple[Route, ...]) -> Route | None:
    """The route of the main table: the longest match, then the smallest metric."""
    fitting = [(net, r) for r in routes if (net := parse(r.destination)) is not None and target in net]
    return min(fitting, key=lambda item: (-item[0].prefixlen, item[1].metric))[1] if fitting else None
