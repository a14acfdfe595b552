"""An address plan from options of any source: flags, files of a distribution, or a running node."""

from collections.abc import Iterable
from dataclasses import replace

from janitor.core.address_plan.plan import (
    KUBE_HETZNER,
    AddressPlan,
    NodeSubnet,
    PlannedNode,
    Stated,
    kube_hetzner,
    listed,
)
from janitor.core.model.evidence_node import Setting

PLAN_KEYS = {
    "network": ("network",),
    "pods": ("cluster-cidr",),
    "services": ("service-cidr", "service-cluster-ip-range"),
    "dns": ("cluster-dns",),
}


def stated(settings: Iterable[Setting], *keys: str) -> tuple[Stated, ...]:
    """The values of the last setting with one of `keys`."""
    found: tuple[Stated, ...] = ()
    for setting in settings:
        if setting.key in keys:
            found = listed(setting.value, setting.source)
    return found


def number(settings: Iterable[Setting], *keys: str) -> int | None:
    """The number in the last setting with one of `keys`; None if it is not a number."""
    found = stated(settings, *keys)
    return int(found[0].value) if found and found[0].value.isdecimal() else None


def plan_from(settings: tuple[Setting, ...]) -> AddressPlan:
    """The plan that `settings` describe. The last setting of a key wins, but nodes and subnets add up.

    Keys are the flags of kube-controller-manager and kube-apiserver, those of PLAN_KEYS, and `node-subnet`, `node-ip`,
    `endpoint`, `nodes`, `max-pods`, `routes`, `scheme`, `subnet-count`, `control-plane-pools` and `agent-pools`.
    """
    network = stated(settings, *PLAN_KEYS["network"])
    routes = stated(settings, "routes")
    scheme = stated(settings, "scheme")
    plan = AddressPlan(
        network=network[0] if network else None,
        pods=stated(settings, *PLAN_KEYS["pods"]),
        services=stated(settings, *PLAN_KEYS["services"]),
        dns=stated(settings, *PLAN_KEYS["dns"]),
        subnets=_subnets(settings),
        nodes=_nodes(settings),
        node_count=number(settings, "nodes") or 0,
        node_mask=number(settings, "node-cidr-mask-size", "node-cidr-mask-size-ipv4") or 24,
        node_mask_v6=number(settings, "node-cidr-mask-size-ipv6") or 64,
        max_pods=number(settings, "max-pods") or 110,
        routes=routes[0].value == "true" if routes else bool(network),
        hetzner=bool(network),
        scheme=scheme[0].value if scheme else "",
        subnet_count=number(settings, "subnet-count") or 256,
    )
    plan = replace(plan, allocated=any(node.pods for node in plan.nodes))
    return _with_scheme(plan, settings) if plan.scheme == KUBE_HETZNER and plan.network else plan


def _with_scheme(plan: AddressPlan, settings: tuple[Setting, ...]) -> AddressPlan:
    pools = tuple(
        tuple(int(part.value) for part in stated(settings, key)) for key in ("control-plane-pools", "agent-pools")
    )
    pools = (pools[0] or (1, 1, 1), pools[1] or (1, 1, 1))
    subnets, nodes = kube_hetzner(plan.network or Stated(""), *pools, plan.subnet_count)
    if plan.subnets:
        return replace(plan, scheme="")  # the real subnets are given: the scheme must not add any
    return replace(plan, subnets=subnets, nodes=(*plan.nodes, *nodes), pools=(pools[0], pools[1]))


def _subnets(settings: tuple[Setting, ...]) -> tuple[NodeSubnet, ...]:
    found = []
    for setting in settings:
        if setting.key == "node-subnet":
            name, _, value = setting.value.rpartition("=")
            found.append(NodeSubnet(name or f"node subnet {value}", Stated(value, setting.source)))
    return tuple(found)


def _nodes(settings: tuple[Setting, ...]) -> tuple[PlannedNode, ...]:
    """`10.0.0.2`, or `10.0.0.2=10.42.0.0/24` if the node already has its pod range."""
    found = []
    for setting in settings:
        if setting.key == "node-ip":
            for one in listed(setting.value, setting.source):
                address, _, pods = one.value.partition("=")
                given = tuple(part for part in pods.split("+") if part)
                found.append(PlannedNode(f"node {address}", Stated(address, one.source), given))
        if setting.key == "endpoint" and setting.value not in {node.address.value for node in found}:
            # Only one of the node's addresses: it may have others, of another family.
            found.append(PlannedNode(f"node {setting.value}", Stated(setting.value, setting.source), generated=True))
    return tuple(found)
