"""CNI DEL of a whole chain, from the configuration in libcni's cache (CNI spec 1.0, section 4).

For an attachment whose container is dead but whose rules (hostPort, bandwidth) may still exist: plugins in reverse
order, an empty CNI_NETNS, `prevResult` from the cache. Standard library only.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.host.cni.cache import LIMIT, cached_configuration, parse_entry
from janitor.host.cni.directories import PLUGINS, RUNTIME_DROP_INS, RUNTIME_FILES
from janitor.host.cni.reader import ipam_types, plugins_of, problem_of
from janitor.host.files import read_bounded
from janitor.host.kernel.programs import NotRun, Programs
from janitor.host.kernel.trusted import Untrusted
from janitor.host.node import Node

_DROP_IN_FILES: Final = 64
_TIMEOUT_S = 30
_TOML_LIMIT: Final = 1 << 20
_FILTERING: Final = frozenset({"portmap", "firewall"})
"""Plugins whose packet filter rules would send a dead pod's traffic to the next pod with its address.

`bridge` and `ptp` with ipMasq make rules, too, but those are the same for the next pod.
"""


class DelError(Exception):
    """A plugin failed or could not be run; the reason says which and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


_DELEGATING: Final = frozenset({"flannel"})
"""Plugins that generate the configuration of their delegate, in which host-local would use its normal directory."""


@dataclass(frozen=True, slots=True)
class ChainDel:
    """The plugins to run, each with its configuration, in this order, and their common environment.

    `filters`: the chain removes packet filter rules that name the attachment's addresses, and must leave none.
    """

    plugins: tuple[tuple[str, dict[str, Any]], ...]
    environment: dict[str, str]
    filters: bool


def find_chain(node: Node, cache_entry: str, programs: Programs, preferred: tuple[str, ...], scratch: str) -> ChainDel:
    """Everything needed for the DEL of one cache entry's attachment. DelError if anything is missing.

    Plugins are looked for in the directories of the node's configuration files, in well-known ones and in the
    operator's. Those of them that a runtime named (`preferred`) come first. host-local gets the empty directory
    `scratch` as its data directory: otherwise it would walk the whole network and release everything that names the
    container. Which lease to free is janitor's decision.
    """
    try:
        document = parse_entry(read_bounded(node.path(cache_entry), LIMIT))
        config = cached_configuration(document)
        if problem := problem_of(config):
            raise ValueError(f"of the configuration in it: {problem}")
        plugins = plugins_of(config)
        directories = plugin_directories(programs, preferred)
        runs = [
            (programs.locate(plugin["type"], directories, strict=True), _config(plugin, config, document, scratch))
            for plugin in reversed(plugins)
            if plugin["type"] not in _DELEGATING
        ]
        types = {plugin["type"] for plugin in plugins}
        path = programs.search_path()
        filters = bool(types & _FILTERING)
        if filters:
            _needs_a_tool(programs, path, document)
        # A plugin runs its IPAM plugin by name, from the first of these directories that has it.
        places = programs.trusted(directories, ipam_types(plugins))
        # With an empty CNI_NETNS, bridge and ptp leave their masquerading rules behind, which also name the address.
        masquerades = any(plugin.get("ipMasq") for plugin in plugins)
        return ChainDel(tuple(runs), _environment(document, places, path), filters and not masquerades)
    except (NotRun, Untrusted) as error:
        raise DelError(because(Code.DEL_NOT_RUN, error=str(error))) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DelError(
            because(Code.DEL_UNREADABLE, path=cache_entry, error=f"{type(error).__name__}: {error}")
        ) from None


def plugin_directories(programs: Programs, preferred: tuple[str, ...]) -> tuple[str, ...]:
    """Where this node's CNI plugins may be: only directories named by root's own files or by janitor."""
    named = (*programs.named, *_configured(programs), *PLUGINS)
    first = [directory for directory in preferred if directory.rstrip("/") in {one.rstrip("/") for one in named}]
    return tuple(dict.fromkeys(d.rstrip("/") for d in programs.expanded((*programs.named, *first, *named))))


