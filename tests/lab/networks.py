"""CNI configurations like those of clusters, for the plugins that Debian has.

`ptp` stands in for calico: both give each pod a veth and the node one host route per pod. All addresses come from the
real host-local.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUBNET = "10.52.0.0/24"
SUBNET_V6 = "fd00:52::/64"

# After host-local in a chain, it blocks an ADD or a DEL for as long as a test wants (plugins/slow.py).
SLOW: dict[str, Any] = {"type": "slow"}
PORTMAP: dict[str, Any] = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
FLANNEL_ENV = "run/flannel/subnet.env"


@dataclass(frozen=True)
class Network:
    """One conflist, and its file name."""

    file_name: str
    config: dict[str, Any]
    # flannel's daemon writes /run/flannel/subnet.env at each boot; its plugin reads it.
    flannel_subnet: str | None = None

    @property
    def name(self) -> str:
        return str(self.config["name"])

    def write(self, directory: Path) -> Path:
        """Install it in a net.d directory."""
        path = directory / self.file_name
        path.write_text(json.dumps(self.config, indent=2) + "\n")
        return path

    def prepare(self, root: Path) -> None:
        """Do what this network's daemon does at boot, below the root of a running node."""
        if self.flannel_subnet is not None:
            path = root / FLANNEL_ENV
            path.parent.mkdir(parents=True, exist_ok=True)
            network = self.flannel_subnet.split(".")[0] + ".0.0.0/8"
            path.write_text(
                f"FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={self.flannel_subnet}\n"
                "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
            )


def canal(
    subnet: str = SUBNET,
    *,
    cni_version: str = "0.3.1",
    chain: Sequence[dict[str, Any]] = (PORTMAP,),
    data_dir: str | None = None,
    name: str = "k8s-pod-network",
    file_name: str = "10-canal.conflist",
) -> Network:
    """RKE2's canal: cniVersion 0.3.1, with which libcni does not read its cache on DEL."""
    return _ptp(file_name, name, cni_version, [subnet], chain, data_dir)


def calico(subnet: str = SUBNET, *, chain: Sequence[dict[str, Any]] = (PORTMAP,)) -> Network:
    """The same with cniVersion 0.4.0: from that version on, libcni needs its cache entry for DEL."""
    return canal(subnet, cni_version="0.4.0", chain=chain, file_name="10-calico.conflist")


def dual_stack(
    subnet: str = SUBNET,
    subnet_v6: str = SUBNET_V6,
    *,
    cni_version: str = "0.3.1",
    chain: Sequence[dict[str, Any]] = (PORTMAP,),
) -> Network:
    """An IPv4 and an IPv6 address for each pod, from two range sets."""
    return _ptp("10-canal.conflist", "k8s-pod-network", cni_version, [subnet, subnet_v6], chain, None)


def bridge(subnet: str = "10.52.0.0/26", *, cni_version: str = "1.0.0") -> Network:
    """A bridge for all pods, as flannel's and kube-router's plugins make it, and host ports."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    main = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "mtu": 1450}
    plugins = [main | {"ipam": ipam}, PORTMAP]
    return Network("10-canal.conflist", {"name": "k8s-pod-network", "cniVersion": cni_version, "plugins": plugins})


def flannel(subnet: str = "10.42.0.1/24", *, cni_version: str = "0.3.1") -> Network:
    """flannel's network: the configuration has no IPAM, and the subnet is in a file in /run."""
    plugin = {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
    config = {"name": "cbr0", "cniVersion": cni_version, "plugins": [plugin, PORTMAP]}
    return Network("10-flannel.conflist", config, flannel_subnet=subnet)


def _ptp(
    file_name: str,
    name: str,
    cni_version: str,
    subnets: Sequence[str],
    chain: Sequence[dict[str, Any]],
    data_dir: str | None,
) -> Network:
    routes = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets]
    ipam: dict[str, Any] = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}] for subnet in subnets],
        "routes": routes,
    }
    if data_dir is not None:
        ipam["dataDir"] = data_dir
    main = {"type": "ptp", "mtu": 1450, "ipMasq": False, "ipam": ipam}
    return Network(file_name, {"name": name, "cniVersion": cni_version, "plugins": [main, *chain]})
