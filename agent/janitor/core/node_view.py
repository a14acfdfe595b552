"""Questions that several checks ask of a node's configuration: what a flag is, which ranges there are, who said so."""

from dataclasses import dataclass
from typing import Final

from janitor.core.address_plan import AddressPlan, NodeSubnet, PlannedNode, Stated, as_address, listed, parse
from janitor.core.evidence import Evidence, Unknown, known
from janitor.core.evidence_node import Component, KubeNode, Machine, NodeConfig, Objects, Unit
from janitor.core.plan_settings import stated

_CLUSTER_FLAGS: Final = ("--cluster-cidr",)
_OWN_BRIDGES: Final = (
    "cni", "flannel", "kube-bridge", "kube-", "cilium", "lxc", "cali", "vxlan.calico", "tunl", "weave", "veth",
    "antrea", "nodelocaldns", "dummy", "vxlan", "genev",
)  # fmt: skip
_OTHERS: Final = ("docker", "br-", "podman", "virbr", "lxdbr", "wg", "tun", "tap", "tailscale", "zt", "nerdctl")


@dataclass(frozen=True, slots=True)
class Said:
    """A value of one component, and whether it runs with it (or only would)."""

    component: str
    values: tuple[Stated, ...]

    @property
    def text(self) -> str:
        """As the user wrote it."""
        return ",".join(value.value for value in self.values)


def kubernetes_missing(node: NodeConfig) -> str:
    """Why nothing about Kubernetes can be said of this node; "" where it is one of a cluster."""
    if isinstance(node.settings, Unknown) and not node.distribution:
        return node.settings.reason
    if not node.distribution and not known(node.components):
        return "no Kubernetes was found on this node"
    return ""


def component(node: NodeConfig, name: str) -> Component | None:
    """A component by its name, one that runs before one that is only written down."""
    found = [c for c in known(node.components) if c.name == name]
    return next((c for c in found if c.running), found[0] if found else None)


def flags(argv: tuple[str, ...], name: str) -> list[str]:
    """The values of `--name=value` and `--name value`, in order; the last one counts (pflag)."""
    found = []
    for at, word in enumerate(argv):
        if word.startswith(f"{name}="):
            found.append(word.partition("=")[2])
        elif word == name:
            following = argv[at + 1] if at + 1 < len(argv) else ""
            found.append(following if following and not following.startswith("-") else "true")
    return found


def flag(one: Component | None, name: str) -> str:
    """The value that counts, or ""."""
    found = flags(one.argv, name) if one else []
    return found[-1] if found else ""


def cluster_cidrs(node: NodeConfig) -> list[Said]:
    """What each component takes for the range of the pods, the strongest first."""
    return _collected(node, ("kube-controller-manager", "hcloud-cloud-controller-manager", "kube-proxy", "kube-router"),
                      "--cluster-cidr", "cluster-cidr")  # fmt: skip


def service_cidrs(node: NodeConfig) -> list[Said]:
    """Likewise for Services."""
    return _collected(node, ("kube-apiserver", "kube-controller-manager", "kube-router"),
                      "--service-cluster-ip-range", "service-cidr")  # fmt: skip


def _collected(node: NodeConfig, components: tuple[str, ...], name: str, key: str) -> list[Said]:
    found = []
    for wanted in components:
        one = component(node, wanted)
        value = flag(one, name)
        if one and value:
            found.append(Said(wanted, listed(value, f"{name} of {wanted}, {one.source}")))
    settings = known(node.settings)
    for owner in dict.fromkeys(s.component for s in settings):
        values = stated([s for s in settings if s.component == owner], key, name.lstrip("-"))
        if values and owner not in {s.component for s in found}:
            found.append(Said(owner, values))
    return found


def cluster_dns(node: NodeConfig) -> list[Said]:
    """What the kubelet tells pods, and what the distribution was told."""
    found = []
    kubelet = component(node, "kubelet")
    if kubelet and (value := flag(kubelet, "--cluster-dns")):
        found.append(Said("kubelet", listed(value, f"--cluster-dns of kubelet, {kubelet.source}")))
    settings = known(node.settings)
    for owner in dict.fromkeys(s.component for s in settings):
        values = stated([s for s in settings if s.component == owner], "cluster-dns")
        if values and owner not in {s.component for s in found}:
            found.append(Said(owner, values))
    return found


def objects(node: NodeConfig) -> Objects | None:
    """What was shown of the cluster, if anything."""
    return next(iter(known(node.objects)), None)


def kubelet_unit(node: NodeConfig) -> Unit | None:
    """The unit of a kubelet that systemd runs."""
    return next((unit for unit in known(node.units) if unit.name == "kubelet.service"), None)


def machine(node: NodeConfig) -> Machine | None:
    """What Hetzner's metadata service said, if it said anything."""
    return next(iter(known(node.machine)), None)


def own_node(evidence: Evidence) -> KubeNode | None:
    """This node's Node object: by its name, or by its server ID."""
    node = evidence.node_config
    shown = objects(node)
    nodes = known(shown.nodes) if shown else ()
    server = machine(node)
    names = {node_name(node), node.hostname} - {""}
    for one in nodes:
        if one.name in names or (server and one.provider_id == f"hcloud://{server.instance_id}"):
            return one
    return nodes[0] if len(nodes) == 1 and shown and not shown.whole else None


