"""CNI DEL of a whole chain from libcni's cached configuration, as the specification says (CNI spec 1.0, section 4).

For an attachment whose container is dead but whose rules (hostPort, bandwidth) may still stand: plugins in reverse
order, an empty CNI_NETNS, `prevResult` from the cache. Standard library only.
"""

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from janitor.host.files import inside, read_bounded, said
from janitor.host.namespaces import in_network
from janitor.host.procfs import Proc, find_proc, node_root

PLUGIN_DIRS: Final = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/var/lib/rancher/k3s/data/current/bin",
                      "/var/lib/rancher/k3s/data/cni", "/var/snap/microk8s/current/opt/cni/bin")  # fmt: skip
_TIMEOUT_S = 30
_LIMIT = 1 << 20


class DelError(Exception):
    """A plugin failed or could not be run; the sentence says which and why."""


_DELEGATING: Final = frozenset({"flannel"})
"""Plugins that make up the configuration of their delegate: host-local would run there as it always does."""


@dataclass(frozen=True, slots=True)
class ChainDel:
    """What is to be run: each plugin with its configuration, in this order, and the environment of all of them."""

    plugins: tuple[tuple[str, dict[str, Any]], ...]
    environment: dict[str, str]


def find_chain(root: str, cache_entry: str, plugin_dirs: tuple[str, ...], scratch: str) -> ChainDel:
    """Everything that DEL for the attachment of one cache entry takes. DelError where something of it is not there.

    host-local's part of it gets `scratch`, an empty directory, for its data: it would walk the whole network and
    release whatever names the container. Which lease goes is janitor's to decide.
    """
    try:
        document = json.loads(read_bounded(inside(root, cache_entry), _LIMIT))
        config = json.loads(base64.b64decode(document["config"], validate=True))
        plugins = [dict(plugin) for plugin in config.get("plugins", [config])]
        runs = [
            (_find(root, str(plugin["type"]), plugin_dirs or PLUGIN_DIRS), _config(plugin, config, document, scratch))
            for plugin in reversed(plugins)
            if plugin["type"] not in _DELEGATING
        ]
        return ChainDel(tuple(runs), _environment(document, plugin_dirs or PLUGIN_DIRS))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DelError(f"reading {cache_entry}: {type(error).__name__}: {error}") from None


def chain_del(root: str, chain: ChainDel) -> None:
    """Run it, in the node's network namespace. DelError where any plugin does not succeed."""

    def run() -> None:
        for path, configuration in chain.plugins:
            _run(root, path, configuration, chain.environment)

    proc = find_proc(root)
    try:
        in_network(f"{proc.path}/1/ns/net", run) if isinstance(proc, Proc) else run()
    except OSError as error:
        raise DelError(f"entering the node's network namespace: {said(error)}") from None


def _environment(document: dict[str, Any], plugin_dirs: tuple[str, ...]) -> dict[str, str]:
    return {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": str(document["containerId"]),
        "CNI_NETNS": "",
        "CNI_IFNAME": str(document["ifName"]),
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in document.get("cniArgs") or ()),
        "CNI_PATH": ":".join(plugin_dirs),
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    }


def _config(plugin: dict[str, Any], config: dict[str, Any], document: dict[str, Any], scratch: str) -> dict[str, Any]:
    """What libcni would hand to this plugin: its own section, the list's name and version, and what ADD was told."""
    capabilities, arguments = plugin.get("capabilities") or {}, document.get("capabilityArgs") or {}
    runtime = {key: arguments[key] for key, wanted in capabilities.items() if wanted and key in arguments}
    made = plugin | {"name": config["name"], "cniVersion": config.get("cniVersion", "")}
    if isinstance(plugin.get("ipam"), dict):
        if plugin["ipam"].get("type") != "host-local":
            raise ValueError(f"its addresses are {plugin['ipam'].get('type')}'s")
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


def _find(root: str, name: str, plugin_dirs: tuple[str, ...]) -> str:
    if "/" in name:
        raise DelError(f"the plugin name '{name}' is not one")
    programs = node_root(root)
    path = next((f"{d}/{name}" for d in plugin_dirs if os.access(inside(programs, f"{d}/{name}"), os.X_OK)), None)
    if path is None:
        raise DelError(f"the plugin {name} is in none of {', '.join(plugin_dirs)}")
    return path


def _run(root: str, path: str, config: dict[str, Any], environment: dict[str, str]) -> None:
    name = path.rpartition("/")[2]
    argv = [path] if root == "/" else ["chroot", node_root(root), path]
    try:
        done = subprocess.run(
            argv,
            input=json.dumps(config).encode(),
            env=environment,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DelError(f"CNI DEL of {name} did not end within {_TIMEOUT_S} s") from None
    except OSError as error:
        raise DelError(f"starting the plugin {path}: {error.strerror}") from None
    if done.returncode != 0:
        raise DelError(f"CNI DEL of {name} failed: {_message(done.stdout) or _message(done.stderr) or done.returncode}")


def _message(output: bytes) -> str:
    try:
        document = json.loads(output)
        return f"{document['msg']} {document.get('details', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return output.decode("utf-8", "replace").strip()[:200]
