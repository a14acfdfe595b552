"""The boot stage as systemd starts it: a real systemd as PID 1, its units, a real containerd, and cuts of its power."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab import cuts, systemd_node, tree
from tests.lab.cache import REPOSITORY, MissingError
from tests.lab.kubelet import Pod, RpcError
from tests.lab.networks import calico
from tests.lab.systemd_node import SystemdNode

pytestmark = pytest.mark.system

UNIT = "janitor-boot.service"
CUTS = int(os.environ.get("JANITOR_CUTS", "3"))


@pytest.fixture(scope="module", autouse=True)
def _tree() -> None:
    if reason := systemd_node.missing():
        pytest.skip(reason)
    try:
        tree.base()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def node() -> Iterator[SystemdNode]:
    """A node with room for thirteen pods, and the boot stage installed; not booted."""
    with SystemdNode(calico("10.52.0.0/28")) as made:
        made.install()
        yield made


def messages(node: SystemdNode) -> list[tuple[str, str]]:
    """What the boot stage itself said in this boot: priority and text."""
    return [(e["PRIORITY"], e["MESSAGE"]) for e in node.journal(UNIT) if e["MESSAGE"].startswith("janitor-boot: ")]


def stopped(node: SystemdNode, pods: list[Pod]) -> None:
    """As the kubelet does it after a boot; raises where the runtime cannot."""
    for pod in pods:
        node.kubelet.stop(pod)
        node.kubelet.remove(pod)


def test_after_a_power_cut_every_address_is_free_before_containerd_starts(node: SystemdNode) -> None:
    node.boot()
    assert messages(node) == [
        ("5", "janitor-boot: recorded 0 leases that existed before any container runtime of this boot started")
    ]
    old = [node.kubelet.run() for _ in range(3)]
    node.sync()
    old += [node.kubelet.run() for _ in range(3)]
    last = (node.leases / "last_reserved_ip.0").read_bytes()
    node.cut("empty")
    assert sorted(len(content) for content in node.addresses().values()) == [0, 0, 0, 70, 70, 70]

    node.boot()
    ((priority, said),) = messages(node)
    assert (priority, "freed 6 of k8s-pod-network; discarded 3 blank cache entries" in said) == ("5", True), said
    # Its end and containerd's start, on the kernel's clock.
    ended = int(node.show(UNIT, "ExecMainExitTimestampMonotonic"))
    assert 0 < ended < int(node.show("containerd.service", "ExecMainStartTimestampMonotonic"))
    assert node.addresses() == {}
    ledger = json.loads((node.root / "run/janitor/ledger.json").read_text())
    assert ledger["boot_id"] == node.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()
    assert sorted(file["path"].rpartition("/")[2] for file in ledger["files"]) == sorted(pod.ip for pod in old)

    # Addresses go on where they were; nothing is given out again at once.
    assert (node.leases / "last_reserved_ip.0").read_bytes() == last
    new = [node.kubelet.run() for _ in range(3)]
    assert [pod.ip for pod in new] == ["10.52.0.8", "10.52.0.9", "10.52.0.10"]
    stopped(node, old)
    assert sorted(node.addresses()) == sorted(pod.ip for pod in new)
    assert {pod.id for pod in node.kubelet.list()} == {pod.id for pod in new}
    assert all(node.kubelet.pod(pod).ip == pod.ip for pod in new)


def test_a_range_that_was_exhausted_before_the_cut(node: SystemdNode) -> None:
    node.boot()
    old = [node.kubelet.run() for _ in range(13)]
    with pytest.raises(RpcError, match="no IP addresses available in range set"):
        node.kubelet.run()
    node.cut("nul")
    node.boot()
    new = [node.kubelet.run() for _ in range(13)]
    assert len({pod.ip for pod in new}) == 13
    stopped(node, old)
    assert sorted(node.addresses()) == sorted(pod.ip for pod in new)


def test_late_it_changes_nothing(node: SystemdNode) -> None:
    """Started by hand while pods run; and, its ordering taken away, started after containerd."""
    node.boot()
    pods = [node.kubelet.run() for _ in range(3)]
    before = node.addresses()
    node.run(["systemctl", "restart", UNIT], check=True)
    priority, said = messages(node)[-1]
    assert (priority, "the boot stage has already run in this boot (/run/janitor/ledger.json)" in said) == ("4", True)
    assert "on a running node use 'janitor clean'" in said

    # Not even with the ledger gone.
    (node.root / "run/janitor/ledger.json").unlink()
    node.run(["systemctl", "restart", UNIT], check=True)
    priority, said = messages(node)[-1]
    assert priority == "4"
    assert "is already running; on a running node use 'janitor clean'" in said
    assert node.addresses() == before
    node.cut("intact")

    unit = node.disk / "etc/systemd/system" / UNIT
    unit.write_text("".join(line for line in unit.read_text().splitlines(True) if not line.startswith("Before=")))
    drop_in = node.disk / f"etc/systemd/system/{UNIT}.d/late.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Unit]\nAfter=containerd.service\n")
    node.boot()
    node.run(["systemctl", "is-system-running", "--wait"])
    ((priority, said),) = messages(node)
    assert (priority, "is already running" in said) == ("4", True)
    assert node.addresses() == before
    assert node.show(UNIT, "Result") == "success"
    assert not (node.root / "run/janitor/ledger.json").exists()
    stopped(node, pods)


def test_a_boot_is_not_held_up(node: SystemdNode) -> None:
    """Whatever keeps it, the runtimes start when its time is over."""
    (node.disk / "opt/janitor/bin/janitor-boot").unlink()
    (node.disk / "opt/janitor/bin/janitor-boot").write_text("#!/bin/sh\nsleep 1000\n")
    (node.disk / "opt/janitor/bin/janitor-boot").chmod(0o755)
    drop_in = node.disk / f"etc/systemd/system/{UNIT}.d/short.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nTimeoutStartSec=2\n")
    node.boot()
    assert node.show(UNIT, "Result") == "timeout"
    assert node.kubelet.run().ip


def test_cuts_at_random_moments() -> None:
    """JANITOR_CUTS of them (3). `python -m tests.lab.cuts 10` plays them without the boot stage as well."""
    played = cuts.play(CUTS, seed=CUTS, with_janitor=True)
    print(cuts.table(played))
    for one in played:
        assert (one.leases_after_boot, one.refused, one.stuck, one.left, one.twice, one.unleased) == (0,) * 6, one
        assert one.started == cuts.PODS


def test_the_units_are_valid() -> None:
    """Checked in the tree, where the programs and the units they name are."""
    units = sorted(path.name for path in systemd_node.UNITS.glob("*.service")) + sorted(
        path.name for path in systemd_node.UNITS.glob("*.mount")
    )
    assert UNIT in units
    with SystemdNode() as made:
        for name in units:
            (made.disk / "etc/systemd/system" / name).write_text((systemd_node.UNITS / name).read_text())
        for program in ("janitor", "janitor-boot"):
            (made.disk / "opt/janitor/bin" / program).symlink_to("/bin/true")
        made.boot()
        done = made.run(["systemd-analyze", "verify", *units])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_shell_scripts_are_clean() -> None:
    scripts = subprocess.run(["git", "ls-files", "*.sh"], cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    shipped = [name for name in scripts if name.startswith(("cloud-init/", "systemd/"))]
    done = subprocess.run(["shellcheck", *shipped], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
