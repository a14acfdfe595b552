"""The node's Kubernetes and network configuration, combined from its readers. Reads only."""

import os
from dataclasses import dataclass, replace
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import Component, Distribution, NodeConfig, Objects, Setting, Unit
from janitor.core.model.unknown import unseen
from janitor.host.cni import config as cni
from janitor.host.cni import flannel
from janitor.host.cni import plugins as cni_files
from janitor.host.cni.reader import Configuration
from janitor.host.files import names, printable, read_bounded, unknown
from janitor.host.kernel import interfaces, procfs
from janitor.host.kubernetes import components, k3s_config, kubeadm, metadata, yaml_files
from janitor.host.node import Node
from janitor.host.systemd import systemd_show, systemd_units

_UNITS: Final = (
    "kubelet.service", "k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service",
    "k0scontroller.service", "k0sworker.service",
)  # fmt: skip
_SERVERS: Final = ("k3s.service", "rke2-server.service", "k0scontroller.service")
_SIGNS: Final[tuple[tuple[Distribution, tuple[str, ...]], ...]] = (
    ("k3s", ("/etc/rancher/k3s", "/var/lib/rancher/k3s")),
    ("rke2", ("/etc/rancher/rke2", "/var/lib/rancher/rke2")),
    ("k0s", ("/etc/k0s", "/var/lib/k0s")),
    ("microk8s", ("/var/snap/microk8s",)),
    ("kubeadm", ("/var/lib/kubelet/config.yaml", "/var/lib/kubelet/kubeadm-flags.env", "/etc/kubernetes/kubelet.conf",
                 "/etc/kubernetes/manifests")),
)  # fmt: skip
_STRAYS: Final = ("/etc/default/kubelet", "/etc/sysconfig/kubelet", "/etc/kubernetes/kubelet.env")
_JOINED: Final = ("/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml")
_NS = 1_000_000_000
NO_OBJECTS: Final = unseen(Code.NO_NODES_GIVEN)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Sources other than the node's files: its metadata service, and objects that were already fetched."""

    metadata: bool = True
    objects: tuple[Objects, ...] | Unknown = NO_OBJECTS


PLAIN: Final = Wanted()


def read(node: Node, wanted: Wanted, configuration: Configuration, plugins: tuple[str, ...]) -> NodeConfig:
    """How this node is configured. `plugins` are the directories that its runtimes name. OSError (ELOOP)."""
    proc = node.proc
    units = _units(node)
    kind = _distribution(node, units)
    found = components.components(node, kind)
    if not isinstance(units, Unknown):
        units = tuple(_compared(node, unit, found) for unit in units)
    routes = interfaces.routes(proc) if isinstance(proc, procfs.Proc) else proc
    vendor = metadata.vendor(node)
    return NodeConfig(
        distribution=kind,
        server=_server(node, kind, units, found),
        hostname=_hostname(node),
        vendor=vendor,
        settings=_settings(node, kind, units, found, cni.subnet_files(configuration)),
        components=found,
        units=units,
        routes=routes,
        addresses=interfaces.addresses(proc) if isinstance(proc, procfs.Proc) else proc,
        cni_files=cni_files.cni_files(node, configuration, plugins),
        cni_directories=cni_files.directories(configuration),
        machine=metadata.machine(vendor, routes, wanted.metadata) if isinstance(proc, procfs.Proc) else proc,
        objects=wanted.objects,
        kubelet_files=tuple((path, _there(node, path)) for path in _JOINED),
    )


def read_safely(node: Node, wanted: Wanted, configuration: Configuration, plugins: tuple[str, ...]) -> NodeConfig:
    """The same, but never raises: all is Unknown if a path on the node is a loop of links (ELOOP)."""
    try:
        return read(node, wanted, configuration, plugins)
    except OSError as error:
        nothing = unknown(Code.CANNOT_READ_KUBERNETES, error)
        return NodeConfig(settings=nothing, components=nothing, units=nothing, routes=nothing, addresses=nothing,
                          cni_files=nothing, machine=nothing, objects=wanted.objects)  # fmt: skip


def _there(node: Node, path: str) -> bool:
    try:
        return os.path.lexists(node.path(path))
    except OSError:
        return False


def _units(node: Node) -> tuple[Unit, ...] | Unknown:
    try:
        return tuple(unit for name in _UNITS if (unit := systemd_units.read_unit(node, name)) is not None)
    except OSError as error:
        return unknown(Code.CANNOT_READ_UNITS, error)


def _distribution(node: Node, units: tuple[Unit, ...] | Unknown) -> Distribution:
    """Determined by systemd units, otherwise by files on the disk."""
    running = () if isinstance(units, Unknown) else tuple(unit.name for unit in units)
    for name in running:
        for kind in ("k3s", "rke2", "k0s"):
            if name.startswith(kind):
                return kind
    return next((kind for kind, signs in _SIGNS if any(_there(node, sign) for sign in signs)), "")


