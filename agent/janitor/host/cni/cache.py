"""libcni's result cache: what a runtime records about each CNI ADD, so that it can undo it.

One file per attachment, `<cache>/results/<network>-<container ID>-<interface>`, written without fsync after the whole
chain has succeeded (containernetworking/cni, libcni/api.go). Since v0.8.0 it is a JSON object with `kind: cniCacheV1`;
before, it was the bare result. Standard library only.
"""

import base64
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import CacheEntry, Pod, Unknown
from janitor.core.model.reason import Reason, because
from janitor.host.cni.directories import CACHES
from janitor.host.cni.reader import Conf, data_dir_of, ipam_of, ipam_types, plugins_of
from janitor.host.files import names, parse_json, printable, read_bounded, unknown
from janitor.host.node import Node

LIMIT: Final = 1 << 20
"""The maximum number of bytes read from one entry."""
_NAME = re.compile(r"(?P<network>.+?)-(?P<id>[0-9a-f]{64})-(?P<interface>[^-]+)", re.DOTALL)


class DamagedEntryError(ValueError):
    """The entry is not what libcni writes; the reason says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RawEntry:
    """A file in a cache. `content` is its first bytes; empty if it is no regular file."""

    name: str
    info: os.stat_result
    content: bytes

    @property
    def regular(self) -> bool:
        """Whether it is a regular file; libcni writes nothing else."""
        return stat.S_ISREG(self.info.st_mode)


def raw_entries(node: Node, cache: str) -> Iterator[RawEntry]:
    """The files of one cache. OSError if one cannot be read."""
    here = node.path(cache)
    for name in names(here):
        try:
            info = os.stat(f"{here}/{name}", follow_symlinks=False)
            regular = stat.S_ISREG(info.st_mode)
            yield RawEntry(name, info, read_bounded(f"{here}/{name}", LIMIT, follow=False) if regular else b"")
        except FileNotFoundError:
            continue  # removed by a DEL meanwhile


def read_cache(node: Node) -> tuple[CacheEntry, ...] | Unknown:
    """Every entry of every cache. A damaged entry has its `damage` set; it is no error."""
    found: list[CacheEntry] = []
    for cache in CACHES:
        try:
            found += (_understood(raw, cache) for raw in raw_entries(node, cache))
        except OSError as error:
            return unknown(Code.CANNOT_READ_CACHE, error, path=cache)
    return tuple(found)


def _understood(raw: RawEntry, cache: str) -> CacheEntry:
    name, info = raw.name, raw.info
    document: Conf = {}
    config: Conf = {}
    damage: Reason | None = None
    try:
        if not raw.regular:
            raise DamagedEntryError(because(Code.CACHE_NOT_REGULAR))
        if info.st_size > LIMIT:
            raise DamagedEntryError(because(Code.CACHE_TOO_LARGE, bytes=info.st_size))
        document = parse_entry(raw.content)
        config = cached_configuration(document)
    except DamagedEntryError as damaged:
        damage = damaged.reason
    match = _NAME.fullmatch(name)
    plugins = plugins_of(config)
    return CacheEntry(
        path=f"{cache}/{printable(name)}",
        network=_text(document, "networkName") or (printable(match["network"]) if match else ""),
        container_id=_text(document, "containerId") or (match["id"] if match else ""),
        interface=_text(document, "ifName") or (printable(match["interface"]) if match else ""),
        device=info.st_dev,
        inode=info.st_ino,
        size=info.st_size,
        mtime_ns=info.st_mtime_ns,
        ctime_ns=info.st_ctime_ns,
        damage=damage,
        regular=raw.regular,
        cni_version=_text(config, "cniVersion") or _text(_result(document), "cniVersion"),
        ipam=ipam_types(plugins),
        plugins=tuple(str(plugin.get("type", "")) for plugin in plugins),
        data_dir=_data_dir(plugins),
        addresses=_addresses(_result(document)),
        pod=_pod(document),
    )


def parse_entry(content: bytes) -> Conf:
    """The JSON object of one entry. DamagedEntryError if there is none."""
    if not content:
        raise DamagedEntryError(because(Code.EMPTY))
    if not content.strip(b"\0"):
        raise DamagedEntryError(because(Code.CACHE_NULS, bytes=len(content)))
    try:
        document = parse_json(content)
    except ValueError:
        raise DamagedEntryError(because(Code.CACHE_NOT_JSON)) from None
    if not isinstance(document, dict):
        raise DamagedEntryError(because(Code.NOT_AN_OBJECT))
    return document


def cached_configuration(document: Conf) -> Conf:
    """The configuration at the time of ADD (base64 of JSON); empty in the legacy format. DamagedEntryError."""
    if document.get("kind") != "cniCacheV1":
        return {}
    try:
        config = parse_json(base64.b64decode(document["config"], validate=True))
    except (KeyError, TypeError, ValueError):
        raise DamagedEntryError(because(Code.CACHE_CONFIG_UNDECODABLE)) from None
    if not isinstance(config, dict):
        raise DamagedEntryError(because(Code.CACHE_CONFIG_NOT_AN_OBJECT))
    return config


def _data_dir(plugins: tuple[Conf, ...]) -> str:
    """The data directory of the first IPAM section that names one. A relative path is returned as it is."""
    named = next((ipam for plugin in plugins if (ipam := ipam_of(plugin)).get("type") and ipam.get("dataDir")), {})
    return data_dir_of(named) or str(named["dataDir"])


def _result(document: Conf) -> Conf:
    result = document.get("result") if "kind" in document else document
    return result if isinstance(result, dict) else {}


def _addresses(result: Conf) -> tuple[str, ...]:
    """`ips[].address` since 0.3.0; `ip4.ip` and `ip6.ip` before."""
    ips = result.get("ips")
    found = [ip.get("address") for ip in ips if isinstance(ip, dict)] if isinstance(ips, list) else []
    for key in ("ip4", "ip6"):
        old = result.get(key)
        if isinstance(old, dict):
            found.append(old.get("ip"))
    return tuple(address for address in found if isinstance(address, str))


def _pod(document: Conf) -> Pod | None:
    """The pod in CNI_ARGS, which every CRI runtime sets."""
    pairs = document.get("cniArgs")
    if not isinstance(pairs, list):
        return None
    args = {str(p[0]): str(p[1]) for p in pairs if isinstance(p, list) and len(p) == 2}
    name = args.get("K8S_POD_NAME", "")
    return Pod(args.get("K8S_POD_NAMESPACE", ""), name, args.get("K8S_POD_UID", "")) if name else None


def _text(document: Conf, key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
