"""Two networks a pod: the real multus over the real flannel plugin, with a bridge of its own beside them."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.lab.cluster import Cluster, ClusterFactory
from tests.lab.control_plane import Object
from tests.lab.figures import Figure
from tests.lab.networks import flannel
from tests.lab.node import read_leases
from tests.lab.programs import Elsewhere

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.elsewhere]

GROUP = "k8s.cni.cncf.io"
SCHEMA: Object = {
    "type": "object",
    "properties": {"spec": {"type": "object", "properties": {"config": {"type": "string"}}}},
}
DEFINITION: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"network-attachment-definitions.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "kind": "NetworkAttachmentDefinition",
        },
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}],
    },
}
LAN: Object = {
    "cniVersion": "0.3.1",
    "name": "lan",
    "type": "bridge",
    "bridge": "br-lan",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.60.0.0/28"}]]},
}
ATTACHMENT: Object = {
    "apiVersion": f"{GROUP}/v1",
    "kind": "NetworkAttachmentDefinition",
    "metadata": {"name": "lan"},
    "spec": {"config": json.dumps(LAN)},
}


def leases(machine: Cluster) -> dict[str, int]:
    """How many there are of each network."""
    return {name: len(read_leases(machine.node.leases(name))) for name in ("cbr0", "lan")}


def verdicts(machine: Cluster) -> dict[tuple[str, str], int]:
    """How many leases of each network have each verdict."""
    done = machine.node.janitor("scan", "-o", "json", "--only", "leases")
    report = json.loads(done.stdout)
    found: dict[tuple[str, str], int] = {}
    for lease in report["leases"]:
        key = (lease["network"], lease["verdict"])
        found[key] = found.get(key, 0) + 1
    return found


def test_both_networks_are_judged_and_freed(cluster: ClusterFactory, figure: Figure, elsewhere: Elsewhere) -> None:
    network = flannel("10.52.0.1/26")
    found = elsewhere("flannel", "multus")
    machine = cluster(network)
    for plugin in found:
        path = machine.node.disk / "plugins" / plugin.name
        path.unlink(missing_ok=True)
        shutil.copy(plugin, path)
    machine.boot()
    machine.wait_ready()
    machine.plane.apply(DEFINITION)
    machine.plane.kubectl("wait", "--for=condition=Established", "crd", DEFINITION["metadata"]["name"])
    machine.plane.apply(ATTACHMENT)
    multus = {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus",
              "kubeconfig": "/etc/kubernetes/admin.conf", "delegates": [network.config]}  # fmt: skip
    (machine.node.net_d / "00-multus.conf").write_text(json.dumps(multus))
    machine.node.restart_runtime()
    machine.deploy("web", 4)
    machine.deploy("two", 4, annotations={"k8s.v1.cni.cncf.io/networks": "lan"})
    machine.wait_running(8)
    assert verdicts(machine) == {("cbr0", "live"): 8, ("lan", "live"): 4}

    machine.cut()
    machine.boot()
    seconds = machine.wait_running(8)
    assert leases(machine) == {"cbr0": 16, "lan": 8}
    machine.wait_settled()
    after = verdicts(machine)
    assert after == {("cbr0", "live"): 8, ("cbr0", "corrupt"): 8, ("lan", "live"): 4, ("lan", "corrupt"): 4}
    done = machine.node.janitor("clean", "--yes", "--no-wait", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(machine) == {("cbr0", "live"): 8, ("lan", "live"): 4}
    assert machine.counts().running == 8

    machine.plane.kubectl("delete", "deployment", "web", "two")
    machine.wait(lambda: leases(machine) == {"cbr0": 0, "lan": 0}, "no lease to be left", 60)
    figure(f"all pods run after {seconds:.1f} s; 8 and 4 leases freed, none left after deletion")
