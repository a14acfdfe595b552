"""The lab itself: that its nodes break as real ones do, and that nothing of the machine below them is touched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import cgroups, networks
from tests.lab.kubelet import Pod, RpcError
from tests.lab.node import Node, NodeFactory
from tests.lab.pagecache import Loss
from tests.lab.runtimes import Containerd
from tests.lab.simulated import SimulatedNode

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]
# The words of libcni before 1.2, which every containerd of 1.6 and 1.7 has (facts: power-cut).
UNREADABLE = (
    'failed to get network "k8s-pod-network" cached result: decoding version from network config: unexpected end'
)


def slow_chain(cni_version: str = "0.3.1") -> networks.Network:
    return networks.canal(cni_version=cni_version, chain=(networks.PORTMAP, networks.SLOW))


def entries(node: Node) -> set[str]:
    """libcni's cache entries, without the random part of their names."""
    return {re.sub(r"[0-9a-f]{64}", "ID", path.name) for path in node.results.iterdir()}


def clean_up(node: Node) -> None:
    """What the kubelet does after a boot: every old sandbox is stopped and removed."""
    for pod in node.kubelet.list():
        node.kubelet.stop(pod)
        node.kubelet.remove(pod)


# Boot, run, cut.


def test_it_runs_the_containerd_it_was_asked_for(node: NodeFactory, containerd_version: Containerd) -> None:
    running = node(containerd=containerd_version)
    assert running.kubelet.version().startswith(f"{containerd_version.series}.")
    assert containerd_version.version in running.kubelet.version()


def test_a_lease_is_70_bytes_of_id_and_interface(node: NodeFactory, containerd_version: Containerd) -> None:
    running = node(containerd=containerd_version)
    pod = running.kubelet.run("web", namespace="shop")
    assert (pod.name, pod.namespace, pod.ready, pod.ip) == ("web", "shop", True, "10.52.0.2")
    assert running.addresses() == {"10.52.0.2": f"{pod.id}\r\neth0".encode()}
    assert (running.leases() / "10.52.0.2").stat().st_size == 70
    assert sorted(path.name for path in running.leases().iterdir()) == ["10.52.0.2", "last_reserved_ip.0", "lock"]
    assert entries(running) == {"k8s-pod-network-ID-eth0", "cni-loopback-ID-lo"}
    running.kubelet.stop(pod)
    running.kubelet.remove(pod)
    assert running.addresses() == {}
    assert running.kubelet.list() == ()


def test_host_network_takes_no_lease_and_host_ports_take_rules(node: NodeFactory) -> None:
    running = node()
    assert running.kubelet.run(host_network=True).addresses == ()
    assert running.addresses() == {}
    pod = running.kubelet.run(host_ports={8080: 80})
    rules = running.run(["iptables-save", "-t", "nat"], check=True).stdout
    assert f"--to-destination {pod.ip}:80" in rules


@pytest.mark.parametrize("loss", ["empty", "nul", "missing", "intact"])
def test_a_cut_loses_what_was_not_on_the_disk(node: NodeFactory, loss: Loss) -> None:
    running = node()
    old = running.kubelet.run("old")
    running.sync()
    new = running.kubelet.run("new")
    boot_id = running.boot_id
    assert running.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip() == boot_id

    hit = running.cut(loss)
    assert len(hit) == (0 if loss == "intact" else 3)  # a lease, and two entries in libcni's cache
    expected = {
        "empty": {new.ip: b""},
        "nul": {new.ip: bytes(70)},
        "missing": {},
        "intact": {new.ip: f"{new.id}\r\neth0".encode()},
    }
    assert running.addresses() == {old.ip: f"{old.id}\r\neth0".encode()} | expected[loss]
    assert (running.leases() / "last_reserved_ip.0").read_text() == new.ip

    running.boot()
    assert running.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip() == running.boot_id != boot_id
    assert [(pod.id, pod.ready) for pod in running.kubelet.list()] == [(old.id, False), (new.id, False)]
    assert running.kubelet.pod(old).addresses == ()
    assert running.run(["find", "/run/netns", "-type", "f"]).stdout == ""


