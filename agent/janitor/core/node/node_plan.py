"""The address plan of the cluster this node is in, derived from the node; and who its interfaces belong to."""

from typing import Final

from janitor.core.address_plan.plan import AddressPlan, Net, NodeSubnet, PlannedNode, Stated, as_address, overlap, parse
from janitor.core.address_plan.settings import stated
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.evidence_node import NodeConfig
from janitor.core.model.reason import Reason, because
from janitor.core.node.node_view import (
    cluster_cidrs,
    cluster_dns,
    component,
    flag,
    machine,
    makes_routes,
    node_ips,
    node_name,
    objects,
    own_pod_cidrs,
    service_cidrs,
)

_OWN_BRIDGES: Final = (
    "cni", "flannel", "kube-bridge", "kube-", "cilium", "lxc", "cali", "vxlan.calico", "tunl", "weave", "veth",
    "antrea", "nodelocaldns", "dummy", "vxlan", "genev",
)  # fmt: skip
_OTHERS: Final = ("docker", "br-", "podman", "virbr", "lxdbr", "nerdctl")
_TUNNELS: Final = ("wg", "wt", "tun", "tap", "tailscale", "zt", "nebula", "ppp", "ipsec", "kilo")
_TUNNEL_KINDS: Final = (
    "wireguard", "tun", "ipip", "ip6tnl", "sit", "gre", "gretap", "ip6gre", "ip6gretap", "vti", "vti6", "xfrm",
    "vxlan", "geneve", "ppp",
)  # fmt: skip


def is_pod_interface(evidence: Evidence, name: str) -> bool:
    """Whether it is the CNI's (a bridge, a tunnel or a pod's veth), by customary name or by the CNI configuration."""
    return name.startswith(_OWN_BRIDGES) or any(name in file.bridges for file in known(evidence.node_config.cni_files))


def is_foreign_bridge(name: str) -> bool:
    """Whether it is a bridge of other software: Docker, libvirt."""
    return name.startswith(_OTHERS)


def is_tunnel(evidence: Evidence, name: str) -> bool:
    """Whether it is a tunnel: a VPN, or one that joins the nodes. Routes do not tell these apart."""
    kind = next((link.kind for link in known(evidence.routing.links) if link.name == name), "")
    return kind in _TUNNEL_KINDS if kind else name.startswith(_TUNNELS)


def connected(evidence: Evidence, name: str) -> set[Net]:
    """The networks of an interface's own addresses, without single addresses."""
    texts = (text for link in known(evidence.routing.links) if link.name == name for text in link.addresses)
    return {net for text in texts if (net := parse(text)) is not None and net.prefixlen < net.max_prefixlen}


def node_plan(evidence: Evidence) -> AddressPlan | Unknown:
    """The address plan of the cluster this node is in, as far as it was seen. Unknown if no range was seen."""
    node = evidence.node_config
    pods, services = cluster_cidrs(node), service_cidrs(node)
    if not pods and not services:
        return Unknown(_no_ranges(node))
    own = own_pod_cidrs(evidence)
    mask = _masks(node, own)
    server = machine(node)
    attached = server.networks if server and not isinstance(server.networks, Unknown) else ()
    dns = [v for said in cluster_dns(node)[:1] for v in said.values if v.value not in known(node.addresses)]
    shown = objects(node)
    kcm = component(node, "kube-controller-manager")
    most = stated(known(node.settings), "max-pods")
    limit = flag(component(node, "kubelet"), "--max-pods") or (most[0].value if most else "")
    return AddressPlan(
        network=Stated(attached[0].network, "the metadata service") if attached else None,
        pods=pods[0].values if pods else (),
        services=services[0].values if services else (),
        dns=tuple(dns),  # without a DNS cache on the node
        subnets=_subnets(evidence),
        nodes=_nodes(evidence),
        node_count=len(known(shown.nodes)) if shown and shown.whole else 0,
        node_mask=mask.get(4, 24),
        node_mask_v6=mask.get(6, 64),
        max_pods=int(limit) if limit.isdecimal() else 110,
        routes=makes_routes(node),
        hetzner=node.vendor == "Hetzner" or server is not None,
        allocated=True,
        skips_services=bool(flag(kcm, "--service-cluster-ip-range")),
    )


def _no_ranges(node: NodeConfig) -> Reason:
    if isinstance(node.settings, Unknown):
        return node.settings.reason
    if node.server is False:
        return because(Code.NO_CONTROL_PLANE)
    return because(Code.NO_RANGES_ON_NODE)


def mask_known(evidence: Evidence) -> bool:
    """Whether the size of a node's pod range is known."""
    return bool(_masks(evidence.node_config, own_pod_cidrs(evidence)))


def _masks(node: NodeConfig, own: tuple[Stated, ...]) -> dict[int, int]:
    """By family: as configured in kube-controller-manager, else the size of this node's own range."""
    found: dict[int, int] = {net.version: net.prefixlen for s in own if (net := parse(s.value)) is not None}
    kcm = component(node, "kube-controller-manager")
    if kcm is not None:
        found = {4: 24, 6: 64}
    settings = [s for s in known(node.settings) if s.component == "kube-controller-manager"]
    for family, names in ((4, ("node-cidr-mask-size-ipv4", "node-cidr-mask-size")), (6, ("node-cidr-mask-size-ipv6",))):
        for name in names:
            told = stated(settings, name)
            value = flag(kcm, f"--{name}") or (told[0].value if told else "")
            if value.isdecimal():
                found[family] = int(value)
                break
    return found


def _subnets(evidence: Evidence) -> tuple[NodeSubnet, ...]:
    """The networks of this node's own interfaces, and the subnet that it is attached to according to Hetzner.

    Of bridges and tunnels only those that contain the node's own address: the others are the pods' or other software's.
    """
    node = evidence.node_config
    mine = [a for s in node_ips(evidence) if (a := as_address(s.value))]
    pods = [net for s in own_pod_cidrs(evidence) if (net := parse(s.value))]
    bridges = {link.name for link in known(evidence.routing.links) if link.kind == "bridge"}
    found = {}
    for route in known(node.routes):
        net, name = parse(route.destination), route.device
        if net is None or route.gateway or is_pod_interface(evidence, name) or is_foreign_bridge(name):
            continue
        owned = is_tunnel(evidence, name) or name in bridges or any(overlap(net, part) for part in pods)
        if owned and not any(address in net for address in mine):
            continue
        if net.prefixlen not in (0, net.max_prefixlen):
            found[route.destination] = NodeSubnet(
                f"interface {route.device}", Stated(route.destination, "the node's routes")
            )
    server = machine(node)
    for one in server.networks if server and not isinstance(server.networks, Unknown) else ():
        if one.subnet:
            found[one.subnet] = NodeSubnet(f"subnet of {one.name}", Stated(one.subnet, "the metadata service"))
    return tuple(found.values())


def _nodes(evidence: Evidence) -> tuple[PlannedNode, ...]:
    """Every Node in the objects; without objects, this one."""
    shown = objects(evidence.node_config)
    nodes = known(shown.nodes) if shown else ()
    if nodes:
        return tuple(
            PlannedNode(node.name, Stated(ip, f"InternalIP of Node {node.name}"), node.pod_cidrs)
            for node in nodes
            for ip in node.internal_ips
            if as_address(ip)
        )
    own = tuple(stated.value for stated in own_pod_cidrs(evidence))
    name = node_name(evidence.node_config) or "this node"
    return tuple(PlannedNode(name, ip, own) for ip in node_ips(evidence) if as_address(ip.value))
