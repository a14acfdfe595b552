"""The real kube-router with the real systemd-networkd: two nodes and an API server, with IPv4 and IPv6.

Node 1 has networkd, and janitor if a test starts it; node 2 is the destination of routes. If the kernel lacks ipip,
there is no tunnel and table 77 stays empty. Its route is then added here, because kube-router's rule has no effect
without one. vm_kube_router.py runs this on a machine whose kernel has ipip.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import control_plane, image_builder, networkd, programs
from tests.lab.cluster import Cluster
from tests.lab.control_plane import ControlPlane, Object
from tests.lab.machine import Machine
from tests.lab.networkd import NetworkdNode, wait_for

ADDRESSES = ("192.0.2.10", "192.0.2.11")
ADDRESSES_V6 = ("2001:db8::10", "2001:db8::11")
PODS = ("10.244.1.0/24", "10.244.2.0/24")
PODS_V6 = ("fd00:10:244:1::/64", "fd00:10:244:2::/64")
CONFLIST = "10-kuberouter.conflist"
# As in its manifests; it adds the ranges itself.
CONFIG: Object = {
    "cniVersion": "0.3.0",
    "name": "mynet",
    "plugins": [
        {
            "name": "kubernetes",
            "type": "bridge",
            "bridge": "kube-bridge",
            "isDefaultGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local"},
        },
        {"type": "portmap", "capabilities": {"snat": True, "portMappings": True}},
    ],
}
IMAGE = "localhost/kube-router:lab"
# The programs it calls, without kmod: it would load modules of the host.
PACKAGES = ("iproute2", "ipset", "iptables")
ROUTER = (
    "--run-router=true",
    "--run-firewall=false",
    "--run-service-proxy=false",
    "--overlay-type=full",
    "--enable-pod-egress=false",
    "--v=2",
)


def missing() -> str | None:
    """What this needs and the machine lacks, or None."""
    if not shutil.which("ipset"):
        return "not installed: ipset (apt-get install ipset)"
    return networkd.missing() or control_plane.missing() or programs.missing(programs.KUBERNETES, programs.KUBE_ROUTER)


def program() -> Path:
    """The kube-router that tests/real pins, which uses `ip`. MissingError."""
    return programs.program(programs.KUBE_ROUTER, "kube-router")


def newer() -> Path:
    """A version that uses netlink, from the directory that JANITOR_REAL names. MissingError."""
    return programs.elsewhere("kube-router")[0]


def image() -> Path:
    """An image of it, with the Debian programs that it calls."""
    source = programs.KUBE_ROUTER.source / "Dockerfile"
    executable = program()

    def fill(there: Path) -> None:
        shutil.copy(source, there)
        shutil.copy(executable, there)
        shutil.copytree(image_builder.packages(*PACKAGES), there / "packages")

    made_of = f"{programs.KUBE_ROUTER.directory.name} {PACKAGES} {image_builder.digest(source.parent, source.name)}"
    return image_builder.archive(IMAGE, image_builder.digest_of(made_of), fill)


class RoutedCluster:
    """A context manager: both nodes are on, linked, and known to an API server; kube-router is not started."""

    def __init__(self, router: Path, *options: str, first: NetworkdNode | None = None) -> None:
        """`options`: further options of kube-router. `first`: node 1, if it is not made here."""
        self.router = (str(router), *options)
        self.first = first or NetworkdNode(machine=Machine(kubernetes=True))
        self.second = Machine(kubernetes=True)
        self.plane = ControlPlane(self.first.machine, control_plane.current(), ADDRESSES[0])
        self._routers: dict[str, subprocess.Popen[str]] = {}

    def boot(self) -> None:
        machines = (self.first.machine, self.second)
        for machine in machines:
            machine.power_on()
        shutil.copytree(self.plane.etc, self.second.disk / "etc-kubernetes", dirs_exist_ok=True)
        made = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(self.second.pid)]
        subprocess.run(["nsenter", f"--net=/proc/{self.first.machine.pid}/ns/net", *made], check=True)
        for machine, address, address_v6 in zip(machines, ADDRESSES, ADDRESSES_V6, strict=True):
            machine.run(["sh", "-ec", _ADDRESSES, "sh", address, address_v6], check=True)
            (machine.disk / f"net.d/{CONFLIST}").write_text(json.dumps(CONFIG) + "\n")
        self.plane.start_api_server()
        self.first.prepare()
        self.first.network_file("10-eth0", _NETWORK)
        self.plane.wait(90 * networkd.patience)
        self.plane.apply(*(_node(number) for number in range(2)))
        for number in range(2):
            self._report_addresses(number)
        self.first.start_networkd()

    def _report_addresses(self, number: int) -> None:
        internal = (ADDRESSES[number], ADDRESSES_V6[number])
        addresses = [{"type": "InternalIP", "address": address} for address in internal]
        addresses.append({"type": "Hostname", "address": f"node{number + 1}"})
        patch = json.dumps({"status": {"addresses": addresses}})
        self.plane.kubectl("patch", "node", f"node{number + 1}", "--subresource=status", "--type=merge", "-p", patch)

    # kube-router.

    def start(self, *, overlay: bool = True) -> None:
        """Start it on both nodes. With the overlay, wait until node 1 has its rules, and routes that they lead to."""
        for name, machine in (("node2", self.second), ("node1", self.first.machine)):
            if name not in self._routers:
                self._start(name, machine, overlay)
        if overlay:
            wait_for(lambda: len(self.rules()) == 2, "kube-router to make its rules", 40)
            self.have_routes()

    def have_routes(self) -> None:
        """Make sure that table 77 has routes."""
        wait_for(lambda: "kube-bridge" in self.first.sh("ip -brief link"), "kube-router to make its bridge", 40)
        for family, peer in (("-4", f"{ADDRESSES[1]}/32"), ("-6", f"{ADDRESSES_V6[1]}/128")):
            there = f"ip {family} route show table 77 | grep -q ."
            self.first.sh(f"{there} || ip {family} route add {peer} dev kube-bridge table 77")

    def _start(self, name: str, machine: Machine, overlay: bool) -> None:
        argv = [*self.router, "--kubeconfig=/etc/kubernetes/admin.conf", *ROUTER, "--enable-ipv6=true"]
        argv += [f"--enable-overlay={str(overlay).lower()}", f"--hostname-override={name}"]
        env = {"NODE_NAME": name, "KUBE_ROUTER_CNI_CONF_FILE": f"/etc/cni/net.d/{CONFLIST}"}
        with (machine.directory / "kube-router.log").open("a") as log:
            self._routers[name] = machine.popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """Kill the one on node 1; its rules and routes stay."""
        router = self._routers.pop("node1")
        router.kill()
        router.wait()

    def running(self) -> bool:
        """Whether the one on node 1 still runs."""
        return self._routers["node1"].poll() is None

    def rules(self) -> list[str]:
        """kube-router's rules, as printed by iproute2."""
        return routed(self.first)

    def close(self) -> None:
        self.first.close()
        self.second.close()

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def routed(node: NetworkdNode) -> list[str]:
    """The rules of a node that lead to table 77, for which kube-router adds a name."""
    lines = node.rules().splitlines()
    return [line for line in lines if "lookup 77" in line or "lookup kube-router" in line]


