"""Each row of the matrix on a real node: what the runtime says, what is true, and what `janitor scan` makes of it.

The rows are T1 to T9 of containerd's behaviour after crashes and reboots, each with both versions of containerd,
because they differ in what they forget.
"""

import json
import os
import subprocess
import time
from typing import Any

import pytest

from tests.lab.kubelet import Pod, RpcError
from tests.lab.networks import SLOW, calico, canal, dual_stack, flannel
from tests.lab.node import JANITOR, Node, NodeFactory
from tests.lab.runtimes import Containerd, of_series

pytestmark = pytest.mark.system

BOOT_STAGE = JANITOR.with_name("janitor-boot")
SOCKET = "unix:///run/containerd/containerd.sock"


def scan(node: Node, *words: str) -> dict[str, Any]:
    """The report of a scan as root on the node itself, told that this is the runtime."""
    done = node.janitor("scan", "-o", "json", "--cri-endpoint", SOCKET, *words)
    assert done.stderr == "", done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "findings": 1, "unknown": 2}[report["status"]]
    return report


def verdicts(node: Node, *words: str) -> dict[str, str]:
    return {lease["address"]: lease["verdict"] for lease in scan(node, *words)["leases"]}


def reasons(node: Node, address: str) -> str:
    (lease,) = [x for x in scan(node)["leases"] if x["address"] == address]
    return "\n".join(reason["text"] for reason in lease["reasons"])


def ids(report: dict[str, Any]) -> set[str]:
    return {finding["id"] for finding in report["findings"] if finding["status"] == "problem"}


def held_add(node: Node, name: str = "slow-pod") -> tuple[Any, str]:
    """A pod whose CNI ADD is held behind host-local: the future, and the address it already has."""
    before = set(node.addresses())
    node.slow("hold-ADD").touch()
    future = node.kubelet.run_async(name)
    node.held()
    (address,) = set(node.addresses()) - before
    return future, address


def killed_in_the_middle_of_add(node: Node) -> str:
    """containerd is killed while the ADD is held, the plugin dies with it, and the kubelet cleans up after a while."""
    future, address = held_add(node)
    time.sleep(3)  # so that the lease is older than the next containerd by more than the clock's margin
    node.kill_runtime()
    with pytest.raises(RpcError):
        future.result(timeout=20)
    return address


def clean_up(node: Node) -> None:
    for pod in node.kubelet.list():
        if not pod.ready:
            node.kubelet.stop(pod)
            node.kubelet.remove(pod)


