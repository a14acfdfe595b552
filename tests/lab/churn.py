"""The events of a busy node: pods are scaled, deleted and force-deleted; its runtime and its kubelet are killed."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from contextlib import suppress

from tests.lab.cluster import Cluster

NAMES = ("api", "shop", "web")
# An API server may be busy, and a pod may have gone meanwhile.
_REFUSED = (RuntimeError, subprocess.TimeoutExpired)


class Churn:
    """Deployments that change all the time; the same seed gives the same operations."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.dice = random.Random(seed)
        self.done: Counter[str] = Counter()
        for name in NAMES:
            cluster.deploy(name, 4)

    def pods(self, seconds: float) -> None:
        """Scale and delete for `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(*_REFUSED):
                self.one()
            time.sleep(self.dice.uniform(0.5, 2.5))

    def one(self) -> None:
        """One operation on the API server."""
        what, name = self.dice.choice(("scaled", "scaled", "deleted", "forced")), self.dice.choice(NAMES)
        if what == "scaled":
            self.cluster.scale(name, self.dice.randint(0, 13))
            self.done[what] += 1
            return
        pods = [pod["metadata"]["name"] for pod in self.cluster.pods("-l", f"app={name}")]
        if chosen := self.dice.sample(pods, min(len(pods), self.dice.randint(1, 5))):
            force = ["--force", "--grace-period=0"] if what == "forced" else []
            self.cluster.plane.kubectl("delete", "pod", *chosen, "--wait=false", *force)
            self.done[what] += len(chosen)

    def kill_runtime(self) -> None:
        """SIGKILL containerd while pods are being created, and start it again."""
        name = self.dice.choice(NAMES)
        with suppress(*_REFUSED):
            self.cluster.scale(name, 0)
            self.cluster.scale(name, 13)
        time.sleep(self.dice.uniform(0.5, 4))
        self.cluster.node.kill_runtime()
        time.sleep(self.dice.uniform(0, 3))
        self.cluster.node.start_runtime(timeout=60)
        self.done["runtime killed"] += 1

    def kill_kubelet(self) -> None:
        """SIGKILL the kubelet, and start it again."""
        self.cluster.kill_kubelet()
        time.sleep(self.dice.uniform(0, 5))
        self.cluster.start_kubelet()
        self.done["kubelet killed"] += 1

    def cut(self) -> None:
        """Cut the power while pods are being created, and boot again."""
        name = self.dice.choice(NAMES)
        with suppress(*_REFUSED):
            self.cluster.scale(name, 1)
            self.cluster.scale(name, 12)
        time.sleep(self.dice.uniform(1, 7))
        self.done["files lost"] += len(self.cluster.cut(window=self.dice.choice((6.0, 28.0, 28.0))))
        self.cluster.boot()
        self.done["cuts"] += 1

    def end(self, timeout: float = 240) -> float:
        """Scale everything to zero, and wait until nothing is left of it. Returns the seconds that took."""
        began = time.monotonic()
        for name in NAMES:
            self.cluster.scale(name, 0)

        def nothing() -> bool:
            counts = self.cluster.counts()
            return (counts.leases, counts.empty_results) == (0, 0) and not self._left()

        self.cluster.wait(nothing, "nothing to be left of the churn", timeout)
        return time.monotonic() - began

    def _left(self) -> list[str]:
        """The remaining pods and sandboxes; the kubelet removes sandboxes within a minute or two."""
        pods = [pod["metadata"]["name"] for pod in self.cluster.pods("-n", "default")]
        return pods + [pod.name for pod in self.cluster.node.kubelet.list() if pod.namespace == "default"]
