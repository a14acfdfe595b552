"""Root trees of nodes as their distributions leave them: the files that janitor reads, and a /proc written by hand.

Each function makes one node in a directory. Contents follow what kubeadm, k3s, RKE2 and k0s write; the addresses are
made up. The files are older than the kubelet's start, unless the situation is about that.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

from tests.lab.simulated_proc import FakeProc

NODE_IP = "10.0.0.3"
KUBEADM_DROP_IN = """# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""  # noqa: E501 (the directives as the package has them)
KUBELET_UNIT = """[Unit]
Description=kubelet
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
"""
_JOINED = ["--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf", "--kubeconfig=/etc/kubernetes/kubelet.conf",
           "--config=/var/lib/kubelet/config.yaml"]  # fmt: skip
_KUBEADM_FLAGS = ["--container-runtime-endpoint=unix:///run/containerd/containerd.sock", f"--node-ip={NODE_IP}"]
_FLANNEL = {
    "name": "cbr0", "cniVersion": "1.0.0",
    "plugins": [{"type": "flannel", "delegate": {"isDefaultGateway": True}}, {"type": "portmap"}],
}  # fmt: skip


class Tree:
    """A node's root directory, in which everything is older than its processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = FakeProc(root / "proc")
        self.proc.boot("5f0c7d1e-0000-4000-8000-000000000007", runtime=900)
        (root / "proc/sys/kernel/hostname").write_text("worker-1\n")
        self.write("/etc/hostname", "worker-1\n")
        self.network({"lo": ["127.0.0.1/8"], "eth0": [f"{NODE_IP}/24"]}, [("0.0.0.0/0", "10.0.0.1", "eth0")])
        for plugin in ("flannel", "portmap", "bridge", "host-local", "loopback", "calico", "calico-ipam"):
            self.write(f"/opt/cni/bin/{plugin}", "#!/bin/sh\n", 0o755)

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Write a file, an hour old."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        before = file.stat().st_mtime - 3600
        os.utime(file, (before, before))
        return file

    def run(self, *argv: str) -> None:
        """Add a process."""
        self.proc.add(Path(argv[0]).name[:15], list(argv))

    def network(self, interfaces: dict[str, list[str]], routes: list[tuple[str, str, str]]) -> None:
        """Interface addresses with their connected routes, and routes through gateways, in the format of /proc/net."""
        lines = ["Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"]
        leaves = ["Main:", "  +-- 0.0.0.0/0 3 0 5"]
        for name, addresses in interfaces.items():
            for address in addresses:
                ip, _, prefix = address.partition("/")
                leaves += [f"     |-- {ip}", "        /32 host LOCAL"]
                if name != "lo":
                    lines.append(_route(str(IPv4Network(f"{ip}/{prefix}", strict=False)), "0.0.0.0", name, 1))
        lines += [_route(net, via, name, 3) for net, via, name in routes]
        directory = self.root / "proc/1/net"
        directory.mkdir(exist_ok=True)
        (directory / "route").write_text("\n".join(lines) + "\n")
        (directory / "fib_trie").write_text("\n".join(leaves) + "\n")
        (directory / "ipv6_route").write_text("")
        (directory / "if_inet6").write_text("")


def _route(net: str, gateway: str, interface: str, flags: int) -> str:
    parsed = IPv4Network(net)
    words = [_hex(str(parsed.network_address)), _hex(gateway), f"{flags:04X}", "0", "0", "0", _hex(str(parsed.netmask))]
    return "\t".join([interface, *words, "0", "0", "0"])


def _hex(address: str) -> str:
    return "".join(f"{int(part):02X}" for part in reversed(address.split(".")))


def kubeadm(
    root: Path, *, drop_in: str = "", extra: str = "", extra_file: str | None = "KUBELET_EXTRA_ARGS=\n"
) -> Tree:
    """A worker with the package's unit and drop-in. `drop_in` is an administrator's, `extra` the kubelet's flags."""
    tree = Tree(root)
    tree.write("/usr/lib/systemd/system/kubelet.service", KUBELET_UNIT)
    tree.write("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM_DROP_IN)
    if extra_file is not None:
        tree.write("/etc/default/kubelet", extra_file)
    if drop_in:
        tree.write("/etc/systemd/system/kubelet.service.d/20-hcloud.conf", drop_in)
    tree.write("/var/lib/kubelet/kubeadm-flags.env", f'KUBELET_KUBEADM_ARGS="{" ".join(_KUBEADM_FLAGS)}"\n')
    tree.write(
        "/var/lib/kubelet/config.yaml",
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS:\n- 10.96.0.10\n"
        "clusterDomain: cluster.local\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n",
    )
    tree.write("/etc/kubernetes/kubelet.conf", "apiVersion: v1\nkind: Config\n")
    _flannel(tree, "10.244.0.0/16", "10.244.1.1/24", "/etc/cni/net.d/10-flannel.conflist")
    tree.run("/usr/bin/kubelet", *_JOINED, *_KUBEADM_FLAGS, *shlex.split(extra))
    return tree


def _flannel(tree: Tree, network: str, subnet: str, conflist: str) -> None:
    env = f"FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    tree.write("/run/flannel/subnet.env", env)
    tree.write(conflist, json.dumps(_FLANNEL))


def kubeadm_blanked(root: Path) -> Tree:
    """kubernetes/autoscaler#8013: a README's drop-in, overridden by the package's empty variable."""
    return kubeadm(root, drop_in='[Service]\nEnvironment="KUBELET_EXTRA_ARGS=--cloud-provider=external"\n')


def kubeadm_correct(root: Path) -> Tree:
    """The same flag in the file that takes effect."""
    flag = "--cloud-provider=external"
    return kubeadm(root, extra_file=f"KUBELET_EXTRA_ARGS={flag}\n", extra=flag)


def control_plane(root: Path, ccm: tuple[str, ...] = ()) -> Tree:
    """A kubeadm control plane with its static pods, running; `ccm` are the arguments of Hetzner's cloud controller."""
    tree = kubeadm_correct(root)
    manager = ["/usr/local/bin/kube-controller-manager", "--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16",
               "--service-cluster-ip-range=10.96.0.0/12"]  # fmt: skip
    server = [
        "/usr/local/bin/kube-apiserver",
        "--service-cluster-ip-range=10.96.0.0/12",
        f"--advertise-address={NODE_IP}",
    ]
    for name, argv in (("kube-apiserver", server), ("kube-controller-manager", manager)):
        words = "".join(f"    - {word}\n" for word in [name, *argv[1:]])
        tree.write(
            f"/etc/kubernetes/manifests/{name}.yaml",
            f"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: {name}\n    command:\n{words}",
        )
        tree.run(*argv)
    if ccm:
        tree.run("/bin/hcloud-cloud-controller-manager", *ccm)
    return tree


def hccm_twice(root: Path) -> Tree:
    """kube-hetzner#1477: one manifest's `command` and another's `args`, combined."""
    return control_plane(root, ("--allow-untagged-cloud", "--cloud-provider=hcloud", "--cluster-cidr=10.244.0.0/16",
                                "--allocate-node-cidrs=true", "--cluster-cidr=10.245.0.0/16"))  # fmt: skip


def k3s_server(root: Path) -> Tree:
    """A server whose drop-in changed the Service range, while the DNS address stayed (kube-hetzner#1691)."""
    tree = Tree(root)
    tree.write("/etc/rancher/k3s/config.yaml", "token: K10secret\ncluster-cidr: 10.42.0.0/16\ncluster-dns: 10.43.0.10\n"
               "kube-controller-manager-arg:\n- node-cidr-mask-size=24\n")  # fmt: skip
    tree.write("/etc/rancher/k3s/config.yaml.d/90-services.yaml", "service-cidr: 10.53.0.0/16\n")
    tree.write("/etc/systemd/system/k3s.service", "[Service]\nEnvironmentFile=-/etc/systemd/system/k3s.service.env\n"
               f"ExecStart=/usr/local/bin/k3s \\\n    server \\\n    '--node-ip={NODE_IP}' \\\n"
               "    --token=K10other \\\n")  # fmt: skip
    tree.write("/etc/systemd/system/k3s.service.env", "K3S_TOKEN=K10environment\n")
    _k3s_network(tree)
    tree.run("/usr/local/bin/k3s server")
    return tree


def _k3s_network(tree: Tree) -> None:
    conflist = "/var/lib/rancher/k3s/agent/etc/cni/net.d/10-flannel.conflist"
    _flannel(tree, "10.42.0.0/16", "10.42.0.1/24", conflist)
    tree.write("/var/lib/rancher/k3s/agent/etc/flannel/net-conf.json",
               '{"Network": "10.42.0.0/16", "EnableIPv6": false, "EnableIPv4": true, "IPv6Network": "::/0",'
               ' "Backend": {"Type": "vxlan"}}')  # fmt: skip


def k3s_agent(root: Path) -> Tree:
    """An agent: only flannel's ranges are written on it."""
    tree = Tree(root)
    tree.write("/etc/systemd/system/k3s-agent.service", "[Service]\nExecStart=/usr/local/bin/k3s agent\n"
               "EnvironmentFile=-/etc/systemd/system/k3s-agent.service.env\n")  # fmt: skip
    tree.write("/etc/systemd/system/k3s-agent.service.env", "K3S_TOKEN=K10secret\nK3S_URL=https://10.0.0.2:6443\n")
    _k3s_network(tree)
    tree.run("/usr/local/bin/k3s agent")
    return tree


def rke2(root: Path) -> Tree:
    """A server with canal. Its control plane is static pods, and its Services lie in the pods' range."""
    tree = Tree(root)
    tree.write("/etc/rancher/rke2/config.yaml", "cluster-cidr: 10.42.0.0/15\nservice-cidr: 10.43.0.0/16\ncni: canal\n")
    tree.write("/usr/local/lib/systemd/system/rke2-server.service", "[Service]\nEnvironment=HOME=/root\n"
               "EnvironmentFile=-/etc/default/%N\nExecStart=/usr/local/bin/rke2 server\n")  # fmt: skip
    manager = ["kube-controller-manager", "--cluster-cidr=10.42.0.0/15", "--service-cluster-ip-range=10.43.0.0/16"]
    containers = [{"name": manager[0], "command": manager[:1], "args": manager[1:]}]
    manifest = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers}}
    tree.write("/var/lib/rancher/rke2/agent/pod-manifests/kube-controller-manager.yaml", json.dumps(manifest))
    tree.run("/usr/local/bin/rke2", "server")
    tree.run(*manager)
    tree.run(
        "kubelet", "--cloud-provider=external", f"--node-ip={NODE_IP}", "--cluster-dns=10.43.0.10", "--max-pods=110"
    )
    ipam = {"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]}
    plugins = [{"type": "calico", "ipam": ipam}, {"type": "portmap"}]
    canal = {"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": plugins}
    tree.write("/etc/cni/net.d/10-canal.conflist", json.dumps(canal))
    tree.write("/etc/cni/net.d/05-old.conflist~", "{")
    return tree


def k0s(root: Path) -> Tree:
    """A controller that runs pods too. Its Service range begins inside the nodes' own network."""
    tree = Tree(root)
    tree.write("/etc/k0s/k0s.yaml", "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  network:\n"
               "    podCIDR: 10.244.0.0/16\n    serviceCIDR: 10.0.0.0/20\n")  # fmt: skip
    start = "/usr/local/bin/k0s controller --enable-worker --token-file=/etc/k0s/token"
    tree.write("/etc/systemd/system/k0scontroller.service", f"[Service]\nExecStart={start}\n")
    tree.run("/usr/local/bin/k0s", "controller", "--enable-worker")
    tree.run("/var/lib/k0s/bin/kube-controller-manager", "--cluster-cidr=10.244.0.0/16")
    tree.run("/var/lib/k0s/bin/kubelet", f"--node-ip={NODE_IP}", "--config=/run/k0s/kubelet.yaml")
    plugins = [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"}}, {"type": "kube-loxilb"}]
    conflist = {"name": "k0s", "cniVersion": "0.3.1", "plugins": plugins}
    tree.write("/etc/cni/net.d/10-kuberouter.conflist", json.dumps(conflist))
    return tree


def docker_overlaps(root: Path) -> Tree:
    """A worker on which somebody installed Docker, whose bridge chose the pods' range."""
    tree = kubeadm_correct(root)
    tree.network(
        {"lo": ["127.0.0.1/8"], "eth0": [f"{NODE_IP}/24"], "docker0": ["10.244.64.1/18"], "cni0": ["10.244.1.1/24"]},
        [("0.0.0.0/0", "10.0.0.1", "eth0"), ("10.244.2.0/24", "10.0.0.4", "eth0")],
    )
    return tree


def plain(root: Path) -> Tree:
    """A Debian host with Docker and without Kubernetes."""
    tree = Tree(root)
    tree.network({"lo": ["127.0.0.1/8"], "eth0": [f"{NODE_IP}/24"], "docker0": ["172.17.0.1/16"]},
                 [("0.0.0.0/0", "10.0.0.1", "eth0")])  # fmt: skip
    return tree


SITUATIONS: dict[str, Callable[[Path], Tree]] = {
    function.__name__.replace("_", "-"): function
    for function in (kubeadm_blanked, kubeadm_correct, control_plane, hccm_twice, k3s_server, k3s_agent, rke2, k0s,
                     docker_overlaps, plain)
}  # fmt: skip
