"""HCCM001, 002, 003, 005: the range for which Hetzner's cloud controller creates and removes routes."""

from collections.abc import Iterator

from janitor.core.address_plan.plan import parse, within
from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.evidence_node import Component, NodeConfig, Objects
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix
from janitor.core.model.reason import because
from janitor.core.model.text import count, listing
from janitor.core.node.node_view import (
    HCCM,
    cloud_controller,
    cluster_cidrs,
    flag,
    flags,
    kubernetes_missing,
    nothing_shown,
    objects,
)

_LEAK = (
    "The cloud controller creates a route for every node, but removes only routes inside its --cluster-cidr. With a "
    "wrong value, routes of removed nodes stay until the network's limit of 100 routes is reached (hccm#734, "
    "kube-hetzner#1477, kubernetes/autoscaler#7227)."
)


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """By its process on this node, or by its Deployment in the objects: it runs on one node of a cluster."""
    node = evidence.node_config
    missing = kubernetes_missing(node)
    controller, shown = cloud_controller(node), objects(node)
    if controller is None:
        yield Skipped((FindingId.HCCM001, FindingId.HCCM002), missing or because(Code.NO_CLOUD_CONTROLLER))
    else:
        yield from _twice(controller)
        yield from _differs(controller, node)
    if shown is None:
        yield Skipped((FindingId.HCCM003, FindingId.HCCM005), missing or nothing_shown(node))
    else:
        yield from _complaints(shown)


def _complaints(shown: Objects) -> Iterator[Finding | Skipped]:
    """What the cloud controller itself reports, in events and Node conditions."""
    if isinstance(shown.events, Unknown):
        yield Skipped((FindingId.HCCM003,), shown.events.reason)
    for _, message in known(shown.events)[:1]:
        yield Finding.of(
            FindingId.HCCM003, HCCM, "the cloud controller reports that its --cluster-cidr is wrong",
            tuple(dict.fromkeys(text for _, text in known(shown.events)))[:8], _LEAK,
            Fix.of(
                "give the cloud controller the same --cluster-cidr as kube-controller-manager; it then removes all "
                f"routes that it left behind. ({message})"
            ),
        )  # fmt: skip
    refused = [n.name for n in known(shown.nodes) for c in n.conditions
               if (c.type, c.status, c.reason) == ("NetworkUnavailable", "True", "NoRouteCreated")]  # fmt: skip
    if refused:
        yield Finding.of(
            FindingId.HCCM005, HCCM, f"{count(len(refused), 'node')} without a route: {listing(refused)}",
            tuple(f"Node {name}: NetworkUnavailable=True, NoRouteCreated" for name in refused[:8]),
            "The cloud controller could not create the routes to these nodes' pods: the network already has 100 "
            "routes, the node's address lies in its pod range (CIDR004), or the range overlaps a subnet (hccm#576).",
            Fix.of(Command("kubectl get events -A --field-selector reason=FailedToCreateRoute")),
        )  # fmt: skip


def _twice(controller: Component) -> Iterator[Finding]:
    values = flags(controller.argv, "--cluster-cidr")
    if len(set(values)) > 1:
        yield Finding.of(
            FindingId.HCCM001, HCCM,
            f"the cloud controller has --cluster-cidr {count(len(values), 'time')}; the last value, {values[-1]}, is "
            "used",
            (*(f"--cluster-cidr={value}" for value in values), f"from {controller.source}"), _LEAK
            + " It is there twice if one manifest sets `command` and the manifest that it overrides sets `args`: "
              "Kubernetes uses both.",
            Fix.of(
                "keep one --cluster-cidr in the manifest, in args: kube-controller-manager's value, which contains "
                "the nodes' podCIDRs; then: ",
                Command.of("kubectl", "-n", "kube-system", "rollout", "restart", "deployment", HCCM),
                ". It then removes the stale routes itself; deleting them by hand is only a temporary fix",
            ),
        )  # fmt: skip


def _differs(controller: Component, node: NodeConfig) -> Iterator[Finding]:
    value = flag(controller, "--cluster-cidr")
    mine = [net for part in value.split(",") if (net := parse(part)) is not None]
    if not mine:
        return
    wrong = []
    for said in cluster_cidrs(node):
        nets = [net for v in said.values if (net := parse(v.value)) is not None and net.version == 4]
        ours = [net for net in mine if net.version == 4]
        if said.component != HCCM and nets and ours and nets != ours:
            wrong.append(f"{said.component} has {', '.join(map(str, said.values))}")
    shown = objects(node)
    for one in known(shown.nodes) if shown else ():
        for net in [net for c in one.pod_cidrs if (net := parse(c)) is not None and net.version == 4]:
            if not any(within(net, part) for part in mine):
                wrong.append(f"Node {one.name} has {net}")
    if wrong:
        yield Finding.of(
            FindingId.HCCM002, HCCM, f"the cloud controller has --cluster-cidr={value}, but {wrong[0]}",
            (f"--cluster-cidr={value}, from {controller.source}", *wrong[:8]), _LEAK,
            Fix.of("set it to the range that contains the nodes' pod ranges; the cloud controller then removes the "
                   "routes that it left behind"),
        )  # fmt: skip
