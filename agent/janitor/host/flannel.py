"""flannel's files: the network it was given and this node's part of it. Standard library only."""

from collections.abc import Iterator
from ipaddress import ip_interface
from typing import Final

from janitor.core.evidence_node import Setting
from janitor.host.files import inside, parse_json, read_bounded

SUBNET_FILE: Final = "/run/flannel/subnet.env"
_CONFIGURATIONS: Final = (
    "/var/lib/rancher/k3s/agent/etc/flannel/net-conf.json",
    "/var/lib/rancher/rke2/agent/etc/flannel/net-conf.json",
)
_NETWORKS: Final = {"FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"}
_SUBNETS: Final = {"FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"}


def settings(root: str) -> Iterator[Setting]:
    """`cluster-cidr` and `pod-cidr`; FLANNEL_SUBNET names the bridge's address in it, not the range."""
    for path in _CONFIGURATIONS:
        try:
            document = parse_json(read_bounded(inside(root, path), 1 << 20))
        except (OSError, ValueError):
            continue
        found = [document.get(key) for key in ("Network", "IPv6Network")] if isinstance(document, dict) else []
        # "::/0" is what k3s writes for the family that it does not use.
        networks = [value for value in found if isinstance(value, str) and "/" in value and value != "::/0"]
        if networks:
            yield Setting("flannel", "cluster-cidr", ",".join(networks), path)
    try:
        text = read_bounded(inside(root, SUBNET_FILE), 1 << 16).decode("utf-8", "replace")
    except OSError:
        return
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    networks = [values[key].strip() for key in sorted(_NETWORKS & values.keys()) if values[key].strip()]
    if networks:
        yield Setting("flannel", "cluster-cidr", ",".join(reversed(networks)), SUBNET_FILE)
    subnets = []
    for key in sorted(_SUBNETS & values.keys(), reverse=True):
        try:
            subnets.append(str(ip_interface(values[key].strip()).network))
        except ValueError:
            continue
    if subnets:
        yield Setting("flannel", "pod-cidr", ",".join(subnets), SUBNET_FILE)
