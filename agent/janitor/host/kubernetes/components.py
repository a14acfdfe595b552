"""The command lines of Kubernetes components: running processes, static pods, and k3s' log in the journal.

k3s and RKE2 servers run their components inside one process whose title does not show them. Each start is logged as
"Running kube-apiserver --…" instead. Values of secret options are not kept.
"""

import os
import re
import shlex
from typing import Any, Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import Component
from janitor.host.files import names, read_bounded, unknown
from janitor.host.kernel.procfs import NODE_ROOT, Proc
from janitor.host.kernel.programs import SYSTEM_DIRS, NotRun, programs_here, programs_of
from janitor.host.kernel.whose import PROGRAMS, Whose
from janitor.host.kubernetes import yaml_files
from janitor.host.node import Node
from janitor.host.redaction import without_secrets

NAMES: Final = (
    "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubelet", "hcloud-cloud-controller-manager",
    "kube-router", "flanneld", "cluster-autoscaler", "k3s", "rke2", "k0s", "kubelite",
)  # fmt: skip
_MANIFESTS: Final = ("/etc/kubernetes/manifests", "/var/lib/rancher/rke2/agent/pod-manifests")
_RUNNING: Final = re.compile(r'Running (kube-[a-z-]+|kubelet|cloud-controller-manager) (--[^"]*)')
_ANYWHERE: Final = "cluster-autoscaler"
_CONTAINED: Final = re.compile(r"kubepods|/docker[/-]|libpod|/lxc[./]|/crio-|cri-containerd")
_JOURNALS: Final = ("var/log/journal", "run/log/journal")
_TIMEOUT_S = 5
_LIMIT = 1 << 16
_FIRST_WORD: Final = 4096
_MOST: Final = 16  # per name: a pod may give it to any number of processes, with any arguments


def components(node: Node, distribution: str) -> tuple[Component, ...] | Unknown:
    """Every component that was seen, running ones first. Unknown only if nothing could be read."""
    running = _processes(node)
    found = list(running) if not isinstance(running, Unknown) else []
    written = _manifests(node)
    if distribution in ("k3s", "rke2"):
        found += _journal(node, isinstance(node.proc, Proc))
    return (*found, *written) if found or written or not isinstance(running, Unknown) else running


def _elsewhere(proc: Proc, pid: int) -> bool:
    """Whether it belongs to another cluster: a node in a container (kind, k3d), or a control plane hosted in pods.

    A node's own components are in its network namespace; only the autoscaler is an ordinary pod. Without the privilege
    to read namespaces, cgroups decide: anything in a container is then not the node's.
    """
    own, theirs = _network(proc, 1), _network(proc, pid)
    if own and theirs:
        return own != theirs
    try:
        group = read_bounded(f"{proc.path}/{pid}/cgroup", _LIMIT).decode("utf-8", "replace")
    except OSError:
        return False
    return _CONTAINED.search(group) is not None


def _network(proc: Proc, pid: int) -> str:
    try:
        return os.readlink(f"{proc.path}/{pid}/ns/net")
    except OSError:
        return ""


def _is_the_nodes(proc: Proc, pid: int, name: str, whose: Whose) -> bool:
    """Whether the process is what its first argument says. Without access to namespaces, only cgroups decide."""
    if not proc.kernel:
        return name == _ANYWHERE or not _elsewhere(proc, pid)
    try:
        whose.facts(pid)
        if name in PROGRAMS["kubelet"]:
            return not whose.not_the_nodes(pid, "kubelet")
        return name == _ANYWHERE or (whose.serves_the_node(pid) and not _elsewhere(proc, pid))
    except PermissionError:
        return not _elsewhere(proc, pid)


