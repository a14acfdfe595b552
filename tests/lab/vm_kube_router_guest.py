"""Inside the machine of vm_kube_router.py: two nodes with kube-router, one of which is the guest itself.

It reports the kernel's links, routes and rules on the console: before and after a restart of networkd, without janitor
and with it.
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
import traceback
from typing import Final

from tests.lab import kube_router, networkd, programs
from tests.lab.kube_router import ADDRESSES, PODS, RoutedCluster, routed
from tests.lab.machine import Machine
from tests.lab.networkd import NetworkdNode, wait_for
from tests.lab.vm_guest import say

_PATIENCE: Final = 20.0
_SYNC_S: Final = 65  # kube-router syncs its routes once a minute
_PLACES: Final = {"net.d": "/etc/cni/net.d", "etc-kubernetes": "/etc/kubernetes", "etcd": "/var/lib/etcd"}
_BOTH: Final = "--bgp-graceful-restart=true"  # only with this does kube-router 2.1.0 announce IPv6 to its peers
_GATEWAY: Final = PODS[0].replace(".0/24", ".1/24")
_POD: Final = PODS[0].replace(".0/24", ".5")


class Itself(Machine):
    """The guest as a machine of the lab: it is powered on, and its namespaces are the initial ones."""

    @property
    def pid(self) -> int:
        return 1

    def power_on(self) -> None:
        for name, place in _PLACES.items():
            subprocess.run(["mkdir", "-p", place], check=True)
            subprocess.run(["mount", "--bind", str(self.disk / name), place], check=True)


class Installed(NetworkdNode):
    """A node whose networkd is a service of its systemd."""

    def prepare(self) -> None:
        self.sh("mkdir -p /run/systemd/network; modprobe ipip; echo 1 >/proc/sys/net/ipv4/ip_forward")

    def start_networkd(self, *, wait: bool = True) -> None:
        self.sh("systemctl start systemd-networkd.service")
        if wait:
            self.sh("/lib/systemd/systemd-networkd-wait-online --interface=eth0 --timeout=50")

    def restart_networkd(self) -> None:
        self.sh("systemctl restart systemd-networkd.service")


class Tunnelled(RoutedCluster):
    """Here kube-router's rules lead to its own routes."""

    def have_routes(self) -> None:
        wait_for(lambda: len(self.routes()) == 2, "kube-router to make its tunnels", 60)
        self.first.sh(f"ip address replace {_GATEWAY} dev kube-bridge")  # as the first pod's ADD leaves it

    def tunnels(self) -> list[str]:
        """Kind, name and ends of its links."""
        links = [link for link in json.loads(self.first.sh("ip -j -details link")) if link["ifname"].startswith("tun-")]
        return [f"{o['linkinfo']['info_kind']} {o['ifname']} {o['address']} to {o['broadcast']}" for o in links]

    def routes(self) -> list[str]:
        """Table 77, which does not exist before its first route."""
        lines = self.first.sh("for f in -4 -6; do ip $f route show table 77 2>/dev/null || :; done").splitlines()
        return [" ".join(line.split()) for line in lines]

    def path(self) -> str:
        """The kernel's route for a pod's packet to node 2."""
        said = self.first.sh(f"ip route get {ADDRESSES[1]} from {_POD} iif kube-bridge")
        return " ".join(said.splitlines()[0].split())

    def syncs(self) -> int:
        """How often node 1's kube-router has synced its routes."""
        log = self.first.machine.directory / "kube-router.log"
        return log.read_text().count("Running local route table synchronization")


def play() -> None:
    networkd.patience = _PATIENCE
    began = time.monotonic()
    first = Installed(machine=Itself(kubernetes=True))
    with Tunnelled(kube_router.program(), _BOTH, first=first) as nodes:
        systemd = first.sh("networkctl --version").splitlines()[0]
        say(versions=[f"Linux {platform.release()}", systemd, f"kube-router {programs.KUBE_ROUTER.version}"])
        say(**{"API server up after s": round(time.monotonic() - began)})
        nodes.start()
        say(**{"kube-router's tunnels after s": round(time.monotonic() - began)})
        say(tunnels=nodes.tunnels(), routes=nodes.routes(), rules=nodes.rules(), path=nodes.path())

        first.restart_networkd()
        wait_for(lambda: nodes.rules() == [], "networkd to delete the rules", 3)
        say(**{"rules after a restart of networkd": nodes.rules()})
        syncs = nodes.syncs()
        time.sleep(_SYNC_S)
        say(**{"rules 65 s later": nodes.rules(), "routes 65 s later": nodes.routes(), "path 65 s later": nodes.path()})
        say(**{"kube-router's syncs meanwhile": nodes.syncs() - syncs})

        nodes.stop()
        nodes.start()
        say(**{"rules after kube-router was started anew": nodes.rules()})
        before = first.rules()
        watcher = first.watch()
        first.restart_networkd()
        watcher.wait_for('event="rule restored"', times=2)
        after = first.rules()
        say(**{"rules after a restart of networkd with janitor": routed(first), "path with janitor": nodes.path()})
        say(**{"same bytes": after == before, "restored after ms": watcher.restored()})
        say(**{"janitor's log": watcher.log().splitlines()})
        watcher.stop()


def main() -> None:
    say(begun=True)
    try:
        play()
    except Exception:
        say(failed=traceback.format_exc().splitlines())
        raise
    finally:
        say(over=True)


if __name__ == "__main__":
    main()
