"""The networks in the CNI configuration: which use host-local, where their leases are, and which of them CRI loads.

The runtime uses the first configuration in its directory (`max_conf_num = 1`). Standard library only.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

from janitor.core.model.addresses import make_range
from janitor.core.model.codes import Code
from janitor.core.model.evidence import AddressRange, Network, Unknown, known
from janitor.core.model.reason import because
from janitor.core.model.unknown import unseen
from janitor.host.cni import flannel
from janitor.host.cni.directories import SHARED
from janitor.host.cni.reader import (
    Conf,
    ConfigDirectory,
    ConfigFile,
    Configuration,
    data_dir_of,
    delegates_of,
    ipam_of,
    plugins_of,
    problem_of,
)
from janitor.host.files import printable
from janitor.host.node import Node

RangeSets = tuple[tuple[AddressRange, ...], ...]


@dataclass(frozen=True, slots=True)
class _List:
    """One configuration list. A single plugin's `.conf` is a list of one."""

    source: str
    name: str
    cni_version: str
    plugins: tuple[Conf, ...]
    disable_gc: bool
    around: tuple[str, ...] = ()  # plugin types of the chain that delegates to this list


def read_networks(node: Node, configuration: Configuration) -> tuple[Network, ...] | Unknown:
    """Every host-local network in the configuration, those that CRI uses first.

    Unknown if there is no configuration at all, or if the file that the runtime would load cannot be read.
    """
    found: list[Network] = []
    anything = own = False
    for directory in configuration.directories:
        lists = _lists(directory)
        if isinstance(lists, Unknown):
            return lists
        anything = anything or bool(lists)
        own = own or (bool(lists) and directory.path != SHARED)
        used = _used(lists)
        found += [network for one in used for network in _networks(node, one, True)]
        rest = [one for one in lists if one.source not in {other.source for other in used}]
        found += [network for one in rest for network in _networks(node, one, False)]
    if not anything:
        places = tuple(directory.path for directory in configuration.directories)
        return unseen(Code.NO_CNI_CONFIGURATION, paths=places)
    if own and not configuration.named:
        found = _without_guests(found)
    return tuple(sorted(dict.fromkeys(found), key=lambda n: not n.used_by_cri))


def subnet_files(configuration: Configuration) -> tuple[str, ...]:
    """Where flannel's plugin looks for this node's range, in the configurations that CRI loads."""
    used = [one for directory in configuration.directories for one in _used(known(_lists(directory)))]
    return tuple(dict.fromkeys(
        _subnet_file(plugin) for one in used for plugin in one.plugins if plugin["type"] == "flannel"
    ))  # fmt: skip


def _without_guests(found: list[Network]) -> list[Network]:
    """If a distribution has its own directory, CRI uses a network of the shared one only if it is in both."""
    shared = [posixpath.dirname(network.source) == SHARED for network in found]
    own = {network.name for network, guest in zip(found, shared, strict=True) if network.used_by_cri and not guest}
    return [
        replace(network, used_by_cri=network.used_by_cri and (not guest or network.name in own))
        for network, guest in zip(found, shared, strict=True)
    ]


def _lists(directory: ConfigDirectory) -> tuple[_List, ...] | Unknown:
    """The lists of one directory, in libcni's order. A damaged file counts only before the first good one."""
    if isinstance(directory.files, Unknown):
        return directory.files
    lists: list[_List] = []
    for file in directory.files:
        problem = unusable(file)
        if problem is None:
            lists.append(_list(printable(file.path), file.document))
        elif not lists:
            return problem
    return tuple(lists)


def unusable(file: ConfigFile) -> Unknown | None:
    """Why this file is no reliable source about leases; None if it is one."""
    if isinstance(file.content, Unknown):
        return file.content
    # The boot stage's shell reads names line by line and cannot open it.
    problem = because(Code.CNI_LINE_BREAK) if "\n" in file.path else file.damage or file.ambiguity
    if problem is None:
        return None
    return unseen(Code.BAD_CNI_CONFIGURATION, problem, path=printable(file.path))