def _server(
    node: Node, kind: str, units: tuple[Unit, ...] | Unknown, found: tuple[Component, ...] | Unknown
) -> bool | None:
    if not kind:
        return None
    if not isinstance(found, Unknown) and any(c.name == "kube-apiserver" for c in found):
        return True
    if isinstance(units, Unknown) or isinstance(found, Unknown):
        return True if kind == "kubeadm" and _there(node, "/etc/kubernetes/manifests/kube-apiserver.yaml") else None
    if kind in ("k3s", "rke2", "k0s"):
        return any(unit.name in _SERVERS for unit in units) if units else None
    return False


def _hostname(node: Node) -> str:
    proc = node.proc
    places = [f"{proc.path}/sys/kernel/hostname"] if isinstance(proc, procfs.Proc) else []
    for path in (*places, node.path("/etc/hostname")):
        try:
            return read_bounded(path, 256).decode("utf-8", "replace").strip()
        except OSError:
            continue
    return ""


def written_hostname(node: Node) -> str:
    """The name in /etc/hostname; "" if there is none or it is a generic one (localhost)."""
    try:
        name = read_bounded(node.path("/etc/hostname"), 256).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return "" if name.startswith("localhost") else printable(name)


def _compared(node: Node, unit: Unit, found: tuple[Component, ...] | Unknown) -> Unit:
    """The unit compared with what runs: files changed since the service started, and files that nothing reads."""
    if unit.name != "kubelet.service":
        return unit
    shown = systemd_show.show(unit.name) if node.root == "/" else {}
    started = next((c.started_ns for c in (() if isinstance(found, Unknown) else found) if c.name == "kubelet"), 0)
    files = [unit.fragment, *unit.drop_ins, *(f.path for f in unit.environment_files if f.state == "read")]
    named = {os.path.normpath(file.path) for file in unit.environment_files}
    unread = [one for path in _STRAYS if path not in named for one in systemd_units.extra_arguments(node, path)]
    return replace(
        unit,
        strays=tuple(dict.fromkeys(one.source for one in unread)),
        unread=tuple(unread),
        main_pid=int(shown.get("MainPID", "0")),
        need_reload={"yes": True, "no": False}.get(shown.get("NeedDaemonReload", "")),
        newer=tuple(path for path in files if started and _changed_after(node, path, started)),
    )


def _changed_after(node: Node, path: str, started_ns: int) -> bool:
    now = node.clock()
    try:
        changed = os.stat(node.path(path)).st_mtime_ns
    except OSError:
        return False
    # One second of tolerance: start times are in clock ticks, and the wall clock may have been adjusted a little.
    return changed > now.realtime_ns - now.boottime_ns + started_ns + _NS


def _settings(
    node: Node,
    kind: Distribution,
    units: tuple[Unit, ...] | Unknown,
    found: tuple[Component, ...] | Unknown,
    subnet_files: tuple[str, ...],
) -> tuple[Setting, ...] | Unknown:
    """What files, units and the environment say, weakest first: the last setting of a key wins."""
    result: list[Setting] = []
    try:
        if kind in ("k3s", "rke2"):
            result += k3s_config.settings(node, kind, _chosen(kind, units))
            for unit in () if isinstance(units, Unknown) else units:
                result += k3s_config.from_environment(systemd_units.variables(unit), kind, unit.name)
                result += k3s_config.from_words(list(unit.argv), kind, unit.exec_source)
        if kind == "k0s":
            result += _documents(node, "/etc/k0s/k0s.yaml", kubeadm.k0s_settings)
        for path in _kubelet_files(node, kind, found):
            result += _documents(node, path, kubeadm.settings)
        networks = flannel.settings(node, subnet_files)
    except OSError as error:
        return unknown(Code.CANNOT_READ_DISTRIBUTION, error, what=kind or "Kubernetes")
    except ValueError as error:
        return unseen(Code.BAD_DISTRIBUTION_FILE, what=kind or "Kubernetes", error=str(error))
    return networks if isinstance(networks, Unknown) else (*result, *networks)


def _chosen(kind: str, units: tuple[Unit, ...] | Unknown) -> str:
    """K3S_CONFIG_FILE or RKE2_CONFIG_FILE, if the service is told to read another file; "" otherwise."""
    for unit in () if isinstance(units, Unknown) else units:
        found = systemd_units.variables(unit).get(f"{kind.upper()}_CONFIG_FILE", "")
        if found.startswith("/"):
            return found
    return ""


def _documents(node: Node, path: str, settings: "kubeadm.Reader") -> list[Setting]:
    try:
        return [setting for document in yaml_files.read(node.root, path) for setting in settings(document, path)]
    except FileNotFoundError:
        return []


def _kubelet_files(node: Node, kind: str, found: tuple[Component, ...] | Unknown) -> list[str]:
    """The kubelet's configuration file and its drop-ins, in order."""
    files = ["/var/lib/kubelet/config.yaml"]
    folders = [f"/var/lib/rancher/{kind}/agent/etc/kubelet.conf.d"] if kind in ("k3s", "rke2") else []
    for component in () if isinstance(found, Unknown) else found:
        if component.name == "kubelet":
            for word in component.argv:
                name, _, value = word.partition("=")
                if name == "--config" and value.startswith("/"):
                    files = [value]
                elif name == "--config-dir" and value.startswith("/"):
                    folders = [value]
    return files + [f"{d}/{n}" for d in folders for n in names(node.path(d)) if n.endswith(".conf")]
