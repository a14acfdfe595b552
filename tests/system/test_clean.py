"""`janitor clean` and `janitor undo` on a real node: the incidents from beginning to end, and the matrix of crashes.

A lab clock stands in for waiting (tests/lab/clock.py), but for the one test that waits; all evidence is the node's.
"""

import base64
import json
import re
import subprocess
import time
from typing import Any

import pytest

from tests.lab.kubelet import Pod, RpcError
from tests.lab.networks import PORTMAP, SLOW, Network, calico, canal, dual_stack
from tests.lab.node import Node, NodeFactory
from tests.lab.runtimes import Containerd, of_series

pytestmark = pytest.mark.system

SOCKET = "unix:///run/containerd/containerd.sock"
ENDPOINT = ("--cri-endpoint", SOCKET)


def later(node: Node, seconds: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run janitor on the node as if so many more seconds had passed since the boot."""
    done = node.janitor_later(seconds, *words)
    assert "Traceback" not in done.stderr
    return done


def clean(node: Node, *words: str) -> str:
    """Two passes, 700 seconds apart; what the second one printed."""
    later(node, 100, "clean", "--yes", "--no-wait", "--grace", "60", *ENDPOINT, *words)
    done = later(node, 800, "clean", "--yes", "--no-wait", "--grace", "60", *ENDPOINT, *words)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def verdicts(node: Node) -> dict[str, str]:
    report = json.loads(node.janitor("scan", "-o", "json", *ENDPOINT).stdout)
    return {lease["address"]: lease["verdict"] for lease in report["leases"]}


def leak(node: Node, number: int) -> list[str]:
    """What DELs that were skipped leave behind: leases of the real host-local for containers that never were."""
    config = json.loads(node.networks[0].write(node.net_d).read_text())
    ipam = json.dumps(
        {"cniVersion": "0.3.1", "name": config["name"], "type": "x", "ipam": config["plugins"][0]["ipam"]}
    )
    line = (
        f"for i in $(seq {number}); do CNI_COMMAND=ADD CNI_CONTAINERID=$(printf 'dead%060x' $i) CNI_NETNS=/x "
        f"CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin /opt/cni/bin/host-local <<'X' >/dev/null || exit 1\n{ipam}\nX\ndone"
    )
    before = set(node.addresses())
    node.run(["sh", "-c", line], check=True, timeout=120)
    return sorted(set(node.addresses()) - before)


@pytest.mark.promise
def test_the_incident_from_beginning_to_end(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pods = [machine.kubelet.run() for _ in range(3)]
    leaked = leak(machine, 250)
    with pytest.raises(RpcError, match=r"no IP addresses available in range set: 10\.52\.0\.1-10\.52\.0\.254"):
        machine.kubelet.run()
    time.sleep(3)
    machine.restart_runtime()
    lock, last = machine.leases() / "lock", machine.leases() / "last_reserved_ip.0"
    before = lock.stat().st_ino, last.read_bytes()

    # Within a minute of a runtime's start nothing is freed, and it says so.
    early = machine.janitor("clean", "--yes", "--no-wait", *ENDPOINT)
    assert (early.returncode, "may still be loading its sandboxes" in early.stdout) == (1, True)
    assert len(machine.addresses()) == 253

    done = later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "250 freed; 'janitor undo " in done.stdout
    assert sorted(machine.addresses()) == sorted(pod.ip for pod in pods)
    assert (lock.stat().st_ino, last.read_bytes()) == before
    new = machine.kubelet.run()
    assert new.ip not in {pod.ip for pod in pods}
    assert set(verdicts(machine).values()) == {"live"}

    # Undo puts back all but the address that has been given out since.
    assert new.ip in leaked
    undone = machine.janitor("undo")
    assert undone.returncode == 1
    assert f"not put back {machine.leases(None).name}" not in undone.stdout
    assert f"/{new.ip}: its address is in use now" in undone.stdout
    assert "249 files put back, 1 not" in undone.stdout
    assert machine.addresses()[leaked[-1]].startswith(b"dead")
    assert sorted(machine.addresses()) == sorted({*leaked, *(pod.ip for pod in pods)})
    # What was undone can be undone no second time, and cleaned again.
    assert "0 files put back, 1 not" in machine.janitor("undo").stdout
    assert "249 freed" in clean(machine)


@pytest.mark.parametrize("network", [canal("10.52.0.0/28"), calico("10.52.0.0/28")], ids=["0.3.1", "0.4.0"])
@pytest.mark.parametrize("loss", ["empty", "nul"])
def test_the_disk_as_a_power_cut_leaves_it(
    node: NodeFactory, containerd_version: Containerd, network: Network, loss: Any
) -> None:
    machine = node(network, containerd=containerd_version)
    old = [machine.kubelet.run() for _ in range(3)]
    machine.sync()
    lost = [machine.kubelet.run() for _ in range(10)]
    machine.cut(loss)
    time.sleep(3)
    machine.boot()
    with pytest.raises(RpcError, match="no IP addresses available in range set"):
        machine.kubelet.run()
    if network.config["cniVersion"] == "0.4.0" and containerd_version.refuses_damaged_results:
        with pytest.raises(RpcError, match="cached result"):
            machine.kubelet.stop(lost[0])

    done = later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(machine.addresses()) == sorted(pod.ip for pod in old)
    # Now the kubelet's calls succeed, for every pod of before the cut, and the addresses of the old ones go with them.
    for pod in machine.kubelet.list():
        machine.kubelet.stop(pod)
        machine.kubelet.remove(pod)
    assert machine.addresses() == {}
    assert len({machine.kubelet.run().ip for _ in range(13)}) == 13


def test_a_host_port_goes_with_its_lease(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(canal(chain=[PORTMAP]), containerd=containerd_version)
    kept = machine.kubelet.run(host_ports={8081: 80})
    pod = machine.kubelet.run(host_ports={8080: 80})
    doom(machine, pod)
    rules = machine.run(["iptables-save"], check=True).stdout
    assert pod.ip in rules
    assert verdicts(machine) == {kept.ip: "live", pod.ip: "orphaned"}

    done = later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert (
        f"freed {pod.ip} of k8s-pod-network (default/{pod.name}): after the CNI DEL of its plugin chain" in done.stdout
    )
    rules = machine.run(["iptables-save"], check=True).stdout
    assert pod.ip not in rules
    assert kept.ip in rules
    assert list(machine.addresses()) == [kept.ip]
    assert [path.name for path in machine.results.glob(f"*{pod.id}*eth0")] == []
    # And it can be had back: the lease, with its bytes.
    assert "2 files put back, 0 not" in machine.janitor("undo").stdout
    assert machine.addresses()[pod.ip] == f"{pod.id}\r\neth0".encode()


def doom(machine: Node, pod: Pod) -> None:
    """Its processes and its namespace are gone, and the runtime has lost its memory of it: no DEL will ever come."""
    shim, pause = machine.shim_of(pod), machine.pause_of(pod)
    assert shim is not None
    assert pause is not None
    names = machine.run(["ls", "/run/netns"], check=True).stdout.split()
    (namespace,) = [name for name in names if _has(machine, name, pod.ip)]
    machine.run(["sh", "-c", f"kill -KILL {shim} {pause}"])  # either may end by itself once the other has
    machine.run(["sh", "-c", f"umount -l /run/netns/{namespace}; rm -f /run/netns/{namespace}"])
    time.sleep(3)
    machine.lose_metadata()
    task = f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{pod.id}"
    machine.run(["sh", "-c", f"umount -l {task}/rootfs; rm -rf {task}"])


def _has(machine: Node, namespace: str, address: str) -> bool:
    return address in machine.run(["ip", "netns", "exec", namespace, "ip", "-4", "addr"]).stdout


def test_a_missing_lease_is_written_back(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pod, other = machine.kubelet.run(), machine.kubelet.run()
    lease = machine.leases() / pod.ip
    content, mode = lease.read_bytes(), (machine.leases() / other.ip).stat().st_mode
    lease.unlink()
    first = later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert (first.returncode, "still missing a minute later" in " ".join(first.stdout.split())) == (1, True)
    assert not lease.exists()
    assert (
        f"reserved {pod.ip} of k8s-pod-network" in later(machine, 200, "clean", "--yes", "--no-wait", *ENDPOINT).stdout
    )
    assert (lease.read_bytes(), lease.stat().st_mode) == (content, mode)
    machine.kubelet.stop(pod)  # its own DEL knows it again
    assert list(machine.addresses()) == [other.ip]


@pytest.mark.promise
def test_nothing_is_done_unasked(node: NodeFactory) -> None:
    machine = node(boot=False)
    machine.boot(start_runtime=False)
    machine.leases().mkdir(parents=True)
    (machine.leases() / "lock").touch(0o750)
    (machine.leases() / "10.52.0.9").write_bytes(b"")
    time.sleep(3)
    machine.start_runtime()
    done = later(machine, 100, "clean", *ENDPOINT)
    assert (done.returncode, "use --yes" in done.stderr) == (64, True)
    done = later(machine, 100, "clean", "--dry-run", *ENDPOINT)
    assert (done.returncode, "would free 1 in" in done.stdout) == (1, True)
    assert not (machine.root / "run/janitor").exists()
    for only, network in (("LEASE001", "k8s-pod-network"), ("leases", "another")):
        done = later(machine, 100, "clean", "--yes", "--no-wait", "--only", only, "--network", network, *ENDPOINT)
        assert done.returncode == (64 if network == "another" else 0)
        assert list(machine.addresses()) == ["10.52.0.9"]
    later(machine, 100, "clean", "--yes", "--no-wait", "--only", "LEASE002", "--network", "k8s-pod-network", *ENDPOINT)
    assert machine.addresses() == {}


def test_a_dual_stack_attachment_goes_as_one_and_nothing_else_with_it(node: NodeFactory) -> None:
    """host-local's own DEL releases every file that names the container: it is not let near the leases."""
    machine = node(dual_stack(chain=[PORTMAP]))
    kept = machine.kubelet.run()
    pod = machine.kubelet.run(host_ports={8080: 80})
    content = (machine.leases() / pod.addresses[0]).read_bytes()
    bystanders = [machine.leases() / "10.99.0.9", machine.leases() / "notes.txt", machine.leases() / "backup/10.52.0.3"]
    doom(machine, pod)
    for path in bystanders:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    done = later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert "2 freed, 1 discarded" in done.stdout, done.stdout + done.stderr
    assert pod.ip not in machine.run(["iptables-save"], check=True).stdout
    assert [path.read_bytes() for path in bystanders] == [content] * 3
    left = {path.name for path in machine.leases().iterdir()}
    assert set(kept.addresses) <= left
    assert not set(pod.addresses) & left
    assert "3 files put back, 0 not" in machine.janitor("undo").stdout
    assert set(pod.addresses) <= {path.name for path in machine.leases().iterdir()}


@pytest.mark.promise
def test_one_address_that_is_up_keeps_all_of_its_container(node: NodeFactory) -> None:
    machine = node(dual_stack())
    machine.kubelet.run()
    pod = machine.kubelet.run()
    doom(machine, pod)
    second = next(address for address in pod.addresses if ":" in address)
    machine.run(["ip", "-6", "address", "add", f"{second}/128", "dev", "lo", "nodad"], check=True)
    later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert set(pod.addresses) <= set(machine.addresses())


@pytest.mark.parametrize("trouble", ["fails", "missing", "no type"])
def test_a_chain_whose_del_does_not_work_keeps_the_lease(node: NodeFactory, trouble: str) -> None:
    machine = node(canal(chain=[SLOW]))
    pod = machine.kubelet.run()
    doom(machine, pod)
    if trouble == "fails":
        machine.slow("fail-DEL").touch()
    else:
        (entry,) = machine.results.glob(f"k8s-pod-network-{pod.id}-eth0")
        document = json.loads(entry.read_text())
        config = json.loads(base64.b64decode(document["config"]))
        config["plugins"][1] = {"type": "gone"} if trouble == "missing" else {}
        document["config"] = base64.b64encode(json.dumps(config).encode()).decode()
        entry.write_text(json.dumps(document))
    before = (machine.leases() / pod.ip).stat()
    done = later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert (done.returncode, "the lease is kept" in done.stdout) == (1, True), done.stdout + done.stderr
    assert (machine.leases() / pod.ip).stat() == before


def test_old_passes_are_dropped_but_never_by_looking_or_by_a_clock_that_jumps(node: NodeFactory) -> None:
    machine = node()
    machine.kubelet.run()
    leak(machine, 1)
    time.sleep(3)
    machine.restart_runtime()
    later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    journal = machine.disk / "janitor/journal"
    (kept,) = machine.cni_dir.glob(".janitor-quarantine/*/*")
    machine.machine.configure("keep_days = 0.0\n")
    for at in (100.0, 1_780_000_000.0):
        journal.write_text(re.sub(r'"at":[0-9.]+', f'"at":{at}', journal.read_text()))
        assert "1 freed" in machine.janitor("undo", "--list").stdout
        later(machine, 200, "clean", "--yes", "--no-wait", *ENDPOINT)
        assert kept.exists()
    # In a later boot, with another pass after it, it goes.
    machine.cut("intact")
    time.sleep(3)
    machine.boot()
    machine.kubelet.run()
    leak(machine, 1)
    time.sleep(3)
    machine.restart_runtime()
    later(machine, 100, "clean", "--yes", "--no-wait", *ENDPOINT)
    assert not kept.exists()
    assert len(machine.janitor("undo", "--list").stdout.splitlines()) == 1


def test_at_most_so_many(node: NodeFactory) -> None:
    machine = node()
    machine.kubelet.run()
    leak(machine, 20)
    time.sleep(3)
    machine.restart_runtime()
    done = later(machine, 100, "clean", "--yes", "--no-wait", "--max", "5", *ENDPOINT)
    assert (done.returncode, "5 freed, 1 left" in done.stdout) == (1, True)
    assert len(machine.addresses()) == 16


class TestMatrix:
    """Every row again with `clean --yes --grace 60`: what is alive, being born or the kubelet's keeps its lease."""

    def test_normal(self, node: NodeFactory, containerd_version: Containerd) -> None:
        machine = node(containerd=containerd_version)
        pods = [machine.kubelet.run() for _ in range(3)]
        assert "nothing to do" in clean(machine)
        assert sorted(machine.addresses()) == sorted(pod.ip for pod in pods)

    def test_add_in_flight(self, node: NodeFactory, containerd_version: Containerd) -> None:
        machine = node(canal(chain=[SLOW]), containerd=containerd_version)
        machine.slow("hold-ADD").touch()
        future = machine.kubelet.run_async("slow")
        machine.held()
        before = machine.addresses()
        clean(machine)
        assert machine.addresses() == before
        machine.slow("hold-ADD").unlink()
        assert future.result(timeout=20).ip in before

    def test_killed_in_the_middle_of_add(self, node: NodeFactory, containerd_version: Containerd) -> None:
        machine = node(canal(chain=[SLOW]), containerd=containerd_version)
        machine.slow("hold-ADD").touch()
        future = machine.kubelet.run_async("slow")
        machine.held()
        (address,) = machine.addresses()
        machine.kill_runtime()
        with pytest.raises(RpcError):
            future.result(timeout=20)
        later(machine, 800, "clean", "--yes", "--no-wait", *ENDPOINT)
        assert list(machine.addresses()) == [address]  # nobody can be asked
        time.sleep(3)
        machine.start_runtime()
        clean(machine)
        assert list(machine.addresses()) == [address]  # the plugin is still at work on it
        machine.slow("hold-ADD").unlink()
        time.sleep(0.5)
        clean(machine)
        assert list(machine.addresses()) == [address]  # its sandbox is listed: the kubelet's
        for pod in machine.kubelet.list():
            machine.kubelet.stop(pod)
            machine.kubelet.remove(pod)
        leaked = list(machine.addresses())
        assert leaked == ([address] if containerd_version.series == "1.7" else [])
        clean(machine)
        assert machine.addresses() == {}

    def test_reboot_with_ready_pods(self, node: NodeFactory, containerd_version: Containerd) -> None:
        machine = node(calico(), containerd=containerd_version)
        pods = [machine.kubelet.run() for _ in range(3)]
        machine.sync()
        machine.cut()
        time.sleep(3)
        machine.boot()
        clean(machine)
        assert sorted(machine.addresses()) == sorted(pod.ip for pod in pods)

    def test_pause_killed(self, node: NodeFactory, containerd_version: Containerd) -> None:
        machine = node(containerd=containerd_version)
        pod = machine.kubelet.run()
        pause = machine.pause_of(pod)
        assert pause is not None
        machine.machine.kill(pause)
        time.sleep(3)
        machine.restart_runtime()
        clean(machine)
        assert list(machine.addresses()) == [pod.ip]

    def test_shim_stopped_across_a_restart(self, node: NodeFactory, containerd_version: Containerd) -> None:
        machine = node(containerd=containerd_version)
        pod = machine.kubelet.run()
        shim = machine.shim_of(pod)
        assert shim is not None
        machine.machine.kill(shim, "STOP")
        time.sleep(3)
        machine.restart_runtime()
        clean(machine)
        assert list(machine.addresses()) == [pod.ip]

    def test_metadata_lost(self, node: NodeFactory, containerd_version: Containerd) -> None:
        machine = node(containerd=containerd_version)
        pods = [machine.kubelet.run() for _ in range(4)]
        time.sleep(3)
        machine.lose_metadata()
        clean(machine)
        assert sorted(machine.addresses()) == sorted(pod.ip for pod in pods)


def test_waiting_is_real(node: NodeFactory) -> None:
    """No lab clock here: a lease too young for any other proof is watched for the whole minute, and then freed."""
    machine = node(containerd=of_series("1.7"))
    pod = machine.kubelet.run()
    leak(machine, 1)
    began = time.monotonic()
    done = machine.janitor("clean", "--yes", "--grace", "60", *ENDPOINT, timeout=150)
    assert (done.returncode, "1 freed" in done.stdout) == (0, True), done.stdout + done.stderr
    assert time.monotonic() - began >= 60
    assert "left (--no-wait skips this)" in done.stderr
    assert list(machine.addresses()) == [pod.ip]
