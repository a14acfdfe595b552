"""The runtime's CNI directories as a kubelet needs them: which files exist, and whether each can be loaded.

host/cni/config.py asks the same values about leases. This module looks for faults in the files and missing plugins.
Standard library only.
"""

import os
from collections.abc import Iterator
from typing import Any

from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import CniFile
from janitor.host.cni import directories as cni_directories
from janitor.host.cni.reader import Conf, ConfigFile, Configuration, delegates_of, ipam_of, ipam_types, plugins_of
from janitor.host.files import names, printable
from janitor.host.node import Node


def directories(configuration: Configuration) -> tuple[str, ...]:
    """The directories that the runtime names; otherwise those of the usual ones that exist."""
    return tuple(place.path for place in configuration.directories if configuration.named or place.exists)


def cni_files(node: Node, configuration: Configuration, plugins: tuple[str, ...]) -> tuple[CniFile, ...] | Unknown:
    """Every file in those directories, in the order in which libcni reads them."""
    found: list[CniFile] = []
    bins = [d for d in (plugins or _expanded(node, cni_directories.PLUGINS)) if _is_directory(node, d)]
    for place in configuration.directories:
        if isinstance(place.files, Unknown):
            return place.files
        files = [_file(node, file, bins) for file in place.files]
        files += [CniFile(printable(path), False, None, "", (), ()) for path in place.others]
        found += sorted(files, key=lambda file: os.fsencode(file.path))
    return tuple(found)


def _expanded(node: Node, patterns: tuple[str, ...]) -> Iterator[str]:
    """The directories, with `*` replaced by each existing name."""
    for pattern in patterns:
        above, star, below = pattern.partition("*")
        try:
            yield from (f"{above}{name}{below}" for name in names(node.path(above))) if star else (pattern,)
        except OSError:
            continue


def _is_directory(node: Node, path: str) -> bool:
    try:
        return os.path.isdir(node.path(path))
    except OSError:
        return False  # a symbolic link to itself


def _file(node: Node, file: ConfigFile, bins: list[str]) -> CniFile:
    shown = printable(file.path)
    if file.damage:
        return CniFile(shown, True, file.damage, "", (), ())
    chain = plugins_of(file.document)
    plugins = (*chain, *(inner for plugin in chain for one in delegates_of(plugin) for inner in plugins_of(one)))
    types = list(dict.fromkeys([*(str(p["type"]) for p in plugins if p.get("type")), *ipam_types(plugins)]))
    # Without a directory to search, no plugin can be called missing.
    missing = [t for t in types if bins and not any(_runs(node, f"{d}/{t}") for d in bins)]
    subnets = [s for p in chain for s in _subnets(ipam_of(p))]
    bridges = tuple(dict.fromkeys(b for p in plugins for d in (p, p.get("delegate")) if (b := _bridge(d))))
    return CniFile(shown, True, None, file.document["name"], tuple(types), tuple(missing), tuple(subnets), bridges)


def _bridge(plugin: Any) -> str:
    bridge = plugin.get("bridge") if isinstance(plugin, dict) else None
    return bridge if isinstance(bridge, str) else ""


def _subnets(ipam: Conf) -> list[str]:
    """host-local's subnets, if the configuration has them and does not leave them to flannel."""
    if ipam.get("type") != "host-local":
        return []
    ranges = ipam.get("ranges")
    parts = [p for s in ranges if isinstance(s, list) for p in s] if isinstance(ranges, list) else []
    found = [p.get("subnet") for p in [ipam, *parts] if isinstance(p, dict)]
    return [s for s in found if isinstance(s, str) and "/" in s]


def _runs(node: Node, path: str) -> bool:
    try:
        return os.access(node.path(path), os.X_OK)
    except OSError:
        return False
