"""CIDR011, 012, 023, 024, 025, 027: whether the components, the Nodes and the cluster agree on the ranges."""

from collections.abc import Iterator
from itertools import combinations

from janitor.core.address_plan.plan import Net, Stated, as_address, host, overlap, parse, within
from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.evidence_node import KubeNode, NodeConfig, Objects
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Fix
from janitor.core.model.reason import because
from janitor.core.model.text import count
from janitor.core.node.node_plan import node_plan
from janitor.core.node.node_view import (
    DeclaredValue,
    cluster_cidrs,
    cluster_dns,
    component,
    kubernetes_missing,
    nothing_shown,
    objects,
    own_node,
    own_pod_cidrs,
    service_cidrs,
)
from janitor.core.node.rejoining import ETCD

_IDS = (
    FindingId.CIDR011,
    FindingId.CIDR012,
    FindingId.CIDR023,
    FindingId.CIDR024,
    FindingId.CIDR025,
    FindingId.CIDR027,
)

_DNS = ("kube-system/kube-dns", "kube-system/rke2-coredns-rke2-coredns")


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """One finding for each value that two sources state differently."""
    node = evidence.node_config
    if missing := kubernetes_missing(node):
        yield Skipped(_IDS, missing)
        return
    yield from _components(node)
    shown = objects(node)
    if shown is None:
        yield Skipped((FindingId.CIDR012, FindingId.CIDR023, FindingId.CIDR027), nothing_shown(node, "Nodes"))
    else:
        yield from _kubernetes_service(node, shown)
        yield from _outside(shown, evidence)
        yield from _twice(known(shown.nodes))
    yield from _dns(node, shown)
    yield from _leases(evidence)


def _service(shown: Objects | None, names: tuple[str, ...]) -> Stated | None:
    services = known(shown.service_ips) if shown else ()
    return next((Stated(ip, f"Service {name}") for name, ip in services if name in names and ip != "None"), None)


def _dns(node: NodeConfig, shown: Objects | None) -> Iterator[Finding | Skipped]:
    said = cluster_dns(node)
    service = _service(shown, _DNS)
    if len(said) + bool(service) < 2:
        yield Skipped((FindingId.CIDR011,), because(Code.DNS_SAID_ONCE))
        return
    # The kubelet may use a cache on the node (NodeLocal DNSCache), usually at a link-local address, or at a node
    # address.
    here = known(node.addresses)
    values = {one.component: v for one in said for v in one.values[:1] if not _cached(v, here)}
    if service:
        values["Service"] = service
    if len({as_address(v.value) or v.value for v in values.values()}) > 1:
        yield Finding.of(
            FindingId.CIDR011, "cluster DNS",
            "the cluster DNS address is not the same everywhere: "
            f"{', '.join(sorted({v.value for v in values.values()}))}",
            tuple(f"{name}: {value}" for name, value in values.items()),
            "The kubelet writes its value into every pod's resolv.conf. If the DNS Service has another address, no "
            "pod can resolve names (kube-hetzner#1691).",
            Fix.of(
                "set clusterDNS in the kubelet's configuration (cluster-dns on k3s and RKE2) to the Service's address"
            ),
        )  # fmt: skip


def _cached(dns: Stated, here: tuple[str, ...]) -> bool:
    address = as_address(dns.value)
    return address is not None and (address.is_link_local or str(address) in here)


def _kubernetes_service(node: NodeConfig, shown: Objects) -> Iterator[Finding]:
    service = _service(shown, ("default/kubernetes",))
    said = service_cidrs(node)
    ranges = [net for net in (parse(v.value) for v in said[0].values) if net] if said else []
    if service is None or not ranges:
        return
    mine = next((net for net in ranges if (":" in service.value) == (net.version == 6)), None)
    if mine and service.value != str(host(mine, 1)):
        changed = not any(service.value in map(str, (host(net, 1),)) for net in ranges)
        yield Finding.of(
            FindingId.CIDR012, "default/kubernetes",
            f"Service 'kubernetes' has {service.value}, but the Service range starts at {host(mine, 1)}",
            (f"Service range: {said[0].values[0]}", f"ClusterIP: {service}"),
            "The Service 'kubernetes' gets the first address of the Service range. It has another one if the range "
            "was changed after the installation, which Kubernetes does not support (k3s#3489).",
            Fix.of("restore the old Service range; a new one needs a new cluster"),
            severity=Severity.ERROR if changed else Severity.INFO,
        )  # fmt: skip


def _outside(shown: Objects, evidence: Evidence) -> Iterator[Finding | Skipped]:
    said = cluster_cidrs(evidence.node_config)
    if not said:
        yield Skipped((FindingId.CIDR023,), because(Code.POD_RANGE_NOT_SAID))
        return
    plan = node_plan(evidence)
    ranges = [net for net in (parse(v.value) for v in said[0].values) if net]
    wrong = []
    kcm = component(evidence.node_config, "kube-controller-manager")
    for node in known(shown.nodes):
        for net in [net for net in map(parse, node.pod_cidrs) if net is not None]:
            mine = [r for r in ranges if r.version == net.version]
            if mine and not any(within(net, r) for r in mine):
                wrong.append(f"{node.name}: {net} is not in {', '.join(map(str, mine))}")
            elif mine and kcm and not isinstance(plan, Unknown) and net.prefixlen != plan.mask(net):
                wrong.append(f"{node.name}: {net}, but the node mask is /{plan.mask(net)}")
    if wrong:
        yield Finding.of(
            FindingId.CIDR023, "Nodes", f"pod ranges of Nodes do not fit the cluster's pod range: {wrong[0]}",
            (*(f"cluster's pod range: {value}" for value in said[0].values), *wrong[:8]),
            "The range or the mask was changed after the nodes had joined. kube-controller-manager exits at its next "
            "start: 'is out the range of cluster cidr' (k3s#3967).",
            Fix.of(
                "restore the old range; or let those nodes join again with a new range, one at a time: drain it, "
                f"delete its Node, restart its kubelet. Do not do this to a k3s or RKE2 server: {ETCD}"
            ),
        )  # fmt: skip