def test_an_old_file_survives_a_cut_and_a_young_one_does_not(node: NodeFactory) -> None:
    running = node()
    old, young = running.kubelet.run(), running.kubelet.run()
    for path, age in ((running.leases() / old.ip, 29), (running.leases() / young.ip, 27)):
        os.utime(path, (time.time() - age, time.time() - age))
    running.cut()
    assert running.addresses() == {old.ip: f"{old.id}\r\neth0".encode(), young.ip: b""}


# What the runtime makes of it.


def test_an_empty_lease_is_never_released(node: NodeFactory, containerd_version: Containerd) -> None:
    running = node(containerd=containerd_version)
    pod = running.kubelet.run()
    running.cut()
    running.boot()
    clean_up(running)
    assert running.kubelet.list() == ()
    assert running.addresses() == {pod.ip: b""}
    assert running.kubelet.run().ip != pod.ip


def test_an_unreadable_cache_entry_keeps_the_sandbox_for_ever_or_leaks_in_silence(
    node: NodeFactory, containerd_version: Containerd
) -> None:
    running = node(networks.calico(), containerd=containerd_version)
    pod = running.kubelet.run()
    running.cut()
    running.boot()
    if containerd_version.refuses_damaged_results:
        with pytest.raises(RpcError, match=re.escape(UNREADABLE)):
            running.kubelet.stop(pod)
        with pytest.raises(RpcError, match=re.escape(UNREADABLE)):
            running.kubelet.remove(pod)
        # The entry of the network's own; without it stopping works.
        (running.results / f"k8s-pod-network-{pod.id}-eth0").unlink()
    clean_up(running)
    # Either way the empty lease is nobody's for good.
    assert running.addresses() == {pod.ip: b""}


@pytest.mark.parametrize("cni_version", ["0.3.1", "0.4.0"])
def test_an_unreadable_loopback_entry_alone_keeps_nothing(
    node: NodeFactory, containerd_version: Containerd, cni_version: str
) -> None:
    running = node(networks.canal(cni_version=cni_version), containerd=containerd_version)
    pod = running.kubelet.run()
    running.cut("intact")
    os.truncate(running.results / f"cni-loopback-{pod.id}-lo", 0)
    running.boot()
    clean_up(running)
    assert running.addresses() == {}
    assert entries(running) == set()


def test_a_runtime_killed_in_the_middle_of_an_add(node: NodeFactory, containerd_version: Containerd) -> None:
    running = node(slow_chain(), containerd=containerd_version)
    running.slow("hold-ADD").touch()
    future = running.kubelet.run_async("unborn")
    unborn = running.held()
    # The trap of every reconciler: a lease whose owner is not listed yet.
    lease = {"10.52.0.2": f"{unborn}\r\neth0".encode()}
    assert (running.kubelet.list(), running.addresses()) == ((), lease)
    assert entries(running) == {"cni-loopback-ID-lo"}

    running.kill_runtime()
    assert isinstance(future.exception(timeout=10), RpcError)
    running.slow("hold-ADD").unlink()
    running.start_runtime()
    assert [(pod.id, pod.ready) for pod in running.kubelet.list()] == [(unborn, False)]
    assert json.loads(running.kubelet.status(unborn).info["info"])["cniResult"] is None
    clean_up(running)
    assert running.kubelet.list() == ()
    assert running.run(["find", "/run/netns", "-type", "f"]).stdout == ""
    # 1.7.23 to 1.7.30 take a missing result for "there is nothing to tear down", here for the loopback as well.
    if containerd_version.series == "1.7":
        assert running.addresses() == lease
        assert entries(running) == {"cni-loopback-ID-lo"}
    else:
        assert running.addresses() == {}
        assert entries(running) == set()


def test_a_released_add_goes_on(node: NodeFactory) -> None:
    running = node(slow_chain())
    running.slow("hold-ADD").touch()
    future = running.kubelet.run_async("patient")
    unborn = running.held()
    assert not future.done()
    running.slow("hold-ADD").unlink()
    pod = future.result(timeout=20)
    assert (pod.id, pod.name, pod.ready) == (unborn, "patient", True)


