"""The oldest end: Kubernetes 1.20 on containerd 1.6, where libcni refuses to stop what an empty cache entry belongs to.

Without janitor the pods never come back; with its DaemonSet they do, a minute after the runtime's start.
"""

from __future__ import annotations

import json
import time

import pytest

from tests.lab import control_plane, runtimes
from tests.lab.cache import MissingError
from tests.lab.cluster import Cluster, ClusterFactory
from tests.lab.figures import Figure
from tests.lab.installed_daemonset import InstalledDaemonSet
from tests.lab.invariant import Watch
from tests.lab.networks import bridge
from tests.lab.programs import Elsewhere

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.elsewhere]

PODS = 10
# For so long the pods of a node without janitor are watched not to come back.
PATIENCE_S = 45
# As kubernetes/README.md has it for releases before 1.30.
WITHOUT_APPARMOR = [
    {"op": "remove", "path": "/spec/template/spec/containers/0/securityContext/appArmorProfile"},
    {
        "op": "add",
        "path": "/spec/template/metadata/annotations",
        "value": {"container.apparmor.security.beta.kubernetes.io/janitor": "unconfined"},
    },
]


def begin(cluster: ClusterFactory) -> Cluster:
    try:
        containerd = runtimes.of_series("1.6")
    except MissingError as error:
        pytest.skip(str(error))
    machine = cluster(bridge(cni_version="1.0.0"), release=control_plane.oldest(), containerd=containerd)
    machine.boot()
    machine.wait_ready(120)
    machine.deploy("web", PODS)
    machine.wait_running(PODS, timeout=180)
    return machine


def test_without_janitor_no_pod_comes_back(cluster: ClusterFactory, figure: Figure, elsewhere: Elsewhere) -> None:
    elsewhere("kubernetes-1.20")
    machine = begin(cluster)
    machine.cut()
    machine.boot()
    machine.wait_ready(120)
    time.sleep(PATIENCE_S)
    counts = machine.counts()
    figure(f"{machine.age():.0f} s after power-on: {counts}")
    assert (counts.running, counts.leases, counts.empty_leases) == (0, PODS, PODS)
    # It is tried again and again, and what stops it is the empty entry.
    assert "cached result" in machine.plane.log("kubelet").read_text()


def test_with_the_daemonset_all_come_back(
    cluster: ClusterFactory, figure: Figure, elsewhere: Elsewhere, request: pytest.FixtureRequest
) -> None:
    elsewhere("kubernetes-1.20")
    request.getfixturevalue("janitor_image")  # after that: it takes a minute
    machine = begin(cluster)
    daemonset = InstalledDaemonSet(machine)
    (daemonset.mine / "apparmor.json").write_text(json.dumps(WITHOUT_APPARMOR))
    target = {"kind": "DaemonSet", "name": "janitor"}
    daemonset.kustomization["patches"] = [{"path": "apparmor.json", "target": target}]
    daemonset.install()
    machine.cut()
    machine.boot()
    with Watch(machine) as watch:
        seconds = machine.wait_running(PODS, "-l", "app=web", timeout=240)
        machine.wait(lambda: len(machine.addresses()) == PODS, "every dead lease to be freed", 120)
    figure(f"all pods run after {seconds:.1f} s; {watch}")
    watch.check()
