"""Two hours of a node's life in about ten minutes, and whether the daemon is at its end as it was at its beginning.

`python -m tests.bench.soak [SECONDS] [SEED]`, as root. A real containerd, host-local and systemd-networkd. Pods come
and go, DELs are skipped, networkd wipes the rules, the runtime is restarted and hangs, the configuration is reloaded,
good and bad, children of the daemon are killed, it is scraped, stopped and continued. First of all the power is cut,
with the daemon of each boot. A pass is made every 5 s instead of 60, which is what speeds time up.

Exit 1 where a live pod's lease is lost, an orphan or a rule is not brought in order, or the daemon has grown.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from tests.bench.idle import cpu_s, memory
from tests.lab.daemon import Daemon
from tests.lab.kubelet import Pod, RpcError
from tests.lab.networkd import RoutedNode, wait_for
from tests.lab.networks import calico
from tests.lab.node import Node

INTERVAL_S = 5
CONFIG = f"interval = {INTERVAL_S}\ngrace = 60\n"
QUIET_S = 4 * INTERVAL_S
PODS = (6, 24)
MOST_WIPES = 24  # after thirty restorations of one rule in an hour janitor gives it up, which is no fault
# What may be more at the end than at the beginning. Memory: what an allocator keeps; the rest: nothing.
MARGINS = {
    "rss_mib": 4.0,
    "pss_mib": 3.0,
    "threads": 0,
    "descriptors": 0,
    "children": 0,
    "watches": 2,
    "idle_percent": 1.0,
}


@dataclass(frozen=True)
class State:
    """The daemon between two passes, its children included, with 6 pods on the node."""

    rss_mib: float
    pss_mib: float
    threads: int
    descriptors: int
    children: int
    watches: int
    idle_percent: float  # of a core, passes included


class Life:
    """One node, what happens to it, and what must be true of it whatever happens."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.node = Node(networks=[calico()])
        self.routed = RoutedNode(machine=self.node.machine)
        self.daemon: Daemon
        self.pods: list[Pod] = []
        self.happened: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.runtime_began = 0.0

    def boot(self) -> None:
        """Switch it on, as far as a node is ready for pods, and start the daemon."""
        self.node.boot()
        self.routed.boot()
        self.routed.kube_router()
        self.routed.start_networkd()
        self.routed.kube_router()
        self.runtime_began = time.monotonic()
        self.daemon = Daemon(self.node, config=CONFIG)
        self.daemon.wait_for("event=pass")

    def cut(self) -> None:
        """Cut the power under five new pods; boot; do what the kubelet does with the old ones."""
        for _ in range(5):
            self.node.kubelet.run()
        self.node.cut()
        self.daemon.process.wait(10)
        self.check_log()
        time.sleep(2.5)
        self.boot()
        for pod in self.node.kubelet.list():
            try:
                self.node.kubelet.stop(pod)
                self.node.kubelet.remove(pod)
            except RpcError:
                self.happened["a sandbox that cannot be stopped"] += 1
        self.pods = []
        self.happened["power cut"] += 1

    # What happens.

    def come(self) -> None:
        while len(self.pods) < self.random.randint(*PODS):
            self.pods.append(self.node.kubelet.run())
            self.happened["pod came"] += 1

    def fill(self) -> None:
        while len(self.pods) < PODS[1]:
            self.pods.append(self.node.kubelet.run())

    def go(self) -> None:
        while len(self.pods) > self.random.randint(*PODS):
            pod = self.pods.pop(self.random.randrange(len(self.pods)))
            self.node.kubelet.stop(pod)
            self.node.kubelet.remove(pod)
            self.happened["pod went"] += 1

    def skipped_del(self) -> None:
        """Leases of the real host-local, for containers that never were."""
        ipam = self.node.networks[0].config["plugins"][0]["ipam"]
        config = json.dumps({"cniVersion": "0.4.0", "name": self.node.networks[0].name, "type": "x", "ipam": ipam})
        for _ in range(8):
            env = {
                "CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"{self.random.getrandbits(256):064x}", "CNI_NETNS": "/x",
                "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
            }  # fmt: skip
            if self.node.run(["/opt/cni/bin/host-local"], env=env, input=config).returncode == 0:
                self.happened["DEL skipped"] += 1

    def wipe(self) -> None:
        if self.happened["rules wiped"] == MOST_WIPES:
            return
        self.routed.restart_networkd()
        self.happened["rules wiped"] += 1
        self.until(lambda: self.routed.rules().count("lookup 77") == 2, "the rules to be back", 90)

    def restart_runtime(self) -> None:
        if time.monotonic() - self.runtime_began > 90:
            self.node.restart_runtime()
            self.runtime_began = time.monotonic()
            self.happened["runtime restarted"] += 1

    def hang_runtime(self) -> None:
        pid = next(pid for pid, words in self.node.machine.processes().items() if words.endswith("/containerd"))
        self.node.machine.kill(pid, "STOP")
        time.sleep(self.random.uniform(1, 7))
        self.node.machine.kill(pid, "CONT")
        self.happened["runtime hung"] += 1

    def reload(self) -> None:
        self.daemon.configure("intervall = 1\n")
        self.daemon.reload()
        time.sleep(0.2)
        self.daemon.configure(CONFIG)
        self.daemon.reload()
        self.happened["configuration read, a bad one and a good one"] += 1

    def scrape(self) -> None:
        for path in ("/metrics", "/", "/healthz", "/readyz", "/nothing"):
            for _ in range(3):
                self.daemon.get(path)
                self.happened["question to its port"] += 1

    def kill_children(self) -> None:
        for pid in self.daemon.children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.happened["child killed"] += 1

    def stop_and_go_on(self) -> None:
        self.daemon.kill(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.5, 4))
        self.daemon.kill(signal.SIGCONT)
        self.happened["stopped and continued"] += 1

    # What must be true.

    def check(self) -> None:
        """Every pod that runs has its lease, and the daemon runs."""
        for pod in self.pods:
            lease = self.node.leases() / pod.ip
            found = lease.read_bytes() if lease.exists() else b""
            if found[:64].decode() != pod.id:
                self.wrong.append(f"the lease of the live pod {pod.ip} is {found!r}")
        if self.daemon.process.poll() is not None:
            self.wrong.append(f"the daemon has ended: {self.daemon.log()[-500:]}")
        self.happened["check of all pods"] += 1

    def check_log(self) -> None:
        if "Traceback" in self.daemon.log() or "component failed" in self.daemon.log():
            self.wrong.append(f"the daemon's log says: {self.daemon.path}")

    def settle(self) -> None:
        """Back to six pods, all orphans freed, the rules there."""
        while len(self.pods) > PODS[0]:
            pod = self.pods.pop()
            self.node.kubelet.stop(pod)
            self.node.kubelet.remove(pod)
        while len(self.pods) < PODS[0]:
            self.pods.append(self.node.kubelet.run())
        mine = {pod.ip for pod in self.pods}
        self.until(lambda: self.leased() == mine, "every orphan to be freed", 200)
        self.until(lambda: self.routed.rules().count("lookup 77") == 2, "the rules to be back", 30)
        self.until(self.syncing, "the syncing child to be back", 60)

    def syncing(self) -> bool:
        """Whether there is a child for longer than a pass takes."""
        first = set(self.daemon.children())
        time.sleep(2)
        return bool(first & set(self.daemon.children()))

    def leased(self) -> set[str]:
        return {path.name for path in self.node.leases().iterdir() if path.name[0].isdigit()}

    def until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        try:
            wait_for(condition, what, timeout)
        except TimeoutError as error:
            self.wrong.append(str(error))

    def state(self) -> State:
        """After a quiet time; memory between two passes, children while there is no pass.

        PSS with a child that was made just now: pages that fork(2) shared are copied as they are written to, so it says
        how long ago that was.
        """
        time.sleep(INTERVAL_S)
        pid = self.daemon.process.pid
        before = cpu_s(pid)
        _, rss, opened, children = self.least()
        spent = sum(cpu_s(pid)) - sum(before)
        threads = sum(len(list(Path(f"/proc/{one}/task").iterdir())) for one in (pid,))
        watches = sum(
            info.read_text().count("inotify wd")
            for one in self.daemon.children()
            for info in Path(f"/proc/{one}/fdinfo").iterdir()
        )
        self.kill_children()
        self.until(self.syncing, "the syncing child to be back", 60)
        return State(rss, self.least()[0], threads, opened, children, watches, 100 * spent / QUIET_S)

    def least(self) -> tuple[float, float, int, int]:
        """PSS and RSS in MiB, descriptors and children, each the least in a quiet time: a pass comes and goes in it."""
        states: list[tuple[float, float, int, int]] = []
        until = time.monotonic() + QUIET_S
        while time.monotonic() < until:
            time.sleep(0.2)
            try:
                processes = [self.daemon.process.pid, *self.daemon.children()]
                held = [memory(one) for one in processes]
                descriptors = sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in processes)
            except (FileNotFoundError, ProcessLookupError):
                continue
            sums = sum(one.pss for one in held), sum(one.rss for one in held)
            states.append((*sums, descriptors, len(processes) - 1))
        pss, rss, opened, children = zip(*states, strict=True)
        return min(pss), min(rss), min(opened), min(children)


