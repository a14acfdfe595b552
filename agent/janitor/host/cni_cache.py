"""libcni's result cache: what a runtime remembers of each CNI ADD, so that it can undo it.

One file an attachment, `<cache>/results/<network>-<container ID>-<interface>`, written with no fsync after the
whole chain has succeeded (containernetworking/cni, libcni/api.go). Since v0.8.0 it is a JSON object with
`kind: cniCacheV1`; before that the bare result. Standard library only.
"""

import base64
import os
import re
import stat
from typing import Any, Final

from janitor.core.codes import Code
from janitor.core.evidence import CacheEntry, Pod, Unknown
from janitor.core.reason import Reason, because
from janitor.host.files import inside, names, parse_json, printable, read_bounded, unknown
from janitor.host.leases import DEFAULT_DATA_DIR

CACHES: Final = (
    "/var/lib/cni/results",
    "/var/lib/cni/cache/results",  # dockershim, cri-dockerd
    "/var/lib/cni/multus/results",
)
_LIMIT = 1 << 20
_NAME = re.compile(r"(?P<network>.+?)-(?P<id>[0-9a-f]{64})-(?P<interface>[^-]+)", re.DOTALL)


def read_cache(root: str) -> tuple[CacheEntry, ...] | Unknown:
    """Every entry of every cache. A damaged one is an entry with its damage said, not an error."""
    found: list[CacheEntry] = []
    for cache in CACHES:
        try:
            here = inside(root, cache)
            for name in names(here):
                try:
                    found.append(_read(here, cache, name))
                except FileNotFoundError:
                    continue  # removed by a DEL meanwhile
        except OSError as error:
            return unknown(Code.CANNOT_READ_CACHE, error, path=cache)
    return tuple(found)


def _read(here: str, cache: str, name: str) -> CacheEntry:
    info = os.stat(f"{here}/{name}", follow_symlinks=False)
    content: bytes = b""
    damage: Reason | None = None
    if not stat.S_ISREG(info.st_mode):
        damage = because(Code.CACHE_NOT_REGULAR)
    elif info.st_size > _LIMIT:
        damage = because(Code.CACHE_TOO_LARGE, bytes=info.st_size)
    else:
        content = read_bounded(f"{here}/{name}", _LIMIT, follow=False)
    document: dict[str, Any] = {}
    if not damage:
        document, damage = _parse(content)
    match = _NAME.fullmatch(name)
    config, trouble = _config(document)
    ipams = _ipams(config)
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
        damage=damage or trouble,
        regular=stat.S_ISREG(info.st_mode),
        cni_version=_text(config, "cniVersion") or _text(_result(document), "cniVersion"),
        ipam=tuple(dict.fromkeys(str(ipam.get("type", "")) for ipam in ipams)),
        plugins=tuple(str(plugin.get("type", "")) for plugin in _plugins(config)),
        data_dir=next((str(i["dataDir"]).rstrip("/") for i in ipams if i.get("dataDir")), DEFAULT_DATA_DIR),
        addresses=_addresses(_result(document)),
        pod=_pod(document),
    )


def _parse(content: bytes) -> tuple[dict[str, Any], Reason | None]:
    if not content:
        return {}, because(Code.EMPTY)
    if not content.strip(b"\0"):
        return {}, because(Code.CACHE_NULS, bytes=len(content))
    try:
        document = parse_json(content)
    except ValueError:
        return {}, because(Code.CACHE_NOT_JSON)
    if not isinstance(document, dict):
        return {}, because(Code.CACHE_NOT_AN_OBJECT)
    return document, None


def _config(document: dict[str, Any]) -> tuple[dict[str, Any], Reason | None]:
    """The configuration that was in force at ADD; base64 of its JSON. The legacy format has none."""
    if document.get("kind") != "cniCacheV1":
        return {}, None
    try:
        config = parse_json(base64.b64decode(document["config"], validate=True))
    except (KeyError, TypeError, ValueError):
        return {}, because(Code.CACHE_CONFIG_UNDECODABLE)
    return (config, None) if isinstance(config, dict) else ({}, because(Code.CACHE_CONFIG_NOT_AN_OBJECT))


def _plugins(config: dict[str, Any]) -> list[dict[str, Any]]:
    plugins = config.get("plugins", [config] if "type" in config else [])
    return [p for p in plugins if isinstance(p, dict)] if isinstance(plugins, list) else []


def _ipams(config: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for plugin in _plugins(config):
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type"):
            found.append(ipam)
        elif plugin.get("type") == "flannel":  # its delegate allocates from host-local
            found.append({"type": "host-local"} | (ipam if isinstance(ipam, dict) else {}))
    return found


def _result(document: dict[str, Any]) -> dict[str, Any]:
    result = document.get("result") if "kind" in document else document
    return result if isinstance(result, dict) else {}


def _addresses(result: dict[str, Any]) -> tuple[str, ...]:
    """`ips[].address` since 0.3.0; `ip4.ip` and `ip6.ip` before."""
    ips = result.get("ips")
    found = [ip.get("address") for ip in ips if isinstance(ip, dict)] if isinstance(ips, list) else []
    for key in ("ip4", "ip6"):
        old = result.get(key)
        if isinstance(old, dict):
            found.append(old.get("ip"))
    return tuple(address for address in found if isinstance(address, str))


def _pod(document: dict[str, Any]) -> Pod | None:
    """From CNI_ARGS, as every CRI runtime sets them."""
    pairs = document.get("cniArgs")
    if not isinstance(pairs, list):
        return None
    args = {str(p[0]): str(p[1]) for p in pairs if isinstance(p, list) and len(p) == 2}
    name = args.get("K8S_POD_NAME", "")
    return Pod(args.get("K8S_POD_NAMESPACE", ""), name, args.get("K8S_POD_UID", "")) if name else None


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
