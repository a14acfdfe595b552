"""The invariant: each running pod's address has one lease, its own, and no address is used twice.

It is checked from outside, each second. The runtime, the API server and the disk are asked one after the other, so one
look may fall between two steps of a pod's life: a violation counts only if two looks, 1.5 s apart, agree on it.
"""

from __future__ import annotations

import ipaddress
import subprocess
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc

from tests.lab.cluster import PODS, Cluster

PERIOD_S = 1.0
SECOND_LOOK_S = 1.5


@dataclass(frozen=True, order=True)
class Violation:
    """Who uses an address, and what its lease says."""

    address: str
    users: tuple[str, ...]
    lease: str


def look(cluster: Cluster) -> set[Violation]:
    """One look at every ready sandbox and every running pod."""
    pods = cluster.pods()
    kubelet = cluster.node.kubelet
    sandboxes = [kubelet.pod(sandbox) for sandbox in kubelet.list() if sandbox.ready]
    leases = cluster.addresses()
    used: dict[str, dict[str, str]] = defaultdict(dict)
    for sandbox in sandboxes:
        if _of_pods(sandbox.ip):
            used[sandbox.ip][f"{sandbox.namespace}/{sandbox.name}"] = sandbox.id
    violations = set()
    for address, users in used.items():
        owner = leases.get(address, b"").decode(errors="replace").splitlines()[:1]
        if len(users) > 1 or owner != list(users.values()):
            violations.add(Violation(address, tuple(sorted(users)), owner[0] if owner else ""))
    known: dict[str, list[str]] = defaultdict(list)
    for pod in pods:
        address = pod["status"].get("podIP", "")
        if cluster.running(pod) and not pod["spec"].get("hostNetwork") and _of_pods(address):
            known[address].append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
    violations |= {Violation(address, tuple(sorted(names)), "") for address, names in known.items() if len(names) > 1}
    return violations


def _of_pods(address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(PODS)


@dataclass
class Watch:
    """A context manager that looks each second while it is open."""

    cluster: Cluster
    looks: int = 0
    # Looks that failed because something they ask was being killed, or did not exist yet.
    failed: int = 0
    # Violations that a second look did not confirm.
    races: int = 0
    violations: set[Violation] = field(default_factory=set)
    began: float = 0.0
    ended: float = 0.0
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _unexpected: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="invariant", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        assert self._thread is not None
        self._thread.join(180)
        self.ended = time.monotonic()
        if error is None and self._unexpected:
            raise self._unexpected[0]
        assert error is not None or not self._thread.is_alive(), "a look does not come back"

    def check(self) -> None:
        """Assert that there was no violation, in about as many looks as there was time for."""
        assert not self.violations, self.violations
        # A look takes some seconds while the rest of the test is busy.
        assert self.looks >= (self.ended - self.began) / 10, self
        assert self.failed <= self.looks, self

    def _watch(self) -> None:
        while not self._end.wait(PERIOD_S):
            try:
                seen = look(self.cluster)
                self.looks += 1
                if seen:
                    time.sleep(SECOND_LOOK_S)
                    seen &= look(self.cluster)
                    self.races += not seen
                    self.violations |= seen
            except (grpc.RpcError, RuntimeError, OSError, subprocess.TimeoutExpired):
                self.failed += 1
            except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
                self._unexpected.append(error)
                return

    def __str__(self) -> str:
        return f"{self.looks} looks, {self.failed} failed, {self.races} races, {len(self.violations)} violations"
