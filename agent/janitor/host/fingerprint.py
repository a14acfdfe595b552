"""The fingerprint check: whether a node has changed since the last full pass, at a fraction of that pass's cost.

It decides nothing about leases. It covers every place where the death of a lease's owner leaves a trace: leases,
caches, CNI configuration, network namespaces, the runtimes' tasks, listeners on their sockets, policy rules.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.fingerprint import Fingerprint
from janitor.host.cni.directories import CACHES, CONFIGURATION, DATA_DIR
from janitor.host.files import entries
from janitor.host.kernel import netlink
from janitor.host.kernel.namespaces import in_network
from janitor.host.kernel.procfs import Proc
from janitor.host.node import Node, find_node
from janitor.host.runtime.listeners import listener, pin
from janitor.host.runtime.rpc import socket_path
from janitor.host.runtime.tasks import task_parents

_MORE: Final = (
    "/run/netns", *CONFIGURATION, "/run/flannel", "/run/systemd/netif/links", "/run/systemd/network",
    "/etc/systemd/network",
)  # fmt: skip


def places(evidence: Evidence) -> Fingerprint:
    """All places that this evidence's leases depend on, without a digest. OSError for a loop of links (ELOOP)."""
    node = find_node(evidence.root)
    whole = node.complete()
    directories = [directory.path for directory in known(evidence.lease_directories)]
    written = [*CACHES, DATA_DIR, *evidence.allowed_data_dirs, *directories]
    configured = {os.path.dirname(network.source) for network in known(evidence.networks)}
    configured |= {*evidence.node_config.cni_directories}
    read = [*sorted(configured), *_MORE, *task_parents(whole)]
    paths = [node.path(path) for path in written] + [whole.path(path) for path in read]
    return Fingerprint(tuple(dict.fromkeys(paths)), tuple(endpoint.address for endpoint in known(evidence.endpoints)))


def fingerprint_of(node: Node, where: Fingerprint) -> str:
    """A digest that changes when anything there does; "" if something could not be read."""
    if isinstance(node.proc, Unknown) or not where.paths:
        return ""
    digest = hashlib.sha256()
    try:
        for seen in _sights(node, node.proc, where):
            digest.update(repr(seen).encode("utf-8", "backslashreplace"))
    except OSError:
        return ""
    return digest.hexdigest()


def _sights(node: Node, proc: Proc, where: Fingerprint) -> Iterator[object]:
    yield node.boot_id
    for path in where.paths:
        yield path, _stat(path)
        try:
            yield sorted((entry.name, _identity(entry.stat(follow_symlinks=False))) for entry in entries(path))
        except (FileNotFoundError, NotADirectoryError):
            yield None  # it does not exist, or an entry has just been removed
    for address in where.endpoints:
        here = socket_path(node.root, address)
        socket = here if isinstance(here, Unknown) else pin(here, address)
        if isinstance(socket, Unknown):
            yield socket
            continue
        try:
            yield listener(socket, address, proc, None)
        finally:
            socket.close()
    yield in_network(f"{proc.path}/1/ns/net", _rules)


def _stat(path: str) -> tuple[int, ...] | None:
    try:
        return _identity(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _identity(info: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(info.st_mode):  # entries are compared where they matter; exec probes write into task directories
        return info.st_dev, info.st_ino
    return info.st_dev, info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _rules() -> tuple[bytes, ...]:
    talk = netlink.RuleSocket()
    try:
        return tuple(rule.payload for rule in talk.dump())
    finally:
        talk.close()