def _configured(programs: Programs) -> Iterator[str]:
    """The plugin directories in the runtimes' configuration files that only root can have written."""
    files = list(RUNTIME_FILES)
    for directory in RUNTIME_DROP_INS:
        files += programs.expanded((f"{directory}/*",))[:_DROP_IN_FILES]
    for path in files:
        try:
            yield from _directories_in(tomllib.loads(programs.read(path, _TOML_LIMIT).decode("utf-8")))
        except (Untrusted, OSError, ValueError, RecursionError):
            continue  # an unreadable file names nothing; the well-known directories are used then


def _directories_in(table: Any, name: str = "") -> Iterator[str]:
    """`bin_dir` and `bin_dirs` in containerd's [….cni], `plugin_dirs` in CRI-O's [crio.network]."""
    for key, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, dict):
            yield from _directories_in(value, key)
        elif (name, key) in (("cni", "bin_dir"), ("cni", "bin_dirs"), ("network", "plugin_dirs")):
            found = value if isinstance(value, list) else [value]
            yield from (one for one in found if isinstance(one, str) and one.startswith("/") and "*" not in one)


def _needs_a_tool(programs: Programs, path: tuple[str, ...], document: dict[str, Any]) -> None:
    """NotRun if the plugins have no tool to remove their rules with: some of them would not report it."""
    result = document.get("result")
    ips = result.get("ips") if isinstance(result, dict) else None
    wanted = {"ip6tables" if ":" in str(ip["address"]) else "iptables" for ip in ips or ()} or {"iptables"}
    for tool in sorted(wanted):
        try:
            programs.locate(tool, path)
        except NotRun as missing:
            try:
                programs.locate("nft", path)
            except NotRun:
                raise NotRun(f"a plugin of the chain has added packet filter rules, but {missing}") from None


def chain_del(chain: ChainDel, programs: Programs) -> None:
    """Run it in the node's namespaces. DelError if a plugin fails."""
    for path, configuration in chain.plugins:
        name = path.rpartition("/")[2]
        try:
            done = programs.run(
                [path], stdin=json.dumps(configuration).encode(), environment=chain.environment, timeout_s=_TIMEOUT_S
            )
        except NotRun as error:
            raise DelError(because(Code.DEL_NOT_STARTED, error=str(error))) from None
        if done.returncode != 0:
            why = _message(done.stdout) or _message(done.stderr) or done.returncode
            raise DelError(because(Code.DEL_FAILED, plugin=name, error=str(why)))


def _environment(document: dict[str, Any], places: tuple[str, ...], path: tuple[str, ...]) -> dict[str, str]:
    return {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": str(document["containerId"]),
        "CNI_NETNS": "",
        "CNI_IFNAME": str(document["ifName"]),
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in document.get("cniArgs") or ()),
        "CNI_PATH": ":".join(places),
        "PATH": ":".join(path),
    }


def _config(plugin: dict[str, Any], config: dict[str, Any], document: dict[str, Any], scratch: str) -> dict[str, Any]:
    """What libcni would pass to this plugin: its section, the list's name and version, and the arguments of ADD."""
    capabilities, arguments = plugin.get("capabilities") or {}, document.get("capabilityArgs") or {}
    runtime = {key: arguments[key] for key, wanted in capabilities.items() if wanted and key in arguments}
    made = plugin | {"name": config["name"], "cniVersion": config.get("cniVersion", "")}
    if isinstance(plugin.get("ipam"), dict):
        if plugin["ipam"].get("type") != "host-local":
            raise ValueError(f"its addresses come from {plugin['ipam'].get('type')}")
        made["ipam"] = plugin["ipam"] | {"dataDir": scratch}
    if runtime:
        made["runtimeConfig"] = runtime
    if _version(made["cniVersion"]) >= (0, 4) and isinstance(document.get("result"), dict):
        made["prevResult"] = document["result"]
    return made


def _version(text: object) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in str(text).split(".")[:2])
    except ValueError:
        return (0, 0)


def _message(output: bytes) -> str:
    try:
        document = json.loads(output)
        return f"{document['msg']} {document.get('details', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return output.decode("utf-8", "replace").strip()[:200]
