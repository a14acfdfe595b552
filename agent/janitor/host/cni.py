"""CNI configuration: which networks use host-local, where their leases are, and which of them CRI loads.

A directory is read as libcni reads it: `.conf`, `.conflist` and `.json` together in lexical order, so `10-a.conf`
comes before `10-a.conflist`; the runtime uses the first one (`max_conf_num = 1`). Standard library only.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, Final

from janitor.core.addresses import make_range
from janitor.core.codes import Code
from janitor.core.evidence import AddressRange, Network, Unknown
from janitor.core.unknown import unseen
from janitor.host.files import inside, names, parse_json, printable, read_bounded, unknown
from janitor.host.leases import DEFAULT_DATA_DIR

SHARED: Final = "/etc/cni/net.d"  # kubeadm, RKE2, k0s, cri-o; podman and nerdctl as well
WELL_KNOWN: Final = (
    SHARED,
    "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    "/var/lib/rancher/rke2/agent/etc/cni/net.d",
    "/var/snap/microk8s/current/args/cni-network",
)

EXTENSIONS: Final = (".conf", ".conflist", ".json")
_FLANNEL_SUBNET_FILE: Final = "/run/flannel/subnet.env"
LIMIT: Final = 256 << 10  # bytes; a shell with awk reads this in a second
_DEEPEST = 100
# Keys on which it depends whose leases are where.
_KEYS = {
    k.lower(): k for k in ("name", "plugins", "type", "ipam", "dataDir", "disableGC", "delegates", "clusterNetwork")
}

Conf = dict[str, Any]
RangeSets = tuple[tuple[AddressRange, ...], ...]


@dataclass(frozen=True, slots=True)
class _List:
    """One configuration list; a single plugin's `.conf` is a list of one."""

    source: str
    name: str
    cni_version: str
    plugins: tuple[Conf, ...]
    disable_gc: bool
    around: tuple[str, ...] = ()  # the types of the chain that delegates to it


def read_networks(root: str, directories: tuple[str, ...]) -> tuple[Network, ...] | Unknown:
    """Every host-local network of the configuration, those that CRI uses first.

    `directories` are where the runtimes say they look; where none says so, the usual places are tried. Unknown
    where there is no configuration at all, or where the file the runtime would load cannot be read.
    """
    wanted = directories or WELL_KNOWN
    found: list[Network] = []
    anything = own = False
    for directory in dict.fromkeys(wanted):
        lists = _read_directory(root, directory)
        if isinstance(lists, Unknown):
            return lists
        anything = anything or bool(lists)
        own = own or (bool(lists) and directory != SHARED)
        by_name = {one.name: one for one in reversed(lists)}
        used = list(_used(lists[0], by_name)) if lists else []
        found += [network for one in used for network in _networks(root, one, True)]
        rest = [one for one in lists if one.source not in {other.source for other in used}]
        found += [network for one in rest for network in _networks(root, one, False)]
    if not anything:
        return unseen(Code.NO_CNI_CONFIGURATION, paths=tuple(wanted))
    if own and not directories:
        found = _without_guests(found)
    return tuple(sorted(dict.fromkeys(found), key=lambda n: not n.used_by_cri))


def _without_guests(found: list[Network]) -> list[Network]:
    """Where a distribution has a directory of its own, CRI uses the shared one only for networks that are in both."""
    shared = [posixpath.dirname(network.source) == SHARED for network in found]
    own = {network.name for network, guest in zip(found, shared, strict=True) if network.used_by_cri and not guest}
    return [
        replace(network, used_by_cri=network.used_by_cri and (not guest or network.name in own))
        for network, guest in zip(found, shared, strict=True)
    ]


def _read_directory(root: str, directory: str) -> list[_List] | Unknown:
    """The lists of one directory, in libcni's order. What comes after the first good one may be garbage."""
    lists: list[_List] = []
    try:
        files = [name for name in names(inside(root, directory)) if name.endswith(EXTENSIONS)]
    except OSError as error:
        return unknown(Code.CANNOT_LIST_CNI_CONFIGURATION, error, path=directory)
    for name in files:
        path = f"{directory}/{name}"
        try:
            if "\n" in name:  # a shell that reads names line by line cannot open it
                raise ValueError("its name has a line break")
            lists.append(understand(printable(path), read_bounded(inside(root, path), LIMIT + 1)))
        except OSError as error:
            problem = unknown(Code.CANNOT_READ_CNI_CONFIGURATION, error, path=path)
        except ValueError as error:
            problem = unseen(Code.BAD_CNI_CONFIGURATION, path=printable(path), error=str(error))
        else:
            continue
        if not lists:
            return problem
    return lists


def understand(path: str, content: bytes) -> _List:
    """One file; ValueError says what is wrong with it."""
    if not content.strip(b"\0 \t\r\n"):
        raise ValueError("it is empty")
    if len(content) > LIMIT:
        raise ValueError(f"it holds more than {LIMIT >> 10} KiB")
    try:
        document = _document(content)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return _list(path, document)


