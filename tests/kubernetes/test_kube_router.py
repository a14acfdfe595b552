"""kube-router's rules under systemd-networkd, both real: wiped, put back byte by byte, let go where it deletes them.

Whose rule it is must be recognised however kube-router runs: as a process of the node, or in a pod of its DaemonSet,
with or without the host's PID namespace.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import container_image, kube_router
from tests.lab.cache import MissingError
from tests.lab.cluster import ClusterFactory
from tests.lab.figures import Figure
from tests.lab.kube_router import RoutedCluster, routed
from tests.lab.networkd import NetworkdNode, wait_for
from tests.lab.networks import Network

pytestmark = pytest.mark.system

# kube-router looks after its routes once a minute, and after its rules never.
SYNC_S = 65
ROUTERS = [
    pytest.param(kube_router.program, id="2.1.0"),
    pytest.param(kube_router.newer, id="newer", marks=[pytest.mark.long, pytest.mark.elsewhere]),
]


@pytest.fixture(autouse=True)
def _real_kube_router() -> None:
    if reason := kube_router.missing():
        pytest.skip(reason)


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[RoutedCluster]:
    """Two nodes on which kube-router runs."""
    try:
        router: Path = request.param()
    except MissingError as error:
        pytest.skip(str(error))
    with RoutedCluster(router) as made:
        made.start()
        yield made


@pytest.mark.long
@pytest.mark.parametrize("nodes", ROUTERS, indirect=True)
def test_without_janitor_the_rules_stay_away(nodes: RoutedCluster) -> None:
    assert len(nodes.rules()) == 2
    nodes.first.restart_networkd()
    assert nodes.rules() == []
    time.sleep(SYNC_S)
    assert nodes.running()
    assert nodes.rules() == []


@pytest.mark.parametrize("nodes", ROUTERS, indirect=True)
def test_they_come_back_and_what_kube_router_deletes_stays_away(nodes: RoutedCluster, figure: Figure) -> None:
    before = nodes.first.rules()
    assert len(nodes.rules()) == 2
    watcher = nodes.first.watch()
    nodes.first.restart_networkd()
    watcher.wait_for('event="rule restored"', times=2)
    assert nodes.first.rules() == before

    # Without an overlay it has no use for them, and deletes them itself.
    nodes.stop()
    nodes.start(overlay=False)
    wait_for(lambda: nodes.rules() == [], "kube-router to delete its rules", 40)
    time.sleep(5)
    assert nodes.rules() == []
    # Either it was seen to delete them, or janitor had looked before and let them go.
    let_go = [line for line in watcher.log().splitlines() if "rule deleted" in line or "rule forgotten" in line]
    assert len(let_go) == 2, let_go

    # And with one again it makes them again, and networkd wipes them again.
    nodes.stop()
    nodes.start()
    again = nodes.first.rules()
    nodes.first.restart_networkd()
    watcher.wait_for('event="rule restored"', times=4)
    assert nodes.first.rules() == again
    figure(f"back after {', '.join(f'{ms:.1f}' for ms in watcher.restored())} ms")
    watcher.stop()


@pytest.mark.parametrize("host_pid", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_pod_of_a_daemonset_is_recognised(cluster: ClusterFactory, figure: Figure, host_pid: bool) -> None:
    if reason := container_image.missing():
        pytest.skip(reason)
    machine = cluster(Network(kube_router.CONFLIST, kube_router.CONFIG))
    machine.boot()
    machine.wait_ready()
    node = NetworkdNode(machine=machine.node.machine)
    node.prepare()
    node.network_file("10-eth0", "[Match]\nName=eth0\n[Network]\nAddress=192.0.2.10/24\nGateway=192.0.2.1\n"
                      "IPv6AcceptRA=no\nLinkLocalAddressing=no\n")  # fmt: skip
    node.start_networkd()
    kube_router.install(machine, host_pid=host_pid)
    wait_for(lambda: len(routed(node)) == 1, "kube-router to make its rule", 60)
    machine.deploy("web", 3)
    machine.wait_running(4)
    node.sh("ip route show table 77 | grep -q . || ip route add 192.0.2.11/32 dev kube-bridge table 77")
    before = node.rules()
    watcher = node.watch()
    node.restart_networkd()
    watcher.wait_for('event="rule restored"')
    assert node.rules() == before
    figure(f"back after {', '.join(f'{ms:.1f}' for ms in watcher.restored())} ms")
    watcher.stop()
