"""CNI001 to CNI003: the files from which the runtime configures the pods' network."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.evidence_node import CniFile
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix
from janitor.core.model.reason import because
from janitor.core.node.node_view import kubernetes_missing
from janitor.report.words import text

_IDS = (FindingId.CNI001, FindingId.CNI002, FindingId.CNI003)

_SHIPPED = ("crio", "crio-bridge", "podman", "loopback", "cni-loopback")  # networks that packages install


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """Skipped on nodes without Kubernetes, which need no CNI."""
    node = evidence.node_config
    if missing := kubernetes_missing(node):
        yield Skipped(_IDS, missing)
    elif isinstance(node.cni_files, Unknown):
        yield Skipped(_IDS, node.cni_files.reason)
    elif not node.cni_directories:
        yield Skipped(_IDS, because(Code.NO_CNI_DIRECTORY))
    else:
        yield from _directories(node.cni_files, evidence)


def _directories(all_files: tuple[CniFile, ...], evidence: Evidence) -> Iterator[Finding]:
    """By directory: the runtime reads one directory, and loads its first good file."""
    node = evidence.node_config
    # The runtime reads only one of several directories: k3s has its own, and /etc/cni/net.d stays empty.
    works = any(f.usable and not f.problem for f in all_files)
    for directory in node.cni_directories:
        files = [f for f in all_files if f.path.rpartition("/")[0] == directory]
        good = [f for f in files if f.usable and not f.problem]
        if not works:
            yield Finding.of(
                FindingId.CNI001, directory, f"there is no usable CNI configuration in {directory}",
                tuple(f"{f.path}: {_problem(f) or 'its name does not end in .conf, .conflist or .json'}" for f in files)
                or (f"{directory} is empty",),
                "No pod with its own network can start: containerd reports 'cni plugin not initialized', CRI-O 'no "
                "CNI configuration file', and the Node is NotReady with NetworkPluginNotReady.",
                Fix.of("check whether the CNI's DaemonSet runs on this node: ",
                       Command.of("kubectl", "get", "pods", "-A", "-o", "wide", "--field-selector",
                                  f"spec.nodeName={node.hostname or 'NODE'}"),
                       "; if its pods are Pending, see CNI004"),
            )  # fmt: skip
        loaded = good[: 2 if good and _delegates(good[0]) else 1]
        for file in files:
            passed_over = bool(file.problem) and (not good or file.path < good[0].path)
            if file.usable and (passed_over or (file in loaded and file.missing)):
                what = _problem(file) or f"it needs {', '.join(file.missing)}, which is in no plugin directory"
                yield Finding.of(
                    FindingId.CNI002, file.path,
                    f"{file.path} cannot work: {what}",
                    (f"plugins: {', '.join(file.plugins) or '(none could be read)'}",),
                    "The runtime skips a file that it cannot read. If a plugin is missing, no pod of this network can "
                    "start.",
                    Fix.of(f"correct or remove {file.path}")
                    if file.problem
                    else Fix.of(
                        "restore the plugin: delete the CNI's pod on this node, and its replacement installs its own "
                        "plugins; the package kubernetes-cni contains bridge, host-local, loopback, portmap and "
                        "others, but not flannel"
                    ),
                    severity=Severity.WARNING if good and file.problem else Severity.ERROR,
                )  # fmt: skip
        good = [f for f in good if f.network not in _SHIPPED]
        if len(good) > 1 and good[0].network != good[1].network and not _chosen(good[0], evidence):
            yield Finding.of(
                FindingId.CNI003, directory,
                f"{directory} has {len(good)} configurations; the runtime uses {good[0].path.rpartition('/')[2]}",
                tuple(f"{f.path}: network {f.network or '(no name)'}, {', '.join(f.plugins)}" for f in good),
                "The runtime uses the first file by name. If a file that an earlier CNI left behind comes first, pods "
                "get the old network.",
                Fix.of("remove the files of a CNI that is no longer installed"),
            )  # fmt: skip


def _chosen(first: CniFile, evidence: Evidence) -> bool:
    """Whether several files are intended: Multus delegates to the others, and CRI-O can be told one by name."""
    endpoints = (e for e in known(evidence.endpoints) if e.origin != "well-known")
    return _delegates(first) or any("cri-o" in e.runtime_name or "crio" in e.address for e in endpoints)


def _problem(file: CniFile) -> str:
    return "" if file.problem is None else text(file.problem)


def _delegates(file: CniFile) -> bool:
    return any(plugin.startswith("multus") for plugin in file.plugins)  # thick Multus is called multus-shim
