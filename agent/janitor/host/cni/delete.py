"""CNI DEL of a whole chain from libcni's cached configuration, as the specification says (CNI spec 1.0, section 4).

For an attachment whose container is dead but whose rules (hostPort, bandwidth) may still stand: plugins in reverse
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
"""Plugins that make packet filter rules by which a dead pod's address leads to the next one that gets it.

`bridge` and `ptp` with ipMasq make some too, but those say of an address what the next pod is given as well.
"""


class DelError(Exception):
    """A plugin failed or could not be run; the reason says which and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


_DELEGATING: Final = frozenset({"flannel"})
"""Plugins that make up the configuration of their delegate: host-local would run there as it always does."""


@dataclass(frozen=True, slots=True)
class ChainDel:
    """What is to be run: each plugin with its configuration, in this order, and the environment of all of them.

    `filters`: it is to remove packet filter rules that name the attachment's addresses, and leaves none that do.
    """

    plugins: tuple[tuple[str, dict[str, Any]], ...]
    environment: dict[str, str]
    filters: bool


def find_chain(node: Node, cache_entry: str, programs: Programs, preferred: tuple[str, ...], scratch: str) -> ChainDel:
    """Everything that DEL for the attachment of one cache entry takes. DelError where something of it is not there.

    Plugins are looked for in directories of the node's configuration files, well-known ones and the operator's; of
    these the `preferred`, which a runtime's answer named, come first. host-local's part gets `scratch`, an empty
    directory, for its data: it would walk the whole network and release whatever names the container. Which lease goes
    is janitor's to decide.
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
        # A plugin runs its IPAM plugin by name, in the first of these directories that has it.
        places = programs.trusted(directories, ipam_types(plugins))
        # With an empty CNI_NETNS, bridge and ptp leave their masquerading behind, which names the address as well.
        masquerades = any(plugin.get("ipMasq") for plugin in plugins)
        return ChainDel(tuple(runs), _environment(document, places, path), filters and not masquerades)
    except (NotRun, Untrusted) as error:
        raise DelError(because(Code.DEL_NOT_RUN, error=str(error))) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DelError(
            because(Code.DEL_UNREADABLE, path=cache_entry, error=f"{type(error).__name__}: {error}")
        ) from None


def plugin_directories(programs: Programs, preferred: tuple[str, ...]) -> tuple[str, ...]:
    """Where CNI plugins of this node may be: only directories that root's own files, or janitor itself, name."""
    named = (*programs.named, *_configured(programs), *PLUGINS)
    first = [directory for directory in preferred if directory.rstrip("/") in {one.rstrip("/") for one in named}]
    return tuple(dict.fromkeys(d.rstrip("/") for d in programs.expanded((*programs.named, *first, *named))))


def _configured(programs: Programs) -> Iterator[str]:
    """The plugin directories in the runtimes' configuration files, as far as only root can have written those."""
    files = list(RUNTIME_FILES)
    for directory in RUNTIME_DROP_INS:
        files += programs.expanded((f"{directory}/*",))[:_DROP_IN_FILES]
    for path in files:
        try:
            yield from _directories_in(tomllib.loads(programs.read(path, _TOML_LIMIT).decode("utf-8")))
        except (Untrusted, OSError, ValueError, RecursionError):
            continue  # what cannot be read names nothing; then the well-known directories have to do


def _directories_in(table: Any, name: str = "") -> Iterator[str]:
    """`bin_dir` and `bin_dirs` of containerd's [….cni], `plugin_dirs` of CRI-O's [crio.network]."""
    for key, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, dict):
            yield from _directories_in(value, key)
        elif (name, key) in (("cni", "bin_dir"), ("cni", "bin_dirs"), ("network", "plugin_dirs")):
            found = value if isinstance(value, list) else [value]
            yield from (one for one in found if isinstance(one, str) and one.startswith("/") and "*" not in one)


def _needs_a_tool(programs: Programs, path: tuple[str, ...], document: dict[str, Any]) -> None:
    """NotRun where the plugins would find nothing to remove their rules with; some of them would not say so."""
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
    """Run it, in the node's namespaces. DelError where any plugin does not succeed."""
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
    """What libcni would hand to this plugin: its own section, the list's name and version, and what ADD was told."""
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
