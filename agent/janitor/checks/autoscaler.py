"""CA001: when the cluster-autoscaler will remove this server, by each of its clocks separately, and the assumptions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.evidence_node import KubeNode, NodeConfig
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix, Snippet
from janitor.core.model.reason import because
from janitor.core.model.text import duration
from janitor.core.node.node_view import flags, kubernetes_missing, objects, own_node

_IDS = (FindingId.CA001,)

_SECOND = 1_000_000_000
_MINUTE = 60
_STARTUP_S = 15 * _MINUTE  # MaxNodeStartupTime, a constant (cluster-autoscaler clusterstate.go)
_EXTERNAL = "the cluster-autoscaler's own settings are not visible from this node; defaults assumed"


@dataclass(frozen=True, slots=True)
class _Limits:
    creation_s: float
    provision_s: float
    unready_s: float
    source: str


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """Only for nodes that an autoscaler created, and only for running clocks."""
    node, own = evidence.node_config, own_node(evidence)
    if own is None:
        unseen = node.objects.reason if isinstance(node.objects, Unknown) else because(Code.NODE_NOT_SEEN)
        yield Skipped(_IDS, kubernetes_missing(node) or unseen)
    elif not own.group:
        unlabelled = because(Code.NO_AUTOSCALER_LABEL, node=own.name)
        yield Skipped(_IDS, kubernetes_missing(node) or unlabelled)
    elif own.created_ns:
        yield from _clocks(own, _limits(node), evidence)


def _clocks(own: KubeNode, limits: _Limits, evidence: Evidence) -> Iterator[Finding]:
    now = evidence.started.realtime_ns
    booted = now - evidence.started.boottime_ns
    # A Node younger than the machine by more than C2 has joined again: that clock did not remove the server.
    anew = own.created_ns - booted > limits.provision_s * _SECOND
    begun = own.created_ns if anew else min(own.created_ns, booted)
    with_what = "the Node object, which is much younger than the machine" if anew else "this machine's boot"
    assumed = f"settings: {limits.source}"
    creation = (
        f"C1, the creation of the server ({duration(limits.creation_s)}, HCLOUD_SERVER_CREATION_TIMEOUT), is over: it "
        "ended before this node was up, and does not depend on the node"
    )
    if not own.provider_id:
        yield _countdown(
            own, "C2, registration", begun, limits.provision_s, now, "it has no providerID",
            (f"C2 started at {_clock(begun)}, with {with_what}, or slightly later",
             f"--max-node-provision-time: {duration(limits.provision_s)}", creation, assumed),
            Fix.of("see NODE001: the kubelet must register with ", Snippet("--cloud-provider=external")),
        )  # fmt: skip
    changed_ns = _unready_since(own)
    if changed_ns:
        yield _readiness(own, changed_ns, limits, now, (creation, assumed))


def _readiness(own: KubeNode, changed_ns: int, limits: _Limits, now: int, more: tuple[str, ...]) -> Finding:
    """C3: a node's unready time starts when it became unready, but not before its startup time is over."""
    started_ns = own.created_ns + _STARTUP_S * _SECOND
    fresh = changed_ns < started_ns
    begun = own.created_ns if fresh else changed_ns
    limit_s = (max(changed_ns, started_ns) - begun) / _SECOND + limits.unready_s
    since = f"its condition Ready has not been True since {_clock(changed_ns)} (lastTransitionTime)"
    grace = (
        f"C3 started at {_clock(begun)}, with the Node object: {duration(_STARTUP_S)} to become Ready (a constant)",
    )
    return _countdown(
        own, "C3, readiness", begun, limit_s, now, "it is not Ready",
        (since, *(grace if fresh else ()), f"--scale-down-unready-time: {duration(limits.unready_s)}",
         "the autoscaler starts counting when it first finds the node unneeded, so it may be later", *more),
        Fix.of(Command.of("kubectl", "describe", "node", own.name)),
    )  # fmt: skip


def _countdown(
    own: KubeNode, clock: str, begun_ns: int, limit_s: float, now_ns: int, why: str, evidence: tuple[str, ...], fix: Fix
) -> Finding:
    gone_s = (now_ns - begun_ns) / _SECOND
    share = gone_s / limit_s
    severity = Severity.ERROR if share >= 0.8 else Severity.WARNING if share >= 0.5 else Severity.INFO
    end = begun_ns + int(limit_s * _SECOND)
    when = f"at {_clock(end)}" if end > now_ns else f"any moment (the time limit passed at {_clock(end)})"
    return Finding.of(
        FindingId.CA001, f"{own.name} {clock}",
        f"the cluster-autoscaler will remove this server {when}, because {why}",
        (f"{duration(gone_s)} of {duration(limit_s)} have passed", *evidence),
        "Three timers run one after the other: the creation of the server (C1, 5 minutes), the Node with a matching "
        "providerID (C2, 15 minutes), the Node being Ready (C3). Deletions after 5 minutes come from C1 and are not "
        "caused by the kubelet; wrong kubelet flags show after 15 minutes (kubernetes/autoscaler#8013, #5757, #6364).",
        fix,
        severity=severity,
    )  # fmt: skip


def _limits(node: NodeConfig) -> _Limits:
    shown = objects(node)
    found = [w for w in known(shown.workloads) if "cluster-autoscaler" in w.name] if shown else []
    argv = tuple(word for w in found for part in w.containers for words in part for word in words)
    here = [c.argv for c in known(node.components) if c.name == "cluster-autoscaler"]
    argv = argv or (here[0] if len(here) == 1 else ())  # several belong to several clusters
    source = f"{found[0].kind} {found[0].namespace}/{found[0].name}" if found else _EXTERNAL
    if argv and not found:
        source = "the cluster-autoscaler on this node"
    minutes = next((v for w in found for k, v in w.environment if k == "HCLOUD_SERVER_CREATION_TIMEOUT"), "")
    return _Limits(
        float(minutes) * _MINUTE if minutes.isdecimal() else 5 * _MINUTE,
        _seconds(flags(argv, "--max-node-provision-time")) or 15 * _MINUTE,
        _seconds(flags(argv, "--scale-down-unready-time")) or 20 * _MINUTE,
        source,
    )


def _seconds(values: list[str]) -> float:
    """A duration in Go's notation, `1h30m` or `90s`, in seconds; 0 if there is none."""
    total, number = 0.0, ""
    for c in values[-1] if values else "":
        if c in "hms" and number.replace(".", "", 1).isdecimal():
            total += float(number) * {"h": 3600, "m": 60, "s": 1}[c]
            number = ""
        else:
            number += c
    return total if not number else 0.0


def _unready_since(own: KubeNode) -> int:
    """When the condition Ready became anything but True; 0 if it is True or missing."""
    ready = next((c for c in own.conditions if c.type == "Ready"), None)
    return ready.changed_ns if ready and ready.status != "True" else 0


def _clock(ns: int) -> str:
    return datetime.fromtimestamp(ns / _SECOND, UTC).strftime("%Y-%m-%d %H:%M UTC")
