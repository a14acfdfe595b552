"""The directories that runtimes keep in /run for running containers, each named after the container's ID.

A task directory does not survive a boot or an orderly stop. It does not prove that a container is alive: a shim killed
together with its runtime leaves one behind. But it is a reason to keep a lease.
"""

from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import TaskDirectory, Unknown
from janitor.core.model.lease import CRI_ID
from janitor.host.files import names, unknown
from janitor.host.node import Node

_STATES: Final = (
    "/run/containerd",
    "/run/k3s/containerd",
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd",
    "/run/docker/containerd/daemon",
)
_TASKS: Final = ("io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux")
_MONITORED: Final = ("/run/crun", "/run/runc", "/run/containers/storage/overlay-containers")


def task_directories(node: Node) -> tuple[TaskDirectory, ...] | Unknown:
    """Every task directory of containerd, runc, crun and conmon whose name is an ID of 64 digits."""
    found: list[TaskDirectory] = []
    try:
        for parent in task_parents(node):
            ids = [name for name in names(node.path(parent)) if CRI_ID.fullmatch(name)]
            found += [TaskDirectory(f"{parent}/{container_id}", container_id) for container_id in ids]
    except OSError as error:
        return unknown(Code.CANNOT_READ_TASKS, error)
    return tuple(found)


def task_parents(node: Node) -> list[str]:
    """The directories that may contain task directories. OSError."""
    parents = list(_MONITORED)
    for state in _STATES:
        for kind in _TASKS:
            parents += [f"{state}/{kind}/{space}" for space in names(node.path(f"{state}/{kind}"))]
    return parents