def test_normal(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pods = [machine.kubelet.run() for _ in range(3)]
    machine.kubelet.run(host_network=True)
    report = scan(machine)
    assert {x["address"]: (x["verdict"], x["pod"]) for x in report["leases"]} == {
        pod.ip: ("live", f"default/{pod.name}") for pod in pods
    }
    assert (report["status"], ids(report)) == ("ok", {"LEASE010"})
    (network,) = report["networks"]
    assert (network["capacity"], network["free"], network["files"]) == (253, 250, 3)


def test_add_in_flight(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(canal(chain=[SLOW]), containerd=containerd_version)
    future, address = held_add(machine)
    assert machine.kubelet.list() == ()
    assert verdicts(machine) == {address: "live"}
    machine.slow("hold-ADD").unlink()
    assert future.result(timeout=20).ip == address
    assert verdicts(machine) == {address: "live"}


def test_containerd_killed_in_the_middle_of_add(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(canal(chain=[SLOW]), containerd=containerd_version)
    other = machine.kubelet.run()
    address = killed_in_the_middle_of_add(machine)

    # While containerd is down nobody can be asked.
    report = scan(machine)
    assert report["status"] == "unknown"
    assert "held" not in (judged := {x["address"]: x["verdict"] for x in report["leases"]}).values()
    assert judged[address] in ("live", "pending")

    machine.start_runtime()
    # The plugin outlived containerd and still holds the ADD: that alone keeps the lease.
    assert verdicts(machine)[address] in ("live", "held")
    machine.slow("hold-ADD").unlink()
    _gone(machine, "slow")
    clean_up(machine)
    after = verdicts(machine)
    assert after.pop(other.ip) == "live"
    if containerd_version.series == "1.7":
        assert after == {address: "orphaned"}  # DEL was skipped: nobody will ever release it
        assert "written before the runtime started" in reasons(machine, address)
        report = scan(machine)
        assert "LEASE001" in ids(report)
        assert report["networks"][0]["freeable"] == 1
    else:
        assert after == {}  # DEL ran


def test_an_orphan_is_pending_until_rule_4_holds(node: NodeFactory) -> None:
    machine = node(canal(chain=[SLOW]), containerd=of_series("1.7"))  # 1.6.20 leaves none
    future, address = held_add(machine)
    # Killed at once and started at once: by the clock the lease is no older than the new containerd.
    machine.kill_runtime()
    with pytest.raises(RpcError):
        future.result(timeout=20)
    machine.start_runtime()
    machine.slow("hold-ADD").unlink()
    _gone(machine, "slow")
    clean_up(machine)
    (lease,) = scan(machine)["leases"]
    assert (lease["address"], lease["verdict"]) == (address, "pending")
    assert 0 < lease["provable_in_s"] <= 600
    # A restart later it is: the runtime that could have been creating it is gone.
    time.sleep(3)
    machine.restart_runtime()
    assert verdicts(machine) == {address: "orphaned"}


def _gone(machine: Node, name: str) -> None:
    """Wait until the plugins that were held have ended."""
    deadline = time.monotonic() + 20
    while any(name in command for command in machine.machine.processes().values()):
        assert time.monotonic() < deadline, f"{name} still runs"
        time.sleep(0.05)


def test_reboot_with_ready_pods(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(calico(), containerd=containerd_version)
    pods = [machine.kubelet.run() for _ in range(3)]
    machine.sync()
    machine.cut()
    time.sleep(3)
    machine.boot()
    assert verdicts(machine) == {pod.ip: "held" for pod in pods}
    clean_up(machine)
    assert verdicts(machine) == {}


def test_pause_killed(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pod = machine.kubelet.run()
    pause = machine.pause_of(pod)
    assert pause is not None
    machine.machine.kill(pause, "KILL")
    _not_ready(machine, pod)
    assert verdicts(machine) == {pod.ip: "live"}
    assert "the address is up in the network namespace" in reasons(machine, pod.ip)


def test_shim_stopped_across_a_restart(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pod = machine.kubelet.run()
    shim = machine.shim_of(pod)
    assert shim is not None
    machine.machine.kill(shim, "STOP")
    machine.restart_runtime()
    _not_ready(machine, pod)
    assert verdicts(machine) == {pod.ip: "live"}


def _not_ready(machine: Node, pod: Pod) -> None:
    deadline = time.monotonic() + 30
    while any(p.id == pod.id and p.ready for p in machine.kubelet.list()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_metadata_lost_while_pods_run(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pods = [machine.kubelet.run() for _ in range(4)]
    time.sleep(3)
    machine.lose_metadata()
    assert machine.kubelet.list() == ()
    report = scan(machine)
    assert {x["address"]: x["verdict"] for x in report["leases"]} == {pod.ip: "live" for pod in pods}
    assert report["networks"][0]["freeable"] == 0
    # Without anybody having named the socket, an empty list does not even count as an answer.
    assert json.loads(machine.janitor("scan", "-o", "json").stdout)["status"] == "unknown"


@pytest.mark.parametrize("network", [canal(), calico()], ids=["0.3.1", "0.4.0"])
def test_what_a_power_cut_leaves(node: NodeFactory, containerd_version: Containerd, network: Any) -> None:
    machine = node(network, containerd=containerd_version)
    old = [machine.kubelet.run() for _ in range(2)]
    machine.sync()
    empty = [machine.kubelet.run() for _ in range(2)]
    machine.cut("empty")
    time.sleep(3)  # the time a machine takes to come up again
    machine.boot()
    new = machine.kubelet.run()
    report = scan(machine)
    assert {x["address"]: x["verdict"] for x in report["leases"]} == (
        {pod.ip: "held" for pod in old} | {pod.ip: "corrupt" for pod in empty} | {new.ip: "live"}
    )
    # Whose they were is known to the runtime all the same.
    assert {x["address"]: x["pod"] for x in report["leases"] if x["verdict"] == "corrupt"} == {
        pod.ip: f"default/{pod.name}" for pod in empty
    }
    assert report["networks"][0]["freeable"] == 2
    stuck = [f for f in report["findings"] if f["id"] == "LEASE009" and f["severity"] == "error"]
    refused = network.config["cniVersion"] != "0.3.1" and containerd_version.refuses_damaged_results
    for pod in empty:
        if refused:
            with pytest.raises(RpcError, match="decoding version from network config"):
                machine.kubelet.stop(pod)
        else:
            machine.kubelet.stop(pod)
    assert bool(stuck) == refused
    if stuck:
        assert all(pod.name in stuck[0]["evidence"][0] for pod in empty)
    machine.cut("nul")
    time.sleep(3)
    machine.boot()
    # The newest lease was in memory only, and is 70 NUL bytes now.
    assert machine.addresses()[new.ip] == b"\0" * 70
    assert verdicts(machine)[new.ip] == "corrupt"


def test_the_boot_ledger_proves_it_at_once(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pod = machine.kubelet.run()
    machine.cut("empty")
    machine.boot(start_runtime=False)
    done = machine.run([str(BOOT_STAGE), "--strict", "--ledger-only"])
    assert (done.returncode, "recorded 1 lease " in done.stderr) == (0, True), done.stderr
    machine.start_runtime()
    assert verdicts(machine) == {pod.ip: "corrupt"}
    assert "boot ledger" in reasons(machine, pod.ip)
    # Late, it changes nothing.
    before = (machine.root / "run/janitor/ledger.json").read_bytes()
    late = machine.run([str(BOOT_STAGE), "--strict"])
    assert (late.returncode, "nothing done" in late.stderr) == (1, True)
    assert (machine.root / "run/janitor/ledger.json").read_bytes() == before
    (machine.root / "run/janitor/ledger.json").unlink()
    late = machine.run([str(BOOT_STAGE)])
    assert (late.returncode, "is already running" in late.stderr) == (0, True)
    assert not (machine.root / "run/janitor/ledger.json").exists()


def test_dual_stack(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(dual_stack(), containerd=containerd_version)
    pod = machine.kubelet.run()
    assert len(pod.addresses) == 2
    report = scan(machine)
    assert {x["address"]: x["verdict"] for x in report["leases"]} == dict.fromkeys(pod.addresses, "live")
    assert [r["subnets"] for r in report["networks"][0]["ranges"]] == [["10.52.0.0/24"], ["fd00:52::/64"]]
    assert "LEASE004" not in ids(report)
    machine.cut("empty")
    time.sleep(3)
    machine.boot()
    assert verdicts(machine) == dict.fromkeys(pod.addresses, "corrupt")


def test_flannel(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(flannel(), containerd=containerd_version)
    pod = machine.kubelet.run()
    report = scan(machine)
    assert {x["address"]: x["verdict"] for x in report["leases"]} == {pod.ip: "live"}
    assert [n["name"] for n in report["networks"]] == ["cbr0"]
    assert report["networks"][0]["ranges"][0]["subnets"] == ["10.42.0.0/24"]
    # Before flanneld has written its file the range is not known, and that is said.
    (machine.root / "run/flannel/subnet.env").unlink()
    network = scan(machine)["networks"][0]
    assert (network["capacity"], "has not written" in network["note"]["text"]) == (None, True)


def test_two_networks_and_a_custom_data_directory(node: NodeFactory, containerd_version: Containerd) -> None:
    """The second one is not CRI's: a pod's lease in the first, an old one of nobody's in the second."""
    second = canal("10.77.0.0/24", name="other", file_name="20-other.conflist")
    machine = node(canal(data_dir="/var/lib/cni/pods"), second, containerd=containerd_version)
    pod = machine.kubelet.run()
    stranger = machine.leases("other")
    stranger.mkdir(parents=True)
    (stranger / "10.77.0.9").write_bytes(f"{'e' * 64}\r\neth0".encode())
    os.utime(stranger / "10.77.0.9", (1, 1))
    report = scan(machine)
    assert {(x["directory"], x["verdict"]) for x in report["leases"]} == {
        ("/var/lib/cni/pods/k8s-pod-network", "live"),
        ("/var/lib/cni/networks/other", "foreign"),
    }
    assert report["leases"][1]["address"] in (pod.ip, "10.77.0.9")


def test_leases_of_others(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pod = machine.kubelet.run()
    here, networks = machine.leases(), machine.leases().parent
    others = {
        here / "10.52.0.100": f"k8s.io-{'b' * 64}\r\neth0",  # nerdctl and ctr run --cni
        here / "10.52.0.101": "a3hd82kfmq90zxw71bvtp4c5e\r\neth0",  # buildkit
        here / "10.52.0.102": "reserved for the printer\n",
        here / "10.52.0.103": "4242",
        here / "10.52.0.104.bak": f"{'b' * 64}\r\neth0",
        networks / "podman/10.88.0.2": f"{'c' * 64}\r\neth0",
        networks / "bridge/10.4.0.2": f"default-{'d' * 64}\r\neth0",
    }
    for path, content in others.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, newline="")
        os.utime(path, (1, 1))
    time.sleep(3)
    machine.restart_runtime()  # so that age would be proven for all of them
    judged = verdicts(machine)
    assert judged.pop(pod.ip) == "live"
    assert judged == {path.name: "foreign" for path in others}
    assert "LEASE008" in ids(scan(machine))


def test_a_lease_removed_under_a_running_pod_is_missing(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pod, other = machine.kubelet.run(), machine.kubelet.run()
    (machine.leases() / pod.ip).unlink()
    report = scan(machine)
    assert {x["address"]: x["verdict"] for x in report["leases"]} == {pod.ip: "missing", other.ip: "live"}
    assert [f["severity"] for f in report["findings"] if f["id"] == "LEASE003"] == ["critical"]
    assert "'janitor clean' writes the lease back" in " ".join(
        machine.janitor("explain", pod.ip, "--cri-endpoint", SOCKET).stdout.split()
    )


def test_a_range_that_is_used_up(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(canal("10.52.0.0/29"), containerd=containerd_version)
    pods = [machine.kubelet.run() for _ in range(2)]
    time.sleep(3)
    for last in range(4, 7):
        (machine.leases() / f"10.52.0.{last}").write_bytes(b"")
        os.utime(machine.leases() / f"10.52.0.{last}", (1, 1))
    with pytest.raises(RpcError, match="no IP addresses available in range set"):
        machine.kubelet.run()
    time.sleep(3)
    machine.restart_runtime()
    report = scan(machine)
    (full,) = [f for f in report["findings"] if f["id"] == "LEASE005"]
    assert (full["severity"], "5 of 5 used" in full["summary"]) == ("critical", True)
    table = machine.janitor("scan", "--cri-endpoint", SOCKET).stdout
    assert table.splitlines()[0] == (
        "k8s-pod-network 10.52.0.0/29: 5 of 5 used (FULL: no new pod can start): 2 live, 3 corrupt; "
        "'janitor clean' would free 3"
    )
    assert {p.ip for p in pods} <= {x["address"] for x in report["leases"] if x["verdict"] == "live"}


def test_collect_on_the_node_and_scan_elsewhere(
    node: NodeFactory, containerd_version: Containerd, tmp_path: Any
) -> None:
    machine = node(calico(), containerd=containerd_version)
    machine.kubelet.run()
    machine.cut("empty")
    time.sleep(3)
    machine.boot()
    machine.kubelet.run()
    collected = machine.janitor("collect", "--cri-endpoint", SOCKET)
    assert (collected.returncode, collected.stderr) == (0, "")
    file = tmp_path / "evidence.json"
    file.write_text(collected.stdout)
    elsewhere = subprocess.run(
        [JANITOR, "scan", "-o", "json", "--evidence", file], capture_output=True, text=True, timeout=60
    )
    here, there = scan(machine), json.loads(elsewhere.stdout)
    for report in (here, there):
        for lease in report["leases"]:
            assert lease["provable_in_s"] is None
    assert there["findings"] == here["findings"]
    assert {x["address"]: x["verdict"] for x in there["leases"]} == {x["address"]: x["verdict"] for x in here["leases"]}
    assert sorted(x["verdict"] for x in there["leases"]) == ["corrupt", "live"]


def test_a_scan_changes_nothing(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(calico(), containerd=containerd_version)
    machine.kubelet.run()
    machine.cut("empty")
    machine.boot()
    pod = machine.kubelet.run()
    listing = (
        "find /var/lib/cni /etc/cni /var/lib/kubelet /run/lab/etc-janitor /var/lib/janitor /run /var/lib/containerd "
        r"-xdev -printf '%p %y %i %s %m %T@ %C@ %l\n' | sort"
    )
    # containerd goes on writing for a moment after a pod has been started.
    before, earlier = machine.run(["sh", "-c", listing], check=True).stdout, ""
    while before != earlier:
        time.sleep(0.5)
        before, earlier = machine.run(["sh", "-c", listing], check=True).stdout, before
    assert pod.ip in before
    for command in (["scan"], ["scan", "-o", "json"], ["explain", pod.ip], ["collect"]):
        assert machine.janitor(*command, "--cri-endpoint", SOCKET).returncode in (0, 1)
    assert machine.run(["sh", "-c", listing], check=True).stdout == before


def test_containerd_that_hangs(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    pod = machine.kubelet.run()
    daemon = next(pid for pid, command in machine.machine.processes().items() if command.endswith("/containerd"))
    machine.machine.kill(daemon, "STOP")
    try:
        report = scan(machine, "--deadline", "1")
    finally:
        machine.machine.kill(daemon, "CONT")
    assert report["status"] == "unknown"
    assert any("no answer within 1 s" in f["summary"] for f in report["findings"])
    # The kernel still knows, without asking anybody.
    assert [(x["address"], x["verdict"]) for x in report["leases"]] == [(pod.ip, "live")]


def test_without_the_hosts_process_ids(node: NodeFactory, containerd_version: Containerd) -> None:
    """As in a container without hostPID: the socket is there, the processes behind it are not."""
    machine = node(containerd=containerd_version)
    pod = machine.kubelet.run()
    inner = f"mount -t proc proc /proc && {JANITOR} scan -o json --cri-endpoint {SOCKET}"
    done = machine.run(["unshare", "--pid", "--mount", "--fork", "sh", "-c", inner])
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (2, "unknown")
    assert any("hostPID: true" in f["fix"]["text"] for f in report["findings"])
    assert [x["verdict"] for x in report["leases"] if x["address"] == pod.ip] == ["live"]


def test_the_kubelets_own_configuration_names_the_runtime(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    (machine.root / "var/lib/kubelet/config.yaml").write_text(f"containerRuntimeEndpoint: {SOCKET}\n")
    report = json.loads(machine.janitor("scan", "-o", "json").stdout)
    assert report["status"] == "ok"
    (machine.root / "var/lib/kubelet/config.yaml").write_text("containerRuntimeEndpoint: unix:///run/crio/crio.sock\n")
    report = json.loads(machine.janitor("scan", "-o", "json").stdout)
    assert report["status"] == "unknown"
    assert any("unix:///run/crio/crio.sock: the socket does not exist" in f["summary"] for f in report["findings"])


def test_sixty_five_thousand_files(node: NodeFactory) -> None:
    machine = node(canal("10.52.0.0/16"))
    pod = machine.kubelet.run()
    here = machine.leases()
    for number in range(300, 65_300):
        (here / f"10.52.{number // 256}.{number % 256}").write_bytes(f"{number:064x}\r\neth0".encode())
    report = scan(machine)
    assert report["networks"][0]["files"] == 65_001
    assert [x["verdict"] for x in report["leases"] if x["address"] == pod.ip] == ["live"]


def test_no_traceback_when_the_node_is_dead(node: NodeFactory, containerd_version: Containerd) -> None:
    machine = node(containerd=containerd_version)
    machine.kubelet.run()
    machine.kill_runtime()
    done = machine.janitor("scan")
    assert done.returncode == 2
    assert "nothing listens there" in done.stdout
    assert done.stderr == ""
