"""A whole Kubernetes on one node of the lab: control plane, kubelet, containerd, network. Up in ten seconds."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import grpc

from janitor.core.model.action import SETTLE_S
from tests.lab import cgroups, control_plane, image, programs, runtimes
from tests.lab import node as lab
from tests.lab.control_plane import PKI, ControlPlane, Object, Release
from tests.lab.kubelet import Kubelet
from tests.lab.networks import Network, bridge
from tests.lab.node import Node, read_leases
from tests.lab.runtimes import Containerd

ADDRESS = "192.0.2.10"
GATEWAY = "192.0.2.1"
PODS = "10.52.0.0/16"
MASK = 26
# A machine's firmware takes longer. Files written after this are newer than any lease of the previous boot.
DARK_S = 5.0
SOCKET = "/run/containerd/containerd.sock"


def missing() -> str | None:
    """What a cluster needs and this machine lacks, or None."""
    needed = (programs.KUBERNETES, programs.CONTAINERD, programs.PLUGINS)
    return lab.missing() or control_plane.missing() or programs.missing(*needed)


@dataclass(frozen=True)
class Counts:
    """The numbers of pods, sandboxes and leases at one moment."""

    running: int
    terminating: int
    leases: int
    empty_leases: int
    empty_results: int
    ready: int
    not_ready: int


class Cluster:
    """A context manager that leaves nothing behind. `node` is the machine with its disk, runtime and network."""

    def __init__(
        self,
        network: Network | None = None,
        *,
        release: Release | None = None,
        containerd: Containerd | None = None,
        socket: str = SOCKET,
    ) -> None:
        """`socket`: where the kubelet finds its container runtime, if that is not containerd."""
        self.release = release or control_plane.current()
        self.network = network or bridge()
        self.node = Node(containerd or runtimes.built(), [self.network], large_images=True, kubernetes=True)
        self.name = self.node.machine.name
        self.plane = ControlPlane(self.node.machine, self.release, ADDRESS)
        self.plane.identity(
            "kubelet", f"/O=system:nodes/CN=system:node:{self.name}", f"DNS:{self.name}", f"IP:{ADDRESS}"
        )
        self.socket = socket
        if socket != SOCKET:
            self.node.kubelet = Kubelet(lambda: self.node.root / socket.lstrip("/"), cgroup_parent=f"/{self.name}")
        # Power-on, on the monotonic clock and in the API server's time format.
        self.booted = 0.0
        self.booted_at = ""
        self.runtime_started = 0.0
        self.start_runtime: Callable[[], object] = self.node.start_runtime

    # Power.

    def boot(self, before_runtime: Callable[[], object] | None = None) -> None:
        """Power on, and wait until the API server answers and every part is started.

        `before_runtime` runs when the machine is up and no runtime has started in this boot.
        """
        self.node.boot(start_runtime=False)
        self.booted = time.monotonic()
        self.booted_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        # As systemd does on every node: otherwise runtimes cannot propagate mounts.
        self.node.run(["mount", "--make-rshared", "/"], check=True)
        self.node.run(["sh", "-ec", _LINK], check=True)
        cgroups.make(self.name)
        self.plane.processes.clear()
        self.plane.start_api_server()
        if before_runtime is not None:
            before_runtime()
        self.start_runtime()
        self.runtime_started = time.monotonic()
        self.plane.wait()
        self.plane.start_controllers(PODS, MASK)
        self.start_kubelet()

    def cut(self, window: float = 3600.0) -> list[Path]:
        """Cut the power. CNI's files younger than `window` seconds are empty afterwards; returns them."""
        hit = self.node.cut("empty", window)
        time.sleep(DARK_S)
        return hit

    def start_kubelet(self) -> None:
        # 1.20 asks Amazon's metadata service first, and waits for an answer.
        self.plane.start("kubelet", *self._kubelet(), env={"AWS_EC2_METADATA_DISABLED": "true"})

    def kill_kubelet(self) -> None:
        self.plane.kill("kubelet")

    def _kubelet(self) -> list[str]:
        settings: Object = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # All cgroups of the node's pods are below the machine's own cgroup.
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.name}",
            "enforceNodeAllocatable": ["none"],
            # The lab must not change the host: its swap, its sysctls, its disk usage.
            "failSwapOn": False,
            "protectKernelDefaults": True,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "10Mi"},
            "imageGCHighThresholdPercent": 100,
            "authentication": {
                "x509": {"clientCAFile": f"{PKI}/ca.crt"},
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{PKI}/kubelet.crt",
            "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
            "resolvConf": "",
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        }
        words = []
        if self.release.minor < 27:  # since then they are in the file
            words = ["--container-runtime=remote", f"--container-runtime-endpoint=unix://{self.socket}"]
        else:
            settings["containerRuntimeEndpoint"] = f"unix://{self.socket}"
            settings["failCgroupV1"] = False
        (self.plane.etc / "kubelet.yaml").write_text(json.dumps(settings, indent=2) + "\n")
        return [
            self.release.program("kubelet"),
            "--kubeconfig=/etc/kubernetes/kubelet.conf",
            "--config=/etc/kubernetes/kubelet.yaml",
            f"--hostname-override={self.name}",
            f"--node-ip={ADDRESS}",
            "--v=2",
            *words,
        ]

    # What runs on it.

    def wait_ready(self, timeout: float = 180) -> float:
        """Wait until the Node is Ready. Returns the seconds since power-on."""

        def ready() -> bool:
            conditions = [c for node in self.plane.get("nodes") for c in node["status"].get("conditions", [])]
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        return self.wait(ready, "the Node to be Ready", timeout)

    def deploy(self, name: str, replicas: int, **spec: Any) -> None:
        """A Deployment of pods that do nothing; `spec` adds to the pods' spec."""
        pod = {
            "containers": [{"name": "pause", "image": image.NAME, "imagePullPolicy": "Never"}],
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": False,
            **spec,
        }
        labels = {"app": name}
        template = {"metadata": {"labels": labels, "annotations": pod.pop("annotations", {})}, "spec": pod}
        body = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        self.plane.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body})

    def scale(self, name: str, replicas: int) -> None:
        self.plane.kubectl("scale", "deployment", name, f"--replicas={replicas}")

    def pods(self, *words: str) -> list[Object]:
        return self.plane.get("pods", *(words or ("-A",)))

    def addresses(self) -> dict[str, bytes]:
        """The leases: address -> content of its file."""
        return read_leases(self.node.leases())

    def counts(self) -> Counts:
        pods = self.pods()
        leases = self.addresses()
        results = list(self.node.results.glob("*")) if self.node.results.is_dir() else []
        sandboxes = self.node.kubelet.list()
        return Counts(
            running=sum(self.running(pod) for pod in pods),
            terminating=sum("deletionTimestamp" in pod["metadata"] for pod in pods),
            leases=len(leases),
            empty_leases=sum(not content.strip() for content in leases.values()),
            empty_results=sum(_is_empty(path) for path in results),
            ready=sum(sandbox.ready for sandbox in sandboxes),
            not_ready=sum(not sandbox.ready for sandbox in sandboxes),
        )

    def wait_running(self, count: int, *words: str, timeout: float = 180) -> float:
        """Wait until `count` of the pods that `words` select run. Returns the seconds since power-on."""
        return self.wait(lambda: sum(map(self.running, self.pods(*words))) >= count, f"{count} pods to run", timeout)

    def running(self, pod: Object) -> bool:
        """Whether it runs in this boot, all its containers are ready, and it is not being deleted."""
        status = pod["status"]
        containers = status.get("containerStatuses", [])
        # The API server's status from before the boot is obsolete.
        up = [c["ready"] and c["state"].get("running", {}).get("startedAt", "") >= self.booted_at for c in containers]
        return status["phase"] == "Running" and bool(up) and all(up) and "deletionTimestamp" not in pod["metadata"]

    def age(self) -> float:
        """Seconds since power-on."""
        return time.monotonic() - self.booted

    def wait_settled(self) -> None:
        """Wait until the runtime has run long enough for janitor to free anything."""
        time.sleep(max(0.0, self.runtime_started + SETTLE_S + 2 - time.monotonic()))

    def wait(self, condition: Callable[[], bool], what: str, timeout: float) -> float:
        """Wait for a condition. Returns the seconds since power-on; TimeoutError has the last state.

        An error counts as not yet: a part of the cluster may still be starting.
        """
        deadline = time.monotonic() + timeout
        last = ""
        while True:
            try:
                if condition():
                    return self.age()
                last = str(self.counts())
            except (RuntimeError, grpc.RpcError, subprocess.TimeoutExpired) as error:
                last = str(error)
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout:g} s for {what}: {last}")
            time.sleep(0.5)

    # The end.

    def close(self) -> None:
        """Power off and discard the disk; may be called twice."""
        self.node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ClusterFactory(Protocol):
    """The type of the fixture `cluster`: makes clusters, powered off at first, that are removed after the test."""

    def __call__(self, network: Network | None = None, **options: Any) -> Cluster: ...


_LINK = f"""
ip link add eth0 type veth peer name uplink
ip link set uplink up
ip addr add {ADDRESS}/24 dev eth0
ip link set eth0 up
ip route add default via {GATEWAY}
echo 1 >/proc/sys/net/ipv4/ip_forward
"""


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:  # removed meanwhile
        return False
