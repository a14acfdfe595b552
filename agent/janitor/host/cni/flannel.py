"""flannel's files: its whole network and this node's part of it. Standard library only."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import Setting
from janitor.host.files import parse_json, read_bounded, unknown
from janitor.host.node import Node

SUBNET_FILE: Final = "/run/flannel/subnet.env"
_CONFIGURATIONS: Final = (
    "/var/lib/rancher/k3s/agent/etc/flannel/net-conf.json",
    "/var/lib/rancher/rke2/agent/etc/flannel/net-conf.json",
)
_LIMIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class SubnetFile:
    """What flanneld has written: the whole network, and the bridge's address in each of this node's subnets.

    Both as in the file, IPv4 first.
    """

    networks: tuple[str, ...]
    subnets: tuple[str, ...]


def read_subnets(node: Node, path: str) -> SubnetFile | Unknown | None:
    """One `subnet.env`; None if flanneld has not written it."""
    try:
        text = read_bounded(node.path(path), _LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        return unknown(Code.CANNOT_READ_FLANNEL_FILE, error, path=path)
    values = {key: value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
    networks = [values.get("FLANNEL_NETWORK"), values.get("FLANNEL_IPV6_NETWORK")]
    subnets = [values.get("FLANNEL_SUBNET"), values.get("FLANNEL_IPV6_SUBNET")]
    return SubnetFile(tuple(one for one in networks if one), tuple(one for one in subnets if one))


def settings(node: Node, subnet_files: tuple[str, ...]) -> tuple[Setting, ...] | Unknown:
    """`cluster-cidr` and `pod-cidr`. `subnet_files` are the ones that the CNI configuration names, if any."""
    found = list(_configured(node))
    for path in subnet_files or (SUBNET_FILE,):
        file = read_subnets(node, path)
        if isinstance(file, Unknown):
            return file
        if file is not None:
            found += _written(file, path)
    return tuple(found)


def _configured(node: Node) -> Iterator[Setting]:
    for path in _CONFIGURATIONS:
        try:
            document = parse_json(read_bounded(node.path(path), 1 << 20))
        except (OSError, ValueError):
            continue
        found = [document.get(key) for key in ("Network", "IPv6Network")] if isinstance(document, dict) else []
        # k3s writes "::/0" for an unused address family.
        networks = [value for value in found if isinstance(value, str) and "/" in value and value != "::/0"]
        if networks:
            yield Setting("flannel", "cluster-cidr", ",".join(networks), path)


def _written(file: SubnetFile, path: str) -> Iterator[Setting]:
    if file.networks:
        yield Setting("flannel", "cluster-cidr", ",".join(file.networks), path)
    subnets = []
    for value in file.subnets:
        try:
            subnets.append(str(ip_network(value, strict=False)))
        except ValueError:
            continue
    if subnets:
        yield Setting("flannel", "pod-cidr", ",".join(subnets), path)
