"""How a node leaves its cluster and joins again, as text. Not every distribution allows that without harm."""

from typing import Final

from janitor.core.model.evidence import Evidence, known
from janitor.core.model.evidence_node import NodeConfig
from janitor.core.model.fix import Command, Part
from janitor.core.node.node_view import node_name, own_node

_SERVICES: Final = {
    ("k3s", True): "k3s", ("k3s", False): "k3s-agent", ("rke2", True): "rke2-server", ("rke2", False): "rke2-agent",
    ("k0s", True): "k0scontroller", ("k0s", False): "k0sworker", ("microk8s", True): "snap.microk8s.daemon-kubelite",
    ("microk8s", False): "snap.microk8s.daemon-kubelite",
}  # fmt: skip
ETCD: Final = (
    "if it has a member of an embedded etcd, k3s and RKE2 remove that member with its Node (rancher/rke2#1874); with "
    "a single server, that destroys the cluster"
)


def service(node: NodeConfig) -> str:
    """The unit that runs the kubelet: its own, or the distribution's. "" if unknown."""
    units = [unit.name.removesuffix(".service") for unit in known(node.units)]
    named = next((name for name in units if name in _SERVICES.values()), "")
    if named or node.distribution in ("kubeadm", ""):
        return named or "kubelet"
    return _SERVICES.get((node.distribution, node.server), "") if node.server is not None else ""


def rejoin(evidence: Evidence) -> tuple[str | Part, ...]:
    """The commands that make this node's Node again; a warning instead if that could destroy the cluster."""
    node, own = evidence.node_config, own_node(evidence)
    unit = service(node)
    name = own.name if own else node_name(node) or "NAME"
    if node.distribution in ("k3s", "rke2") and node.server is not False:
        return (
            (
                f"restart {unit or 'its service'}. If it has already joined, its Node has to be recreated, but this "
                f"node is a server, or may be one. Do not simply delete its Node: {ETCD}. Take a snapshot ("
            ),
            Command.of(node.distribution, "etcd-snapshot", "save"),
            "), and replace the server by a new one while two others are healthy",
        )
    if not unit:
        return (
            "restart the service that runs its kubelet; if the node has already joined, its Node has to be recreated",
        )
    return (
        (
            "if the node has already joined, recreate its Node, which stops its pods and loses labels and taints that "
            f"were set by hand{_role(node)}: "
        ),
        Command.of("kubectl", "drain", name, "--ignore-daemonsets").and_then(
            Command.of("kubectl", "delete", "node", name)
        ),
        "; on the node: ",
        Command.of("systemctl", "restart", unit),
    )


def _role(node: NodeConfig) -> str:
    return ", and the control plane role" if node.server and node.distribution in ("kubeadm", "") else ""