def _processes(node: Node) -> tuple[Component, ...] | Unknown:
    proc = node.proc
    if isinstance(proc, Unknown):
        return proc
    found: list[Component] = []
    whose = Whose(proc, node.root)
    try:
        pids = proc.pids()
    except OSError as error:
        return unknown(Code.CANNOT_LIST_PROCESSES, error, path=proc.path)
    for pid in pids:
        try:
            # Read only command lines that start with a known name: pods may fill theirs with anything.
            name = _name(_words(proc, pid, _FIRST_WORD))
            more = name in NAMES and sum(one.name == name for one in found) < _MOST
            if more and _is_the_nodes(proc, pid, name, whose):
                argv = _words(proc, pid, _LIMIT)
                words = argv if len(argv) > 1 else argv[0].split(" ")
                found.append(Component(name, without_secrets(words), f"process {pid}", pid, True, proc.started_ns(pid)))
        except (OSError, ValueError, IndexError):
            continue  # it has ended or cannot be read: it is as unknown as any other unseen component
    return tuple(found)


def _words(proc: Proc, pid: int, limit: int) -> list[str]:
    line = read_bounded(f"{proc.path}/{pid}/cmdline", limit)
    return line.decode("utf-8", "replace").rstrip("\0").split("\0")


def _name(argv: list[str]) -> str:
    """The program's name. k3s overwrites its arguments with a title: "/usr/local/bin/k3s server" is then one word."""
    return argv[0].split(" ")[0].rpartition("/")[2]


def _manifests(node: Node) -> list[Component]:
    found = []
    for directory in _MANIFESTS:
        try:
            files = [name for name in names(node.path(directory)) if name.endswith((".yaml", ".yml", ".json"))]
        except OSError:
            continue
        for name in files:
            path = f"{directory}/{name}"
            try:
                documents = yaml_files.read(node.root, path)
            except (OSError, ValueError):
                continue  # the kubelet cannot use it either, and logs that
            for document in documents:
                found += [Component(n, argv, path, 0, False) for n, argv in pod_commands(document.get("spec"))]
    return found


def pod_commands(spec: Any) -> list[tuple[str, tuple[str, ...]]]:
    """The components among a pod's containers: name and command line (`command`, then `args`)."""
    found = []
    containers = spec.get("containers") if isinstance(spec, dict) else None
    for container in containers if isinstance(containers, list) else ():
        if not isinstance(container, dict):
            continue
        words = [str(w) for part in ("command", "args") for w in container.get(part) or () if isinstance(w, str | int)]
        name = words[0].rpartition("/")[2] if words else ""
        name = name if name in NAMES else str(container.get("name", ""))
        if name in NAMES:
            found.append((name, without_secrets(words)))
    return found


def _journal(node: Node, live: bool) -> list[Component]:
    """What k3s or RKE2 started last; in the current boot only, if this is the running node."""
    running = node.root in ("/", NODE_ROOT)
    programs = programs_of(node.root) if running else programs_here()
    if isinstance(programs, Unknown):
        return []
    argv = [
        "--output=cat",
        "--no-pager",
        "--quiet",
        "--reverse",
        "--lines=200",
        "--grep=^.*Running (kube|cloud)",
    ]
    if running:
        argv += ["--boot"]
    else:
        places = [node.path(place) for place in _JOURNALS]
        argv += [f"--directory={next((p for p in places if names(p)), places[0])}"]
    argv += [f"--unit={unit}" for unit in ("k3s", "k3s-agent", "rke2-server", "rke2-agent")]
    try:
        path = programs.locate("journalctl", SYSTEM_DIRS)
        done = programs.run([path, *argv], timeout_s=_TIMEOUT_S)
    except NotRun:
        return []
    return started(done.stdout.decode("utf-8", "replace"), live)


def started(text: str, live: bool) -> list[Component]:
    """The components in lines of k3s' log, newest first: the last start of each."""
    found: dict[str, Component] = {}
    for match in _RUNNING.finditer(text):
        try:
            words = shlex.split(match[2])
        except ValueError:
            words = match[2].split()
        name = {"cloud-controller-manager": "k3s-cloud-controller-manager"}.get(match[1], match[1])
        if name in found:
            continue
        found[name] = Component(name, without_secrets([match[1], *words]), "the journal of k3s or RKE2", 0, live)
    return list(found.values())
