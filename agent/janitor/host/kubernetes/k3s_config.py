"""config.yaml of k3s and RKE2: the file, its drop-ins in order, `key+`, and the environment of the service.

A later file replaces a key, and `key+` appends to it (k3s pkg/configfilearg). Values are options of the server or agent
itself. Options of components are in `kube-…-arg` and `kubelet-arg`, each as `name=value`.
"""

from typing import Any, Final

from janitor.core.model.evidence_node import Setting
from janitor.host.files import names
from janitor.host.kubernetes import yaml_files
from janitor.host.node import Node
from janitor.host.redaction import hidden, hidden_setting

DIRECTORIES: Final = {"k3s": "/etc/rancher/k3s", "rke2": "/etc/rancher/rke2"}
_ENVIRONMENT: Final = {"K3S_NODE_NAME": "node-name", "RKE2_NODE_NAME": "node-name", "K3S_URL": "server"}
_COMPONENTS: Final = {
    "kube-controller-manager-arg": "kube-controller-manager",
    "kube-apiserver-arg": "kube-apiserver",
    "kube-cloud-controller-manager-arg": "cloud-controller-manager",
    "kube-proxy-arg": "kube-proxy",
    "kubelet-arg": "kubelet",
}


def files(node: Node, distribution: str, chosen: str = "") -> list[str]:
    """The configuration files, in the order in which they are read. OSError if they cannot be listed."""
    base = chosen or f"{DIRECTORIES[distribution]}/config.yaml"
    folder = f"{base}.d"
    drop_ins = [f"{folder}/{name}" for name in names(node.path(folder)) if name.endswith((".yaml", ".yml"))]
    return [base, *drop_ins]


def settings(node: Node, distribution: str, chosen: str = "") -> tuple[Setting, ...]:
    """The settings in the files; empty without files. OSError, or ValueError that names the file."""
    merged: dict[str, tuple[Any, str]] = {}
    for path in files(node, distribution, chosen):
        try:
            loaded = yaml_files.read(node.root, path)
        except FileNotFoundError:
            continue
        for document in loaded[:1]:
            merge(merged, document, path)
    return flat(merged, distribution)


def merge(merged: dict[str, tuple[Any, str]], document: dict[str, Any], path: str) -> None:
    """Merge one file over the ones before it."""
    for name, value in document.items():
        key = str(name)
        if key.endswith("+") and key[:-1] in merged:
            before, source = merged[key[:-1]]
            merged[key[:-1]] = (_as_list(before) + _as_list(value), f"{source}, {path}")
        else:
            merged[key.removesuffix("+")] = (value, path)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def flat(merged: dict[str, tuple[Any, str]], distribution: str) -> tuple[Setting, ...]:
    """The distribution's own options, and those that it passes to components, as settings."""
    found = []
    for key, (value, source) in merged.items():
        component = _COMPONENTS.get(key)
        if component is None:
            found.append(Setting(distribution, key, hidden_setting(key, value, yaml_files.scalar(value)), source))
            continue
        for part in _as_list(value):
            name, _, text = yaml_files.scalar(part).lstrip("-").partition("=")
            found.append(Setting(component, name, hidden(name, text), source))
    return tuple(found)


def from_words(words: list[str], distribution: str, source: str) -> tuple[Setting, ...]:
    """The options in a command line of k3s or RKE2 (`k3s server --cluster-cidr=…`)."""
    merged: dict[str, tuple[Any, str]] = {}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("--"):
            continue
        name, sign, value = word[2:].partition("=")
        if not sign and at < len(words) and not words[at].startswith("-"):
            value = words[at]
            at += 1
        elif not sign:
            value = "true"
        before = merged.get(name)
        merged[name] = ([*_as_list(before[0]), value] if before and name in _COMPONENTS else value, source)
    return flat(merged, distribution)


def from_environment(variables: dict[str, str], distribution: str, source: str) -> tuple[Setting, ...]:
    """The relevant options that k3s takes from its environment."""
    return tuple(
        Setting(distribution, _ENVIRONMENT[name], hidden(name, value), source)
        for name, value in variables.items()
        if name in _ENVIRONMENT
    )
