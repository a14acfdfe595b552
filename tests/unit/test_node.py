"""What a reader is told of the node: nothing of this machine where the node is another one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from janitor.core.model.evidence import Unknown
from janitor.host.changes import state
from janitor.host.cni.leases import lease_directories
from janitor.host.cni.node_mark import this_node
from janitor.host.kernel import mounts
from janitor.host.kernel.procfs import Proc
from janitor.host.node import Node, files_only, find_node, node_with
from janitor.host.systemd.networkd import read_networkd
from tests.lab.simulated_proc import FakeProc
from tests.nodes import booted
from tests.reasons import not_seen

BOOT = "5f0c7d1e-0000-4000-8000-000000000007"


def test_a_node_is_its_root_its_processes_and_its_boot(tmp_path: Path) -> None:
    FakeProc(tmp_path / "proc").boot(BOOT, runtime=900)
    node = find_node(str(tmp_path))
    assert node == Node(str(tmp_path), Proc(f"{tmp_path}/proc"), BOOT)
    assert node.complete() == node
    assert Node("/", node.proc, BOOT).complete() == Node("/", node.proc, BOOT)
    assert Node("/", node.proc, BOOT).path("/run/x") == "/run/x"


def test_of_a_disk_at_rest_the_leases_are_read_and_nothing_that_this_machine_knows(tmp_path: Path) -> None:
    lease = tmp_path / "var/lib/cni/networks/x/10.0.0.2"
    lease.parent.mkdir(parents=True)
    lease.write_text("y")
    node = find_node(str(tmp_path))
    assert isinstance(node.proc, Unknown)
    assert node.boot_id == node.proc
    directories = lease_directories(node, (), (), mounts.own_mounts())
    assert not isinstance(directories, Unknown)
    assert [len(d.entries) for d in directories if not isinstance(d.entries, Unknown)] == [1]
    assert this_node(node) == read_networkd(node) == node.proc


@pytest.mark.parametrize("proc", [Proc("/proc"), not_seen("no /proc")], ids=["from beside its root", "at rest"])
def test_a_disk_is_never_completed_with_this_machines_files(tmp_path: Path, proc: Proc | Unknown) -> None:
    """An initramfs has the /proc of the node that it boots, and not its root."""
    assert node_with(str(tmp_path), proc).complete().root == str(tmp_path)


def test_links_lead_nowhere_but_into_the_node(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("/srv")
    (tmp_path / "circle").symlink_to("circle")
    assert files_only(str(tmp_path)).path("/run/x") == str(tmp_path / "srv/x")
    with pytest.raises(OSError, match="symbolic links") as raised:
        files_only(str(tmp_path)).path("/circle")
    assert raised.value.errno == errno.ELOOP


@pytest.mark.parametrize("text", ['{"files": []}', '{"boot_id": null, "files": []}', '{"boot_id": "", "files": []}'])
def test_a_note_is_of_no_boot_that_cannot_be_told(tmp_path: Path, text: str) -> None:
    node = Node(str(tmp_path), not_seen("no /proc"), not_seen("no /proc"))
    state.write_ledger(booted(tmp_path, "this"), ())
    assert state.read_ledger(node) == ()
    before = (tmp_path / state.LEDGER.lstrip("/")).read_text()
    with pytest.raises(OSError, match="no /proc"):
        state.write_ledger(node, ())
    assert (tmp_path / state.LEDGER.lstrip("/")).read_text() == before
    (tmp_path / state.RULES.lstrip("/")).write_text(text)
    assert state.read_rules(node) == {}
