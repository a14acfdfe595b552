"""The proof that no container runtime has started in this boot, on which everything in the boot stage depends.

Standard library only.
"""

import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from janitor.core.leases.age import RUNTIMES
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.node_mark import Owner, not_shown
from janitor.core.model.reason import Reason, because
from janitor.host.cni import directories as cni_directories
from janitor.host.cni import node_mark
from janitor.host.files import failed, inside
from janitor.host.kernel import netns, procfs
from janitor.host.node import Node
from janitor.host.runtime import sockets

_PROCESSES = RUNTIMES | {"kubelet", "conmon", "k3s", "k3s-server", "k3s-agent", "rke2", "k0s"}
_INITRAMFS = "etc/initrd-release"  # os-release(5): an initramfs has it


class TooLate(Exception):  # noqa: N818 (being late is normal)
    """Not provably early, so nothing may be written."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """The booting node: its root, the root under which its /run is at present, and its processes."""

    root: str
    run: str
    proc: procfs.Proc
    boot_id: str
    initramfs: bool  # switch_root to the node's root is still to come
    node: tuple[Owner, ...]

    @property
    def disk(self) -> Node:
        """The node as seen by its own root."""
        return Node(self.root, self.proc, self.boot_id)

    @property
    def booting(self) -> Node:
        """The node as seen by the root that has its /run at present."""
        return Node(self.run, self.proc, self.boot_id)


def find_place(root: str) -> Place:
    """The node that this is about. TooLate if its processes cannot be seen, or if others may use its directories."""
    if os.path.lexists(f"{root}/{_INITRAMFS}"):
        raise TooLate(because(Code.ROOT_IS_INITRAMFS, path=root))
    proc = procfs.find_proc(root)
    run, initramfs = root, False
    if isinstance(proc, Unknown):
        # Before switch_root(8) this kernel runs nothing of the node on the disk. The node will inherit the present
        # /proc and /run, whether this runs beside its root or in a chroot(2) in it.
        if not os.path.lexists(f"/proc/1/root/{_INITRAMFS}"):
            raise TooLate(proc.reason)
        if not Path(inside(root, cni_directories.DATA_DIR)).is_dir():
            raise TooLate(because(Code.NO_DATA_DIRECTORY_YET, path=cni_directories.DATA_DIR))
        proc, run, initramfs = procfs.Proc("/proc"), "/", True
    boot_id = procfs.boot_id(proc)
    if isinstance(boot_id, Unknown):
        raise TooLate(boot_id.reason)
    node = node_mark.this_node(Node(root, proc, boot_id))
    if isinstance(node, Unknown):
        raise TooLate(node.reason)
    if not all(owner.first for owner in node):
        _prove_the_nodes_own(proc, run)
    if problem := not_shown(node, node_mark.said_ours(Node(root, proc, boot_id))):
        raise TooLate(problem)
    return Place(root, run, proc, boot_id, initramfs, node)


def prove(place: Place) -> None:
    """Raise TooLate on a runtime or shim, an answering socket, or another network namespace in use."""
    for pid in place.proc.pids():
        name = place.proc.name(pid)
        if name in _PROCESSES or name.startswith("containerd-shim"):
            raise TooLate(because(Code.RUNNING_ALREADY, name=name, pid=pid))
    units = sockets.only_units_listen(place.proc)
    for path in (*sockets.CRI, sockets.DOCKER):
        if path in units:
            continue
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(inside(place.run, path))
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
            except OSError as error:
                raise TooLate(failed(Code.SOCKET_FAILED, error, path=path)) from None
            raise TooLate(because(Code.RUNTIME_ANSWERS, path=path))
    pinned = netns.pinned(place.proc)
    if pinned:
        raise TooLate(because(Code.NAMESPACE_THERE, path=pinned[0]))
    namespaces = netns.network_namespaces(place.proc)
    if isinstance(namespaces, Unknown):
        raise TooLate(namespaces.reason)
    own = Path(f"{place.proc.path}/1/ns/net").stat().st_ino
    for namespace in namespaces:
        # A service with PrivateNetwork= has a namespace too, but it contains only the loopback.
        if isinstance(namespace.addresses, Unknown):
            raise TooLate(namespace.addresses.reason)
        up = [a for a in namespace.addresses if not ip_address(a).is_loopback]
        if namespace.inode != own and up:
            raise TooLate(because(Code.ADDRESS_UP_ALREADY, address=up[0], where=namespace.seen_at))


def _prove_the_nodes_own(proc: procfs.Proc, run: str) -> None:
    """TooLate if the processes may be a container's own: the node's processes, including its runtime, would be
    invisible.

    A node may itself be a container (kind, LXC, nspawn). Then its first process is systemd, which has booted it
    (sd_booted(3)).
    """
    booted = proc.name(1) == "systemd" and Path(inside(run, "/run/systemd/system")).is_dir()
    if not (booted or os.path.lexists(f"{proc.path}/1/root/{_INITRAMFS}")):
        raise TooLate(because(Code.IN_A_CONTAINER, name=proc.name(1)))