def test_a_plugin_that_fails_add_and_del_leaks_without_a_crash(
    node: NodeFactory, containerd_version: Containerd
) -> None:
    running = node(slow_chain(), containerd=containerd_version)
    for order in ("fail-ADD", "fail-DEL"):
        running.slow(order).touch()
    with pytest.raises(RpcError, match="ADD fails: the test wants it to"):
        running.kubelet.run()
    running.slow("fail-DEL").unlink()
    clean_up(running)
    assert running.kubelet.list() == ()
    # 1.6.20 lists the sandbox whose rollback failed, so that it can be stopped later; 1.7.24 does so as well, and
    # then stops it without a DEL; 2.4.2 does not list it.
    assert len(running.addresses()) == (0 if containerd_version.series == "1.6" else 1)


def test_losing_the_metadata_makes_living_pods_unknown(node: NodeFactory, containerd_version: Containerd) -> None:
    running = node(containerd=containerd_version)
    pod = running.kubelet.run()
    pause = running.pause_of(pod)
    running.lose_metadata()
    assert running.kubelet.list() == ()
    assert pause is not None
    assert running.pause_of(pod) == pause
    assert running.addresses() == {pod.ip: f"{pod.id}\r\neth0".encode()}
    assert running.kubelet.run().ip != pod.ip


def test_a_pod_without_its_pause_process_is_not_ready_and_keeps_its_address(node: NodeFactory) -> None:
    running = node()
    pod = running.kubelet.run()
    pause = running.pause_of(pod)
    assert pause is not None
    running.machine.kill(pause)
    deadline = time.monotonic() + 10
    while running.kubelet.pod(pod).ready and time.monotonic() < deadline:
        time.sleep(0.02)
    now = running.kubelet.pod(pod)
    assert (now.ready, now.addresses) == (False, pod.addresses)
    assert f"{pod.ip} dev veth" in running.run(["ip", "route"]).stdout


# Other networks.


def test_flannel_keeps_its_range_in_run_and_its_scratch_on_the_disk(node: NodeFactory) -> None:
    running = node(networks.flannel())
    pod = running.kubelet.run()
    assert running.addresses("cbr0") == {pod.ip: f"{pod.id}\r\neth0".encode()}
    assert pod.ip.startswith("10.42.0.")
    assert [path.name for path in (running.cni_dir / "flannel").iterdir()] == [pod.id]
    running.cut()
    running.boot()
    clean_up(running)
    # Scratch and lease are empty: DEL has nothing to go by, and says success.
    assert running.addresses("cbr0") == {pod.ip: b""}


def test_dual_stack_has_a_lease_of_each_family(node: NodeFactory) -> None:
    running = node(networks.dual_stack())
    pod = running.kubelet.run()
    assert pod.addresses == ("10.52.0.2", "fd00:52::2")
    assert set(running.addresses()) == set(pod.addresses)
    assert {"last_reserved_ip.0", "last_reserved_ip.1"} <= {path.name for path in running.leases().iterdir()}


def test_leases_in_a_data_dir_of_its_own(node: NodeFactory) -> None:
    running = node(networks.canal("10.52.0.0/29", data_dir="/var/lib/cni/elsewhere"))
    pods = [running.kubelet.run() for _ in range(5)]
    directory = running.cni_dir / "elsewhere/k8s-pod-network"
    assert {path.name for path in directory.iterdir()} > {pod.ip for pod in pods}
    with pytest.raises(RpcError, match=re.escape("no IP addresses available in range set: 10.52.0.1-10.52.0.6")):
        running.kubelet.run()


# The simulated node, which the demo falls back to.


def story(running: Node | SimulatedNode) -> list[object]:
    """One of everything that the demo shows, in terms that do not depend on random names."""
    seen: list[object] = []
    running.boot()
    old = running.kubelet.run("old")
    running.sync()
    new, host = running.kubelet.run("new"), running.kubelet.run("host", host_network=True)
    seen += [old.addresses, new.addresses, host.addresses, sorted(path.name for path in running.leases().iterdir())]
    seen += [
        sorted(
            path.name.replace(pod.id, pod.name) for pod in (old, new) for path in running.results.glob(f"*{pod.id}*")
        )
    ]
    running.cut()
    running.boot()
    seen += [[(pod.name, pod.namespace, pod.ready) for pod in running.kubelet.list()]]
    for pod in running.kubelet.list():
        try:
            running.kubelet.stop(pod)
            running.kubelet.remove(pod)
        except RpcError as error:
            seen.append(str(error.details()).replace(pod.id, pod.name))
    seen += [running.addresses(), [pod.name for pod in running.kubelet.list()], running.kubelet.run().ip]
    return seen


