"""Everything about the node's configuration, put together from its readers. Reads only; never raises."""

import os
from dataclasses import dataclass, replace
from typing import Final

from janitor.core.evidence import Unknown
from janitor.core.evidence_node import Component, Distribution, NodeConfig, Objects, Setting, Unit
from janitor.host import (
    cni_files,
    components,
    flannel,
    interfaces,
    k3s_config,
    kubeadm,
    metadata,
    procfs,
    systemd_show,
    systemd_units,
    yaml_files,
)
from janitor.host.files import inside, names, printable, read_bounded, said, unknown

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
NO_OBJECTS: Final = Unknown("no Nodes were given (--nodes FILE or --kubeconfig FILE)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What may be asked beside the node's files: its metadata service, and objects that somebody has already got."""

    metadata: bool = True
    objects: tuple[Objects, ...] | Unknown = NO_OBJECTS


PLAIN: Final = Wanted()


def read(
    root: str, proc: procfs.Proc | Unknown, wanted: Wanted, cni: tuple[str, ...], plugins: tuple[str, ...]
) -> NodeConfig:
    """How this node is configured. `cni` and `plugins` are the directories that its runtimes name."""
    units = _units(root)
    kind = _distribution(root, units)
    found = components.components(root, proc, kind)
    if not isinstance(units, Unknown):
        units = tuple(_compared(root, unit, found) for unit in units)
    routes = interfaces.routes(proc) if isinstance(proc, procfs.Proc) else proc
    vendor = metadata.vendor(root)
    places = cni_files.directories(root, cni)
    return NodeConfig(
        distribution=kind,
        server=_server(root, kind, units, found),
        hostname=_hostname(root, proc),
        vendor=vendor,
        settings=_settings(root, kind, units, found),
        components=found,
        units=units,
        routes=routes,
        addresses=interfaces.addresses(proc) if isinstance(proc, procfs.Proc) else proc,
        cni_files=cni_files.cni_files(root, places, plugins),
        cni_directories=places,
        machine=metadata.machine(vendor, routes, wanted.metadata) if isinstance(proc, procfs.Proc) else proc,
        metadata_asked=isinstance(proc, procfs.Proc) and wanted.metadata and metadata.is_hetzner(vendor, routes),
        objects=wanted.objects,
        kubelet_files=tuple((path, _there(root, path)) for path in _JOINED),
    )


def read_safely(
    root: str, proc: procfs.Proc | Unknown, wanted: Wanted, cni: tuple[str, ...], plugins: tuple[str, ...]
) -> NodeConfig:
    """The same; where some path of the node leads in a circle (ELOOP), all of it is Unknown with that reason."""
    try:
        return read(root, proc, wanted, cni, plugins)
    except OSError as error:
        nothing = unknown("reading how Kubernetes is configured on this node", error)
        return NodeConfig(settings=nothing, components=nothing, units=nothing, routes=nothing, addresses=nothing,
                          cni_files=nothing, machine=nothing, objects=wanted.objects)  # fmt: skip


def _there(root: str, path: str) -> bool:
    try:
        return os.path.lexists(inside(root, path))
    except OSError:
        return False


def _units(root: str) -> tuple[Unit, ...] | Unknown:
    try:
        return tuple(unit for name in _UNITS if (unit := systemd_units.read_unit(root, name)) is not None)
    except OSError as error:
        return Unknown(f"reading systemd's units: {said(error)}")


def _distribution(root: str, units: tuple[Unit, ...] | Unknown) -> Distribution:
    """By what runs under systemd, else by what lies on the disk."""
    running = () if isinstance(units, Unknown) else tuple(unit.name for unit in units)
    for name in running:
        for kind in ("k3s", "rke2", "k0s"):
            if name.startswith(kind):
                return kind
    return next((kind for kind, signs in _SIGNS if any(_there(root, sign) for sign in signs)), "")


def _server(
    root: str, kind: str, units: tuple[Unit, ...] | Unknown, found: tuple[Component, ...] | Unknown
) -> bool | None:
    if not kind:
        return None
    if not isinstance(found, Unknown) and any(c.name == "kube-apiserver" for c in found):
        return True
    if isinstance(units, Unknown) or isinstance(found, Unknown):
        return True if kind == "kubeadm" and _there(root, "/etc/kubernetes/manifests/kube-apiserver.yaml") else None
    if kind in ("k3s", "rke2", "k0s"):
        return any(unit.name in _SERVERS for unit in units) if units else None
    return False


def _hostname(root: str, proc: procfs.Proc | Unknown) -> str:
    places = [f"{proc.path}/sys/kernel/hostname"] if isinstance(proc, procfs.Proc) else []
    for path in (*places, inside(root, "/etc/hostname")):
        try:
            return read_bounded(path, 256).decode("utf-8", "replace").strip()
        except OSError:
            continue
    return ""


def written_hostname(root: str) -> str:
    """The name in /etc/hostname; "" where there is none, or one that every machine has."""
    try:
        name = read_bounded(inside(root, "/etc/hostname"), 256).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return "" if name.startswith("localhost") else printable(name)


def _compared(root: str, unit: Unit, found: tuple[Component, ...] | Unknown) -> Unit:
    """The unit beside what runs: what has changed since the service was started, and what nobody reads."""
    if unit.name != "kubelet.service":
        return unit
    shown = systemd_show.show(unit.name) if root == "/" else {}
    started = next((c.started_ns for c in (() if isinstance(found, Unknown) else found) if c.name == "kubelet"), 0)
    files = [unit.fragment, *unit.drop_ins, *(f.path for f in unit.environment_files if f.state == "read")]
    named = {os.path.normpath(file.path) for file in unit.environment_files}
    unread = [one for path in _STRAYS if path not in named for one in systemd_units.extra_arguments(root, path)]
    return replace(
        unit,
        strays=tuple(dict.fromkeys(one.source for one in unread)),
        unread=tuple(unread),
        main_pid=int(shown.get("MainPID", "0")),
        need_reload={"yes": True, "no": False}.get(shown.get("NeedDaemonReload", "")),
        newer=tuple(path for path in files if started and _changed_after(root, path, started)),
    )


def _changed_after(root: str, path: str, started_ns: int) -> bool:
    now = procfs.clock()
    try:
        changed = os.stat(inside(root, path)).st_mtime_ns
    except OSError:
        return False
    # A second of tolerance: the start is in clock ticks, and today's wall clock is not quite that of then.
    return changed > now.realtime_ns - now.boottime_ns + started_ns + _NS


def _settings(
    root: str, kind: Distribution, units: tuple[Unit, ...] | Unknown, found: tuple[Component, ...] | Unknown
) -> tuple[Setting, ...] | Unknown:
    """What files, units and the environment say, the weakest first: a later setting of a key wins."""
    result: list[Setting] = []
    try:
        if kind in ("k3s", "rke2"):
            result += k3s_config.settings(root, kind, _chosen(kind, units))
            for unit in () if isinstance(units, Unknown) else units:
                result += k3s_config.from_environment(systemd_units.variables(unit), kind, unit.name)
                result += k3s_config.from_words(list(unit.argv), kind, unit.exec_source)
        if kind == "k0s":
            result += _documents(root, "/etc/k0s/k0s.yaml", kubeadm.k0s_settings)
        for path in _kubelet_files(root, kind, found):
            result += _documents(root, path, kubeadm.settings)
        result += flannel.settings(root)
    except OSError as error:
        return Unknown(f"reading the configuration of {kind or 'Kubernetes'}: {said(error)}")
    except ValueError as error:
        return Unknown(f"reading the configuration of {kind or 'Kubernetes'}: {error}", "mend the file")
    return tuple(result)


def _chosen(kind: str, units: tuple[Unit, ...] | Unknown) -> str:
    """K3S_CONFIG_FILE, where the service is told to read another file."""
    for unit in () if isinstance(units, Unknown) else units:
        found = systemd_units.variables(unit).get(f"{kind.upper()}_CONFIG_FILE", "")
        if found.startswith("/"):
            return found
    return ""


def _documents(root: str, path: str, settings: "kubeadm.Reader") -> list[Setting]:
    try:
        return [setting for document in yaml_files.read(root, path) for setting in settings(document, path)]
    except FileNotFoundError:
        return []


def _kubelet_files(root: str, kind: str, found: tuple[Component, ...] | Unknown) -> list[str]:
    """The kubelet's configuration and its drop-ins, in order."""
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
    return files + [f"{d}/{n}" for d in folders for n in names(inside(root, d)) if n.endswith(".conf")]
