"""What janitor lacks on this node: capabilities and, in a container, parts of the node that it was not given.

Each has a plain sentence, because its effect is far from its cause: a process that cannot be read keeps every lease. A
security module may forbid what a capability permits; that is found out by trying. Standard library only.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from janitor.core.model.evidence import Unknown
from janitor.host.cni.directories import CNI_STATE_DIR
from janitor.host.files import STATE, STATE_DIR, read_bounded
from janitor.host.kernel.procfs import NODE_ROOT, mounted_parts
from janitor.host.node import Node, find_node
from janitor.report.words import text

_CAPABILITIES: Final = (  # numbers of capabilities(7); whether policy rules alone need it, too
    ("CAP_SYS_PTRACE", 19, True, "the namespaces, open files and environments of the node's processes cannot be read"),
    ("CAP_DAC_READ_SEARCH", 2, True, "open files and environments of processes that are not root's cannot be read"),
    ("CAP_SYS_ADMIN", 21, False, "network namespaces without a process in them cannot be entered and checked"),
    ("CAP_SYS_CHROOT", 18, False, "the node's CNI plugins cannot be run, and what pods can write to cannot be checked"),
    ("CAP_NET_ADMIN", 12, True, "policy rules cannot be restored, and packet filter rules cannot be read"),
    ("CAP_NET_RAW", 13, False, "packet filter rules of iptables-legacy cannot be read"),
)


@dataclass(frozen=True, slots=True)
class MissingPrivilege:
    """`what` is missing (CAP_SYS_PTRACE, /var/lib/cni, hostPID); `why` it is needed."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} is missing: {self.why}"


def missing_privileges(
    root: str, sockets: tuple[str, ...], data_dirs: tuple[str, ...], *, leases: bool
) -> tuple[MissingPrivilege, ...]:
    """Everything that is missing, for leases or for policy rules alone. Never raises.

    `sockets` and `data_dirs` are those that the operator named, as the node names them.
    """
    try:
        missing = list(_capabilities(leases))
        parts = mounted_parts(root)
        has_proc = root == "/" or os.path.isdir(f"{root}/proc/1")
        if parts and not has_proc:
            node = find_node(root)
            missing += _namespaces(node, allowed=not any(one.what == "CAP_SYS_PTRACE" for one in missing))
            missing += _mounts(node, parts, sockets, data_dirs, leases)
    except (OSError, ValueError) as error:
        return (MissingPrivilege("a look at itself", f"janitor cannot check its own privileges ({error})"),)
    return tuple(missing)


def _capabilities(leases: bool) -> Iterator[MissingPrivilege]:
    rows = read_bounded("/proc/self/status", 1 << 16).decode("ascii", "replace").splitlines()
    effective = int(next(row.split()[1] for row in rows if row.startswith("CapEff:")), 16)
    for name, number, for_rules, why in _CAPABILITIES:
        if not effective >> number & 1 and (leases or for_rules):
            yield MissingPrivilege(name, why)


def _namespaces(node: Node, *, allowed: bool) -> Iterator[MissingPrivilege]:
    """The node's namespaces, and a security module's permission to read the processes in them."""
    try:
        theirs = os.stat("/proc/1/ns/net").st_ino
        os.readlink(NODE_ROOT)
    except OSError:
        if allowed:
            label = read_bounded("/proc/self/attr/current", 4096).decode("ascii", "replace").strip(" \0\n")
            setting = "seLinuxOptions" if label.count(":") > 1 else "appArmorProfile"
            yield MissingPrivilege(
                setting, f"'{label}' denies access to the node's processes, which CAP_SYS_PTRACE would allow"
            )
        return
    if isinstance(node.proc, Unknown):
        yield MissingPrivilege("hostPID", text(node.proc.reason))
    elif theirs != os.stat("/proc/self/ns/net").st_ino:
        yield MissingPrivilege("hostNetwork", "on a node without a free pod address this pod cannot start")


def _mounts(
    node: Node, parts: tuple[str, ...], sockets: tuple[str, ...], data_dirs: tuple[str, ...], leases: bool
) -> Iterator[MissingPrivilege]:
    def there(path: str) -> bool:
        return any(path == part or path.startswith(f"{part}/") for part in parts)

    written = [(STATE_DIR, "it holds janitor's lock and its notes of this boot, which other janitor processes use")]
    if leases:
        written.append((STATE, "it holds janitor's journal; without it nothing is changed"))
        written.append((CNI_STATE_DIR, "it holds host-local's leases and libcni's cache"))
        written += [(path, "it is a host-local data directory that the configuration names") for path in data_dirs]
    for path, why in written:
        if not there(path):
            yield MissingPrivilege(path, f"not mounted at {node.root}{path}: {why}")
        elif not os.access(node.path(path), os.W_OK):
            yield MissingPrivilege(path, f"not writable at {node.root}{path}: {why}")
    for socket in sockets if leases else ():
        path = os.path.dirname(socket.removeprefix("unix://"))
        if not there(path):
            yield MissingPrivilege(path, f"not mounted at {node.root}{path}: it holds the container runtime's socket")
