"""What the syncing costs a pod's start: `python -m tests.bench.pod_start [PODS]`, as root.

RunPodSandbox on one real node, in turns with the daemon and without it, so that whatever else the machine does falls on
both; and the same while something else writes to the same disk, when an fsync takes longest. The daemon is in nobody's
way but the disk's and the processor's.
"""

from __future__ import annotations

import statistics
import sys
import time

from tests.lab.daemon import Daemon
from tests.lab.networks import calico
from tests.lab.node import Node

TURNS = 4
WRITER = "while :; do dd if=/dev/zero of=/var/lib/containerd/ballast bs=1M count=64 conv=fsync status=none; done"


def starts(node: Node, pods: int) -> list[float]:
    """Milliseconds that each start took; the pods are gone afterwards."""
    took = []
    for _ in range(pods):
        began = time.perf_counter()
        pod = node.kubelet.run()
        took.append(1000 * (time.perf_counter() - began))
        node.kubelet.stop(pod)
        node.kubelet.remove(pod)
    return took


def compare(node: Node, pods: int) -> tuple[list[float], list[float]]:
    """Without, and with the daemon, in turns."""
    without: list[float] = []
    with_it: list[float] = []
    for _ in range(TURNS):
        without += starts(node, pods // TURNS)
        with Daemon(node, config="interval = 60\n") as daemon:
            daemon.wait_for("event=pass")
            with_it += starts(node, pods // TURNS)
    return without, with_it


def main(pods: int) -> None:
    """Two lines: a quiet disk, and a busy one."""
    print(f"RunPodSandbox in ms, {pods} starts of each kind")
    with Node(networks=[calico()]) as node:
        node.boot()
        starts(node, 3)
        for name, script in (("quiet disk", ""), ("busy disk", WRITER)):
            writer = node.popen(["sh", "-c", script]) if script else None
            without, with_it = (statistics.median(took) for took in compare(node, pods))
            print(
                f"  {name:<10}  without {without:6.1f}   with the daemon {with_it:6.1f}   ratio {with_it / without:.2f}"
            )
            if writer is not None:
                writer.kill()
                writer.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