def _list(path: str, document: Conf) -> _List:
    disable = document.get("disableGC", False)
    disable_gc = disable is True or disable == "true"
    version = str(document.get("cniVersion", ""))
    return _List(path, document["name"], version, plugins_of(document), disable_gc)


def _used(lists: tuple[_List, ...]) -> list[_List]:
    """The list that the runtime loads, i.e. the first, and the lists that multus delegates to from there."""
    by_name = {one.name: one for one in reversed(lists)}
    return [one for first in lists[:1] for one in (first, *_delegated(first, by_name))]


def _delegated(first: _List, by_name: dict[str, _List]) -> Iterator[_List]:
    """The delegates of multus. What applies to the outer chain applies to their leases as well.

    A firewall plugin's DEL gets their addresses, and the outer `disableGC` keeps any GC away.
    """
    around = tuple(plugin["type"] for plugin in first.plugins)
    for plugin in first.plugins:
        if plugin["type"] not in ("multus", "multus-shim"):
            continue
        cluster = plugin.get("clusterNetwork")
        if isinstance(cluster, str):  # a network's name, or a file as multus's own pod sees it
            file = posixpath.basename(cluster)
            for one in by_name.values():
                if one is not first and (one.name == cluster or posixpath.basename(one.source) == file):
                    yield replace(one, around=around, disable_gc=one.disable_gc or first.disable_gc)
        for delegate in delegates_of(plugin):
            document = {"name": first.name, "cniVersion": first.cni_version} | delegate
            if problem_of(document) is not None:
                continue  # multus would refuse it too
            inner = _list(first.source, document)
            yield replace(inner, around=around, disable_gc=inner.disable_gc or first.disable_gc)


def _networks(node: Node, one: _List, used: bool) -> Iterator[Network]:
    """The host-local networks of one list: at most one per plugin with an IPAM section."""
    types = (*one.around, *(plugin["type"] for plugin in one.plugins))
    for plugin in one.plugins:
        ipam = ipam_of(plugin)
        data_dir = data_dir_of(ipam)
        if ipam.get("type") != "host-local" or not data_dir:
            continue
        sets = _flannel_ranges(node, _subnet_file(plugin)) if plugin["type"] == "flannel" else _ranges(node, ipam)
        yield Network(one.name, data_dir, one.source, types, one.cni_version, sets, used, one.disable_gc)


def _subnet_file(plugin: Conf) -> str:
    return str(plugin.get("subnetFile") or flannel.SUBNET_FILE)


def _ranges(node: Node, ipam: Conf) -> RangeSets | Unknown:
    """host-local's `ranges`, preceded by the single range of the old format (allocator/config.go)."""
    try:
        sets = ipam.get("ranges") or []
        if ipam.get("subnet"):
            sets = [[ipam], *sets]
        if any(str(part["subnet"]).startswith("usePodCidr") for parts in sets for part in parts):
            return _flannel_ranges(node, flannel.SUBNET_FILE)
        if not sets:
            return unseen(Code.NO_RANGE_CONFIGURED)
        return tuple(
            tuple(
                make_range(
                    part["subnet"],
                    part.get("rangeStart") or "",
                    part.get("rangeEnd") or "",
                    part.get("gateway") or "",
                )
                for part in parts
            )
            for parts in sets
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return unseen(Code.BAD_RANGES, error=str(error))


def _flannel_ranges(node: Node, path: str) -> RangeSets | Unknown:
    """The node's pod range, from flanneld's file."""
    file = flannel.read_subnets(node, path)
    if file is None:
        return unseen(Code.FLANNEL_FILE_MISSING, path=path)
    if isinstance(file, Unknown):
        return file
    try:
        sets = tuple((make_range(str(ip_network(subnet, strict=False))),) for subnet in file.subnets)
    except ValueError as error:
        return unseen(Code.BAD_FLANNEL_FILE, path=path, error=str(error))
    return sets or unseen(Code.EMPTY_FLANNEL_FILE, path=path)
