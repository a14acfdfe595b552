"""The DaemonSet in its operator's hands: applied, asked, probed, updated, taken back, deleted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.lab.cluster import Cluster, missing
from tests.lab.control_plane import Object
from tests.lab.daemon import GET
from tests.lab.installed_daemonset import NAMESPACE, InstalledDaemonSet
from tests.lab.networks import bridge

pytestmark = [pytest.mark.system, pytest.mark.long]

CONFIG = 'mode = "observe"\ninterval = 5\n'


@pytest.fixture(scope="module")
def installed(janitor_image: None) -> Iterator[InstalledDaemonSet]:
    """One cluster with three pods for all of these, in their order."""
    if reason := missing():
        pytest.skip(reason)
    with Cluster(bridge()) as cluster:
        cluster.boot()
        cluster.wait_ready()
        cluster.deploy("web", 3)
        cluster.wait_running(3)
        daemonset = InstalledDaemonSet(cluster)
        daemonset.install()
        yield daemonset


def test_the_server_takes_it_without_a_warning(installed: InstalledDaemonSet) -> None:
    done = installed.plane.kubectl("apply", "--dry-run=server", "-k", "/etc/kubernetes/mine")
    assert done.stderr == ""


def test_it_is_ready_and_was_never_restarted(installed: InstalledDaemonSet) -> None:
    status = installed.pod()["status"]
    (container,) = status["containerStatuses"]
    assert (container["ready"], container["restartCount"]) == (True, 0)
    assert status["qosClass"] == "Burstable"
    log = installed.log()
    assert ("event=started" in log, "event=missing" in log) == (True, False)


def test_exec_scans_the_node(installed: InstalledDaemonSet) -> None:
    done = installed.janitor("scan", "-o", "json", check=False)
    report = json.loads(done.stdout)
    running = {pod["status"]["podIP"] for pod in installed.plane.get("pods", "-l", "app=web")}
    assert {lease["address"]: lease["verdict"] for lease in report["leases"]} == dict.fromkeys(running, "live")
    assert report["status"] in ("ok", "findings"), report["findings"]


def test_the_quota_lets_it_in_and_counts_it(installed: InstalledDaemonSet) -> None:
    (quota,) = installed.plane.get("resourcequotas", "-n", NAMESPACE)
    assert quota["status"]["used"]["pods"] == "1"


def test_it_listens_where_its_probes_ask(installed: InstalledDaemonSet) -> None:
    (container,) = installed.pod()["spec"]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["host"], asked["port"]) == ("127.0.0.1", 9742)
        done = installed.cluster.node.run([sys.executable, "-c", GET, asked["path"]], check=True)
        assert done.stdout.startswith("200 "), done.stdout


def test_a_changed_configuration_rolls_out_and_is_taken_back(installed: InstalledDaemonSet) -> None:
    old = installed.pod()
    installed.configure(CONFIG)
    installed.apply()
    installed.wait()
    new = installed.pod()
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert "mode=observe" in installed.wait_for("event=started")
    installed.kubectl("rollout", "undo", "daemonset/janitor")
    installed.wait()
    assert _config_map(installed.pod()) == _config_map(old) != _config_map(new)
    assert "mode=repair" in installed.wait_for("event=started")


def test_a_shell_on_the_node_sees_the_same(installed: InstalledDaemonSet) -> None:
    done = installed.cluster.node.janitor("scan", "-o", "json", "--only", "leases")
    assert {lease["verdict"] for lease in json.loads(done.stdout)["leases"]} == {"live"}


def test_deleted_it_leaves_the_node_as_it_is(installed: InstalledDaemonSet) -> None:
    leases = installed.cluster.addresses()
    installed.plane.kubectl("delete", "-k", "/etc/kubernetes/mine", "--wait=true")
    assert [n for n in installed.plane.get("namespaces") if n["metadata"]["name"] == NAMESPACE] == []
    assert installed.cluster.addresses() == leases
    installed.cluster.wait_running(3)


def _config_map(pod: Object) -> str:
    return str(next(volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume))
