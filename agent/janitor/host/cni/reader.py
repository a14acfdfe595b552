"""Reads CNI configuration: each directory once, each file up to a limit, into values. Standard library only.

A directory is read as libcni does it (libcni/conf.go, ConfFiles): names ending in .conf, .conflist or .json, in one
lexical order, so `10-a.conf` comes before `10-a.conflist`. Subdirectories are skipped. Other modules interpret the
values: host/cni/config.py has the networks, host/cni/plugins.py what a kubelet needs, and host/cni/unparsed.py what the
boot stage cannot rule out.
"""

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.reason import Reason, because
from janitor.host.cni.directories import CONFIGURATION, DATA_DIR
from janitor.host.files import entries, parse_json, printable, read_bounded, unknown
from janitor.host.node import Node

EXTENSIONS: Final = (".conf", ".conflist", ".json")
LIMIT: Final = 1 << 20
"""The maximum number of bytes read from one file."""
PLAIN_LIMIT: Final = 256 << 10
"""The number of bytes that the boot stage's shell script, which uses awk, can parse in a second."""

_DEEPEST: Final = 100
_BLANK: Final = b"\0 \t\r\n"
# The keys that decide whose leases are where.
_KEYS: Final = {
    k.lower(): k for k in ("name", "plugins", "type", "ipam", "dataDir", "disableGC", "delegates", "clusterNetwork")
}

Conf = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file with a configuration's name.

    `damage`: why no runtime can load it. `ambiguity`: why Go's more lenient JSON parser, which libcni and the plugins
    use, may read something other than `document` from it. None if there is no such reason.
    """

    path: str  # as the node names it; may be unprintable
    content: bytes | Unknown
    document: Conf
    damage: Reason | None = None
    ambiguity: Reason | None = None


@dataclass(frozen=True, slots=True)
class ConfigDirectory:
    """`files` are in libcni's order. `others` are the paths of other files, which libcni ignores."""

    path: str
    exists: bool
    files: tuple[ConfigFile, ...] | Unknown = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Configuration:
    """The CNI configuration of a node. `named`: a runtime has named these directories."""

    directories: tuple[ConfigDirectory, ...]
    named: bool


def read_configuration(node: Node, named: tuple[str, ...]) -> Configuration:
    """The contents of the directories that the runtimes name; of the usual ones if no runtime names any."""
    return Configuration(tuple(_directory(node, path) for path in dict.fromkeys(named or CONFIGURATION)), bool(named))


def _directory(node: Node, path: str) -> ConfigDirectory:
    try:
        here = node.path(path)
        there = sorted((e.name for e in entries(here) if not e.is_dir(follow_symlinks=False)), key=os.fsencode)
    except (FileNotFoundError, NotADirectoryError):
        return ConfigDirectory(path, exists=False)
    except OSError as error:
        return ConfigDirectory(path, exists=True, files=unknown(Code.CANNOT_LIST_CNI_CONFIGURATION, error, path=path))
    files = tuple(_file(node, f"{path}/{name}") for name in there if name.endswith(EXTENSIONS))
    others = (f"{path}/{name}" for name in there if not name.endswith(EXTENSIONS))
    return ConfigDirectory(path, True, files, tuple(other for other in others if _is_file(node, other)))


def _is_file(node: Node, path: str) -> bool:
    try:
        return os.path.isfile(node.path(path))
    except OSError:
        return False  # a symbolic link to itself


def _file(node: Node, path: str) -> ConfigFile:
    try:
        content = read_bounded(node.path(path), LIMIT + 1)
    except OSError as error:
        unread = unknown(Code.CANNOT_READ_CNI_CONFIGURATION, error, path=printable(path))
        return ConfigFile(path, unread, {}, because(Code.UNREADABLE, error=error.strerror or str(error)))
    return understand(path, content)


