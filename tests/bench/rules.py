"""How long a rule stays away, and what that costs: `python -m tests.bench.rules [WIPES]`, as root.

Three nodes in one run: with janitor, with janitor waiting for 250 ms of quiet as others do, and without. An observer of
its own sees the deletions and the rules that come back. Then pods' packets, 1,000 a second, through the policy-routed
path while networkd is restarted: how many never arrive.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.networkd import RoutedNode, missing, wait_for

DEBOUNCED = (
    "import janitor.daemon.rule_keeper as r; r.QUIET_S = 0.25; r.BURST_S = 1.0; "
    "import janitor.commands.cli as c; c.main()"
)
OBSERVER = """
import json, select, sys, time
from janitor.host.kernel.netlink import RuleSocket
s = RuleSocket(watch=True); print('{}', flush=True)
while True:
    select.select([s], [], [])
    for e in s.events():
        print(json.dumps([time.monotonic_ns(), e.made, str(e.rule)]), flush=True)
"""
SENDER = """
import socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); start = time.monotonic()
for i in range(int(sys.argv[1])):
    time.sleep(max(0, start + i / 1000 - time.monotonic()))
    try: s.sendto(struct.pack('=I', i), ('198.51.100.7', 9999))
    except OSError: pass
"""
RECEIVER = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('198.51.100.7', 9999)); s.settimeout(1.5)
seen = set(); print('ready', flush=True)
try:
    while True: seen.add(struct.unpack('=I', s.recv(64))[0])
except TimeoutError: pass
print(len(seen))
"""
RULE = "32765: from 10.244.0.0/24 lookup 77"
PACKETS = 3000


def main(wipes: int) -> None:
    reason = missing()
    if reason:
        sys.exit(f"this needs a real networkd: {reason}")
    print(f"{wipes} restarts of systemd-networkd; from the last deletion of the rule until it is back, in ms")
    for name, watch in (("janitor", "janitor"), ("after 250 ms of quiet", "debounced")):
        times = sorted(away(wipes, watch))
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        print(f"  {name:<22} median {statistics.median(times):7.2f}   p99 {p99:7.2f}   longest {times[-1]:7.2f}")
    print(f"  {'nothing':<22} never")
    print(f"{PACKETS} packets, 1,000 a second, from a pod to another node, while networkd is restarted: lost")
    for name, watch in (("janitor", "janitor"), ("after 250 ms of quiet", "debounced"), ("nothing", "")):
        lost = [packets_lost(watch) for _ in range(3)]
        print(f"  {name:<22} {', '.join(str(number) for number in lost)}")


def start_watching(node: RoutedNode, how: str) -> None:
    if how == "janitor":
        node.watch()
    elif how == "debounced":
        log = node.machine.directory / "debounced.log"
        with log.open("w") as out:
            argv = [sys.executable, "-c", DEBOUNCED, "run", "--only", "rules"]
            node.janitors.append(node.machine.popen(argv, stderr=out))
        wait_for(lambda: "watching rules" in log.read_text(), "it to watch")


def away(wipes: int, how: str) -> list[float]:
    """Milliseconds for each wipe. A new node after every eight: the token bucket is not what is measured here."""
    found: list[float] = []
    while len(found) < wipes:
        with RoutedNode() as node:
            node.kube_router()
            start_watching(node, how)
            log = node.machine.directory / "observer.log"
            with log.open("w") as out:
                observer = node.machine.popen([sys.executable, "-c", OBSERVER], stdout=out)
            wait_for(lambda: log.read_text().startswith("{}"), "the observer")  # noqa: B023
            for number in range(min(8, wipes - len(found))):
                node.restart_networkd()
                wait_for(lambda: log.read_text().count("true") >= 2 * (number + 1), "both rules")  # noqa: B023
                time.sleep(0.3)
            observer.kill()
            observer.wait()
            found += gaps(log)
    return found


def gaps(log: Path) -> list[float]:
    """Between the last deletion of a burst, of whatever rule, and the rule's return."""
    last, times = 0, []
    for line in log.read_text().splitlines()[1:]:
        at, made, rule = json.loads(line)
        if not made:
            last = at
        elif rule == RULE:
            times.append((at - last) / 1e6)
    return times


def packets_lost(how: str) -> int:
    """Of PACKETS sent from a pod to a node in table 77 while networkd is restarted."""
    with RoutedNode() as node:
        node.sh(
            "sysctl -qw net.ipv4.ip_forward=1; ip netns add pod; ip netns add far;"
            "ip link set pod1 netns pod; ip -n pod link set pod1 up; ip -n pod addr add 10.244.0.2/24 dev pod1;"
            "ip -n pod route add default via 10.244.0.1;"
            "ip link set tunp netns far; ip -n far link set tunp up; ip -n far addr add 198.51.100.7/32 dev tunp;"
            "ip -n far route add default dev tunp; ip -n far link set lo up"
        )
        node.kube_router()
        start_watching(node, how)
        time.sleep(1)
        receiver = node.machine.popen(
            ["ip", "netns", "exec", "far", sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE
        )
        assert receiver.stdout is not None
        receiver.stdout.readline()
        sender = node.machine.popen(["ip", "netns", "exec", "pod", sys.executable, "-c", SENDER, str(PACKETS)])
        time.sleep(1)
        node.start_networkd()
        sender.wait()
        received = int(receiver.stdout.read())
        receiver.wait()
        return PACKETS - received


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
