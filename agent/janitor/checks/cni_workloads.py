"""CNI004: a CNI or cloud controller and the node wait for each other."""

import re
from collections.abc import Iterator
from typing import Final

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.evidence_node import Workload
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix
from janitor.core.node.node_view import kubernetes_missing, makes_routes, nothing_shown, objects

_IDS = (FindingId.CNI004,)

_UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
_NOT_READY = "node.kubernetes.io/not-ready"
# The agents that a node's own network waits for. A CNI's other workloads (calico-kube-controllers, calico-apiserver,
# Hubble) may wait for the node.
_AGENT: Final = re.compile(
    r"(?:^|-)(?:calico-node|canal|flannel|kube-flannel(?:-ds)?(?:-\w+)?|cilium|kube-router|weave-net)\Z"
)


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """One finding for each workload that cannot start on a new node. Only the API knows them."""
    node = evidence.node_config
    shown = objects(node)
    if shown is None:
        yield Skipped(_IDS, kubernetes_missing(node) or nothing_shown(node))
    elif isinstance(shown.workloads, Unknown):
        yield Skipped(_IDS, kubernetes_missing(node) or shown.workloads.reason)
    else:
        yield from _waiting(shown.workloads, routes=makes_routes(node) is not False)


def _waiting(workloads: tuple[Workload, ...], *, routes: bool) -> Iterator[Finding]:
    external = any("cloud-controller" in one.name for one in workloads)
    for one in workloads:
        lacking = _lacking(one, external, routes=routes)
        if lacking:
            yield Finding.of(
                FindingId.CNI004, f"{one.namespace}/{one.name}",
                f"{one.kind} {one.namespace}/{one.name} cannot start on a new node: {' and '.join(lacking)}",
                (f"hostNetwork: {str(one.host_network).lower()}",
                 f"tolerates: {', '.join(one.tolerates) or '(nothing)'}"),
                "A new node has these taints until its network and its cloud provider are set up. This pod sets them "
                "up, so both wait for each other (cloudnativelabs/kube-router#897).",
                Fix.of(Command.of("kubectl", "-n", one.namespace, "edit", one.kind.lower(), one.name),
                       f": set hostNetwork: true, and add tolerations with operator: Exists for {_UNINITIALIZED} and "
                       f"{_NOT_READY}"),
            )  # fmt: skip


def _lacking(one: Workload, external: bool, *, routes: bool) -> list[str]:
    """What the workload lacks to start on a new node.

    A cloud controller that makes no routes can wait for the CNI, and is shipped without hostNetwork (hccm's
    deploy/ccm.yaml).
    """
    controller = "cloud-controller" in one.name
    inside = one.host_network or (controller and not routes)
    if not controller and not (one.kind == "DaemonSet" and _AGENT.search(one.name)):
        return []
    if "*" in one.tolerates:
        return [] if inside else ["it has no hostNetwork"]
    # The DaemonSet controller itself makes its pods tolerate not-ready.
    needed = [_UNINITIALIZED] * (external or controller) + [_NOT_READY] * (one.kind != "DaemonSet")
    found = [f"it does not tolerate {key}" for key in needed if key not in one.tolerates]
    return found + ([] if inside or not controller else ["it has no hostNetwork"])
