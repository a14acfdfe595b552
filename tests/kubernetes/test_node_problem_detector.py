"""The condition of node-problem-detector: true once addresses have leaked, false again when they are freed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.cache import REPOSITORY
from tests.lab.cluster import ADDRESS, Cluster, ClusterFactory
from tests.lab.figures import Figure
from tests.lab.networks import bridge
from tests.lab.node import JANITOR
from tests.lab.programs import Elsewhere

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.elsewhere]

PERIOD_S = 10


def start(machine: Cluster, detector: Path) -> None:
    """With the plugin as it is shipped, but for where janitor lies and how often it is asked."""
    config = json.loads((REPOSITORY / "kubernetes/node-problem-detector/janitor.json").read_text())
    config["pluginConfig"]["invoke_interval"] = f"{PERIOD_S}s"
    config["rules"][0]["path"] = str(JANITOR)
    (machine.plane.etc / "npd.json").write_text(json.dumps(config))
    api = f"https://{ADDRESS}:6443?inClusterConfig=false&auth=/etc/kubernetes/admin.conf"
    machine.plane.start(
        "node-problem-detector",
        str(detector),
        "--logtostderr",
        "--config.custom-plugin-monitor=/etc/kubernetes/npd.json",
        f"--apiserver-override={api}",
        f"--hostname-override={machine.name}",
        "--port=0",
        "--prometheus-port=0",
    )


def condition(machine: Cluster) -> tuple[str, str]:
    """Status and message; empty where the Node has none."""
    (node,) = machine.plane.get("nodes")
    found = [c for c in node["status"]["conditions"] if c["type"] == "PodNetworkProblem"]
    return (found[0]["status"], found[0]["message"]) if found else ("", "")


def test_the_condition_follows_a_leak(cluster: ClusterFactory, figure: Figure, elsewhere: Elsewhere) -> None:
    (detector,) = elsewhere("node-problem-detector")
    machine = cluster(bridge(cni_version="1.0.0"))
    machine.boot()
    machine.wait_ready()
    start(machine, detector)
    machine.deploy("web", 5)
    machine.wait_running(5)
    machine.wait(lambda: condition(machine)[0] == "False", "the condition to be False", 60)

    machine.cut()
    machine.boot()
    start(machine, detector)
    machine.wait_running(5)
    leaked = machine.wait(lambda: condition(machine)[0] == "True", "the condition to be True", 90)
    message = condition(machine)[1]
    machine.wait_settled()
    done = machine.node.janitor("clean", "--yes", "--no-wait", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    cleaned = machine.age()
    healed = machine.wait(lambda: condition(machine)[0] == "False", "the condition to be False again", 60)
    figure(f"True {leaked:.0f} s after power-on ({message}), False {healed - cleaned:.0f} s after clean")
