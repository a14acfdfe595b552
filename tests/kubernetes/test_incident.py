"""The incident on a whole Kubernetes of today: ten pods run, the power goes, every file of the boot comes back empty.

Three ways: without janitor, with its DaemonSet, with the boot stage. libcni 1.2 and newer, which containerd 2.x has,
goes on where older ones refuse a DEL because of an empty cache entry: the pods are back within seconds, nobody
notices, and each cut takes another ten addresses for good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.lab.cluster import MASK, Cluster, ClusterFactory, Counts
from tests.lab.figures import Figure
from tests.lab.installed_daemonset import InstalledDaemonSet
from tests.lab.invariant import Watch
from tests.lab.networks import bridge
from tests.lab.node import JANITOR

pytestmark = pytest.mark.system

PODS = 10
CUTS = 2
# Of the Node's range: without its network, gateway and broadcast addresses.
ROOM = 2 ** (32 - MASK) - 3
VERSIONS = ["0.3.1", "1.0.0", "1.1.0"]
# `make test-all` has room for one row of the table.
LONG = [pytest.param(version, marks=pytest.mark.long) for version in VERSIONS]


def begin(cluster: Cluster, pods: int = PODS) -> None:
    """Power, and a Deployment that runs."""
    cluster.boot()
    cluster.wait_ready()
    cluster.deploy("web", pods)
    cluster.wait_running(pods, "-l", "app=web")
    assert cluster.counts().leases == pods


@dataclass
class Row:
    """What came of one cut."""

    lost: int
    pods_run_s: float
    after: Counts

    def __str__(self) -> str:
        return f"{self.lost} files empty; all pods run after {self.pods_run_s:.1f} s; {self.after}"


def cut_and_boot(cluster: Cluster, pods: int = PODS, before_runtime: Callable[[], object] | None = None) -> Row:
    lost = len(cluster.cut())
    cluster.boot(before_runtime)
    return Row(lost, cluster.wait_running(pods, "-l", "app=web"), cluster.counts())


@pytest.mark.long
@pytest.mark.parametrize("cni_version", VERSIONS)
def test_without_janitor_each_cut_leaks_an_address_for_every_pod(
    cluster: ClusterFactory, figure: Figure, cni_version: str
) -> None:
    machine = cluster(bridge(cni_version=cni_version))
    begin(machine)
    for number in range(1, CUTS + 1):
        row = cut_and_boot(machine)
        figure(f"cut {number}: {row}")
        assert (row.after.running, row.after.leases) == (PODS, PODS * (number + 1))
        # The living ones have theirs; the others name nobody, or a sandbox that is gone.
        listed = {sandbox.id.encode() for sandbox in machine.node.kubelet.list()}
        assert sum(content[:64] in listed for content in machine.addresses().values()) == PODS


@pytest.mark.parametrize("cni_version", ["1.0.0", *(p for p in LONG if p.values != ("1.0.0",))])
def test_with_the_daemonset_nothing_is_lost(
    cluster: ClusterFactory, figure: Figure, janitor_image: None, cni_version: str
) -> None:
    machine = cluster(bridge(cni_version=cni_version))
    begin(machine)
    daemonset = InstalledDaemonSet(machine)
    daemonset.install()
    for number in range(1, CUTS + 1):
        lost = len(machine.cut())
        machine.boot()
        with Watch(machine) as watch:
            seconds = machine.wait_running(PODS, "-l", "app=web")
            healed = machine.wait(lambda: _healed(machine), "every dead lease to be freed", 200)
        figure(f"cut {number}: {lost} files empty; pods run after {seconds:.1f} s, healed after {healed:.1f}; {watch}")
        watch.check()
        log = daemonset.log()
        assert ("event=started" in log, "Traceback" in log) == (True, False)


def _healed(machine: Cluster) -> bool:
    counts = machine.counts()
    assert counts.leases >= PODS
    return (counts.leases, counts.empty_leases, counts.empty_results) == (PODS, 0, 0)


@pytest.mark.parametrize("cni_version", LONG)
def test_with_the_boot_stage_nothing_is_left_when_the_runtime_starts(
    cluster: ClusterFactory, figure: Figure, cni_version: str
) -> None:
    machine = cluster(bridge(cni_version=cni_version))
    begin(machine)

    def stage() -> None:
        done = machine.node.run([str(JANITOR.with_name("janitor-boot"))])
        assert done.returncode == 0, done.stderr
        assert machine.addresses() == {}

    for number in range(1, CUTS + 1):
        row = cut_and_boot(machine, before_runtime=stage)
        figure(f"cut {number}: {row}")
        with Watch(machine) as watch:
            machine.wait(lambda: watch.looks >= 5, "five looks", 60)
        watch.check()
        assert machine.counts().leases == PODS


@pytest.mark.long
def test_a_range_that_was_full_before_the_cut(cluster: ClusterFactory, figure: Figure, janitor_image: None) -> None:
    """Two cuts without janitor and one more pod have filled it; then no pod starts until the DaemonSet has freed it."""
    machine = cluster(bridge(cni_version="1.0.0"))
    pods = 20
    begin(machine, pods)
    for _ in range(2):
        cut_and_boot(machine, pods)
    machine.scale("web", pods + 2)
    machine.wait(lambda: machine.counts().leases == ROOM, "the range to be full", 60)
    machine.wait(lambda: _refused(machine) > 0, "a pod to be refused", 60)
    machine.cut()
    machine.boot()
    full = machine.addresses()
    machine.wait_ready()
    daemonset = InstalledDaemonSet(machine)
    daemonset.install()
    assert machine.counts().running <= 1, "of the pods that take an address none can run yet"
    with Watch(machine) as watch:
        seconds = machine.wait_running(pods + 2, "-l", "app=web", timeout=240)
        machine.wait(lambda: machine.counts().leases == pods + 2, "every dead lease to be freed", 120)
    freed = daemonset.log().count('event="lease freed"')
    figure(f"{len(full)} of {ROOM} used, {freed} freed, all pods run after {seconds:.1f} s; {watch}")
    watch.check()
    assert (len(full), freed) == (ROOM, ROOM)


def _refused(machine: Cluster) -> int:
    events = machine.plane.get("events", "--field-selector=reason=FailedCreatePodSandBox")
    return sum("no IP addresses available in range set" in event["message"] for event in events)
