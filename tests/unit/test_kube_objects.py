"""Nodes and other objects: from a file of kubectl's, and from an API server that talks HTTP."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.evidence import Unknown
from janitor.host.kubernetes import kube_api, kube_objects
from tests.reasons import words
from tests.unit.test_commands import janitor

MANY = 20_001
NODE: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Node",
    "metadata": {"name": "worker-1", "creationTimestamp": "2026-01-02T03:04:05Z",
                 "labels": {"hcloud/node-group": "pool"},
                 "annotations": {"alpha.kubernetes.io/provided-node-ip": "10.0.0.3"}},
    "spec": {"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24", "fd00:42:1::/64"], "providerID": "hcloud://4711",
             "taints": [{"key": "node.cloudprovider.kubernetes.io/uninitialized", "effect": "NoSchedule"}]},
    "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.3"}, {"type": "Hostname", "address": "w"}],
               "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]},
}  # fmt: skip
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "kube-system", "name": "kube-dns"},
           "spec": {"clusterIP": "10.43.0.10"}}  # fmt: skip
CONTROLLER = {
    "apiVersion": "apps/v1", "kind": "Deployment",
    "metadata": {"namespace": "kube-system", "name": "hcloud-cloud-controller-manager"},
    "spec": {"selector": {}, "template": {"spec": {
        "hostNetwork": True, "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "c", "command": ["/bin/c", "--cluster-cidr=10.42.0.0/16"],
                        "args": ["--cluster-cidr=10.244.0.0/16"],
                        "env": [{"name": "HCLOUD_TOKEN", "value": "secret"}]}]}}},
}  # fmt: skip
EVENT = {"apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "default", "name": "e"}, "involvedObject": {},
         "reason": "ClusterCIDRMisconfigured", "message": "route CIDR 10.42.1.0/24 is not contained"}  # fmt: skip
CSI = {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "worker-1"}, "spec": {"drivers": []}}


def written(tmp_path: Path, *objects: Any) -> Path:
    file = tmp_path / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return file


def test_a_file_of_several_kinds(tmp_path: Path) -> None:
    found = kube_objects.from_file(str(written(tmp_path, NODE, SERVICE, CONTROLLER, EVENT, CSI)))
    assert isinstance(found.nodes, tuple)
    (node,) = found.nodes
    assert (node.name, node.pod_cidrs, node.internal_ips) == (
        "worker-1",
        ("10.42.1.0/24", "fd00:42:1::/64"),
        ("10.0.0.3",),
    )
    assert (node.provider_id, node.group, node.provided_ip) == ("hcloud://4711", "pool", "10.0.0.3")
    assert node.created_ns == 1_767_323_045_000_000_000
    assert found.service_ips == (("kube-system/kube-dns", "10.43.0.10"),)
    assert found.csi_nodes == (("worker-1", 0),)
    assert isinstance(found.workloads, tuple)
    assert found.workloads[0].containers == (
        (("/bin/c", "--cluster-cidr=10.42.0.0/16"), ("--cluster-cidr=10.244.0.0/16",)),
    )
    assert "secret" not in repr(found)


def test_a_kind_that_is_not_there_was_not_asked_for(tmp_path: Path) -> None:
    found = kube_objects.from_file(str(written(tmp_path, NODE)))
    assert isinstance(found.events, Unknown)
    assert "has no Event" in words(found.events.reason)


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        ("", 2, "reading Nodes from"),
        ("[]", 2, "it is not the output of 'kubectl get nodes -o json'"),
        ('{"kind": "List", "items": []}', 2, "it contains no Nodes"),
        ('{"kind": "PodList", "items": [{"kind": "Pod"}]}', 2, "it contains no Nodes"),
        ('{"kind": "List", "items": 7}', 2, "it contains no Nodes"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, code: int, sentence: str) -> None:
    file = tmp_path / "nodes.json"
    file.write_text(content)
    done = janitor("scan", "--nodes", str(file))
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (code, 1, b"")
    assert sentence in done.stderr.decode()
    assert janitor("scan", "--nodes", str(file), "--kubeconfig", "x").returncode == 64


@pytest.mark.parametrize("part", [7, None, [], "x", {"items": 3}])
@pytest.mark.parametrize("place", ["metadata", "spec", "status"])
def test_objects_of_any_shape(tmp_path: Path, place: str, part: Any) -> None:
    found = kube_objects.from_file(str(written(tmp_path, NODE | {place: part}, CONTROLLER | {place: part})))
    assert isinstance(found.nodes, tuple)


class Server(http.server.BaseHTTPRequestHandler):
    """As much of an API server as answers a list; Deployments are forbidden to whoever asks."""

    lists: dict[str, list[Any]] = {  # noqa: RUF012
        "/api/v1/nodes": [NODE], "/api/v1/services": [SERVICE], "/apis/apps/v1/daemonsets": [],
        "/api/v1/events": [EVENT],
        "/apis/storage.k8s.io/v1/csinodes": [CSI],
    }  # fmt: skip

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        known = path in self.lists
        body: dict[str, Any] = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": self.lists.get(path, [])}
        if not known or self.headers["Authorization"] != "Bearer a-token":
            body = {"kind": "Status", "status": "Failure", "message": "forbidden", "reason": "Forbidden", "code": 403}
        data = json.dumps(body).encode()
        self.send_response(200 if "items" in body else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: Any) -> None:
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def kubeconfig(tmp_path: Path, address: str, token: str) -> str:
    file = tmp_path / "kubeconfig"
    file.write_text(
        json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
    )  # fmt: skip
    return str(file)


def test_the_api(tmp_path: Path, address: str) -> None:
    found = kube_api.objects(kubeconfig(tmp_path, address, "a-token"))
    assert isinstance(found, tuple)
    (objects,) = found
    assert isinstance(objects.nodes, tuple)
    assert objects.nodes == kube_objects.from_file(str(written(tmp_path, NODE))).nodes
    assert objects.events == (("ClusterCIDRMisconfigured", "route CIDR 10.42.1.0/24 is not contained"),)
    assert objects.workloads == ()
    assert objects.csi_nodes == (("worker-1", 0),)


@pytest.mark.parametrize(("token", "server"), [("wrong", ""), ("a-token", "http://127.0.0.1:1")])
def test_an_api_that_does_not_answer(tmp_path: Path, address: str, token: str, server: str) -> None:
    found = kube_api.objects(kubeconfig(tmp_path, server or address, token))
    assert isinstance(found, Unknown)
    assert words(found.reason).startswith(f"querying the API server with {tmp_path}/kubeconfig: ")


@pytest.mark.parametrize("content", ["", "[", "a: b", "clusters: 7", '{"contexts": []}'])
def test_a_bad_kubeconfig(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    assert isinstance(kube_api.objects(str(file)), Unknown)
    assert isinstance(kube_api.objects(str(tmp_path / "nowhere")), Unknown)
    assert isinstance(kube_api.objects("in-cluster"), Unknown)  # this is no pod


def test_a_kubeconfig_of_no_use_is_said(tmp_path: Path) -> None:
    """Otherwise a slip of the pen would look like 'nothing to report'."""
    done = janitor("scan", "--only", "node", "--no-metadata", "--kubeconfig", str(tmp_path / "nowhere"))
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"janitor: querying the API server with {tmp_path}/nowhere: ")
    assert line.endswith("; continuing without it")
    assert done.returncode == 2


def test_more_nodes_than_any_cluster_has(tmp_path: Path) -> None:
    file = tmp_path / "nodes.json"
    file.write_text(json.dumps({"kind": "List", "items": [{"kind": "Node"}] * MANY}))
    with pytest.raises(ValueError, match=f"it contains {MANY} Nodes; the limit is 20000"):
        kube_objects.from_file(str(file))


def test_yaml_is_told_what_to_be(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text("kind: List\nitems: []\n")
    with pytest.raises(ValueError, match="get nodes -o json"):
        kube_objects.from_file(str(file))