@pytest.mark.parametrize("network", [networks.canal(), networks.calico()], ids=["canal", "calico"])
def test_the_simulated_node_breaks_as_the_real_one_does(node: NodeFactory, network: networks.Network) -> None:
    with SimulatedNode(network) as simulated:
        assert story(simulated) == story(node(network, boot=False))


# Nothing else is touched, and nothing stays.


def host() -> dict[str, object]:
    """What a node might have left on the machine."""
    listed = {
        directory: sorted(str(path) for path in Path(directory).rglob("*"))
        for directory in ("/run/netns", "/run/containerd", "/run/flannel", "/var/lib/cni", "/var/lib/containerd",
                          "/var/lib/kubelet", "/var/lib/janitor", "/etc/cni", "/etc/janitor", "/etc/containerd", "/opt")
    }  # fmt: skip
    groups = [path for path in cgroups.ROOT.glob("*/*") if path.is_dir()]
    return listed | {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        # Another test run's nodes come and go meanwhile.
        "cgroups": sorted(str(path) for path in groups if not path.name.startswith("lab-")),
        "links": subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout,
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "boot ID": Path("/proc/sys/kernel/random/boot_id").read_text(),
        "host name": os.uname().nodename,
    }


@pytest.fixture
def untouched() -> Iterator[None]:
    before = host()
    yield
    assert host() == before


def test_the_machine_below_is_not_touched(untouched: None, containerd_version: Containerd) -> None:
    with Node(containerd_version) as running:
        running.boot()
        pod = running.kubelet.run(host_ports={8080: 80})
        running.run(["touch", "/etc/written", "/opt/written", "/var/lib/written", "/run/written"], check=True)
        assert cgroups.find(running.machine.name)
        running.cut()
        assert not cgroups.find(running.machine.name)
        running.boot()
        assert [old.id for old in running.kubelet.list()] == [pod.id]
        running.kubelet.run()
        init, directory = running.machine.pid, running.machine.directory
    assert not cgroups.find(running.machine.name)
    assert not Path(f"/proc/{init}").exists()
    assert not directory.exists()


def test_two_nodes_side_by_side(untouched: None) -> None:
    with Node() as one, Node() as other:
        one.boot()
        other.boot()
        pods: list[Pod] = [running.kubelet.run() for running in (one, other)]
        assert pods[0].ip == pods[1].ip == "10.52.0.2"
        assert [pod.id for pod in one.kubelet.list()] == [pods[0].id]
        one.cut()
        assert other.kubelet.pod(pods[1]).ready
        assert other.addresses() == {"10.52.0.2": f"{pods[1].id}\r\neth0".encode()}


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_node_ends_with_the_process_that_made_it(untouched: None, end: str) -> None:
    script = textwrap.dedent(
        """
        import sys
        from tests.lab.node import Node
        node = Node()
        node.boot()
        node.kubelet.run()
        print(node.machine.pid, node.machine.directory, node.machine.name, flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        init, directory, name = maker.stdout.readline().split()
        assert Path(f"/proc/{init}").exists()
        if end == "kill":
            maker.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{init}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{init}").exists()
    if end == "exit":
        assert not Path(directory).exists()
        assert not cgroups.find(name)
    else:  # nobody was left to do that; there are no processes in them
        cgroups.remove(name)
        subprocess.run(["rm", "-r", directory], check=True)


# Programs inside.


def test_a_program_inside_is_a_child_like_any_other(node: NodeFactory) -> None:
    running = node(boot=False)
    running.boot(start_runtime=False)
    assert running.run(["cat"], input="through\n").stdout == "through\n"
    assert running.run(["sh", "-c", "echo $WORD; exit 7"], env={"WORD": "said"}).returncode == 7
    with pytest.raises(subprocess.TimeoutExpired):
        running.run(["sleep", "60"], timeout=0.2)
    process = running.popen(["sleep", "60"])
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    assert list(running.machine.processes().values()) == ["/run/lab/systemd"]  # PID 1, which waits


def test_janitor_runs_inside(node: NodeFactory) -> None:
    done = node().janitor("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout
