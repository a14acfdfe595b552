"""The DaemonSet of kubernetes/, its image from the Dockerfile, on a real containerd, on a node that has run full.

One node for all of it. Each capability and each mount is taken away in turn: a pod that lacks one says which, something
that it is there for is seen to fail, and nothing is freed. Then comes the pod as it is.
"""

from __future__ import annotations

import copy
import json
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from janitor import __version__
from janitor.host.runtime import cri_pb2 as cri
from tests.lab import container_image, kustomize, networkd
from tests.lab import node as lab
from tests.lab.daemonset import DaemonPod
from tests.lab.kubelet import Pod, RpcError
from tests.lab.networkd import RoutedNode, wait_for
from tests.lab.node import Node
from tests.system.test_clean import leak

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        (why := container_image.missing() or lab.missing() or networkd.missing()) is not None, reason=why or ""
    ),
]

Change = Callable[[dict[str, Any]], None]


class Stage:
    """The node, its live pods, and when its runtime was started."""

    def __init__(self) -> None:
        self.node = Node(large_images=True)
        self.routes = RoutedNode(machine=self.node.machine)
        self.objects = kustomize.render(kustomize.KUBERNETES / "overlays/kubeadm")
        self.live: list[Pod] = []
        self.leaked: list[str] = []
        self.runtime_at = 0.0
        self.metrics = ""

    def make(self) -> None:
        node = self.node
        node.boot(start_runtime=False)
        # As systemd makes it on every node; without it no runtime gives out HostToContainer.
        node.run(["mount", "--make-rshared", "/"], check=True)
        node.start_runtime()
        self.routes.boot()
        self.routes.kube_router()
        self.routes.start_networkd()
        self.routes.kube_router()  # what networkd deletes at its start is not what this is about
        self.live = [node.kubelet.run() for _ in range(3)]
        self.leaked = leak(node, 250)
        # A process that is not root's, as most that run in pods.
        node.popen(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "10000"])
        # A network namespace that nothing but a mount keeps: a pod that is being born, or one of cri-o's.
        node.run(["ip", "netns", "add", "lonely"], check=True)
        time.sleep(3)  # machines take longer between a lease and a runtime's next start
        node.restart_runtime()
        self.runtime_at = time.monotonic()
        # The image is built in the minute in which nothing may be freed.
        node.import_image(container_image.archive().read_bytes())

    def pod(self, change: Change = lambda spec: None) -> DaemonPod:
        return DaemonPod(self.node, self.objects, container_image.NAME, change)

    def settle(self) -> None:
        """Wait until the runtime has been up for long enough."""
        time.sleep(max(0.0, self.runtime_at + 61 - time.monotonic()))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    try:
        made.make()
        yield made
    finally:
        made.routes.close()
        made.node.close()


def capability(name: str) -> Change:
    def change(spec: dict[str, Any]) -> None:
        spec["containers"][0]["securityContext"]["capabilities"]["add"].remove(name)

    return change


def mount(name: str) -> Change:
    def change(spec: dict[str, Any]) -> None:
        container = spec["containers"][0]
        container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] != name]

    return change


def host(name: str) -> Change:
    return lambda spec: spec.update({name: False})