def _node(number: int) -> Object:
    ranges = [PODS[number], PODS_V6[number]]
    metadata = {"name": f"node{number + 1}", "annotations": {"kube-router.io/pod-cidrs": ",".join(ranges)}}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
    }


_ADDRESSES = """
ip link set eth0 up
ip addr add "$1/24" dev eth0
ip addr add "$2/64" dev eth0 nodad
"""
_NETWORK = f"""[Match]
Name=eth0
[Network]
Address={ADDRESSES[0]}/24
Address={ADDRESSES_V6[0]}/64
IPv6AcceptRA=no
LinkLocalAddressing=no
"""


def daemonset(*, host_pid: bool) -> Object:
    """kube-router's DaemonSet, as in its manifests: privileged, in the host's network."""
    mounts = {"cni": "/etc/cni/net.d", "kubernetes": "/etc/kubernetes"}
    container = {
        "name": "kube-router",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["--kubeconfig=/etc/kubernetes/admin.conf", *ROUTER, "--enable-overlay=true"],
        "securityContext": {"privileged": True},
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "KUBE_ROUTER_CNI_CONF_FILE", "value": f"/etc/cni/net.d/{CONFLIST}"},
        ],
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    pod = {
        "hostNetwork": True,
        "hostPID": host_pid,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
        "volumes": [{"name": name, "hostPath": {"path": path}} for name, path in mounts.items()],
    }
    labels = {"k8s-app": "kube-router"}
    body = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    metadata = {"name": "kube-router", "namespace": "kube-system"}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": body}


def install(cluster: Cluster, *, host_pid: bool) -> None:
    """Import its image into a cluster, apply its DaemonSet, and wait for its rollout."""
    cluster.node.import_image(image().read_bytes())
    cluster.plane.apply(daemonset(host_pid=host_pid))
    words = ["rollout", "status", "daemonset/kube-router", "--timeout=90s"]
    cluster.plane.kubectl("-n", "kube-system", *words)
