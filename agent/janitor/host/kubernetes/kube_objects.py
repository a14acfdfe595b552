"""Kubernetes objects as evidence: from a file of `kubectl get … -o json`, or from the API."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import Condition, KubeNode, Objects, Workload
from janitor.core.model.unknown import unseen
from janitor.host.files import parse_json, read_bounded
from janitor.host.redaction import without_secrets

_LIMIT = 256 << 20
_MOST_NODES = 20_000
_SERVICES: Final = ("default/kubernetes", "kube-system/kube-dns", "kube-system/rke2-coredns-rke2-coredns")
_VARIABLES: Final = ("HCLOUD_SERVER_CREATION_TIMEOUT", "HCLOUD_NETWORK_ROUTES_ENABLED")
_WORKLOADS: Final = ("flannel", "canal", "calico", "cilium", "kube-router", "weave", "hcloud-cloud-controller",
                     "cloud-controller-manager", "cluster-autoscaler")  # fmt: skip
KINDS: Final = ("Node", "Service", "DaemonSet", "Deployment", "Event", "CSINode")


def from_file(path: str) -> Objects:
    """The objects in a file. OSError, or ValueError with what is wrong with it."""
    data = read_bounded(path, _LIMIT)
    try:
        document = parse_json(data)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error}): create it with 'kubectl get nodes -o json'") from None
    if not isinstance(document, dict):
        raise ValueError("it is not the output of 'kubectl get nodes -o json'")
    items = document.get("items") if str(document.get("kind", "")).endswith("List") else [document]
    objects = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    if not any(item.get("kind") in KINDS for item in objects):
        raise ValueError("it contains no Nodes: create it with 'kubectl get nodes -o json'")
    nodes = sum(item.get("kind") == "Node" for item in objects)
    if nodes > _MOST_NODES:
        raise ValueError(f"it contains {nodes} Nodes; the limit is {_MOST_NODES}")
    # A kind without objects may not have been requested; only Nodes certainly were.
    present = {str(item.get("kind")) for item in objects}
    return evidence(objects, path, frozenset(present), whole="items" in document)


def evidence(objects: Iterable[dict[str, Any]], source: str, asked: frozenset[str], *, whole: bool) -> Objects:
    """Objects as one value. `asked` are the kinds that were requested."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for item in objects:
        by_kind.setdefault(str(item.get("kind")), []).append(item)

    def without(kind: str) -> Unknown:
        return unseen(Code.KIND_NOT_GIVEN, source=source, kind=kind)

    workloads = [w for kind in ("DaemonSet", "Deployment") for i in by_kind.get(kind, []) if (w := _workload(kind, i))]
    events = [
        (_text(item, "reason"), _text(item, "message") or _text(item, "note"))
        for item in by_kind.get("Event", [])
        if item.get("reason") == "ClusterCIDRMisconfigured"
    ]
    services = [
        (name, ip)
        for item in by_kind.get("Service", [])
        if (name := _name(item)) in _SERVICES and (ip := _text(_part(item, "spec"), "clusterIP"))
    ]
    csi = [(_meta(i, "name"), len(_items(_part(i, "spec"), "drivers"))) for i in by_kind.get("CSINode", [])]
    return Objects(
        source, whole,
        tuple(map(_node, by_kind.get("Node", []))) if "Node" in asked else without("Node"),
        tuple(services) if "Service" in asked else without("Service"),
        tuple(workloads) if {"DaemonSet", "Deployment"} & asked else without("DaemonSet or Deployment"),
        tuple(dict.fromkeys(events)) if "Event" in asked else without("Event"),
        tuple(csi) if "CSINode" in asked else without("CSINode"),
    )  # fmt: skip


def _part(item: Any, name: str) -> dict[str, Any]:
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, dict) else {}


def _items(item: Any, name: str) -> list[Any]:
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, list) else []


def _text(item: Any, name: str) -> str:
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, str) else ""


def _meta(item: Any, name: str) -> str:
    return _text(_part(item, "metadata"), name)


def _name(item: Any) -> str:
    return f"{_meta(item, 'namespace')}/{_meta(item, 'name')}"


def _node(item: dict[str, Any]) -> KubeNode:
    spec, status = _part(item, "spec"), _part(item, "status")
    cidrs = [c for c in _items(spec, "podCIDRs") if isinstance(c, str)] or [c for c in [_text(spec, "podCIDR")] if c]
    conditions = [_condition(c) for c in _items(status, "conditions")]
    metadata = _part(item, "metadata")
    return KubeNode(
        _meta(item, "name"), _nanoseconds(_meta(item, "creationTimestamp")), tuple(cidrs),
        tuple(_text(a, "address") for a in _items(status, "addresses") if _text(a, "type") == "InternalIP"),
        _text(spec, "providerID"), tuple(_text(t, "key") for t in _items(spec, "taints")), tuple(conditions),
        _text(_part(metadata, "labels"), "hcloud/node-group"),
        _text(_part(metadata, "annotations"), "alpha.kubernetes.io/provided-node-ip"),
    )  # fmt: skip


def _condition(item: Any) -> Condition:
    changed_ns = _nanoseconds(_text(item, "lastTransitionTime"))
    return Condition(_text(item, "type"), _text(item, "status"), _text(item, "reason"), changed_ns)


def _nanoseconds(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
    except ValueError:
        return 0


def _workload(kind: str, item: dict[str, Any]) -> Workload | None:
    if not any(word in _meta(item, "name") for word in _WORKLOADS):
        return None
    spec = _part(_part(_part(item, "spec"), "template"), "spec")
    keys = [_text(t, "key") or "*" for t in _items(spec, "tolerations")]
    containers = [
        tuple(without_secrets([str(w) for w in _items(c, part)]) for part in ("command", "args"))
        for c in _items(spec, "containers")
    ]
    environment = [
        (_text(e, "name"), _text(e, "value"))
        for c in _items(spec, "containers")
        for e in _items(c, "env")
        if _text(e, "name") in _VARIABLES
    ]
    return Workload(
        kind, _meta(item, "namespace"), _meta(item, "name"), spec.get("hostNetwork") is True,
        tuple(dict.fromkeys(keys)), tuple((c[0], c[1]) for c in containers), tuple(environment),
    )  # fmt: skip