def table(begin: State, end: State) -> tuple[str, list[str]]:
    """Both side by side, and what has grown beyond its margin."""
    lines, grown = ["| | begin | end |", "|---|---|---|"], []
    for field in fields(State):
        first, last = getattr(begin, field.name), getattr(end, field.name)
        lines.append(f"| {field.name} | {first:.1f} | {last:.1f} |")
        if last > first + MARGINS[field.name]:
            grown.append(f"{field.name} has grown from {first:.1f} to {last:.1f}")
    return "\n".join(lines), grown


def soak(seconds: float, seed: int, cuts: int = 3) -> int:
    """Live for so long; the exit code."""
    life = Life(seed)
    events = [
        life.come, life.come, life.go, life.go, life.skipped_del, life.wipe, life.restart_runtime, life.hang_runtime,
        life.reload, life.scrape, life.kill_children, life.stop_and_go_on,
    ]  # fmt: skip
    try:
        life.boot()
        for _ in range(cuts):
            life.cut()
        life.settle()
        life.fill()  # what an allocator keeps depends on the most there ever was
        for _ in range(2):  # once through everything that is made only when it is first wanted
            life.scrape()
            life.reload()
            life.wipe()
        life.kill_children()
        life.settle()
        begin = life.state()
        until = time.monotonic() + seconds
        while time.monotonic() < until and not life.wrong:
            life.random.choice(events)()
            life.check()
            time.sleep(life.random.uniform(0, 1))
        life.settle()
        end = life.state()
        life.check()
        life.check_log()
        if life.wrong:
            print(life.daemon.log()[-6000:])
        passes = life.daemon.metric("janitor_passes_total")
        freed = life.daemon.metric("janitor_leases_freed_total")
    finally:
        life.routed.close()
        life.node.close()
    text, grown = table(begin, end)
    print(text)
    print(f"in {seconds:.0f} s, {passes:.0f} passes, {freed:.0f} leases freed by the last daemon; seed {seed}:")
    print(", ".join(f"{number}x {what}" for what, number in sorted(life.happened.items())))
    for sentence in (*life.wrong, *grown):
        print(f"WRONG: {sentence}")
    return 1 if life.wrong or grown else 0


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(soak(words[0] if words else 600, words[1] if len(words) > 1 else int(time.time())))
