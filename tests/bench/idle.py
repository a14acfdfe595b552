"""What the daemon costs a node on which nothing happens: `python -m tests.bench.idle [PODS]`, as root.

A real containerd with that many real sandboxes, each with its shim and pause process, and the daemon beside them. CPU
is the daemon's own and that of every pass it has waited for, from the kernel's accounts; a pass is made every few
seconds, so that its cost is measured many times, and the figure for the default interval is computed from it. A node is
busy here when something changes before each pass, so that every pass looks at all. Memory is PSS: pages that daemon
and children share are counted once.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab.daemon import Daemon
from tests.lab.networks import canal
from tests.lab.node import Node

EVERY_S = 4
CYCLE = 5  # four passes in a row that may end after a fingerprint check, and a full one
PASSES = 2 * CYCLE
INTERVAL_S = 60
AIM_CORE = 0.1  # per cent
AIM_MIB = 48
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """In MiB: proportional share, resident, and what nobody else has."""

    pss: float
    rss: float
    private: float


def memory(pid: int) -> Memory:
    """One process's memory, from its smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    of = {name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return Memory(of["Pss"], of["Rss"], of["Private_Dirty"] + of["Private_Clean"])


def cpu_s(pid: int) -> tuple[float, float]:
    """Seconds of CPU: the process's own, and that of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, waited = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / _TICKS, waited / _TICKS


def fill(node: Node, pods: int) -> None:
    """So many sandboxes, a few at a time as a kubelet does it."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: node.kubelet.run(), range(pods)))


def measure(node: Node, pods: int) -> dict[str, str]:
    """One row of the table."""
    with Daemon(node, config=f"interval = {EVERY_S}\n") as daemon:
        daemon.wait_for(f"event=pass.*live={pods}", timeout=60)
        whole, highest, took = _passes(daemon, PASSES // 2, lambda: os.utime(node.leases() / "last_reserved_ip.0"))
        idle, high, _ = _passes(daemon, PASSES, lambda: None)
        between = [highest := max(highest, high)]
        for _ in range(EVERY_S * 4):
            time.sleep(0.25)
            between.append(_all(daemon))
    with Daemon(node, config="interval = 3600\n") as daemon:
        daemon.wait_for(f"event=pass.*live={pods}", timeout=60)
        time.sleep(2)
        before = cpu_s(daemon.process.pid)
        time.sleep(30)
        loop = sum(cpu_s(daemon.process.pid)) - sum(before)
    return {
        "pods": str(pods),
        "CPU of a pass that looks at all (s)": f"{whole:.3f}",
        "CPU of a pass on an idle node (s)": f"{idle:.3f}",
        "loop alone (% of a core)": f"{100 * loop / 30:.3f}",
        f"busy, a pass in {INTERVAL_S} s (% of a core)": f"{100 * (whole / INTERVAL_S + loop / 30):.2f}",
        f"idle, a pass in {INTERVAL_S} s (% of a core)": f"{100 * (idle / INTERVAL_S + loop / 30):.2f}",
        "PSS between passes (MiB)": f"{min(between):.1f}",
        "PSS at the height of a pass (MiB)": f"{highest:.1f}",
        "a pass that looks at all took (s)": f"{took:.2f}",
    }


def _passes(daemon: Daemon, wanted: int, disturb: Callable[[], None]) -> tuple[float, float, float]:
    """CPU seconds of each of so many passes (the daemon's own in that time included), the highest PSS, the duration."""
    pid, highest, took = daemon.process.pid, 0.0, 0.0
    disturb()
    time.sleep(2 * EVERY_S)
    before, passes = sum(cpu_s(pid)), daemon.metric("janitor_passes_total")
    while (done := daemon.metric("janitor_passes_total") - passes) < wanted:
        for _ in range(EVERY_S * 5):
            disturb()
            highest = max(highest, _all(daemon))
            time.sleep(0.2)
        took = max(took, daemon.metric("janitor_pass_duration_seconds"))
    return (sum(cpu_s(pid)) - before) / done, highest, took


def _all(daemon: Daemon) -> float:
    """The PSS of the daemon and its children, together."""
    total = 0.0
    for pid in (daemon.process.pid, *daemon.children()):
        try:
            total += memory(pid).pss
        except (FileNotFoundError, ProcessLookupError):
            continue  # the pass has ended
    return total


def main(counts: list[int]) -> None:
    """The table: one column for each number of pods."""
    rows: list[dict[str, str]] = []
    with Node(networks=[canal("10.52.0.0/22")]) as node:
        node.boot()
        there = 0
        for pods in counts:
            fill(node, pods - there)
            there = pods
            time.sleep(3)
            rows.append(measure(node, pods))
    for name in rows[0]:
        print(f"| {name:<44} | {' | '.join(f'{row[name]:>8}' for row in rows)} |")
    print(f"aims: {AIM_CORE} % of a core, {AIM_MIB} MiB")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [60, 250])