# What is taken away, what the pod calls it, and what in its log shows that it was needed.
WITHOUT = {
    "SYS_PTRACE": (capability("SYS_PTRACE"), "CAP_SYS_PTRACE", "pass incomplete.*Permission denied"),
    "DAC_READ_SEARCH": (capability("DAC_READ_SEARCH"), "CAP_DAC_READ_SEARCH", "pass incomplete.*Permission denied"),
    "SYS_ADMIN": (capability("SYS_ADMIN"), "CAP_SYS_ADMIN", "pass incomplete.*run/netns/lonely.*not permitted"),
    "NET_ADMIN": (capability("NET_ADMIN"), "CAP_NET_ADMIN", "rules not watched.*CAP_NET_ADMIN"),
    "hostPID": (host("hostPID"), "hostPID", "rules not watched.*not .*of the node at /host"),
    "cni": (mount("cni"), "/var/lib/cni", "event=pass took_s=[0-9.]+ findings="),
    "run": (mount("run"), "/run/janitor", "event=waiting.*Read-only file system"),
    "runtime": (mount("runtime"), "/run/containerd", "pass incomplete.*containerd.sock"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_without(stage: Stage, name: str) -> None:
    change, what, effect = WITHOUT[name]
    with stage.pod(change) as pod:
        log = pod.wait_for(f"event=missing what={what} why=")
        wait_for(lambda: pod.get("/readyz")[0] == 503, "an answer")
        status, body = pod.get("/readyz")
        assert (status, f"{what} is missing: " in body) == (503, True), body
        assert f'janitor_missing{{what="{what}"}} 1.0' in pod.get("/metrics")[1]
        assert pod.probe("liveness") == (200, "ok\n")  # to start it anew would bring nothing back
        pod.wait_for(effect)
        # It alone, and no other.
        assert log.count("event=missing") == 1, log
    assert len(stage.node.addresses()) == 253


def test_without_its_configuration_it_does_not_start(stage: Stage) -> None:
    with stage.pod(mount("config")) as pod:
        pod.wait_for("reading the configuration /etc/janitor/janitor.toml: there is no such file")
        wait_for(lambda: pod.status().exit_code == 64, "its end")


def test_without_the_hosts_network_it_could_not_start(stage: Stage) -> None:
    with pytest.raises(RpcError, match="no IP addresses available in range set"), stage.pod(host("hostNetwork")):
        pass


def detector(spec: dict[str, Any]) -> None:
    """A container as node-problem-detector's, which starts what the component gives it. Its image is Debian's too."""
    (container,) = spec["containers"]
    config = kustomize.KUBERNETES / "node-problem-detector/container/janitor.json"
    (rule,) = json.loads(config.read_text())["rules"]
    container["command"], container["args"] = [rule["path"]], rule["args"]
    container["volumeMounts"] = []
    container["securityContext"] |= {"privileged": True, "allowPrivilegeEscalation": True}
    spec["hostNetwork"] = spec["hostPID"] = True


def test_node_problem_detector_in_a_container_asks_the_janitor_of_the_node(stage: Stage) -> None:
    ours = stage.node.root / "opt/janitor/bin/janitor"
    ours.parent.mkdir(parents=True)
    ours.symlink_to(lab.JANITOR)
    with stage.pod(detector) as pod:
        wait_for(lambda: pod.status().state == cri.CONTAINER_EXITED, "its end")
        line = pod.log()
        assert (pod.status().exit_code, line[:5], len(line) < 80) == (1, "LEASE", True), line
    on_the_node = stage.node.janitor("scan", "-o", "npd", "--only", "leases,rules,scan", "--no-metadata")
    assert (on_the_node.returncode, on_the_node.stdout.strip()) == (1, line)

    def alone(spec: dict[str, Any]) -> None:
        detector(spec)
        spec["hostPID"] = False

    with stage.pod(alone) as pod:
        wait_for(lambda: pod.status().state == cri.CONTAINER_EXITED, "its end")
        assert pod.status().exit_code > 1, "without hostPID it finds nobody's namespaces but its own"


def test_without_a_journal_or_the_packet_filter_nothing_is_freed(stage: Stage) -> None:
    stage.settle()
    # Without its number, which is there, a node in a container does not know its own mark again.
    (stage.node.cni_dir / "networks/.janitor-node").unlink(missing_ok=True)
    with stage.pod(mount("state")) as pod:
        pod.wait_for("event=missing what=/var/lib/janitor")
        pod.wait_for("lease not freed.*journal cannot be written .*Read-only file system")
    node = stage.node
    # A mount namespace that nothing but a descriptor keeps has to be entered, and so have those of pods, to see what
    # they can write to before a CNI plugin is run.
    kept = "unshare --mount sleep 1000 & sleep 1; exec 9</proc/$!/ns/mnt; kill $!; echo; exec sleep 1000"
    keeper = node.popen(["sh", "-c", kept], stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    with keeper.stdout as said:
        said.readline()
    with stage.pod(capability("SYS_CHROOT")) as pod:
        pod.wait_for("event=missing what=CAP_SYS_CHROOT")
        pod.wait_for("pass incomplete.*not permitted")
    keeper.kill()
    keeper.wait()
    node.run(["iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.99", "-j", "RETURN"], check=True)
    with stage.pod(capability("NET_RAW")) as pod:
        pod.wait_for("event=missing what=CAP_NET_RAW")
        pod.wait_for('event="leases skipped" leases=250 why="listing the packet filter.*not permitted')
    assert len(node.addresses()) == 253


def test_the_pod_on_an_exhausted_node(stage: Stage) -> None:
    stage.settle()
    node, routes = stage.node, stage.routes
    live = sorted(pod.ip for pod in stage.live)
    with pytest.raises(RpcError, match="no IP addresses available in range set"):
        node.kubelet.run()
    rules = routes.rules()
    with stage.pod() as pod:
        pod.wait_for("event=started.*mode=repair")
        pod.wait_for("event=pass.*live=3 free=250", timeout=30)
        assert sorted(node.addresses()) == live
        assert node.kubelet.run().ip in stage.leaked
        # A rule that networkd wipes is put back.
        routes.restart_networkd()
        pod.wait_for('event="rule restored"')
        wait_for(lambda: routes.rules() == rules, "all rules as they were")
        assert (pod.probe("liveness"), pod.probe("readiness")) == ((200, "ok\n"), (200, "ok\n"))
        stage.metrics = metrics = pod.get("/metrics")[1]
        assert "janitor_leases_freed_total 250.0" in metrics
        assert 'janitor_rules_restored_total{profile="kube-router"}' in metrics
        assert "janitor_missing{" not in metrics
        # What ends on the node is not kept alive by the mounts that the pod was given.
        ended = stage.live.pop()
        mounts = Path(f"/proc/{pod.pid()}/mountinfo").read_text
        assert f"/{ended.id}/rootfs" in mounts()
        node.kubelet.stop(ended)
        node.kubelet.remove(ended)
        wait_for(lambda: f"/{ended.id}/rootfs" not in mounts(), "its mounts to go")
        log = pod.log()
    assert "event=missing" not in log, log
    # On the node itself janitor goes on where the pod ended, and knows what it did.
    passes = node.janitor("undo", "--list")
    assert (passes.returncode, "250" in passes.stdout) == (0, True), passes.stdout + passes.stderr
    scan = json.loads(node.janitor("scan", "-o", "json").stdout)
    assert {lease["verdict"] for lease in scan["leases"]} == {"live"}


def test_where_nothing_happens_passes_end_after_the_fingerprint_check(stage: Stage) -> None:
    objects = copy.deepcopy(stage.objects)
    configured = next(one for one in objects if one["kind"] == "ConfigMap")["data"]
    assert "interval = 60 " in configured["janitor.toml"]
    configured["janitor.toml"] = configured["janitor.toml"].replace("interval = 60 ", "interval = 1 ")
    with DaemonPod(stage.node, objects, container_image.NAME, lambda spec: None) as pod:
        wait_for(
            lambda: 'janitor_passes_total{result="unchanged"} 3' in pod.get("/metrics")[1],
            "three passes that ended after the check",
            40,
        )


def test_every_expression_of_the_dashboard_has_an_answer(stage: Stage, tmp_path: Path) -> None:
    """Prometheus itself (promtool) evaluates each on what that pod has shown."""
    board = json.loads((kustomize.KUBERNETES / "components/dashboard/janitor.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    samples = [line.rpartition(" ") for line in stage.metrics.splitlines() if line and line[0] != "#"]
    assert samples
    series = [{"series": _labelled(name), "values": f"{value}+0x60"} for name, _, value in samples]
    for variable, value in (("$node", ".*"), ("$__rate_interval", "5m")):
        expressions = [expression.replace(variable, value) for expression in expressions]
    asked = [{"expr": expression, "eval_time": "60m", "exp_samples": []} for expression in expressions]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": asked}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [test]}))
    words = ["promtool", "test", "rules", str(tmp_path / "test.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    # None was expected, so promtool tells of each that has given something.
    answered = {expression for expression in expressions if f"expr: {json.dumps(expression)}" in said}
    assert set(expressions) - answered == set(), said
    assert "parse error" not in said


def test_the_image_says_what_it_is() -> None:
    """In its labels, and which machines it is for."""
    with tarfile.open(container_image.archive()) as image:

        def document(name: str) -> Any:
            file = image.extractfile(name)
            assert file is not None
            return json.load(file)

        (entry,) = document("index.json")["manifests"]
        manifest = document("blobs/" + entry["digest"].replace(":", "/"))
        config = document("blobs/" + manifest["config"]["digest"].replace(":", "/"))
    assert config["architecture"] == {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["config"]["Labels"].items()}
    assert (labels["title"], labels["version"], labels["licenses"]) == ("janitor", __version__, "Apache-2.0")
    assert {"revision", "source", "base.name"} <= labels.keys()


def _labelled(name: str) -> str:
    """A series as Prometheus stores it: with the labels of whoever was asked."""
    more = 'instance="node-1", job="janitor/janitor"'
    return f"{name[:-1]}, {more}}}" if name.endswith("}") else f"{name}{{{more}}}"