def node_name(node: NodeConfig) -> str:
    """What the kubelet calls this node: an override, or the host name in lower case."""
    override = flag(component(node, "kubelet"), "--hostname-override")
    named = stated(known(node.settings), "node-name")
    return override or (named[0].value if named else node.hostname.lower())


def node_ips(evidence: Evidence) -> tuple[Stated, ...]:
    """The addresses that the kubelet gives for this node, as far as it was told any."""
    node = evidence.node_config
    kubelet = component(node, "kubelet")
    if kubelet and (value := flag(kubelet, "--node-ip")):
        return listed(value, f"--node-ip of kubelet, {kubelet.source}")
    told = stated(known(node.settings), "node-ip")
    if told:
        return told
    own = own_node(evidence)
    if own and own.internal_ips:
        return tuple(Stated(ip, f"InternalIP of Node {own.name}") for ip in own.internal_ips)
    server = machine(node)
    networks = server.networks if server and not isinstance(server.networks, Unknown) else ()
    return tuple(Stated(n.ip, "the metadata service") for n in networks[:1] if n.ip)


def is_pod_interface(name: str) -> bool:
    """Whether it is the CNI's: a bridge, a tunnel or a pod's end."""
    return name.startswith(_OWN_BRIDGES)


def is_foreign_interface(name: str) -> bool:
    """Whether it is a bridge or tunnel of something else: Docker, libvirt, a VPN."""
    return name.startswith(_OTHERS)


def own_pod_cidrs(evidence: Evidence) -> tuple[Stated, ...]:
    """This node's pod ranges: by its Node object, by flannel, or as the CNI configuration has them."""
    own = own_node(evidence)
    if own and own.pod_cidrs:
        return tuple(Stated(c, f"spec.podCIDRs of Node {own.name}") for c in own.pod_cidrs)
    told = stated(known(evidence.node_config.settings), "pod-cidr")
    if told:
        return told
    first = next((f for f in known(evidence.node_config.cni_files) if f.usable and not f.problem), None)
    return tuple(Stated(s, first.path) for s in first.subnets) if first else ()


def node_plan(evidence: Evidence) -> AddressPlan | Unknown:
    """The address plan that this node lives in, made of what could be seen. Unknown where its ranges could not."""
    node = evidence.node_config
    pods, services = cluster_cidrs(node), service_cidrs(node)
    if not pods and not services:
        return Unknown(_no_ranges(node))
    own = own_pod_cidrs(evidence)
    mask = _masks(node, own)
    server = machine(node)
    attached = server.networks if server and not isinstance(server.networks, Unknown) else ()
    ccm = component(node, "hcloud-cloud-controller-manager")
    routes = None
    if ccm:
        routes = flag(ccm, "--configure-cloud-routes") != "false" and bool(flag(ccm, "--cluster-cidr"))
    dns = cluster_dns(node)
    shown = objects(node)
    kcm = component(node, "kube-controller-manager")
    most = stated(known(node.settings), "max-pods")
    limit = flag(component(node, "kubelet"), "--max-pods") or (most[0].value if most else "")
    return AddressPlan(
        network=Stated(attached[0].network, "the metadata service") if attached else None,
        pods=pods[0].values if pods else (),
        services=services[0].values if services else (),
        dns=dns[0].values if dns else (),
        subnets=_subnets(evidence),
        nodes=_nodes(evidence),
        node_count=len(known(shown.nodes)) if shown and shown.whole else 0,
        node_mask=mask.get(4, 24),
        node_mask_v6=mask.get(6, 64),
        max_pods=int(limit) if limit.isdecimal() else 110,
        routes=routes,
        hetzner=node.vendor == "Hetzner" or server is not None,
        allocated=True,
        skips_services=bool(flag(kcm, "--service-cluster-ip-range")),
    )


def _no_ranges(node: NodeConfig) -> str:
    if isinstance(node.settings, Unknown):
        return node.settings.reason
    if node.server is False:
        return "this node has no control plane: the ranges of pods and Services are not written on it"
    return "no component's command line and no file on this node says which ranges pods and Services have"


def mask_known(evidence: Evidence) -> bool:
    """Whether the size of a node's pod range could be seen at all."""
    return bool(_masks(evidence.node_config, own_pod_cidrs(evidence)))


def _masks(node: NodeConfig, own: tuple[Stated, ...]) -> dict[int, int]:
    """By family: as kube-controller-manager has it, else as this node's own range shows it."""
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
    """The networks that this node's own interfaces are in, and the subnet that Hetzner says it is attached to."""
    node = evidence.node_config
    found = {}
    for route in known(node.routes):
        net = parse(route.destination)
        if net is None or route.gateway or is_pod_interface(route.interface) or is_foreign_interface(route.interface):
            continue
        if net.prefixlen not in (0, net.max_prefixlen):
            found[route.destination] = NodeSubnet(
                f"interface {route.interface}", Stated(route.destination, "the node's routes")
            )
    server = machine(node)
    for one in server.networks if server and not isinstance(server.networks, Unknown) else ():
        if one.subnet:
            found[one.subnet] = NodeSubnet(f"subnet of {one.name}", Stated(one.subnet, "the metadata service"))
    return tuple(found.values())


def _nodes(evidence: Evidence) -> tuple[PlannedNode, ...]:
    """Every Node that was shown; else this one."""
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
