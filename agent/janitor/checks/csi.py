"""CSI001: a kubelet that has been up for a while and has no CSINode."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix
from janitor.core.model.reason import because
from janitor.core.model.text import duration
from janitor.core.node.node_view import component, kubernetes_missing, nothing_shown, objects, own_node

_IDS = (FindingId.CSI001,)

_PATIENCE_S = 120
_SECOND = 1_000_000_000


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """Needs the objects and the kubelet's uptime: in the first minutes a missing CSINode is normal."""
    node = evidence.node_config
    shown, own, up_s = objects(node), own_node(evidence), _up(evidence)
    missing = kubernetes_missing(node)
    if shown is None:
        yield Skipped(_IDS, missing or nothing_shown(node))
    elif isinstance(shown.csi_nodes, Unknown):
        yield Skipped(_IDS, missing or shown.csi_nodes.reason)
    elif own is None or up_s is None:
        yield Skipped(_IDS, missing or because(Code.KUBELET_OR_NODE_NOT_SEEN))
    elif up_s >= _PATIENCE_S and own.name not in dict(shown.csi_nodes):
        yield Finding.of(
            FindingId.CSI001, own.name,
            f"the kubelet of {own.name} has been running for {duration(up_s)} and has not created a CSINode",
            (f"{shown.source} has no CSINode {own.name}",),
            "The kubelet creates it as soon as it can reach the API server ('CSINode is not yet initialized'). Until "
            "then, volumes of CSI drivers cannot be attached to this node.",
            Fix.of("check whether this node can reach the API server: ",
                   Command("journalctl -u kubelet | grep -i -e csinode -e 'connection refused'")),
        )  # fmt: skip


def _up(evidence: Evidence) -> float | None:
    kubelet = component(evidence.node_config, "kubelet")
    if kubelet is None or not kubelet.started_ns:
        return None
    return (evidence.started.boottime_ns - kubelet.started_ns) / _SECOND
