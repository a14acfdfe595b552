"""The real judges of an address plan: the API server, and the controller-manager that allocates the ranges.

Each rejects flags by exiting with a message. If neither does, the Nodes that get their ranges are counted.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from tests.lab.control_plane import PKI, ControlPlane
from tests.lab.node import JANITOR

# The maximum number of Nodes that are created; a plan with room for more counts as having room for these.
MOST = 70
SPARE = 3
# A rejection comes at once; a program that runs longer than this has accepted its flags.
ACCEPTED_S = 1.5
STILL_S = 3.0
# While no Node has a range, the controller may not have started to allocate.
STARTS_S = 15.0


@dataclass(frozen=True)
class Plan:
    """Ranges as flags have them: one per family, in their written order."""

    pods: tuple[str, ...]
    services: tuple[str, ...]
    masks: tuple[int, ...]

    def flags(self) -> list[str]:
        """In the form that the API server and the controller-manager take."""
        words = [f"--cluster-cidr={','.join(self.pods)}", f"--service-cluster-ip-range={','.join(self.services)}"]
        if len(self.pods) == 1:
            return [*words, f"--node-cidr-mask-size={self.masks[0]}"]
        masks = zip(self.pods, self.masks, strict=True)
        return [*words, *(f"--node-cidr-mask-size-ipv{6 if ':' in pods else 4}={mask}" for pods, mask in masks)]

    def __str__(self) -> str:
        return " ".join(self.flags())


@dataclass(frozen=True)
class Judgement:
    """janitor's answer, and the real one."""

    errors: tuple[str, ...]
    nodes: int  # room for so many, according to janitor
    refusals: tuple[str, ...]
    made: int  # Nodes created, to count how many get their ranges
    real: int  # Nodes that got theirs

    @property
    def verdict(self) -> str:
        if self.refusals:
            return "right" if self.errors else "false all-clear"
        if self.errors:
            return "error though it runs" if self.real else "right"
        return "right" if self.real == min(self.nodes, self.made) else "wrong number"

    def __str__(self) -> str:
        janitor = f"janitor: {self.nodes} Nodes {' '.join(self.errors)}".strip()
        return f"{self.verdict}; {janitor}; real: {self.real} Nodes {'; '.join(self.refusals)}".strip()


def plans(count: int, seed: int) -> list[Plan]:
    """Plans such as people write, correct and incorrect ones."""
    dice = random.Random(seed)
    return [_plan(dice) for _ in range(count)]


def _plan(dice: random.Random) -> Plan:
    kind = dice.choice(("v4", "v4", "v4", "v6", "dual", "dual"))
    length = dice.randint(18, 27)
    mask = max(min(length + dice.randint(-1, 6), 30), 1)
    length_v6 = dice.choice((48, 52, 56, 58, 64, 80, 104, 110))
    mask_v6 = min(length_v6 + dice.choice((-1, 2, 4, 5, 6, 16, 17)), 126)
    pods = f"10.{dice.choice((42, 244))}.{dice.choice((0,) * 9 + (1,))}.0/{length}"
    pods_v6 = f"fd00:{dice.randint(1, 9)}::/{length_v6}"
    beside = f"10.{dice.choice((42, 244))}.0.0/{dice.choice((20, 24, 26))}"
    usual = ("10.96.0.0/16", "10.43.0.0/16", beside, "10.0.0.0/8", "10.96.0.0/12", "10.96.0.0/30", "10.96.0.0/29")
    services = dice.choice(usual)
    services_v6 = dice.choice(("fd00:99::/108", "fd00:99::/112", "fd00:99::/64", "fd00:1::/112"))
    if kind == "v4":
        return Plan((pods,), (services,), (mask,))
    if kind == "v6":
        return Plan((pods_v6,), (services_v6,), (mask_v6,))
    if dice.random() < 0.08:  # two of one family
        return Plan((pods, f"10.50.0.0/{length}"), (services, services_v6), (mask, mask))
    if dice.random() < 0.15:
        return Plan((pods, pods_v6), (services,), (mask, mask_v6))
    if dice.random() < 0.3:
        return Plan((pods_v6, pods), (services_v6, services), (mask_v6, mask))
    return Plan((pods, pods_v6), (services, services_v6), (mask, mask_v6))


