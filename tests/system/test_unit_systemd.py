"""systemd/janitor.service under a real systemd, with all of its hardening: it does its work, and is looked after."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import systemd_node, tree
from tests.lab.cache import REPOSITORY, MissingError
from tests.lab.networkd import wait_for
from tests.lab.systemd_node import SystemdNode

pytestmark = pytest.mark.system

UNIT = "janitor.service"
# A clock that is ahead, as nobody wants to wait until a runtime is a minute old.
PROGRAM = f'#!/bin/sh\nexec {sys.executable} {REPOSITORY}/tests/lab/clock.py 100 "$@"\n'
# ProtectHome= and PrivateTmp= hide the Python that runs these tests, and this clone, where they lie in such places.
SHOWN = f"BindReadOnlyPaths={sys.base_prefix} {REPOSITORY}\n"
HOME = "ProtectHome=tmpfs\n"
CONFIG = 'interval = 1\ncri_endpoints = ["unix:///run/containerd/containerd.sock"]\n'
DROP_IN = "[Service]\nWatchdogSec=3\nRestartSec=1\n"
NETWORK = {
    "cniVersion": "0.3.0", "name": "kubernetes", "plugins": [{"type": "bridge", "bridge": "kube-bridge",
    "isDefaultGateway": True, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}],
}  # fmt: skip
# What kube-router and a node's network are to janitor, and a link for networkd.
ROUTED = """set -e
ip link add lab0 type veth peer name lab1; ip link set lab0 up; ip link set lab1 up
ip link add kube-bridge type bridge; ip link set kube-bridge up; ip addr add 10.244.0.1/24 dev kube-bridge
ip link add pod0 type veth peer name pod1; ip link set pod0 master kube-bridge up; ip link set pod1 up
ip route add 198.51.100.7/32 dev lab0 table 77; ip rule add from 10.244.0.0/24 lookup 77
mkdir -p /run/lab; printf '#!/bin/sh\\nexec 3<>/run/lab/fifo\\nread line <&3\\n' >/run/lab/kube-router
chmod 755 /run/lab/kube-router; mkfifo /run/lab/fifo
mkdir -p /run/systemd/network; systemd-run --quiet --unit=lab-router /run/lab/kube-router --run-router=true
printf '[Match]\\nName=lab0\\n[Network]\\nAddress=192.0.2.10/24\\n' >/run/systemd/network/lab.network
systemctl start systemd-networkd
"""
# A pod whose runtime has forgotten it: its processes and its namespace are gone, its hostPort rules and lease are not.
LOSE = """set -e
systemctl stop containerd
shim=$(pgrep -f 'contai[n]erd-shim.* -id {id}')
netns=$(for n in /run/netns/*; do nsenter --net=$n ip -4 -o addr | grep -q '{ip}/' && echo $n; done || :)
task=/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}
kill -9 $shim $(cat $task/init.pid)
umount $netns; rm $netns; umount -R $task/rootfs || :
rm -r $task /var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db
"""


@pytest.fixture(scope="module")
def node() -> Iterator[SystemdNode]:
    """A running node with a pod, three orphans that are older than its runtime, kube-router's rule, and janitor."""
    if reason := systemd_node.missing():
        pytest.skip(reason)
    try:
        tree.base()
    except MissingError as error:
        pytest.skip(str(error))
    with SystemdNode() as made:
        for path, text in {
            "opt/janitor/bin/janitor": PROGRAM,
            f"etc/systemd/system/{UNIT}": (systemd_node.UNITS / UNIT).read_text(),
            f"etc/systemd/system/{UNIT}.d/lab.conf": DROP_IN + SHOWN + (HOME if home() else ""),
            "etc/cni/net.d/10-kuberouter.conflist": json.dumps(NETWORK),
        }.items():
            place = made.disk / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(0o755)
        made.configure(CONFIG)
        made.boot()
        made.kubelet.run()
        leak(made, 2)
        lost = made.kubelet.run(host_ports={8080: 80})
        made.run(["sh", "-c", ROUTED], check=True)
        made.run(["sh", "-c", LOSE.format(id=lost.id, ip=lost.ip)], check=True)
        time.sleep(2.5)
        made.run(["systemctl", "start", "containerd"], check=True)
        made.run(["systemctl", "start", UNIT], check=True)
        yield made


def home() -> bool:
    """Whether something of what the tests need lies in somebody's home."""
    return any(Path(place).parts[1] in ("root", "home") for place in (sys.base_prefix, REPOSITORY))


def leak(node: SystemdNode, number: int) -> None:
    """Leases of the real host-local, for containers that never were."""
    ipam = node.network.config["plugins"][0]["ipam"]
    config = json.dumps({"cniVersion": "0.3.1", "name": node.network.name, "type": "x", "ipam": ipam})
    for at in range(number):
        name = f"CNI_CONTAINERID=dead{at:060x}"
        words = ["CNI_COMMAND=ADD", name, "CNI_NETNS=/x", "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni"]
        node.run(["sh", "-c", f"env {' '.join(words)} /usr/lib/cni/host-local <<'X'\n{config}\nX"], check=True)


def log(node: SystemdNode) -> str:
    return "\n".join(str(entry["MESSAGE"]) for entry in node.journal(UNIT))


def test_it_frees_and_restores_with_all_its_hardening(node: SystemdNode) -> None:
    wait_for(lambda: log(node).count('event="lease freed"') == 3, "three leases to be freed", 30)
    # One of them by its chain's CNI DEL, for which portmap needs iptables.
    assert "8080" not in node.run(["iptables-save"], check=True).stdout
    assert len(node.addresses()) == 1
    wait_for(lambda: 'event="watching rules"' in log(node), "the rules to be watched")
    # Where there is no udev, networkd has configured its links before it has read the rules; so a link is made anew.
    node.run(["networkctl", "reconfigure", "lab0"], check=True)
    wait_for(lambda: "rule restored" in log(node), "the rule to be put back", 15)
    assert "from 10.244.0.0/24 lookup 77" in node.run(["ip", "rule"], check=True).stdout
    pod = node.kubelet.run()
    wait_for(lambda: "live=2" in log(node), "the new pod")
    node.kubelet.stop(pod)
    node.kubelet.remove(pod)
    said = log(node)
    assert "pass incomplete" not in said
    assert "failed" not in said
    assert "not written" not in said
    # A forbidden system call gets EPERM, which would have been said above; a forbidden architecture kills.
    assert "SIGSYS" not in node.run(["journalctl", "--boot", "--no-pager"], check=True).stdout
    assert node.show(UNIT, "NRestarts") == "0"
    priorities = {e["PRIORITY"] for e in node.journal(UNIT) if "lease freed" in str(e["MESSAGE"])}
    assert priorities == {"5"}


def test_systemctl_sees_how_it_goes(node: SystemdNode) -> None:
    assert node.show(UNIT, "ActiveState") == "active"
    wait_for(lambda: "252 of 253 free" in node.show(UNIT, "StatusText"), "the status")
    assert "1 rule watched" in node.show(UNIT, "StatusText")
    first = node.show(UNIT, "WatchdogTimestampMonotonic")
    wait_for(lambda: node.show(UNIT, "WatchdogTimestampMonotonic") != first, "the watchdog to be fed")
    node.run(["systemctl", "reload", UNIT], check=True)
    wait_for(lambda: 'event="configuration read"' in log(node), "the configuration to be read")
    assert node.show(UNIT, "ActiveState") == "active"


def test_the_watchdog_starts_a_stopped_one_anew(node: SystemdNode) -> None:
    before = node.show(UNIT, "MainPID")
    node.run(["kill", "-STOP", before], check=True)
    wait_for(lambda: node.show(UNIT, "MainPID") not in (before, "0"), "another process", 20)
    wait_for(lambda: node.show(UNIT, "ActiveState") == "active", "it to be ready")
    assert "watchdog" in log(node).lower()
    assert node.run(["cat", f"/proc/{before}/stat"]).returncode != 0


def test_it_stops_within_a_second(node: SystemdNode) -> None:
    began = time.monotonic()
    node.run(["systemctl", "stop", UNIT], check=True)
    took = time.monotonic() - began
    print(f"systemctl stop took {took:.2f} s")
    assert took < 1
    assert node.show(UNIT, "Result") == "success"
