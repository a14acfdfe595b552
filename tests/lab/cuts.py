"""Power cuts at random moments on a node with a real systemd, with and without the boot stage.

`python -m tests.lab.cuts 10` prints the table. The power is cut while pods run, while they are being created, during a
`janitor clean` or during the previous boot; what was written in the last half minute is lost.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import astuple, dataclass, fields
from typing import Final

from tests.lab.kubelet import Kubelet, Pod, RpcError
from tests.lab.networks import calico
from tests.lab.node import JANITOR
from tests.lab.pagecache import Loss
from tests.lab.systemd_node import SystemdNode

RANGE: Final = "10.52.0.0/27"
CAPACITY: Final = 29
PODS: Final = 6


@dataclass
class Round:
    """What one cut, and the boot after it, did to the node, in numbers."""

    moment: str
    leases_after_boot: int  # before any new pod
    started: int  # of the PODS that were wanted
    refused: int  # "no IP addresses available"
    stuck: int  # old sandboxes that cannot be stopped or removed
    left: int  # leases without a live pod, after the kubelet has done all it can
    twice: int  # addresses that two live pods have
    unleased: int  # live pods without their lease


@dataclass(frozen=True)
class _Cut:
    """One cut, chosen in advance: the same with janitor and without."""

    moment: str
    synced: bool
    delay: float  # seconds
    loss: Loss


_MOMENTS: Final = ("pods being created", "janitor at work", "in the boot", "pods running")
_LOSSES: Final[tuple[Loss, ...]] = ("empty", "empty", "nul")


def play(rounds: int, seed: int, *, with_janitor: bool) -> list[Round]:
    """`rounds` cuts on one node."""
    dice = random.Random(seed)
    cuts = [
        _Cut(moment, dice.random() < 0.3, dice.uniform(0.1, 1), dice.choice(_LOSSES))
        for moment in _moments(rounds, dice)
    ]
    played: list[Round] = []
    with SystemdNode(calico(RANGE)) as node:
        if with_janitor:
            node.install()
        node.boot()
        _start(node.kubelet, PODS)
        for cut in cuts:
            _make(cut, node, with_janitor=with_janitor)
            node.boot()
            played.append(_take_stock(node, cut.moment))
    return played


def _moments(rounds: int, dice: random.Random) -> list[str]:
    """Each kind about equally often, in random order."""
    found = [_MOMENTS[number % len(_MOMENTS)] for number in range(rounds)]
    dice.shuffle(found)
    return found


def _make(cut: _Cut, node: SystemdNode, *, with_janitor: bool) -> None:
    if cut.synced:
        node.sync()  # makes everything so far count as older than half a minute
    if cut.moment == "pods being created":
        for _ in range(PODS):
            node.kubelet.run_async()
        time.sleep(cut.delay / 2)
    elif cut.moment == "janitor at work" and with_janitor:
        words = [str(JANITOR), "clean", "--yes", "--no-wait", "--grace", "60"]
        threading.Thread(target=_until_cut, args=(node, words), daemon=True).start()
        time.sleep(cut.delay)
    node.cut(cut.loss)
    if cut.moment == "in the boot":
        node.boot(wait=False)
        time.sleep(cut.delay)
        node.cut("intact")


def _until_cut(node: SystemdNode, words: list[str]) -> None:
    try:
        node.run(words)
    except (RuntimeError, subprocess.TimeoutExpired):
        pass  # the power was cut


def _take_stock(node: SystemdNode, moment: str) -> Round:
    """Act as the kubelet after a boot: start new pods first, then stop and remove the old sandboxes."""
    old = [pod for pod in node.kubelet.list() if not pod.ready]
    before = len(node.addresses())
    new, refused = _start(node.kubelet, PODS)
    stuck = sum(not _gone(node.kubelet, pod) for pod in old)
    live = [node.kubelet.pod(pod) for pod in node.kubelet.list() if pod.ready]
    leases = node.addresses()
    held = Counter(pod.ip for pod in live)
    unleased = sum(not leases.get(pod.ip, b"").startswith(pod.id.encode()) for pod in live)
    left = len(set(leases) - set(held))
    return Round(moment, before, len(new), refused, stuck, left, sum(n - 1 for n in held.values()), unleased)


def _start(kubelet: Kubelet, number: int) -> tuple[list[Pod], int]:
    pods: list[Pod] = []
    refused = 0
    for _ in range(number):
        try:
            pods.append(kubelet.run())
        except RpcError as error:
            if "no IP addresses available" not in str(error):
                raise
            refused += 1
    return pods, refused


def _gone(kubelet: Kubelet, pod: Pod) -> bool:
    try:
        kubelet.stop(pod)
        kubelet.remove(pod)
    except RpcError:
        return False
    return True


def table(rounds: list[Round]) -> str:
    """One line per cut."""
    names = [field.name for field in fields(Round)]
    lines = [" | ".join(names), *(" | ".join(str(value) for value in astuple(one)) for one in rounds)]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    for janitor in (True, False):
        shown = table(play(int(sys.argv[1]), 7, with_janitor=janitor))
        print(f"{'with' if janitor else 'without'} the boot stage\n{shown}")
