"""Questions that several checks ask about a node's configuration: flags, ranges, and where they are set."""

from dataclasses import dataclass
from typing import Final

from janitor.core.address_plan.plan import Stated, listed
from janitor.core.address_plan.settings import stated
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.evidence_node import Component, KubeNode, Machine, NodeConfig, Objects, Unit
from janitor.core.model.reason import Reason, because

HCCM: Final = "hcloud-cloud-controller-manager"


@dataclass(frozen=True, slots=True)
class DeclaredValue:
    """A value as one component states it."""

    component: str
    values: tuple[Stated, ...]

    @property
    def text(self) -> str:
        """As the user wrote it."""
        return ",".join(value.value for value in self.values)


def kubernetes_missing(node: NodeConfig) -> Reason | None:
    """Why nothing can be said about Kubernetes on this node; None if it belongs to a cluster."""
    if isinstance(node.settings, Unknown) and not node.distribution:
        return node.settings.reason
    if not node.distribution and not known(node.components):
        return because(Code.NO_KUBERNETES)
    return None


def component(node: NodeConfig, name: str) -> Component | None:
    """A component by its name; a running one comes before one that is only configured."""
    found = [c for c in known(node.components) if c.name == name]
    return next((c for c in found if c.running), found[0] if found else None)


def cloud_controller(node: NodeConfig) -> Component | None:
    """Hetzner's cloud controller: its process on this node, else its workload in the objects."""
    found, shown = component(node, HCCM), objects(node)
    for one in known(shown.workloads) if shown and found is None else ():
        for command, args in one.containers:
            if HCCM in one.name and (command or args):
                return Component(HCCM, (*command, *args), f"{one.kind} {one.namespace}/{one.name}", 0, False)
    return found


def makes_routes(node: NodeConfig) -> bool | None:
    """Whether the cloud controller makes routes for the nodes' pods; None if it was not seen."""
    controller, shown = cloud_controller(node), objects(node)
    if controller is None:
        return None
    workloads = known(shown.workloads) if shown else ()
    off = any(("HCLOUD_NETWORK_ROUTES_ENABLED", "false") in one.environment for one in workloads if HCCM in one.name)
    wanted = flag(controller, "--configure-cloud-routes") != "false" and bool(flag(controller, "--cluster-cidr"))
    return wanted and not off


def flags(argv: tuple[str, ...], name: str) -> list[str]:
    """The values of `--name=value` and `--name value`, in order; the last one takes effect (pflag)."""
    found = []
    for at, word in enumerate(argv):
        if word.startswith(f"{name}="):
            found.append(word.partition("=")[2])
        elif word == name:
            following = argv[at + 1] if at + 1 < len(argv) else ""
            found.append(following if following and not following.startswith("-") else "true")
    return found


def flag(one: Component | None, name: str) -> str:
    """The value that takes effect, or ""."""
    found = flags(one.argv, name) if one else []
    return found[-1] if found else ""


def cluster_cidrs(node: NodeConfig) -> list[DeclaredValue]:
    """The pod range as each component has it, the most authoritative first."""
    return _collected(node, ("kube-controller-manager", HCCM, "kube-proxy", "kube-router"),
                      "--cluster-cidr", "cluster-cidr")  # fmt: skip


def service_cidrs(node: NodeConfig) -> list[DeclaredValue]:
    """The same for Services."""
    return _collected(node, ("kube-apiserver", "kube-controller-manager", "kube-router"),
                      "--service-cluster-ip-range", "service-cidr")  # fmt: skip


def _collected(node: NodeConfig, components: tuple[str, ...], name: str, key: str) -> list[DeclaredValue]:
    found = []
    for wanted in components:
        one = component(node, wanted)
        value = flag(one, name)
        if one and value:
            found.append(DeclaredValue(wanted, listed(value, f"{name} of {wanted}, {one.source}")))
    settings = known(node.settings)
    for owner in dict.fromkeys(s.component for s in settings):
        values = stated([s for s in settings if s.component == owner], key, name.lstrip("-"))
        if values and owner not in {s.component for s in found}:
            found.append(DeclaredValue(owner, values))
    return found


def cluster_dns(node: NodeConfig) -> list[DeclaredValue]:
    """The DNS address that the kubelet gives pods, then the one that the distribution was given."""
    found = []
    kubelet = component(node, "kubelet")
    if kubelet and (value := flag(kubelet, "--cluster-dns")):
        found.append(DeclaredValue("kubelet", listed(value, f"--cluster-dns of kubelet, {kubelet.source}")))
    settings = known(node.settings)
    for owner in dict.fromkeys(s.component for s in settings):
        values = stated([s for s in settings if s.component == owner], "cluster-dns")
        if values and owner not in {s.component for s in found}:
            found.append(DeclaredValue(owner, values))
    return found


def objects(node: NodeConfig) -> Objects | None:
    """The cluster's objects, if there are any."""
    return next(iter(known(node.objects)), None)


def nothing_shown(node: NodeConfig, wanted: str = "objects") -> Reason:
    """Why there are no objects of the cluster to look at, for `skipped`."""
    return node.objects.reason if isinstance(node.objects, Unknown) else because(Code.NOT_GIVEN, what=wanted)


def kubelet_unit(node: NodeConfig) -> Unit | None:
    """The kubelet's unit, if systemd runs the kubelet."""
    return next((unit for unit in known(node.units) if unit.name == "kubelet.service"), None)


def machine(node: NodeConfig) -> Machine | None:
    """What Hetzner's metadata service answered, if it did."""
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
    """The kubelet's name for this node: an override, or the host name in lower case."""
    override = flag(component(node, "kubelet"), "--hostname-override")
    named = stated(known(node.settings), "node-name")
    return override or (named[0].value if named else node.hostname.lower())


def node_ips(evidence: Evidence) -> tuple[Stated, ...]:
    """This node's addresses: those the kubelet was given, else the Node object's or the metadata service's."""
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


def own_pod_cidrs(evidence: Evidence) -> tuple[Stated, ...]:
    """This node's pod ranges: from its Node object, from flannel, or from the CNI configuration."""
    own = own_node(evidence)
    if own and own.pod_cidrs:
        return tuple(Stated(c, f"spec.podCIDRs of Node {own.name}") for c in own.pod_cidrs)
    told = stated(known(evidence.node_config.settings), "pod-cidr")
    if told:
        return told
    first = next((f for f in known(evidence.node_config.cni_files) if f.usable and not f.problem), None)
    return tuple(Stated(s, first.path) for s in first.subnets) if first else ()
