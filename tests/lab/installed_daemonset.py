"""janitor in a cluster of the lab, installed as an operator does: its image, its overlay, `kubectl apply -k`."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from tests.lab import container_image
from tests.lab.cluster import Cluster
from tests.lab.kustomize import KUBERNETES
from tests.lab.machine import OURS
from tests.lab.networkd import wait_for

NAMESPACE = "janitor"
DIRECTORY = "/etc/kubernetes/mine"


class InstalledDaemonSet:
    """The kustomization that README.md tells an operator to write, on the disk of the cluster's only node."""

    def __init__(self, cluster: Cluster, overlay: str = "kubeadm") -> None:
        self.cluster = cluster
        self.plane = cluster.plane
        self.mine = self.plane.etc / "mine"
        shutil.copytree(KUBERNETES, self.plane.etc / "kubernetes")
        self.mine.mkdir()
        name, _, tag = container_image.NAME.rpartition(":")
        self.kustomization: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../kubernetes/overlays/{overlay}"],
            "images": [{"name": "janitor", "newName": name, "newTag": tag}],
        }
        self.configure((KUBERNETES / "base/janitor.toml").read_text())

    def install(self, timeout: float = 120) -> None:
        """Import the image, apply, and wait for the rollout."""
        self.cluster.node.import_image(container_image.archive().read_bytes())
        self.apply()
        self.wait(timeout)

    def apply(self) -> str:
        (self.mine / "kustomization.yaml").write_text(json.dumps(self.kustomization, indent=2) + "\n")
        return self.plane.kubectl("apply", "-k", DIRECTORY).stdout

    def configure(self, text: str) -> None:
        """Set the operator's janitor.toml, which takes effect with the next `apply`.

        The lab's nodes are containers, so it also declares that the lease directories are the node's own.
        """
        (self.mine / "janitor.toml").write_text(OURS + text)
        self.kustomization["configMapGenerator"] = [
            {"name": "janitor", "namespace": NAMESPACE, "behavior": "replace", "files": ["janitor.toml"]}
        ]

    def wait(self, timeout: float = 120) -> None:
        self.kubectl("rollout", "status", "daemonset/janitor", f"--timeout={timeout:.0f}s", timeout=timeout + 30)

    def kubectl(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.plane.kubectl("-n", NAMESPACE, *words, **options)

    def pod(self) -> dict[str, Any]:
        """Its only pod that is not being deleted."""
        (pod,) = [p for p in self.plane.get("pods", "-n", NAMESPACE) if "deletionTimestamp" not in p["metadata"]]
        return pod

    def name(self) -> str:
        return str(self.pod()["metadata"]["name"])

    def janitor(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`kubectl exec POD -- janitor ...`, as in README.md."""
        return self.kubectl("exec", self.name(), "--", "janitor", *words, "--root", "/host", **options)

    def log(self) -> str:
        """The logs of the present containers of its pods."""
        names = [pod["metadata"]["name"] for pod in self.plane.get("pods", "-n", NAMESPACE)]
        return "".join(self.kubectl("logs", name, check=False).stdout for name in names)

    def wait_for(self, text: str, timeout: float = 60) -> str:
        """Wait until this is in its log; returns the log."""
        try:
            wait_for(lambda: text in self.log(), f"{text!r} in the DaemonSet's log", timeout, pause=0.5)
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{self.log()[-3000:]}") from None
        return self.log()
