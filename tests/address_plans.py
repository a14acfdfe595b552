"""Address plans for tests: those of an incident that is told in kube-hetzner#1221, and their neighbours."""

from typing import Any

from janitor.core.address_plan.check import examine
from janitor.core.address_plan.plan import (
    KUBE_HETZNER,
    AddressPlan,
    NodeSubnet,
    PlannedNode,
    Stated,
    kube_hetzner,
    listed,
)
from janitor.core.model.findings import Finding

POOLS = ((1, 1, 1), (1, 1, 1))


def by_scheme(network: str, pods: str, services: str, dns: str = "", **other: Any) -> AddressPlan:
    """A kube-hetzner cluster with three control-plane and three agent pools of one node."""
    subnets, nodes = kube_hetzner(Stated(network, "--network"), *POOLS)
    values: dict[str, Any] = {
        "network": Stated(network, "--network"), "pods": listed(pods, "--pods"),
        "services": listed(services, "--services"), "dns": listed(dns, "--dns"), "subnets": subnets, "nodes": nodes,
        "routes": True, "hetzner": True, "scheme": KUBE_HETZNER, "pools": POOLS,
    }  # fmt: skip
    return AddressPlan(**(values | other))


def by_hand(pods: str = "", services: str = "", *, subnets: str = "", nodes: str = "", **other: Any) -> AddressPlan:
    """A plan from comma lists; `nodes` are addresses, or `address=pod range` of a running cluster."""
    split = [part.partition("=") for part in nodes.split(",") if part]
    values: dict[str, Any] = {
        "pods": listed(pods), "services": listed(services),
        "subnets": tuple(NodeSubnet(f"subnet {i}", stated) for i, stated in enumerate(listed(subnets))),
        "nodes": tuple(
            PlannedNode(f"node-{i}", Stated(address), (net,) if net else ())
            for i, (address, _, net) in enumerate(split)
        ),
        "allocated": any(net for *_, net in split),
    }  # fmt: skip
    for name in ("network", "dns"):
        if name in other:
            other[name] = Stated(other[name]) if name == "network" else listed(other[name])
    return AddressPlan(**(values | other))


BROKEN = by_scheme("10.20.128.0/17", "10.20.128.0/20", "10.20.144.0/20")
FIXED = by_scheme("10.20.0.0/16", "10.20.128.0/17", "10.20.64.0/19", "10.20.64.10")
REPAIRED = by_scheme("10.20.0.0/16", "10.20.128.0/18", "10.20.64.0/19", "10.20.64.10")
DEFAULT = by_scheme("10.0.0.0/8", "10.42.0.0/16", "10.43.0.0/16", "10.43.0.10")
DOCUMENTED = by_hand(  # the example of the cloud controller's documentation
    "10.0.16.0/20", "10.0.8.0/21", subnets="10.0.1.0/24", network="10.0.0.0/16", hetzner=True, routes=True
)
M4T7E = by_scheme("10.0.0.0/16", "10.0.128.0/17", "10.0.64.0/18")


def ids(plan: AddressPlan) -> dict[str, str]:
    """The worst severity of each finding."""
    found: dict[str, str] = {}
    for finding in reversed(examine(plan)):
        found[finding.id] = str(finding.severity)
    return dict(sorted(found.items()))


def only(plan: AddressPlan, identifier: str) -> Finding:
    (finding,) = [f for f in examine(plan) if f.id == identifier]
    return finding
