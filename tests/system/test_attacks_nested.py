"""Nodes within nodes, and directories that more than one has: that none frees the other's leases."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import boot_stages, clock, systemd_node, tree
from tests.lab.boot_stages import PYTHON, SHELLS, Stage
from tests.lab.cache import MissingError
from tests.lab.daemon import Daemon
from tests.lab.networks import calico
from tests.lab.node import JANITOR, Node, NodeFactory
from tests.lab.systemd_node import SystemdNode
from tests.system.test_traps import SOCKET, clean, until

pytestmark = pytest.mark.system

# A node nested in another, whose disk it sees: a /run and a /proc of its own, systemd as its first process, and $2 done
# to what it sees; then $1.
_NESTED = """import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(15, b"systemd", 0, 0, 0)
first = "mount --make-rprivate /; umount /run/netns/* 2>/dev/null; mount -t tmpfs run /run; mount -t proc proc /proc"
first += "; mkdir -p /run/systemd/system /run/lock /run/netns; ip link set lo up; " + sys.argv[2]
sys.exit(subprocess.run(["sh", "-c", first + "; " + sys.argv[1]]).returncode)"""
# What of the outer's disk it has been given, besides its own.
GIVEN = {
    "all": ":",
    "/var/lib/cni": "mkdir /run/n; mount --bind /var/lib/cni /run/n; mount -t tmpfs t /var/lib; "
    "mkdir -p /var/lib/cni; mount --bind /run/n /var/lib/cni",
    "/var/lib/cni/networks": "mkdir /run/n; mount --bind /var/lib/cni/networks /run/n; mount -t tmpfs t /var/lib; "
    "mkdir -p /var/lib/cni/networks; mount --bind /run/n /var/lib/cni/networks",
}
# What says that its directories are its own, though they are not.
LIES = "mkdir -p /run/lab/etc-janitor; echo data_dirs_are_ours = true >/etc/janitor/janitor.toml"
KEY = "set data_dirs_are_ours = true in /etc/janitor/janitor.toml"
ITS_RUNTIME = """mkdir -p /var/lib/containerd && mount -t tmpfs c /var/lib/containerd
    containerd >/run/containerd.log 2>&1 &
    until ctr version >/dev/null 2>&1; do sleep 0.1; done; sleep 3"""


# 11: whose directory is it?


def nested(machine: Node, command: str, given: str = ":", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run this in a node that is nested in `machine`."""
    path = f"{machine.containerd.directory}:/usr/sbin:/usr/bin:/sbin:/bin"
    unshare = ["unshare", "--pid", "--mount", "--net", "--uts", "--fork", "--kill-child"]
    return machine.run(
        [*unshare, sys.executable, "-c", _NESTED, command, given], env={"PATH": path}, timeout=timeout
    )  # fmt: skip


def stage_command(stage: Stage) -> str:
    return shlex.join(stage.command) + " --strict"


@pytest.mark.promise
@pytest.mark.parametrize("stage", (PYTHON, SHELLS[0]), ids=lambda stage: stage.name)
@pytest.mark.parametrize("given", GIVEN)
def test_11_the_boot_stage_of_a_nested_node_leaves_the_outers_leases(
    node: NodeFactory, stage: Stage, given: str
) -> None:
    """It is early there: nothing of the nested node runs, and nothing of the outer one is in sight."""
    machine = node(calico())
    pods = [machine.kubelet.run() for _ in range(3)]
    before = machine.addresses()
    done = nested(machine, stage_command(stage), GIVEN[given])
    assert machine.addresses() == before, done
    assert sorted(pod.ip for pod in pods) == sorted(before)
    assert (done.returncode, KEY in done.stderr) == (1, True), done


@pytest.mark.parametrize("stage", (PYTHON, SHELLS[0]), ids=lambda stage: stage.name)
def test_11_a_clone_that_claims_the_outers_directory_is_held_back_by_its_mark(node: NodeFactory, stage: Stage) -> None:
    """The same image: the same machine ID, and a configuration that says what is not so."""
    machine = node(calico(), boot=False)
    machine.boot(start_runtime=False)
    assert machine.run([*stage.command, "--strict"]).returncode == 0  # there is nothing to mark yet
    machine.start_runtime()
    pods = [machine.kubelet.run() for _ in range(2)]
    with Daemon(machine) as daemon:
        daemon.wait_for("event=pass.*live=2")
        mark = machine.cni_dir / "networks/.janitor-node"
        until(mark.exists, "the daemon has marked its directory")
        before, line = machine.addresses(), mark.read_bytes()
        for given in ("/var/lib/cni", "/var/lib/cni/networks"):
            done = nested(machine, stage_command(stage), f"{GIVEN[given]}; {LIES}")
            assert (machine.addresses(), mark.read_bytes()) == (before, line), done
            assert "marks its data directory as another node's" in done.stderr, done
            cleaned = nested(machine, _passes(), f"{GIVEN[given]}; {LIES}; {ITS_RUNTIME}")
            assert (machine.addresses(), mark.read_bytes()) == (before, line), cleaned
            report = json.loads(cleaned.stdout[cleaned.stdout.index("{") :])
            assert {x["verdict"] for x in report["leases"]} == {"foreign"}, cleaned
    assert sorted(pod.ip for pod in pods) == sorted(before)


