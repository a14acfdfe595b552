"""The real cloud controller of Hetzner with a doubled --cluster-cidr: routes leak until no node can join."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import cloud_api, control_plane
from tests.lab.cluster import missing
from tests.lab.control_plane import ControlPlane
from tests.lab.figures import Figure
from tests.lab.machine import Machine
from tests.lab.networkd import wait_for
from tests.lab.node import JANITOR
from tests.lab.programs import Elsewhere

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.elsewhere]

ADDRESS = "192.0.2.10"
PORT = 8080
LIMIT = 12
RIGHT, WRONG = "--cluster-cidr=10.42.0.0/16", "--cluster-cidr=10.244.0.0/16"


class Cloud:
    """A control plane, a cloud API, and Nodes that have servers in it."""

    def __init__(self, controller: Path) -> None:
        self.controller = str(controller)
        self.machine = Machine(kubernetes=True)
        self.plane = ControlPlane(self.machine, control_plane.current(), ADDRESS)
        self.servers: dict[str, int] = {}

    def boot(self) -> None:
        self.machine.power_on()
        self.machine.run(["sh", "-ec", _LINK], check=True)
        self.plane.start_api_server()
        self.plane.start("cloud-api", sys.executable, cloud_api.__file__, str(PORT), str(LIMIT))
        self.plane.wait()

    def start_controller(self, *flags: str) -> None:
        """Start it with these flags at the end; ends the one that runs."""
        if "controller" in self.plane.processes:
            self.plane.kill("controller")
        api = f"http://127.0.0.1:{PORT}/v1"
        env = {
            "HCLOUD_TOKEN": "a" * 64, "HCLOUD_ENDPOINT": api, "HCLOUD_NETWORK": str(cloud_api.NETWORK_ID),
            "HCLOUD_NETWORK_DISABLE_ATTACHED_CHECK": "true", "HCLOUD_LOAD_BALANCERS_ENABLED": "false",
        }  # fmt: skip
        words = ["--kubeconfig=/etc/kubernetes/admin.conf", "--cloud-provider=hcloud", "--leader-elect=false"]
        words += ["--allow-untagged-cloud", "--route-reconciliation-period=5s", "--allocate-node-cidrs=true"]
        self.plane.start("controller", self.controller, *words, *flags, env=env)

    def join(self, number: int) -> None:
        """A server, and its Node, with a pod range of its own."""
        name, address = f"w{number}", f"10.0.1.{number}"
        self.servers[name] = self.ask("POST", "/servers", {"name": name, "private_ip": address})["server"]["id"]
        ranges = [f"10.42.{number}.0/24"]
        spec = {"podCIDR": ranges[0], "podCIDRs": ranges, "providerID": f"hcloud://{self.servers[name]}"}
        self.plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
        addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
        ready = {"type": "Ready", "status": "True", "reason": "Lab", "message": "", "lastHeartbeatTime": None}
        patch = json.dumps({"status": {"addresses": addresses, "conditions": [ready]}})
        self.plane.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)

    def leave(self, number: int) -> None:
        """The server is deleted, and its Node."""
        self.ask("DELETE", f"/servers/{self.servers.pop(f'w{number}')}")
        self.plane.kubectl("delete", "node", f"w{number}")

    def routes(self) -> set[str]:
        """The destinations of the network's routes."""
        network = self.ask("GET", f"/networks/{cloud_api.NETWORK_ID}")["network"]
        return {route["destination"] for route in network["routes"]}

    def wait_for_routes(self, *numbers: int) -> None:
        wanted = {f"10.42.{number}.0/24" for number in numbers}
        wait_for(lambda: self.routes() == wanted, f"the routes of {sorted(numbers)} and no others", 90, pause=0.5)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the cloud API, from inside the machine."""
        told = [sys.executable, "-c", _ASK, method, f"http://127.0.0.1:{PORT}/v1{path}", json.dumps(body)]
        return json.loads(self.machine.run(told, check=True).stdout)

    def findings(self, *words: str) -> set[str]:
        """What `janitor scan` finds on the machine that the controller runs on."""
        done = self.machine.run([str(JANITOR), "scan", "-o", "json", *words], timeout=120)
        report = json.loads(done.stdout)
        return {finding["id"] for finding in report["findings"] if finding["status"] == "problem"}


_LINK = f"""
ip link add eth0 type veth peer name uplink
ip link set eth0 up
ip link set uplink up
ip addr add {ADDRESS}/24 dev eth0
"""
_ASK = """import json, sys, urllib.request
method, url, body = sys.argv[1:]
request = urllib.request.Request(url, method=method, data=None if body == 'null' else body.encode())
print(urllib.request.urlopen(request, timeout=10).read().decode())"""


@pytest.fixture
def cloud(elsewhere: Elsewhere) -> Iterator[Cloud]:
    (controller,) = elsewhere("hcloud-cloud-controller-manager")
    if reason := missing():
        pytest.skip(reason)
    made = Cloud(controller)
    try:
        made.boot()
        yield made
    finally:
        made.machine.close()


def test_a_doubled_cluster_cidr_leaks_routes_until_no_node_can_join(cloud: Cloud, figure: Figure) -> None:
    cloud.start_controller(RIGHT, WRONG)
    for number in range(1, 7):
        cloud.join(number)
    cloud.wait_for_routes(*range(1, 7))
    for number in range(3, 7):
        cloud.leave(number)
    time.sleep(20)  # four of its rounds
    assert len(cloud.routes()) == 6, "routes of servers that are gone stay"
    for number in range(11, 17):
        cloud.join(number)
    wait_for(lambda: len(cloud.routes()) == LIMIT, "as many routes as there may be", 90, pause=0.5)
    cloud.join(19)
    wait_for(lambda: _no_route(cloud, "w19"), "the Node to be told that it gets no route", 60, pause=0.5)

    nodes = cloud.machine.directory / "nodes.json"
    nodes.write_text(cloud.plane.kubectl("get", "nodes", "-o", "json").stdout)
    alone = cloud.findings()
    with_nodes = cloud.findings("--nodes", str(nodes))
    with_api = cloud.findings("--kubeconfig", "/etc/kubernetes/admin.conf")
    assert "HCCM001" in alone
    assert {"HCCM001", "HCCM002", "HCCM005"} <= with_nodes
    assert {"HCCM001", "HCCM002", "HCCM003", "HCCM005"} <= with_api

    cloud.start_controller(RIGHT)
    cloud.wait_for_routes(1, 2, *range(11, 17), 19)
    assert not cloud.findings("--kubeconfig", "/etc/kubernetes/admin.conf") & {"HCCM001", "HCCM002"}
    figure(f"alone {sorted(alone)}, with the Nodes {sorted(with_nodes)}, with the API server {sorted(with_api)}")


def _no_route(cloud: Cloud, name: str) -> bool:
    (node,) = [one for one in cloud.plane.get("nodes") if one["metadata"]["name"] == name]
    reasons = [c.get("reason") for c in node["status"]["conditions"] if c["type"] == "NetworkUnavailable"]
    return reasons == ["NoRouteCreated"]
