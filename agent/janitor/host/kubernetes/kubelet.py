"""Which container runtime the kubelet uses: its own flags and configuration first, then the well-known sockets.

The kubelet's flags and configuration files are authoritative: a node may have several runtimes, and an unused one
answers with an empty list. The endpoints of all kubelets and files are combined; none replaces another.
"""

import os
from typing import Final

from janitor.core.model.evidence import EndpointOrigin, Unknown
from janitor.host.files import read_bounded
from janitor.host.kernel.processes import command_line
from janitor.host.kernel.whose import Whose
from janitor.host.kubernetes import yaml_files
from janitor.host.node import Node
from janitor.host.runtime import sockets

WELL_KNOWN: Final = tuple(f"unix://{path}" for path in sockets.CRI)

_CONFIG = "/var/lib/kubelet/config.yaml"
_FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
_FLAG = "--container-runtime-endpoint"


def endpoints(
    node: Node,
    flags: tuple[str, ...],
    configured: tuple[str, ...],
    whose: Whose | None = None,
) -> tuple[tuple[str, EndpointOrigin], ...]:
    """Every endpoint to ask, each once, with the strongest origin."""
    if whose is None and not isinstance(node.proc, Unknown):
        whose = Whose(node.proc, node.complete().root)
    found: list[tuple[str, EndpointOrigin]] = []
    found += [(_normal(address), "flag") for address in flags]
    found += [(_normal(address), "configuration") for address in configured]
    found += [(_normal(address), "kubelet") for address in _kubelets(node, whose)]
    found += [(address, "well-known") for address in WELL_KNOWN if _exists(node, address)]
    unique: dict[str, tuple[str, EndpointOrigin]] = {}
    for address, origin in found:
        unique.setdefault(_place(node, address), (address, origin))
    return tuple(unique.values())


def _kubelets(node: Node, whose: Whose | None) -> list[str]:
    """The endpoints in flags and configuration files of running kubelets, and in the files for the next start."""
    found: list[str] = []
    files = [_CONFIG]
    if whose is not None:
        for words in _command_lines(whose):
            found += _option(words, _FLAG)
            files += _option(words, "--config")
    try:
        text = read_bounded(node.path(_FLAGS), 1 << 16).decode("utf-8", "replace")
        found += _option(text.partition("=")[2].strip().strip("\"'").split(), _FLAG)
    except OSError:
        pass  # not a kubeadm node
    return found + [address for file in dict.fromkeys(files) for address in _from_file(node, file)]


def _command_lines(whose: Whose) -> list[list[str]]:
    found = []
    try:
        kubelets = whose.kubelets()
    except OSError:
        return []  # whatever needs /proc reports that it cannot be listed
    for pid, started in kubelets.items():
        try:
            words = command_line(whose.proc, pid)
            found += [words] if whose.proc.started_ns(pid) == started else []
        except OSError:
            continue  # it has ended
    return found


def _option(words: list[str], name: str) -> list[str]:
    """The values of `--name=value` and `--name value`."""
    values = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    values += [words[i + 1] for i, word in enumerate(words[:-1]) if word == name]
    return [value for value in values if value]


def _from_file(node: Node, path: str) -> list[str]:
    try:
        document = yaml_files.value(read_bounded(node.path(path), 1 << 20))
    except (OSError, ValueError):
        return []  # no file, or not a kubelet's: the well-known sockets are next
    value = document.get("containerRuntimeEndpoint") if isinstance(document, dict) else None
    return [value] if isinstance(value, str) and value else []


def _normal(address: str) -> str:
    """`/run/x.sock` and `unix:/run/x.sock` become `unix:///run/x.sock`."""
    path = address.removeprefix("unix://").removeprefix("unix:")
    return f"unix://{path}" if path.startswith("/") else address


def _place(node: Node, address: str) -> str:
    """The same for all spellings of a socket's path: /var/run is /run."""
    try:
        return node.path(address.removeprefix("unix://")).replace("/var/run/", "/run/")
    except OSError:
        return address


def _exists(node: Node, address: str) -> bool:
    try:
        return os.path.lexists(node.path(address.removeprefix("unix://")))
    except OSError:
        return False
