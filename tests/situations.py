"""Evidence for tests, one situation at a time: a healthy node with one lease, and the ways it can differ."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from janitor.core.leases.judgement import JudgedLease, judge
from janitor.core.model.addresses import make_range
from janitor.core.model.evidence import (
    EVIDENCE_VERSION,
    CacheEntry,
    Clock,
    Endpoint,
    Evidence,
    LeaseDirectory,
    LeaseFile,
    Network,
    NetworkNamespace,
    Pod,
    RuntimeProcess,
    Sandbox,
    Unknown,
)
from janitor.core.model.lease import identity
from janitor.core.model.node_mark import Owner

SECOND = 1_000_000_000
BOOT = 1_790_000_000 * SECOND  # the wall clock at the boot
NOW = 10_000 * SECOND  # since the boot
RUNTIME_START = 5_000 * SECOND
DEAD = "d" * 64
LIVE = "a" * 64
DIRECTORY = "/var/lib/cni/networks/k8s-pod-network"
ADDRESS = "10.52.0.77"
NODE = Owner("7" * 32, "5" * 32, first=True)
POD = Pod("default", "web-1", "uid-1")


ORPHAN = f"{DEAD}\r\neth0".encode()


def lease(
    name: str = ADDRESS, content: bytes | Unknown = ORPHAN, born: int = 1_000 * SECOND, **other: Any
) -> LeaseFile:
    """A lease written `born` nanoseconds after the boot."""
    size = 70 if isinstance(content, Unknown) else len(content)
    values: dict[str, Any] = {
        "name": name, "kind": "file", "device": 1, "inode": 100 + int(ip_address(name)) % 10_000, "size": size,
        "mode": 0o644, "mtime_ns": BOOT + born, "ctime_ns": BOOT + born, "content": content,
    }  # fmt: skip
    return LeaseFile(**(values | other))


def sandbox(container_id: str, ready: bool = True, addresses: tuple[str, ...] | Unknown = (), **other: Any) -> Sandbox:
    values: dict[str, Any] = {
        "container_id": container_id, "pod": POD, "ready": ready, "created_ns": BOOT + SECOND, "network_mode": "pod",
        "addresses": addresses,
    }  # fmt: skip
    return Sandbox(**(values | other))


def endpoint(*sandboxes: Sandbox, **other: Any) -> Endpoint:
    values: dict[str, Any] = {
        "address": "unix:///run/containerd/containerd.sock", "origin": "kubelet", "runtime_name": "containerd",
        "runtime_version": "1.7.24", "sandboxes": sandboxes, "records": (),
        "listeners": (RuntimeProcess(700, "containerd", RUNTIME_START, BOOT + RUNTIME_START + SECOND),),
    }  # fmt: skip
    return Endpoint(**(values | other))


def cache_entry(container_id: str, address: str = "", **other: Any) -> CacheEntry:
    values: dict[str, Any] = {
        "path": f"/var/lib/cni/results/k8s-pod-network-{container_id}-eth0", "network": "k8s-pod-network",
        "container_id": container_id, "interface": "eth0", "device": 1, "inode": 9, "size": 900, "mtime_ns": 0,
        "ctime_ns": 0, "cni_version": "0.4.0", "ipam": ("host-local",), "plugins": ("bridge",),
        "data_dir": "/var/lib/cni/networks", "addresses": (f"{address}/24",) if address else (), "pod": POD,
    }  # fmt: skip
    return CacheEntry(**(values | other))


def network(**other: Any) -> Network:
    values: dict[str, Any] = {
        "name": "k8s-pod-network", "data_dir": "/var/lib/cni/networks", "source": "/etc/cni/net.d/10-canal.conflist",
        "plugins": ("bridge", "portmap"), "cni_version": "0.3.1", "range_sets": ((make_range("10.52.0.0/24"),),),
        "used_by_cri": True,
    }  # fmt: skip
    return Network(**(values | other))


def evidence(*files: LeaseFile, **other: Any) -> Evidence:
    """A node that runs one live pod (10.52.0.2) and has `files` as its other leases; all was seen."""
    alive = lease("10.52.0.2", f"{LIVE}\r\neth0".encode(), born=6_000 * SECOND)
    values: dict[str, Any] = {
        "version": EVIDENCE_VERSION, "janitor": "0", "node": "node", "root": "/",
        "started": Clock(BOOT + NOW, NOW), "finished": Clock(BOOT + NOW + SECOND, NOW + SECOND), "boot_id": "this-boot",
        "networks": (network(),), "plugin_dirs": (), "allowed_data_dirs": (),
        "lease_directories": (LeaseDirectory(DIRECTORY, "k8s-pod-network", (alive, *files), "ext4"),),
        "cache": (cache_entry(LIVE, "10.52.0.2"),),
        "endpoints": (endpoint(sandbox(LIVE, addresses=("10.52.0.2",))),),
        "namespaces": (
            NetworkNamespace(1, "process 1 (systemd)", ("10.52.0.1", "127.0.0.1"), ()),
            NetworkNamespace(2, "/run/netns/cni-1", ("10.52.0.2", "127.0.0.1"), ()),
        ),
        "processes": (), "task_directories": (), "ledger": (), "observations": (), "this_node": (NODE,),
    }  # fmt: skip
    return Evidence(**(values | other))


def in_ledger(found: Evidence, file: LeaseFile) -> Evidence:
    """The same, after a boot stage that saw `file`."""
    this = identity(f"{DIRECTORY}/{file.name}", file)
    assert this is not None
    return replace(found, ledger=(this,))


def verdict_of(found: Evidence, address: str = ADDRESS, grace_s: int = 600) -> JudgedLease:
    """The judgement on one address; fails where there is not exactly one."""
    (judged,) = [x for x in judge(found, grace_s).leases if x.address == address]
    return judged