def _passes() -> str:
    """Two passes of clean, as if 700 s lay between; then what a scan says."""
    program = shlex.join([sys.executable, str(clock.__file__)])
    words = f"clean --yes --no-wait --cri-endpoint {SOCKET}"
    return f"{program} 700 {words}; {program} 1500 {words}; {JANITOR} scan -o json --cri-endpoint {SOCKET}"


@pytest.mark.parametrize("given", GIVEN)
def test_11_a_nested_node_whose_runtime_knows_nothing_of_the_outers_pods(node: NodeFactory, given: str) -> None:
    """All of its own was looked at, its runtime is younger than the leases, and they were watched for long."""
    machine = node(calico())
    pods = [machine.kubelet.run() for _ in range(2)]
    before = machine.addresses()
    time.sleep(3)  # what is written within two seconds of a runtime's start might be its own
    done = nested(machine, _passes(), f"{GIVEN[given]}; {ITS_RUNTIME}")
    assert machine.addresses() == before, done
    assert sorted(pod.ip for pod in pods) == sorted(before)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert {x["verdict"] for x in report["leases"]} == {"pending"}, done
    assert all(KEY in " ".join(reason["text"] for reason in x["reasons"]) for x in report["leases"]), done
    daemon = shlex.join([sys.executable, str(clock.__file__), "2000", "run", "--cri-endpoint", SOCKET])
    done = nested(machine, f"timeout 8 {daemon}", f"{GIVEN[given]}; {ITS_RUNTIME}")
    assert "event=pass" in done.stderr and "pending=2" in done.stderr, done
    assert machine.addresses() == before, done
    assert not (machine.cni_dir / "networks/.janitor-node").exists()


def test_11_a_node_in_a_container_frees_nothing_without_the_operators_word(node: NodeFactory) -> None:
    """The lab's node is one, and so is that of the next test. What is dead there is freed once it has been said."""
    machine = node(calico(), ours=False)
    machine.kubelet.run()
    machine.cut("empty")
    time.sleep(3)
    machine.boot(start_runtime=False)
    before = machine.addresses()
    for stage in (PYTHON, *SHELLS[:1]):
        done = machine.run([*stage.command, "--strict"])
        assert (done.returncode, KEY in done.stderr) == (1, True), done
    machine.start_runtime()
    said = clean(machine)
    assert machine.addresses() == before
    assert KEY in said
    (address,) = before
    assert KEY in " ".join(machine.janitor("explain", address, "--cri-endpoint", SOCKET).stdout.split())
    (machine.disk / "etc-janitor/janitor.toml").write_text("data_dirs_are_ours = true\n")
    clean(machine)
    assert machine.addresses() == {}


def test_11_a_systemd_in_a_container_frees_nothing_without_the_operators_word() -> None:
    """Even on its own root file system: nothing inside can show by whom else that is used."""
    if reason := systemd_node.missing() or boot_stages.missing():
        pytest.skip(reason)
    try:
        tree.base()
    except MissingError as error:
        pytest.skip(str(error))
    with SystemdNode(calico(), ours=False) as machine:
        machine.install()
        machine.boot()
        machine.kubelet.run()
        machine.cut("empty")
        before = machine.addresses()
        machine.boot()
        said = " ".join(entry["MESSAGE"] for entry in machine.journal("janitor-boot.service"))
        assert "nothing done" in said
        assert KEY in said
        assert machine.addresses() == before != {}
        machine.cut("intact")
        machine.configure("data_dirs_are_ours = true\n")
        machine.boot()
        assert machine.addresses() == {}
        # Nor does what was said of it hold for a node nested in it, with whom it shares the whole of its disk.
        pod = machine.kubelet.run()
        unshare = ["unshare", "--pid", "--mount", "--net", "--uts", "--fork", "--kill-child"]
        program = "/opt/janitor/bin/janitor-boot --strict"
        done = machine.run([*unshare, str(Path(sys.executable).resolve()), "-c", _NESTED, program, ":"])
        assert (done.returncode, KEY in done.stderr) == (1, True), done
        assert list(machine.addresses()) == [pod.ip]