def understand(path: str, content: bytes) -> ConfigFile:
    """Parse one file."""
    if not content.strip(_BLANK):
        return ConfigFile(path, content, {}, because(Code.EMPTY))
    if len(content) > LIMIT:
        return ConfigFile(path, content, {}, because(Code.CNI_TOO_LARGE, kib=LIMIT >> 10))
    ambiguities: list[Reason] = []
    if len(content) > PLAIN_LIMIT:
        ambiguities.append(because(Code.CNI_TOO_LARGE, kib=PLAIN_LIMIT >> 10))

    def one_meaning(pairs: list[tuple[str, Any]]) -> Conf:
        ambiguities.extend(_ambiguities([key for key, _ in pairs]))
        return dict(pairs)

    try:
        document = parse_json(content.decode("utf-8"), object_pairs_hook=one_meaning, parse_int=float)
    except ValueError as error:
        return ConfigFile(path, content, {}, because(Code.NOT_JSON, error=str(error)))
    if not isinstance(document, dict):
        return ConfigFile(path, content, {}, because(Code.NOT_AN_OBJECT))
    if _deeper(document):
        ambiguities.append(because(Code.CNI_TOO_DEEP))
    return ConfigFile(path, content, document, problem_of(document), next(iter(ambiguities), None))


def _ambiguities(keys: list[str]) -> Iterable[Reason]:
    """Go's encoding/json accepts keys in any case, and merges duplicate ones."""
    folded = [re.sub(r"[^a-z0-9_.-]", "?", key, flags=re.ASCII | re.IGNORECASE).lower()[:64] for key in keys]
    if len(set(folded)) < len(folded):
        yield because(Code.CNI_KEY_TWICE)
    for key, one in zip(keys, folded, strict=True):
        if _KEYS.get(one, key) != key:
            yield because(Code.CNI_KEY_CASE, key=key, meant=_KEYS[one])


def _deeper(document: Conf) -> bool:
    """Whether it is nested too deeply for the shell script."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST + 1):
        level = [part for value in level for part in _parts(value)]
    return bool(level)


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def problem_of(config: Conf) -> Reason | None:
    """Why libcni rejects a configuration list, or a single plugin's configuration; None if it does not."""
    plugins = config.get("plugins", [config])
    if not isinstance(plugins, list) or not plugins or not all(isinstance(plugin, dict) for plugin in plugins):
        return because(Code.CNI_NO_PLUGIN)
    if not all(isinstance(plugin.get("type"), str) for plugin in plugins):
        return because(Code.CNI_NO_PLUGIN)
    name = config.get("name")
    usable = isinstance(name, str) and name and "/" not in name and name not in (".", "..")
    return None if usable else because(Code.CNI_NO_NAME)


def plugins_of(config: Conf) -> tuple[Conf, ...]:
    """The chain of a configuration list. A single plugin's `.conf` is a chain of one. Skips what is no plugin."""
    plugins = config.get("plugins", [config] if "type" in config else [])
    return tuple(plugin for plugin in plugins if isinstance(plugin, dict)) if isinstance(plugins, list) else ()


def delegates_of(plugin: Conf) -> tuple[Conf, ...]:
    """The configurations inside that of multus, thin or thick."""
    delegates = plugin.get("delegates") if plugin.get("type") in ("multus", "multus-shim") else None
    return tuple(one for one in delegates if isinstance(one, dict)) if isinstance(delegates, list) else ()


def ipam_of(plugin: Conf) -> Conf:
    """A plugin's IPAM section; flannel generates one for its delegate (flannel-io/cni-plugin)."""
    ipam = plugin.get("ipam")
    ipam = ipam if isinstance(ipam, dict) else {}
    return {"type": "host-local"} | ipam if plugin.get("type") == "flannel" else ipam


def ipam_types(plugins: Iterable[Conf]) -> tuple[str, ...]:
    """The IPAM plugins of a chain."""
    return tuple(dict.fromkeys(str(kind) for plugin in plugins if (kind := ipam_of(plugin).get("type"))))


def data_dir_of(ipam: Conf) -> str:
    """Where host-local keeps its leases; "" for a relative path, which cannot be resolved."""
    data_dir = ipam.get("dataDir") or DATA_DIR
    return posixpath.normpath(data_dir) if isinstance(data_dir, str) and data_dir.startswith("/") else ""
