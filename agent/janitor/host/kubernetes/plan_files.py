"""A file with an address plan, of any supported kind: kube.tf, or configuration of k3s, RKE2, kubeadm or k0s."""

import difflib
import os
from typing import Any

from janitor.core.model.evidence_node import Setting
from janitor.host.files import read_bounded
from janitor.host.kubernetes import k3s_config, kubeadm, terraform, yaml_files
from janitor.host.node import files_only

_LIMIT = 1 << 20
_DEFAULTS = {
    "k0s": {"cluster-cidr": "10.244.0.0/16", "service-cidr": "10.96.0.0/12"},
    "k3s": {"cluster-cidr": "10.42.0.0/16", "service-cidr": "10.43.0.0/16"},
    "kubeadm": {"service-cidr": "10.96.0.0/12"},
}


_K3S_KEYS = ("cluster-cidr", "service-cidr", "cluster-dns", "node-ip", "kube-controller-manager-arg", "kubelet-arg")
_KUBEADM_KEYS = ("podSubnet", "serviceSubnet", "dnsDomain")
_K0S_KEYS = ("podCIDR", "serviceCIDR", "dualStack")


def settings(path: str, given: frozenset[str] = frozenset()) -> tuple[Setting, ...]:
    """The plan's options in the file at `path`, with the distribution's defaults for what it leaves out.

    Options in `given` were specified elsewhere and may be unreadable in the file. OSError if it cannot be read;
    ValueError with what is wrong with it.
    """
    data = read_bounded(path, _LIMIT + 1)
    if len(data) > _LIMIT:
        raise ValueError(f"it is larger than {_LIMIT >> 10} KiB")
    if path.endswith(".tf"):
        return terraform.settings(data.decode("utf-8", "replace"), path, given)
    documents = yaml_files.documents(data)
    if any(document.get("kind") == "ClusterConfiguration" for document in documents):
        for document in documents:
            _spelled(document.get("networking"), _KUBEADM_KEYS, "kubeadm does")
        found = tuple(setting for document in documents for setting in kubeadm.settings(document, path))
        return (*_defaults(found, "kubeadm"), *found)
    configs = [config for document in documents if (config := _k0s(document))]
    if configs:
        spec = configs[0].get("spec")
        _spelled(spec.get("network") if isinstance(spec, dict) else None, _K0S_KEYS, "k0s does")
        found = kubeadm.k0s_settings(configs[0], path)
        return (*_defaults(found, "k0s"), *found)
    if any("kind" in document for document in documents):
        kinds = ", ".join(sorted({str(d.get("kind")) for d in documents}))
        raise ValueError(f"it contains {kinds}, but no ClusterConfiguration")
    if not documents:
        raise ValueError("it is not a kube.tf and not a configuration of k3s, RKE2, k0s or kubeadm")
    if documents[0].get("server") and not any(k in documents[0] for k in ("cluster-cidr", "service-cidr")):
        raise ValueError("it is an agent's configuration: use the server's, which has the address plan")
    for document in documents:
        _spelled(document, _K3S_KEYS, "k3s and RKE2 do")
    found = k3s_config.settings(files_only("/"), "k3s", os.path.abspath(path))
    return (*_defaults(found, "k3s"), *found)


def _spelled(section: Any, keys: tuple[str, ...], reader: str) -> None:
    """ValueError for an unknown key that is close to a known one: clusterCidr for cluster-cidr."""
    plain = {_letters(key): key for key in keys}
    for name in section if isinstance(section, dict) else ():
        key = str(name).removesuffix("+")
        near = difflib.get_close_matches(_letters(key), plain, 1, 0.85)
        if near and key != plain[near[0]]:
            raise ValueError(f"{reader} not read {name}: did you mean {plain[near[0]]}?")


def _letters(key: str) -> str:
    return "".join(c for c in key.lower() if c.isalnum())


def _k0s(document: dict[str, Any]) -> dict[str, Any] | None:
    """A k0s ClusterConfig, or the one inside a k0sctl.yaml; None for other documents."""
    if "k0s" not in str(document.get("apiVersion")):
        return None
    if document.get("kind") == "ClusterConfig":
        return document
    inner: Any = document.get("spec")
    for name in ("k0s", "config"):
        inner = inner.get(name) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else None


def _defaults(found: tuple[Setting, ...], distribution: str) -> tuple[Setting, ...]:
    keys = {setting.key for setting in found}
    name = {"k3s": "k3s' and RKE2's", "kubeadm": "kubeadm's", "k0s": "k0s'"}[distribution]
    return tuple(
        Setting(distribution, key, value, f"{name} default")
        for key, value in _DEFAULTS[distribution].items()
        if key not in keys
    )
