"""CIDR008 and CIDR016: the cluster's ranges against the routes that this node really has."""

import shlex
from collections.abc import Iterator
from dataclasses import replace

from janitor.core.address_plan import (
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
from janitor.core.evidence import Evidence, Unknown, known
from janitor.core.evidence_node import Route
from janitor.core.findings import Finding, Severity, Skipped
from janitor.core.judgement import Judgement
from janitor.core.node_plan import connected, is_foreign_bridge, is_pod_interface, is_tunnel, node_plan
from janitor.core.node_view import kubernetes_missing, node_ips

IDS = ("CIDR008", "CIDR016")


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding for each range that a foreign route lies over, and one for pods that leave by the default route."""
    plan = node_plan(evidence)
    if kubernetes_missing(evidence.node_config) or isinstance(plan, Unknown):
        return
    yield from _foreign(plan, evidence)
    yield from _reached(plan, evidence)


def skipped(evidence: Evidence) -> Iterator[Skipped]:
    """Without ranges or routes there is nothing to lay over each other."""
    node, plan = evidence.node_config, node_plan(evidence)
    reason = kubernetes_missing(node)
    if not reason and isinstance(plan, Unknown):
        reason = plan.reason
    if not reason and isinstance(node.routes, Unknown):
        reason = node.routes.reason
    if reason:
        yield Skipped(IDS, reason)
    elif not isinstance(plan, Unknown) and plan.network is None:
        yield Skipped(("CIDR008",), "the private network's range is not known")


def _foreign(plan: AddressPlan, evidence: Evidence) -> Iterator[Finding]:
    layout = Layout(plan)
    routes = known(evidence.node_config.routes)
    mine = {address for s in node_ips(evidence) if (address := as_address(s.value))}
    outside = [r for r in routes if not is_pod_interface(evidence, r.interface)]
    hops = {address for r in outside if (address := as_address(r.gateway))}
    for name, part in (*(("pod", p) for p in layout.pods), *(("Service", p) for p in layout.services)):
        hit = [(r, common) for r in routes if (common := _collides(r, part.net, plan, evidence))]
        if not hit:
            continue
        needed = [str(a) for a in sorted({*mine, *hops}, key=str) if any(a in common for _, common in hit)]
        route, common = hit[0]
        yield Finding(
            "CIDR016", Severity.CRITICAL if needed else Severity.WARNING, str(common),
            f"{name} range {part} overlaps {route.destination} of {route.interface} on this node",
            (
                f"{name} range: {part.stated}",
                *(f"route: {_told(r)}" for r, _ in hit[:8]),
                *(f"{address} is this node's own address or next hop, and lies in it" for address in needed),
            ),
            "This node has a route of its own into that range, so packets to those pods or Services go there instead. "
            "Docker, libvirt and VPNs choose such ranges by themselves.",
            "; ".join(dict.fromkeys(_move(one, part.net) for one, _ in hit[:8])),
        )  # fmt: skip


def _collides(route: Route, net: Net, plan: AddressPlan, evidence: Evidence) -> Net | None:
    """What a route of somebody else has in common with `net`; nothing for the CNI's, and for wider gateway routes.

    A tunnel's routes into the pods' range are right where it joins the nodes (WireGuard, IPIP, Tailscale). What it has
    an address of its own in is another network for certain.
    """
    destination = parse(route.destination)
    if (
        destination is None
        or destination.prefixlen == 0
        or is_pod_interface(evidence, route.interface)
        or route.interface == "lo"
    ):
        return None
    if is_tunnel(evidence, route.interface):
        return overlap(destination, net) if destination in connected(evidence, route.interface) else None
    if route.gateway and (within(net, destination) or destination.prefixlen >= plan.mask(net)):
        return None  # towards the network that holds it all, or to the pods of one other node (host-gw)
    if not route.gateway and not is_foreign_bridge(route.interface):
        return None  # the node's own network: CIDR006 and CIDR007 are about that
    return overlap(destination, net)


def _told(route: Route) -> str:
    return f"{route.destination}{f' via {route.gateway}' if route.gateway else ''} dev {route.interface}"


def _move(route: Route, net: Net) -> str:
    # Whoever may make links names them, and these lines are pasted into a shell of root's.
    link = shlex.quote(route.interface)
    if route.interface.startswith(("docker", "br-")):
        return (
            'give Docker another range: "bip" and "default-address-pools" in /etc/docker/daemon.json, outside '
            f"{net}; or, where nothing needs Docker here: apt-get remove docker.io; ip link delete {link}"
        )
    deleted = _told(replace(route, interface=link))
    return f"give {route.interface} a range outside {net}, or remove it: ip route del {deleted}"


def _reached(plan: AddressPlan, evidence: Evidence) -> Iterator[Finding]:
    """CIDR008: where would this node send a packet to a pod of another node?"""
    layout = Layout(plan)
    network = layout.network
    routes = known(evidence.node_config.routes)
    if network is None or isinstance(evidence.node_config.routes, Unknown):
        return
    for pods in layout.pods:
        if pods.net.version != network.net.version or within(pods.net, network.net):
            continue
        target = _elsewhere(pods.net, plan)
        route = _lookup(target, routes) if target else None
        evident = (f"pod range: {pods.stated}", f"network: {network.stated}",
                   f"a packet to {target} would go {'nowhere' if route is None else f'by {_told(route)}'}")  # fmt: skip
        covered = route is not None and not route.destination.endswith("/0")
        off = plan.routes is False or covered
        yield Finding(
            "CIDR008",
            Severity.INFO if off else Severity.ERROR if plan.routes else Severity.WARNING,
            str(pods),
            f"pod range {pods} is not inside the network {network}"
            + ("" if off else ", and only the default route leads to it"),
            evident,
            "The route that a Hetzner server gets by itself covers the network only. Without one for the pods' range, "
            "and without an overlay, packets to pods of other nodes leave by the public interface (hccm#329, "
            "hccm#115).",
            "none is needed: a route covers it"
            if covered
            else f"an overlay; or, on each node, ip route add {pods} via {host(network.net, 1)}, and the same route in "
            "its network configuration: the next boot forgets it",
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
    """The longest match, then the smallest metric: what the main table says."""
    fitting = [(net, r) for r in routes if (net := parse(r.destination)) is not None and target in net]
    return min(fitting, key=lambda item: (-item[0].prefixlen, item[1].metric))[1] if fitting else None
