"""NODE001 to NODE006: whether the cloud controller can recognise this node as one of its servers."""

from collections.abc import Iterator

from janitor.core.address_plan.plan import as_address
from janitor.core.address_plan.settings import stated
from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.evidence_node import KubeNode, Machine, NodeConfig
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix, Snippet
from janitor.core.model.reason import Reason, because
from janitor.core.model.text import duration
from janitor.core.node.node_view import (
    component,
    flag,
    kubernetes_missing,
    machine,
    makes_routes,
    node_ips,
    node_name,
    nothing_shown,
    objects,
    own_node,
)
from janitor.core.node.rejoining import ETCD, rejoin

_IDS = (
    FindingId.NODE001,
    FindingId.NODE002,
    FindingId.NODE003,
    FindingId.NODE004,
    FindingId.NODE005,
    FindingId.NODE006,
)

_UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
_BUILT_IN = ("k3s://", "rke2://")  # their built-in controller does not look for a server
_PATIENCE_S = 120
_SECOND = 1_000_000_000


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """By the Node object if it is in the objects, and by the metadata service if it answered."""
    node = evidence.node_config
    if missing := kubernetes_missing(node):
        yield Skipped(_IDS, missing)
        return
    own, server = own_node(evidence), machine(node)
    if own is None:
        yield Skipped((FindingId.NODE001, FindingId.NODE002, FindingId.NODE003, FindingId.NODE006), _no_node(node))
    else:
        yield from _registered(own, evidence)
    named = (FindingId.NODE003,) if own else ()  # without the Node, NODE003 is already skipped above
    if isinstance(node.machine, Unknown):
        yield Skipped((*named, FindingId.NODE005), node.machine.reason)
    elif not _expects_provider(node, own):
        yield Skipped(
            (*((FindingId.NODE001,) if own else ()), *named, FindingId.NODE005),
            because(Code.NO_PROVIDER_EXPECTED),
        )
    elif server is not None:
        yield from _name(server, evidence)
        yield from _networks(server, evidence)
    if not node_ips(evidence):
        yield Skipped((FindingId.NODE004,), because(Code.NO_KUBELET_ADDRESS))
    yield from _not_here(evidence)


def _no_node(node: NodeConfig) -> Reason:
    """Why this node's Node object is unknown."""
    shown = objects(node)
    if shown is None:
        return nothing_shown(node, "Nodes")
    return because(Code.NODE_NOT_GIVEN, source=shown.source, node=node_name(node) or "(this host has no name)")


def _expects_provider(node: NodeConfig, own: KubeNode | None) -> bool:
    """Whether a cloud controller is expected to know this node; without one, a missing providerID is normal.

    Judged by the kubelet's flags and intended flags, by the controller itself, or by what one has set on Nodes.
    """
    shown = objects(node)
    others = known(shown.nodes) if shown else ()
    wanted = [one.value for unit in known(node.units) for one in unit.assignments]
    return (
        flag(component(node, "kubelet"), "--cloud-provider") == "external"
        or ("cloud-provider", "external") in {(s.key, s.value) for s in known(node.settings)}
        or any("--cloud-provider=external" in value.split() for value in wanted)
        or component(node, "hcloud-cloud-controller-manager") is not None
        or any("cloud-controller" in one.name for one in (known(shown.workloads) if shown else ()))
        or (own is not None and (bool(own.group) or _UNINITIALIZED in own.taints))
        or any(other.provider_id and not other.provider_id.startswith(_BUILT_IN) for other in others)
    )


def _registered(own: KubeNode, evidence: Evidence) -> Iterator[Finding]:
    age_s = (evidence.started.realtime_ns - own.created_ns) / _SECOND if own.created_ns else 0
    missed = not own.provider_id and _UNINITIALIZED not in own.taints  # with the taint, the flag did arrive: NODE002
    if age_s > _PATIENCE_S and missed and _expects_provider(evidence.node_config, own):
        removed = (
            " Without it the cluster-autoscaler cannot match this node to its server, and removes the server after 15 "
            "minutes (kubernetes/autoscaler#6203, #5185, #8013)."
        )
        given = flag(component(evidence.node_config, "kubelet"), "--cloud-provider") == "external"
        first = "the kubelet has the flag now, but did not when it joined" if given else "give the kubelet the flag"
        yield Finding.of(
            FindingId.NODE001, own.name,
            f"Node {own.name} has no providerID, {duration(age_s)} after it joined",
            (f"spec.providerID of {own.name}: (none)", *_provider_flag(evidence)),
            "The cloud controller sets it when the kubelet registers with --cloud-provider=external."
            + (removed if own.group else ""),
            Fix.of(f"{first}; ", *rejoin(evidence)),
        )  # fmt: skip
    if age_s > _PATIENCE_S and _UNINITIALIZED in own.taints:
        yield Finding.of(
            FindingId.NODE002, own.name,
            f"no cloud controller has initialized Node {own.name} in {duration(age_s)}",
            (f"taint: {_UNINITIALIZED}", *_names(evidence)),
            "The cloud controller is not running, or cannot find this node's server. It looks in the project of its "
            "token for a server with the node's name and address (hccm#268, hccm#147).",
            Fix.of(Command("kubectl -n kube-system logs deployment/hcloud-cloud-controller-manager"),
                   "; also compare the names above"),
        )  # fmt: skip
    for condition in own.conditions:
        if condition.type == "NetworkUnavailable" and condition.status == "True":
            yield Finding.of(
                FindingId.NODE006, own.name, f"Node {own.name} is NetworkUnavailable: {condition.reason}",
                (f"condition NetworkUnavailable=True, reason {condition.reason}",
                 f"pod range: {', '.join(own.pod_cidrs) or '(none)'}", f"address: {', '.join(own.internal_ips)}"),
                "The route to this node's pods could not be created: its address lies in its own pod range (CIDR004), "
                "the network already has 100 routes, or the server is not attached to the network (NODE005).",
                Fix.of(Command("kubectl get events -A --field-selector reason=FailedToCreateRoute")),
            )  # fmt: skip