def _document(content: bytes) -> Any:
    """JSON of which everybody who reads it understands the same; ValueError says why it is none.

    Go's encoding/json, which libcni and the plugins use, takes keys in any case, merges what is there twice, mends what
    is not Unicode and goes deeper than we do.
    """
    document = parse_json(content.decode("utf-8"), object_pairs_hook=_unambiguous, parse_int=float)
    level = [document]
    for _ in range(_DEEPEST + 1):
        level = [part for value in level for part in _parts(value)]
    if level:
        raise ValueError("it is nested too deeply")
    return document


def _unambiguous(pairs: list[tuple[str, Any]]) -> Conf:
    keys = [re.sub(r"[^a-z0-9_.-]", "?", key, flags=re.ASCII | re.IGNORECASE).lower()[:64] for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError("it has a key twice")
    if wrong := [key for (key, _), folded in zip(pairs, keys, strict=True) if _KEYS.get(folded, key) != key]:
        raise ValueError(f"it says {wrong[0]} for {_KEYS[wrong[0].lower()]}")
    return dict(pairs)


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _list(path: str, document: Conf) -> _List:
    plugins = document.get("plugins", [document])
    if not isinstance(plugins, list) or not plugins or not all(isinstance(p, dict) and "type" in p for p in plugins):
        raise ValueError("it names no plugin")
    name = document.get("name")
    if not isinstance(name, str) or not name or "/" in name or name in (".", ".."):
        raise ValueError("it has no usable network name")
    disable = document.get("disableGC", False)
    return _List(path, name, str(document.get("cniVersion", "")), tuple(plugins), disable is True or disable == "true")


def _used(first: _List, by_name: dict[str, _List]) -> Iterator[_List]:
    """The list the runtime loads, and through multus the ones that one delegates to.

    What stands around a delegate holds for its leases as well: a firewall's DEL gets their addresses, and no GC comes.
    """
    around = tuple(str(plugin["type"]) for plugin in first.plugins)
    yield first
    for plugin in first.plugins:
        if plugin["type"] not in ("multus", "multus-shim"):
            continue
        cluster = plugin.get("clusterNetwork")
        if isinstance(cluster, str):  # a network's name, or a file as multus's own pod sees it
            file = posixpath.basename(cluster)
            for one in by_name.values():
                if one is not first and (one.name == cluster or posixpath.basename(one.source) == file):
                    yield replace(one, around=around, disable_gc=one.disable_gc or first.disable_gc)
        delegates = plugin.get("delegates")
        for delegate in delegates if isinstance(delegates, list) else ():
            try:
                inner = _list(first.source, {"name": first.name, "cniVersion": first.cni_version} | delegate)
            except (TypeError, ValueError):
                continue  # multus would refuse it too
            yield replace(inner, around=around, disable_gc=inner.disable_gc or first.disable_gc)


def _networks(root: str, one: _List, used: bool) -> Iterator[Network]:
    """The host-local networks of one list: at most one for each plugin with an IPAM section."""
    types = (*one.around, *(str(plugin["type"]) for plugin in one.plugins))
    for plugin in one.plugins:
        ipam = plugin.get("ipam")
        ipam = dict(ipam) if isinstance(ipam, dict) else {}
        sets: RangeSets | Unknown
        if plugin["type"] == "flannel":  # it makes up its delegate's IPAM section (flannel-io/cni-plugin)
            if ipam.setdefault("type", "host-local") != "host-local":
                continue
            sets = _flannel_ranges(root, str(plugin.get("subnetFile") or _FLANNEL_SUBNET_FILE))
        elif ipam.get("type") == "host-local":
            sets = _ranges(root, ipam)
        else:
            continue
        data_dir = ipam.get("dataDir") or DEFAULT_DATA_DIR
        if isinstance(data_dir, str) and data_dir.startswith("/"):
            yield Network(
                one.name,
                posixpath.normpath(data_dir),
                one.source,
                types,
                one.cni_version,
                sets,
                used,
                one.disable_gc,
            )


def _ranges(root: str, ipam: Conf) -> RangeSets | Unknown:
    """host-local's `ranges`, and before them the single range of the old form (allocator/config.go)."""
    try:
        sets = ipam.get("ranges") or []
        if ipam.get("subnet"):
            sets = [[ipam], *sets]
        if any(str(part["subnet"]).startswith("usePodCidr") for parts in sets for part in parts):
            return _flannel_ranges(root, _FLANNEL_SUBNET_FILE)
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


def _flannel_ranges(root: str, path: str) -> RangeSets | Unknown:
    """The node's pod range as flanneld writes it: FLANNEL_SUBNET and FLANNEL_IPV6_SUBNET, a gateway's address each."""
    try:
        text = read_bounded(inside(root, path), 1 << 16).decode("utf-8", "replace")
    except FileNotFoundError:
        return unseen(Code.FLANNEL_FILE_MISSING, path=path)
    except OSError as error:
        return unknown(Code.CANNOT_READ_FLANNEL_FILE, error, path=path)
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    found = [values[key].strip() for key in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET") if values.get(key, "").strip()]
    try:
        sets = tuple((make_range(str(ip_network(value, strict=False))),) for value in found)
    except ValueError as error:
        return unseen(Code.BAD_FLANNEL_FILE, path=path, error=str(error))
    return sets or unseen(Code.EMPTY_FLANNEL_FILE, path=path)
