"""The runtime's CNI directories as a kubelet needs them: which files there are, and whether each could be loaded.

host/cni.py reads the same files for the leases; here the point is what is wrong with them.
"""

import os
from collections.abc import Callable
from typing import Any

from janitor.core.codes import Code
from janitor.core.evidence import Unknown
from janitor.core.evidence_node import CniFile
from janitor.host.cni import WELL_KNOWN
from janitor.host.files import inside, names, parse_json, printable, read_bounded, unknown

_EXTENSIONS = (".conf", ".conflist", ".json")
_PLUGIN_DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/var/lib/rancher/k3s/data/current/bin",
                       "/var/lib/rancher/k3s/data/cni")  # fmt: skip
_LIMIT = 1 << 20


def directories(root: str, named: tuple[str, ...]) -> tuple[str, ...]:
    """Where the runtime looks, as it says; else the usual places that exist."""
    return named or tuple(d for d in WELL_KNOWN if os.path.isdir(inside(root, d)))


def cni_files(root: str, places: tuple[str, ...], plugins: tuple[str, ...]) -> tuple[CniFile, ...] | Unknown:
    """Every file in those directories, in the order in which libcni reads them."""
    found = []
    bins = [d for d in (plugins or _PLUGIN_DIRECTORIES) if _is(os.path.isdir, root, d)]
    for place in dict.fromkeys(places):
        try:
            entries = names(inside(root, place))
        except OSError as error:
            return unknown(Code.CANNOT_LIST_CNI_CONFIGURATION, error, path=place)
        found += [
            _file(root, f"{place}/{name}", bins) for name in entries if _is(os.path.isfile, root, f"{place}/{name}")
        ]
    return tuple(found)


def _is(kind: Callable[[str], bool], root: str, path: str) -> bool:
    """Whether there is such a thing; a link that leads to itself is nothing."""
    try:
        return kind(inside(root, path))
    except OSError:
        return False


def _file(root: str, path: str, bins: list[str]) -> CniFile:
    shown = printable(path)
    if not path.endswith(_EXTENSIONS):
        return CniFile(shown, False, "", "", (), ())
    try:
        document = parse_json(read_bounded(inside(root, path), _LIMIT))
    except OSError as error:
        return CniFile(shown, True, f"it cannot be read ({error.strerror})", "", (), ())
    except ValueError as error:
        return CniFile(shown, True, f"it is not JSON ({error})", "", (), ())
    plugins = document.get("plugins", [document]) if isinstance(document, dict) else []
    good = (
        [p for p in plugins if isinstance(p, dict) and isinstance(p.get("type"), str)]
        if isinstance(plugins, list)
        else []
    )
    if not good or len(good) < len(plugins):
        return CniFile(shown, True, "it names no plugin", "", (), ())
    types = list(dict.fromkeys([str(p["type"]) for p in good] + [t for p in good if (t := _ipam(p))]))
    # Without a directory to look in, nothing can be said to be missing.
    missing = [t for t in types if bins and not any(_runs(root, f"{d}/{t}") for d in bins)]
    subnets = [s for p in good for s in _subnets(p.get("ipam"))]
    bridges = tuple(dict.fromkeys(b for p in good for d in (p, p.get("delegate")) if (b := _bridge(d))))
    name = str(document.get("name", ""))
    return CniFile(shown, True, "", name, tuple(types), tuple(missing), tuple(subnets), bridges)


def _bridge(plugin: Any) -> str:
    bridge = plugin.get("bridge") if isinstance(plugin, dict) else None
    return bridge if isinstance(bridge, str) else ""


def _ipam(plugin: dict[str, Any]) -> str:
    ipam = plugin.get("ipam")
    return str(ipam["type"]) if isinstance(ipam, dict) and isinstance(ipam.get("type"), str) else ""


def _subnets(ipam: Any) -> list[str]:
    """host-local's subnets, where they are written down rather than left to flannel."""
    if not isinstance(ipam, dict) or ipam.get("type") != "host-local":
        return []
    ranges = ipam.get("ranges")
    parts = [p for s in ranges if isinstance(s, list) for p in s] if isinstance(ranges, list) else []
    found = [p.get("subnet") for p in [ipam, *parts] if isinstance(p, dict)]
    return [s for s in found if isinstance(s, str) and "/" in s]


def _runs(root: str, path: str) -> bool:
    try:
        return os.access(inside(root, path), os.X_OK)
    except OSError:
        return False