def _provider_flag(evidence: Evidence) -> list[str]:
    kubelet = component(evidence.node_config, "kubelet")
    if kubelet is None:
        return []
    return [f"--cloud-provider of kubelet ({kubelet.source}): {flag(kubelet, '--cloud-provider') or '(none)'}"]


def _names(evidence: Evidence) -> list[str]:
    node, server = evidence.node_config, machine(evidence.node_config)
    return [
        f"the kubelet calls this node {node_name(node)}", f"host name: {node.hostname}",
        *([f"Hetzner calls this server {server.hostname}"] if server else []),
    ]  # fmt: skip


def _name(server: Machine, evidence: Evidence) -> Iterator[Finding]:
    """Only if the Node was seen: with a providerID the cloud controller does not look for the name any more."""
    own = own_node(evidence)
    if own and server.hostname and own.name != server.hostname and not own.provider_id:
        yield Finding.of(
            FindingId.NODE003, own.name, f"this node is named {own.name}, but its server is named {server.hostname}",
            tuple(_names(evidence)),
            "Until a node has a providerID, Hetzner's cloud controller looks for its server by that name (hccm#268).",
            Fix.of(
                f"rename the server to {own.name} in Hetzner's console, if nothing else (Terraform, the autoscaler) "
                f"depends on its name; or let the node join again as {server.hostname}: {_renamed(evidence)}"
            ),
        )  # fmt: skip


def _renamed(evidence: Evidence) -> str:
    """How to rename the node. It joined under its name, so a new host name alone has no effect, or breaks it."""
    node = evidence.node_config
    if node.distribution in ("k3s", "rke2"):
        etcd = "" if node.server is False else f"; for a server take a snapshot first: {ETCD}"
        return f"set node-name in /etc/rancher/{node.distribution}/config.yaml{etcd}"
    if node.distribution == "kubeadm":
        return "its certificate has the old name, so run kubeadm reset and kubeadm join again"
    return "its credentials may have the old name, so it has to join from the beginning"


def _networks(server: Machine, evidence: Evidence) -> Iterator[Finding]:
    if isinstance(server.networks, Unknown):
        return
    if not server.networks:
        if _wants_network(evidence):
            yield Finding.of(
                FindingId.NODE005, server.hostname, "this server is not attached to a private network",
                (f"the metadata service of server {server.instance_id} lists none",),
                "Without one the cloud controller finds no private address and cannot create a route to this node.",
                Fix.of(Command.of("hcloud", "server", "attach-to-network", server.hostname, "--network", "NAME")),
            )  # fmt: skip
        return
    has = {ip for one in server.networks for ip in (one.ip, *one.alias_ips)}
    for told in node_ips(evidence):
        if told.value not in has and _private(told.value):
            yield Finding.of(
                FindingId.NODE004, told.value, f"the node's address {told.value} does not belong to its server",
                (f"node address: {told}", f"the server's addresses: {', '.join(sorted(has))} (the metadata service)"),
                "The cloud controller refuses it: 'failed to get node address from cloud provider that matches ip'.",
                Fix.of(Snippet(f"--node-ip={server.networks[0].ip}")),
            )  # fmt: skip


def _wants_network(evidence: Evidence) -> bool:
    """Whether the node needs a private network: for routes, or for a private --node-ip that no interface has."""
    node = evidence.node_config
    told = flag(component(node, "kubelet"), "--node-ip").split(",") + [
        s.value for s in stated(known(node.settings), "node-ip")
    ]
    here = known(node.addresses)
    return bool(makes_routes(node)) or any(_private(ip) and str(as_address(ip)) not in here for ip in told)


def _not_here(evidence: Evidence) -> Iterator[Finding]:
    """NODE004 without a metadata service: an address that none of this node's interfaces has."""
    addresses = evidence.node_config.addresses
    if isinstance(addresses, Unknown):
        return
    for told in node_ips(evidence):
        address = as_address(told.value)
        if address and not address.is_unspecified and str(address) not in addresses:  # `::` only chooses a family
            yield Finding.of(
                FindingId.NODE004, told.value, f"the node's address {told.value} is not on any of its interfaces",
                (f"node address: {told}",),
                "The kubelet registers the node with this address, but cannot be reached there: logs, exec and "
                "metrics do not work.",
                Fix.of("set --node-ip to an address of this node: ", Command("ip -brief address")),
            )  # fmt: skip


def _private(text: str) -> bool:
    address = as_address(text)
    return address is not None and address.is_private and not address.is_unspecified
