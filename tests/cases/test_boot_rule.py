"""The rule of the boot stage, clause by clause. What a disk can hold is in tests/boot_cases.py, for all its forms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from janitor.core.leases.boot import Configured, plan_at_boot
from janitor.core.model.action import FreeLease, Plan
from janitor.core.model.codes import Code
from janitor.core.model.evidence import CacheEntry, LeaseDirectory, LeaseFile, Network, Unknown
from janitor.core.model.node_mark import Owner
from janitor.core.model.reason import Reason, because
from tests.reasons import not_seen, words

ID = "ab" * 32
NAME = "k8s-pod-network"
NETWORK = Network(
    NAME, "/var/lib/cni/networks", "10-canal.conflist", ("calico", "portmap"), "0.3.1", not_seen(""), True
)
NODE = Owner("7" * 32, "5" * 32, first=True)
NOTHING = not_seen("no CNI configuration")


def file(name: str, content: bytes | Unknown, inode: int = 7) -> LeaseFile:
    size = len(content) if isinstance(content, bytes) else 70
    return LeaseFile(name, "file", 1, inode, size, 0o600, 5, 6, content)


WHOLE = file("10.52.0.2", f"{ID}\r\neth0".encode())
EMPTY = file("10.52.0.3", b"")
LOCK = file("lock", b"")


def directory(*files: LeaseFile, name: str = NAME, filesystem: str = "ext4") -> LeaseDirectory:
    return LeaseDirectory(f"/var/lib/cni/networks/{name}", name, files, filesystem)


BLANK = because(Code.EMPTY)


def entry(damage: Reason | None = BLANK, **more: object) -> CacheEntry:
    path = f"/var/lib/cni/results/{NAME}-{ID}-eth0"
    return replace(CacheEntry(path, NAME, ID, "eth0", 1, 9, 0, 5, 6, damage), **more)  # type: ignore[arg-type]


def planned(
    *directories: LeaseDirectory,
    networks: tuple[Network, ...] | Unknown = (NETWORK,),
    cache: tuple[CacheEntry, ...] = (),
) -> Plan:
    return plan_at_boot(Configured(networks, absent=isinstance(networks, Unknown)), directories, cache, (NODE,))


def names(plan: Plan) -> list[str]:
    return [action.name for action in plan.actions]


def test_cri_leases_and_corrupt_ones_go_with_their_identity_and_the_proof() -> None:
    plan = planned(directory(WHOLE, EMPTY, LOCK, file("10.52.0.4", b"mine")))
    assert names(plan) == ["10.52.0.2", "10.52.0.3"]
    first, second = plan.actions
    assert isinstance(first, FreeLease)
    assert (first.kind, first.container_id, first.interface, first.ctime_ns) == ("free", ID, "eth0", 6)
    assert isinstance(second, FreeLease)
    assert (first.file.inode, first.file.path) == (7, "/var/lib/cni/networks/k8s-pod-network/10.52.0.2")
    assert "before any container runtime" in words(first.proof[-1])
    assert second.proof[0] == because(Code.EMPTY)
    assert plan.refusals == ()


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (replace(NETWORK, used_by_cri=False), "no CNI configuration that CRI uses"),
        (replace(NETWORK, disable_gc=True), "disableGC"),
        (replace(NETWORK, plugins=("bridge", "firewall")), "firewall"),
        (replace(NETWORK, data_dir="/elsewhere"), "no CNI configuration that CRI uses"),
    ],
)
def test_other_networks_keep_theirs_and_it_is_said(network: Network, why: str) -> None:
    plan = planned(directory(WHOLE, EMPTY), networks=(network,))
    assert plan.actions == ()
    assert words(plan.refusals[0].reasons).startswith("2 leases left: ")
    assert why in words(plan.refusals[0].reasons)


def test_one_refusing_network_of_a_directory_is_enough() -> None:
    assert (
        names(planned(directory(WHOLE), networks=(NETWORK, replace(NETWORK, disable_gc=True, used_by_cri=False)))) == []
    )


@pytest.mark.parametrize("filesystem", ["nfs4", "ceph", "9p", "virtiofs", "fuse.sshfs"])
def test_a_network_file_system(filesystem: str) -> None:
    plan = planned(directory(WHOLE, filesystem=filesystem))
    assert (names(plan), filesystem in words(plan.refusals[0].reasons)) == ([], True)


def test_what_could_not_be_read_stays() -> None:
    assert names(planned(directory(file("10.52.0.2", not_seen("reading it: Input/output error"))))) == []
    unread = LeaseDirectory("/var/lib/cni/networks/k8s-pod-network", NAME, not_seen("reading it: I/O error"), "ext4")
    assert words(planned(unread).refusals[0].reasons) == "0 leases left: reading it: I/O error"


def test_without_a_configuration_only_what_can_be_nobody_elses() -> None:
    assert names(planned(directory(WHOLE, LOCK), networks=NOTHING)) == ["10.52.0.2"]
    assert "only leases of CRI sandboxes" in words(planned(directory(WHOLE), networks=NOTHING).actions[0].proof[-1])
    for other in (EMPTY, file("10.52.0.4", b"mine"), file("note", b""), file("10.52.0.5", ID.encode())):
        plan = planned(directory(WHOLE, other), networks=NOTHING)
        assert names(plan) == []
        assert "there is no CNI configuration" in words(plan.refusals[0].reasons)
    for name in ("podman", "bridge", "buildkit", "nerdctl-x"):
        assert names(planned(directory(WHOLE, name=name), networks=NOTHING)) == []
    assert plan_at_boot(Configured(NOTHING), (directory(WHOLE),), (), (NODE,)).actions == ()
    remembered = Configured(NOTHING, (f'{{"name": "{NAME}", "disableGC": true}}',), absent=True)
    assert plan_at_boot(remembered, (directory(WHOLE),), (), (NODE,)).actions == ()


def test_blank_cache_entries_of_these_networks() -> None:
    assert [a.kind for a in planned(cache=(entry(), entry(because(Code.CACHE_NULS, bytes=1517)))).actions] == [
        "discard"
    ] * 2
    for kept in (
        entry(None),
        entry(because(Code.CACHE_NOT_JSON)),
        entry(network="podman"),
        entry(container_id="x"),
        entry(regular=False),
    ):
        assert planned(cache=(kept,)).actions == ()
    assert planned(networks=(replace(NETWORK, plugins=("firewall",)),), cache=(entry(),)).actions == ()
    assert planned(networks=NOTHING, cache=(entry(),)).actions == ()
    assert names(planned(directory(WHOLE), networks=NOTHING, cache=(entry(),))) == ["10.52.0.2", f"{NAME}-{ID}-eth0"]


def test_there_is_no_bound() -> None:
    files = tuple(file(f"10.52.{i // 256}.{i % 256}", b"", i) for i in range(5000))
    assert len(planned(directory(*files)).actions) == 5000
