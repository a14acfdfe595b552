"""kubeadm's ClusterConfiguration, the kubelet's KubeletConfiguration and k0s' ClusterConfig, as settings."""

from collections.abc import Callable
from typing import Any, Final

from janitor.core.address_plan.plan import as_address
from janitor.core.model.evidence_node import Setting
from janitor.host.kubernetes import yaml_files
from janitor.host.redaction import hidden

Reader = Callable[[dict[str, Any], str], tuple[Setting, ...]]

_NETWORKING: Final = {"podSubnet": "cluster-cidr", "serviceSubnet": "service-cidr"}
_COMPONENTS: Final = {"controllerManager": "kube-controller-manager", "apiServer": "kube-apiserver"}
_KUBELET: Final = {
    "clusterDNS": "cluster-dns",
    "maxPods": "max-pods",
    "podCIDR": "pod-cidr",
    "providerID": "provider-id",
}


def settings(document: dict[str, Any], source: str) -> tuple[Setting, ...]:
    """The settings in one document; empty for other kinds."""
    match document.get("kind"):
        case "ClusterConfiguration":
            return tuple(_cluster(document, source))
        case "InitConfiguration" | "JoinConfiguration":
            return tuple(_endpoint(document, source))
        case "KubeletConfiguration":
            return tuple(_kubelet(document, source))
        case "KubeProxyConfiguration":
            value = yaml_files.scalar(document.get("clusterCIDR"))
            return (Setting("kube-proxy", "cluster-cidr", value, source),) if value else ()
        case _:
            return ()


def _cluster(document: dict[str, Any], source: str) -> list[Setting]:
    found = []
    networking = document.get("networking")
    for name, key in _NETWORKING.items():
        if isinstance(networking, dict) and networking.get(name):
            found.append(Setting("kubeadm", key, yaml_files.scalar(networking[name]), source))
    endpoint = _text(document, "controlPlaneEndpoint")
    if as_address(address := endpoint.rpartition(":")[0].strip("[]") if not as_address(endpoint) else endpoint):
        found.append(Setting("kubeadm", "endpoint", address, f"{source}, controlPlaneEndpoint"))
    for name, component in _COMPONENTS.items():
        section = document.get(name)
        extra = section.get("extraArgs") if isinstance(section, dict) else None
        for flag, value in arguments(extra):
            found.append(Setting(component, flag, hidden(flag, value), source))
    return found


def _endpoint(document: dict[str, Any], source: str) -> list[Setting]:
    """Nodes' addresses, if written as IP addresses: a host name is of no use."""
    plane = document.get("controlPlane")
    places = [part.get("localAPIEndpoint") for part in (document, plane) if isinstance(part, dict)]
    found = [_text(place, "advertiseAddress") for place in places]
    return [Setting("kubeadm", "endpoint", one, f"{source}, localAPIEndpoint") for one in found if as_address(one)]


def _text(section: Any, key: str) -> str:
    return yaml_files.scalar(section.get(key)) if isinstance(section, dict) and section.get(key) else ""


def arguments(extra: Any) -> list[tuple[str, str]]:
    """`extraArgs`: a mapping up to v1beta3, a list of `name` and `value` since v1beta4."""
    if isinstance(extra, dict):
        return [(str(name), yaml_files.scalar(value)) for name, value in extra.items()]
    if isinstance(extra, list):
        pairs = [(part.get("name"), part.get("value")) for part in extra if isinstance(part, dict)]
        return [(str(name), yaml_files.scalar(value)) for name, value in pairs if name]
    return []


def _kubelet(document: dict[str, Any], source: str) -> list[Setting]:
    return [
        Setting("kubelet", key, yaml_files.scalar(document[name]), source)
        for name, key in _KUBELET.items()
        if document.get(name) not in (None, "", [])
    ]


def k0s_settings(document: dict[str, Any], source: str) -> tuple[Setting, ...]:
    """A k0s ClusterConfig. Its ranges are in `spec.network`."""
    spec = document.get("spec")
    api = _text(spec.get("api"), "address") if isinstance(spec, dict) else ""
    found = [Setting("k0s", "endpoint", api, f"{source}, spec.api.address")] if as_address(api) else []
    network = spec.get("network") if isinstance(spec, dict) else None
    if not isinstance(network, dict):
        return tuple(found)
    dual = network.get("dualStack")
    second = dual if isinstance(dual, dict) and dual.get("enabled") is True else {}
    for key, first, other, default in (("cluster-cidr", "podCIDR", "IPv6podCIDR", "10.244.0.0/16"),
                                       ("service-cidr", "serviceCIDR", "IPv6serviceCIDR", "10.96.0.0/12")):  # fmt: skip
        values = [network.get(first) or (default if second.get(other) else ""), second.get(other)]
        if any(values):
            found.append(Setting("k0s", key, ",".join(yaml_files.scalar(v) for v in values if v), source))
    return tuple(found)