def _components(node: NodeConfig) -> Iterator[Finding | Skipped]:
    """CIDR024: the components must have the same ranges, in any order and spelling."""
    said = cluster_cidrs(node)
    if len(said) < 2:
        yield Skipped((FindingId.CIDR024,), because(Code.POD_RANGE_SAID_ONCE))
    for one, other in combinations(said, 2):
        if not _same(one, other):
            yield Finding.of(
                FindingId.CIDR024, f"{one.component} and {other.component}",
                f"{one.component} uses pod range {one.text}, but {other.component} uses {other.text}",
                tuple(str(value) for said in (one, other) for value in said.values),
                "Components that disagree about the pod range route, masquerade or clean up with the wrong one. With "
                "the cloud controller, routes are created and never removed (hccm#734, kube-hetzner#1477).",
                Fix.of(f"give both the same value; nodes get their pod ranges from {one.component}")
                if one.component == "kube-controller-manager"
                else Fix.of("give both the same value"),
            )  # fmt: skip
            return


def _same(one: DeclaredValue, other: DeclaredValue) -> bool:
    mine, others = ({parse(v.value) for v in said.values} for said in (one, other))
    families = {net.version for net in mine if net} & {net.version for net in others if net}
    return all(
        {n for n in mine if n and n.version == f} == {n for n in others if n and n.version == f} for f in families
    )


def _leases(evidence: Evidence) -> Iterator[Finding | Skipped]:
    """CIDR025: the ranges that addresses really come from, against the Node's range."""
    node = evidence.node_config
    if not own_pod_cidrs(evidence):
        yield Skipped((FindingId.CIDR025,), because(Code.OWN_RANGE_NOT_KNOWN))
    own = own_node(evidence)
    ranges = [net for net in map(parse, own.pod_cidrs) if net] if own else []
    flannel = _flannel(evidence)
    used = [(value, "flannel") for value in flannel]
    first = next((f for f in known(node.cni_files) if f.usable and not f.problem), None)
    used += [(Stated(subnet, first.path), "the CNI configuration") for subnet in first.subnets] if first else []
    if not ranges:  # without the Node, compare flannel with the CNI configuration
        ranges = [net for value in flannel if (net := parse(value.value))]
    for value, name in used:
        net = parse(value.value)
        if net and (mine := [r for r in ranges if r.version == net.version]) and not any(_fits(net, r) for r in mine):
            yield Finding.of(
                FindingId.CIDR025, str(net),
                f"{name} gives out {net}, but this node's pod range is {', '.join(map(str, mine))}",
                (f"{name}: {value}", *(f"pod range: {s}" for s in own_pod_cidrs(evidence))),
                "Pods get addresses from a range that belongs to another node or to none, and nothing routes them to "
                "this node. The node's range has changed, but the file has not.",
                Fix.of(
                    "restart the CNI's pod on this node, so that it writes the file again; then restart the pods that "
                    "have old addresses"
                ),
            )  # fmt: skip


def _flannel(evidence: Evidence) -> tuple[Stated, ...]:
    found = [s for s in known(evidence.node_config.settings) if s.component == "flannel" and s.key == "pod-cidr"]
    return tuple(Stated(part, found[-1].source) for part in found[-1].value.split(",")) if found else ()


def _fits(net: Net, pods: Net) -> bool:
    return within(net, pods) or within(pods, net)


def _twice(nodes: tuple[KubeNode, ...]) -> Iterator[Finding]:
    """CIDR027: sorted by start, a range overlaps an earlier one that has not ended yet."""
    given = [(n.name, net) for n in nodes for c in n.pod_cidrs if (net := parse(c))]
    pairs: list[tuple[str, Net, str, Net]] = []
    last: tuple[str, Net] | None = None
    for name, net in sorted(given, key=lambda g: (g[1].version, int(g[1].network_address), g[1].prefixlen)):
        if last and overlap(last[1], net):
            if last[0] != name:
                pairs.append((*last, name, net))
        else:
            last = (name, net)
    if pairs:
        one, first, other, second = pairs[0]
        more = f", and {count(len(pairs) - 1, 'more pair')}" if pairs[1:] else ""
        yield Finding.of(
            FindingId.CIDR027, f"{one} and {other}", f"{one} and {other} have overlapping pod ranges{more}",
            (f"{one}: {first}", f"{other}: {second}", *(f"{a}: {x}; {b}: {y}" for a, x, b, y in pairs[1:8])),
            "Two pods of the cluster can have the same address, and packets for one then reach the other.",
            _let_go(nodes, one, other),
        )  # fmt: skip


def _let_go(nodes: tuple[KubeNode, ...], one: str, other: str) -> Fix:
    """People must choose which of two Nodes gives up its range: the younger one is not always less important."""
    made = {n.name: n.created_ns for n in nodes if n.created_ns}
    younger = ""
    if one in made and other in made and made[one] != made[other]:
        younger = f" ({one if made[one] > made[other] else other} is the younger)"
    return Fix.of(
        f"one of {one} and {other} has to join again with a new range; choose which{younger}: drain it, delete its "
        "Node, and restart its kubelet, or the service of k3s or RKE2 that it is part of. Do not do this to a k3s or "
        f"RKE2 server: {ETCD}"
    )
