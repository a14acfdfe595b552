"""Real state of the kernel, in a network namespace of its own: routes, addresses, and a metadata service."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.lab import namespaces

pytestmark = pytest.mark.system

JANITOR = str(Path(sys.executable).with_name("janitor"))

# Hetzner's: the address has no neighbours, and all of the network is behind its gateway.
NETWORK = """
ip link set lo up
ip link add enp7s0 type bridge
ip address add 10.0.0.3/32 dev enp7s0
ip link set enp7s0 up
ip route add 10.0.0.1/32 dev enp7s0
ip route add 10.0.0.0/16 via 10.0.0.1 dev enp7s0
ip link add eth0 type bridge
ip address add 203.0.113.7/32 dev eth0
ip link set eth0 up
ip route add default dev eth0
ip link add cni0 type bridge
ip address add 10.42.1.1/24 dev cni0
ip link set cni0 up
"""

SERVICE = """
import http.server, socketserver
ANSWERS = {"instance-id": "4711", "hostname": "worker-1", "region": "eu-central", "private-networks": '''
- ip: 10.0.0.3
  alias_ips: []
  interface_num: 1
  mac_address: 86:00:00:2a:7d:e0
  network_id: 1234
  network_name: cluster
  network: 10.0.0.0/16
  subnet: 10.0.0.0/24
  gateway: 10.0.0.1
'''}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ANSWERS[self.path.removeprefix("/hetzner/v1/metadata/")].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
# Not HTTPServer, which looks its own name up in the DNS; there is none here.
socketserver.TCPServer(("169.254.169.254", 80), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def _real() -> None:
    if reason := namespaces.missing():
        pytest.skip(reason)


def scan(tmp_path: Path, network: str, *, files: dict[str, str], only: str, metadata: bool = False) -> dict[str, Any]:
    """Scan a machine with these files in /etc and this network; everything of it ends with the first process."""
    for name in ("upper", "work", "etc"):
        (tmp_path / name).mkdir()
    for path, text in files.items():
        file = tmp_path / "upper" / path.removeprefix("/etc/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    ask = f"""
        ip address add 169.254.169.254/32 dev lo
        ip route add 169.254.169.254/32 dev lo
        {sys.executable} {service} &
        for _ in $(seq 50); do ss -Hltn 2>/dev/null | grep -q 169.254.169.254:80 && break; sleep 0.05; done
    """
    script = f"""set -e
        mount -t overlay -o lowerdir=/etc,upperdir={tmp_path}/upper,workdir={tmp_path}/work lab /etc
        {textwrap.dedent(network)}
        {ask if metadata else ""}
        set +e
        {JANITOR} scan -o json --only {only} --deadline 0.5 {"" if metadata else "--no-metadata"}
    """
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
            "private", "sh", "-c", script]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return {f["id"]: f for f in report["findings"] if f["status"] != "unknown"} | {"skipped": report["skipped"]}


K3S = {
    "/etc/rancher/k3s/config.yaml": "cluster-cidr: 10.42.0.0/16\nservice-cidr: 10.43.0.0/16\nnode-ip: 10.0.0.3\n"
    "kubelet-arg: cloud-provider=external\n"
}


def test_a_bridge_of_docker_in_the_pods_range(tmp_path: Path) -> None:
    """CIDR016, with the route as the kernel has it."""
    docker = "\nip link add docker0 type bridge\nip address add 10.42.64.1/18 dev docker0\nip link set docker0 up\n"
    found = scan(tmp_path, NETWORK + docker, files=K3S, only="CIDR016")
    finding = found["CIDR016"]
    assert finding["severity"] == "warning"
    assert finding["summary"] == "pod range 10.42.0.0/16 overlaps this node's route 10.42.64.0/18 dev docker0"
    assert "route: 10.42.64.0/18 dev docker0" in finding["evidence"]


def test_the_next_hop_behind_a_bridge_of_docker(tmp_path: Path) -> None:
    """The node's own address lies in the collision: nothing works."""
    docker = "\nip link add docker0 type bridge\nip address add 10.0.0.200/24 dev docker0\nip link set docker0 up\n"
    files = {"/etc/rancher/k3s/config.yaml": K3S["/etc/rancher/k3s/config.yaml"].replace("10.43.0.0/16", "10.0.0.0/20")}
    finding = scan(tmp_path, NETWORK + docker, files=files, only="CIDR016")["CIDR016"]
    assert finding["severity"] == "critical"
    assert any("10.0.0.1 is this node's own address or next hop" in line for line in finding["evidence"])


@pytest.mark.parametrize("name", ["br-$(reboot)", "br-;reboot", "docker`reboot`"])
def test_the_name_of_a_link_is_no_command(tmp_path: Path, name: str) -> None:
    """A pod of the node's network with CAP_NET_ADMIN gives it; the fix is there to be pasted into a shell of root's."""
    link = f"\nip link add '{name}' type bridge\nip address add 10.42.64.1/18 dev '{name}'\nip link set '{name}' up\n"
    fix = scan(tmp_path, NETWORK + link, files=K3S, only="CIDR016")["CIDR016"]["fix"]
    assert shlex.split(fix["commands"][-1])[-1] == name


def test_a_healthy_node_has_neither(tmp_path: Path) -> None:
    vpn = "\nip link add wg0 type bridge\nip address add 192.168.7.1/24 dev wg0\nip link set wg0 up\n"
    host_gw = "\nip route add 10.42.2.0/24 via 10.0.0.1 dev enp7s0\n"
    found = scan(tmp_path, NETWORK + vpn + host_gw, files=K3S, only="CIDR016,CIDR008,NODE004,CIDR006,CIDR007")
    assert set(found) == {"skipped"}


@pytest.mark.parametrize(("address", "found"), [("10.8.0.1/24", {"skipped"}), ("10.42.7.1/24", {"skipped", "CIDR016"})])
def test_a_tunnel_that_joins_the_nodes(tmp_path: Path, address: str, found: set[str]) -> None:
    """Its routes into the pods' range are right, unless it has an address of its own there; its name says nothing."""
    mesh = (
        f"\nip link add mesh7 type vxlan id 7 dstport 4789\nip address add {address} dev mesh7\nip link set mesh7 up\n"
        "ip route add 10.42.9.0/24 dev mesh7\n"
    )
    assert set(scan(tmp_path, NETWORK + mesh, files=K3S, only="CIDR016,CIDR006")) == found


@pytest.mark.parametrize(
    ("route", "severity", "where"),
    [
        ("", "warning", "would use 0.0.0.0/0 dev eth0"),
        ("ip route add 10.42.0.0/16 via 10.0.0.1 dev enp7s0", "info",
         "would use 10.42.0.0/16 via 10.0.0.1 dev enp7s0"),
        ("ip link add flannel.1 type bridge; ip link set flannel.1 up; ip route add 10.42.255.0/24 dev flannel.1",
         "info", "would use 10.42.255.0/24 dev flannel.1"),
    ],
    ids=["only the default route", "a route by hand", "an overlay"],
)  # fmt: skip
def test_where_pods_of_other_nodes_are_looked_for(tmp_path: Path, route: str, severity: str, where: str) -> None:
    """CIDR008: pods outside the network, which the metadata service names."""
    found = scan(tmp_path, f"{NETWORK}\n{route}\n", files=K3S, only="CIDR008,NODE", metadata=True)
    assert set(found) == {"CIDR008", "skipped"}  # whether the host's name matters only its Node could say
    assert found["CIDR008"]["severity"] == severity
    assert any(where in line for line in found["CIDR008"]["evidence"])


def test_an_address_that_is_not_here(tmp_path: Path) -> None:
    files = {"/etc/rancher/k3s/config.yaml": "cluster-cidr: 10.42.0.0/16\nnode-ip: 10.0.0.99\n"}
    finding = scan(tmp_path, NETWORK, files=files, only="NODE004", metadata=True)["NODE004"]
    assert finding["subject"] == "10.0.0.99"


def test_a_node_inside_its_own_pod_range(tmp_path: Path) -> None:
    """The incident of kube-hetzner#1221 on the node itself: flannel has the range that the node is in."""
    files = {
        "/etc/rancher/k3s/config.yaml": "cluster-cidr: 10.0.0.0/20\nservice-cidr: 10.43.0.0/16\nnode-ip: 10.0.0.3\n"
    }
    files["/etc/rancher/k3s/config.yaml.d/mask.yaml"] = "kube-controller-manager-arg: node-cidr-mask-size=24\n"
    files["/etc/cni/net.d/10-bridge.conflist"] = json.dumps(
        {"name": "x", "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"}}]}
    )
    found = scan(tmp_path, NETWORK, files=files, only="CIDR004,CIDR005,CIDR006", metadata=True)
    assert found["CIDR004"]["severity"] == "critical"
    assert "10.0.0.3 inside its own pod range 10.0.0.0/24" in found["CIDR004"]["summary"]


def test_a_plain_host(tmp_path: Path) -> None:
    """No Kubernetes: no finding of ours, and one line that says why."""
    docker = "\nip link add docker0 type bridge\nip address add 172.17.0.1/16 dev docker0\nip link set docker0 up\n"
    found = scan(tmp_path, NETWORK + docker, files={}, only="cidr,kubelet,node,cni,csi,autoscaler,metadata,hccm")
    assert set(found) == {"skipped"}
    assert [part["reason"]["code"] for part in found["skipped"]] == ["NoKubernetes"]
    assert len(found["skipped"][0]["ids"]) > 50