def judge(plane: ControlPlane, plan: Plan) -> Judgement:
    """Ask janitor, then the API server, then the controller-manager."""
    errors, nodes = _janitor(plan)
    refusals = [_api_server(plane, plan)]
    made = min(nodes, MOST) + SPARE
    real = _ranges_given_out(plane, plan, made)
    if isinstance(real, str):
        refusals.append(real)
    return Judgement(errors, nodes, tuple(filter(None, refusals)), made, real if isinstance(real, int) else 0)


def _janitor(plan: Plan) -> tuple[tuple[str, ...], int]:
    by_family = sorted(zip(plan.pods, plan.masks, strict=True), key=lambda pair: ":" in pair[0])  # IPv4 comes first
    masks = ",".join(str(mask) for _, mask in by_family)
    words = ["--pods", ",".join(plan.pods), "--services", ",".join(plan.services), "--node-mask", masks]
    done = subprocess.run([JANITOR, "cidr", *words, "-o", "json"], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        return (done.stderr.strip(),), 0
    report: dict[str, Any] = json.loads(done.stdout)
    wrong = tuple(one["id"] for one in report["findings"] if one["severity"] in ("error", "critical"))
    return wrong, min((limit["nodes"] for limit in report["limits"]), default=0)


def _api_server(plane: ControlPlane, plan: Plan) -> str:
    """Its message about the Service range when it exits; "" if it goes on to look for its etcd."""
    argv = [
        plane.release.program("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:1",
        plan.flags()[1],
        # Of the family of the first range, as the API server requires.
        f"--advertise-address={'2001:db8::10' if ':' in plan.services[0] else plane.address}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={PKI}/sa.pub",
        f"--service-account-signing-key-file={PKI}/sa.key",
        "--cert-dir=/run/lab/other-api-server",
        "--secure-port=6444",
    ]
    with plane.machine.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            said, _ = process.communicate(timeout=ACCEPTED_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return ""
    return f"API server: {_refusal(said)}"


def _ranges_given_out(plane: ControlPlane, plan: Plan, wanted: int) -> int | str:
    """How many of the `wanted` Nodes get all their ranges; or the controller-manager's message when it exited."""
    argv = [
        plane.release.program("kube-controller-manager"),
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "--allocate-node-cidrs=true",
        "--controllers=node-ipam-controller",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--secure-port=0",
        *plan.flags(),
    ]
    log = plane.log("address-plan")
    with log.open("w") as out:
        process = plane.machine.popen(argv, stdout=out, stderr=subprocess.STDOUT)
    try:
        plane.apply(*({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{n}"}} for n in range(wanted)))
        last, since = 0, time.monotonic()
        while time.monotonic() - since < (STILL_S if last else STARTS_S):
            if process.poll() is not None:
                return f"controller-manager: {_refusal(log.read_text())}"
            given = [node["spec"].get("podCIDRs", []) for node in plane.get("nodes")]
            count = sum(len(ranges) == len(plan.pods) for ranges in given)
            if count != last:
                last, since = count, time.monotonic()
        return last
    finally:
        process.kill()
        process.wait()
        plane.kubectl("delete", "nodes", "--all", "--wait=true")


def _refusal(said: str) -> str:
    """The last error in a program's log, without klog's header. AssertionError if it is not about the ranges."""
    lines = [line for line in said.splitlines() if line.startswith(("E", "F")) or "rror" in line]
    last = (lines or said.splitlines() or ["it ended without a word"])[-1].rpartition("] ")[2]
    assert re.search("cidr|mask|range|famil", last, re.IGNORECASE), f"it ended, but not because of the plan: {last}"
    return last[-200:]
