"""Processes that call themselves what they are not, or are too many: that nobody believes them, and nothing stops."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.kubelet import Pod
from tests.lab.networkd import RoutedNode
from tests.lab.node import Node, NodeFactory
from tests.system.test_traps import SOCKET, argv, kept_by_the_list_alone, remove_task, until

pytestmark = pytest.mark.system

PROJECT = Path(__file__).parents[2]

# 14: a process that calls itself the kubelet, and a socket that calls itself the runtime.

IDLE = ["-c", "while :; do sleep 1000; done"]  # for a shell under another name
VOLUME = "/var/lib/kubelet/pods/0a1b2c3d-0000-4000-8000-000000000000/volumes/kubernetes.io~empty-dir/x"
PLUGIN = "#!/bin/sh\nid >>/run/executed; exit 0\n"
AS_A_CONTAINER = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
AS_A_USER = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
IN_A_USER_NAMESPACE = [*AS_A_USER, "unshare", "--user", "--map-root-user"]


def is_up(process: subprocess.Popen[str]) -> None:
    """It has said so; it stays until its machine is switched off."""
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "up\n"


@dataclass
class Hostile:
    """A node with a dead pod, hostPort and cache entry and all, a live one, and a volume with hostile programs."""

    machine: Node
    dead: Pod
    live: Pod

    def fake_kubelet(
        self, wrapper: Sequence[str], *, socket: str = f"unix://{VOLUME}/s", name: str = "kubelet"
    ) -> None:
        """Start one that names that socket, and wait until it is there."""
        program = f"{VOLUME}/{name}"
        words = [program, "-c", "while :; do sleep 1000; done", f"--container-runtime-endpoint={socket}"]
        self.machine.popen([*wrapper, *words])
        until(lambda: any(line.startswith(program) for line in self.machine.machine.processes().values()), name)

    def fake_runtime(self, wrapper: Sequence[str]) -> None:
        """Start one at the volume's socket, whose Status names the volume's plugins."""
        argv = [sys.executable, "-m", "tests.lab.hostile_runtime", f"{VOLUME}/s", f"{VOLUME}/bin", "containerd"]
        process = self.machine.popen([*wrapper, *argv], cwd=str(PROJECT), stdout=subprocess.PIPE)
        is_up(process)

    def report(self) -> dict[str, Any]:
        done = self.machine.janitor("scan", "-o", "json")
        assert done.returncode in (0, 1, 2), done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def verdicts(self) -> dict[str, str]:
        return {lease["address"]: lease["verdict"] for lease in self.report()["leases"]}

    def clean_without_naming_the_socket(self) -> str:
        """Two passes, each 700 seconds after the one before."""
        said = ""
        for _ in range(2):
            words = [word for word in argv() if word not in ("--cri-endpoint", SOCKET)]
            done = self.machine.run(words, timeout=120)
            assert "Traceback" not in done.stderr, done.stderr
            said += done.stdout + done.stderr
        return said


@pytest.fixture
def hostile(node: NodeFactory) -> Hostile:
    machine = node()
    dead = machine.kubelet.run(host_ports={8080: 80})
    kept_by_the_list_alone(machine, dead)
    remove_task(machine, dead)
    machine.lose_metadata()
    live = machine.kubelet.run()
    volume = machine.disk / "kubelet" / VOLUME.removeprefix("/var/lib/kubelet/")
    (volume / "bin").mkdir(parents=True)
    for name in ("ptp", "portmap", "host-local"):
        (volume / "bin" / name).write_text(PLUGIN)
        (volume / "bin" / name).chmod(0o755)
    shell = Path("/bin/sh").resolve()
    for name in ("kubelet", "k3s", "kube-router"):
        shutil.copy(shell, volume / name)
    return Hostile(machine, dead, live)


WRAPPERS = {
    "a container": AS_A_CONTAINER,
    "a user of the node": AS_A_USER,
    "a user namespace and the node's network": IN_A_USER_NAMESPACE,
    "a container of the node's PID and network namespaces": ["unshare", "--mount"],
}


@pytest.mark.promise
@pytest.mark.parametrize("who", WRAPPERS)
def test_14_a_kubelet_that_is_not_the_nodes_names_no_runtime(hostile: Hostile, who: str) -> None:
    """Nor does its runtime name where programs lie; the dead pod's hostPort goes by the node's own plugins."""
    machine, wrapper = hostile.machine, WRAPPERS[who]
    before = hostile.verdicts()
    assert before == {hostile.dead.ip: "pending", hostile.live.ip: "live"}
    (machine.disk / "kubelet" / VOLUME.removeprefix("/var/lib/kubelet/")).chmod(0o777)
    for name in ("kubelet", "k3s"):
        hostile.fake_kubelet(wrapper, name=name)
    hostile.fake_runtime(AS_A_CONTAINER)
    report = hostile.report()
    assert {lease["address"]: lease["verdict"] for lease in report["leases"]} == before
    assert VOLUME not in json.dumps(report["runtimes"] if "runtimes" in report else report["leases"])
    finding = next(finding for finding in report["findings"] if finding["id"] == "SCAN005")
    assert "not accepted" in finding["summary"]
    said = hostile.clean_without_naming_the_socket()
    assert hostile.dead.ip not in machine.addresses(), said
    assert hostile.live.ip in machine.addresses()
    assert not (machine.root / "run/executed").exists()


def test_14_it_does_not_take_the_place_of_the_real_ones_configuration(hostile: Hostile) -> None:
    """A sandbox that is listed NOTREADY at the socket in the kubelet's file keeps its lease."""
    machine = hostile.machine
    held = machine.kubelet.run()
    kept_by_the_list_alone(machine, held)
    machine.run(["mv", "/run/containerd/containerd.sock", "/run/custom.sock"], check=True)
    (machine.disk / "kubelet/config.yaml").write_text("containerRuntimeEndpoint: unix:///run/custom.sock\n")
    assert hostile.verdicts()[held.ip] == "held"
    hostile.fake_kubelet(AS_A_CONTAINER)
    hostile.fake_runtime(AS_A_CONTAINER)
    hostile.clean_without_naming_the_socket()
    assert hostile.verdicts()[held.ip] == "held"
    assert held.ip in machine.addresses()


@pytest.mark.parametrize("path", ["/run/crio/crio.sock", "/run/containerd/containerd.sock"])
def test_14_a_runtime_that_is_none_is_not_asked(hostile: Hostile, path: str) -> None:
    """At a place that everybody knows: who listens there has to be a runtime of the node's."""
    machine = hostile.machine
    hostile.fake_runtime(AS_A_CONTAINER)
    directory = path.rpartition("/")[0]
    machine.run(["sh", "-ec", f"mkdir -p {directory}; ln -f {VOLUME}/s {path} || ln -sf {VOLUME}/s {path}"], check=True)
    before = sorted(machine.addresses())
    hostile.clean_without_naming_the_socket()
    assert sorted(machine.addresses()) == before
    verdicts = hostile.verdicts()
    assert (verdicts[hostile.dead.ip], verdicts[hostile.live.ip]) == ("pending", "live")
    assert not (machine.root / "run/executed").exists()


# 06: a process that calls itself systemd-networkd, or kube-router.


@pytest.fixture
def routed() -> Iterator[RoutedNode]:
    with RoutedNode() as made:
        (made.machine.root / "run/x/lib/systemd").mkdir(parents=True)
        shell = Path("/bin/sh").resolve()
        for name in ("x/lib/systemd/systemd-networkd", "x/kube-router"):
            shutil.copy(shell, made.machine.root / "run" / name)
        yield made


def lookups(node: RoutedNode) -> list[str]:
    return [line for line in node.rules().splitlines() if "lookup 77" in line]


def delete_by_hand(node: RoutedNode) -> None:
    node.sh("ip rule del from 10.244.0.0/24 lookup 77; ip -6 rule del from fd00:10:244::/64 lookup 77")


IMPOSTORS = {
    "a pod": [*IN_A_USER_NAMESPACE, "--mount", "--pid", "--net", "--fork", "--kill-child"],
    "a user": AS_A_USER,
    "root, by hand": [],
}


@pytest.mark.promise
@pytest.mark.parametrize("who", IMPOSTORS)
@pytest.mark.parametrize("how", ["the daemon", "clean"])
def test_06_what_is_no_systemd_networkd_has_deleted_nothing(routed: RoutedNode, who: str, how: str) -> None:
    """The operator has, while no janitor ran; then somebody starts a program of that name."""
    routed.kube_router()
    if how == "the daemon":
        watcher = routed.watch()
        time.sleep(0.5)
        watcher.stop()
    delete_by_hand(routed)
    time.sleep(0.1)
    routed.machine.popen([*IMPOSTORS[who], "/run/x/lib/systemd/systemd-networkd", *IDLE])
    until(lambda: any("systemd-networkd -c" in line for line in routed.machine.processes().values()), "it runs")
    if how == "the daemon":
        routed.watch()
        time.sleep(2)
    else:
        routed.janitor("clean", "--only", "rules", "--yes")
    assert lookups(routed) == []


REFUSING = ["/run/x/kube-router", *IDLE, "--run-router=false"]


@pytest.mark.parametrize("who", [*IMPOSTORS, "a pod of the node's network that may make rules"])
def test_06_a_kube_router_that_wants_no_rules_keeps_none_away(routed: RoutedNode, who: str) -> None:
    """It has run for longer than the real one. Of two that may make rules, the rule stays that one of them wants."""
    routed.machine.popen([*IMPOSTORS.get(who, ["unshare", "--mount", "--pid", "--fork", "--kill-child"]), *REFUSING])
    until(lambda: any("run-router=false" in line for line in routed.machine.processes().values()), "it runs")
    time.sleep(0.1)
    routed.kube_router()
    before = lookups(routed)
    watcher = routed.watch()
    routed.start_networkd()
    watcher.wait_for('event="rule restored"', 2)
    assert lookups(routed) == before


def test_06_who_cannot_make_rules_is_no_owner_of_any(routed: RoutedNode) -> None:
    """What nobody owns is not restored, either."""
    routed.machine.popen([*AS_A_USER, "/run/x/kube-router", *IDLE, "--run-router=true"])
    until(lambda: any("run-router=true" in line for line in routed.machine.processes().values()), "it runs")
    assert json.loads(routed.janitor("collect").stdout)["routing"]["owners"] == []


def test_06_a_setuid_program_under_their_name_is_no_owner_of_any(routed: RoutedNode) -> None:
    """It has all of root's capabilities, and waits as long as its user likes: su does, for a password."""
    routed.sh("mkdir /run/y; cp /bin/sleep /run/y/su; chmod 4755 /run/y/su; ln -s su /run/y/kube-router")
    routed.machine.popen([*AS_A_USER, "/run/y/kube-router", "1000"])
    until(lambda: "/run/y/kube-router 1000" in routed.machine.processes().values(), "it runs")
    assert json.loads(routed.janitor("collect").stdout)["routing"]["owners"] == []


# 13: sockets without number.

SOCKETS = """import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
held = [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) for _ in range(int(sys.argv[1]))]
for one in held: one.bind((0, 0))
print("up", flush=True); time.sleep(1000)"""


def test_13_netlink_sockets_without_number_keep_no_rule_away(routed: RoutedNode) -> None:
    """A pod may have some ten thousand, and the table of all of them takes seconds to read."""
    routed.kube_router()
    before = lookups(routed)
    watcher = routed.watch()
    for _ in range(3):
        process = routed.machine.popen(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", sys.executable, "-c", SOCKETS, "9000"],
            stdout=subprocess.PIPE,
        )
        is_up(process)
    routed.start_networkd()
    watcher.wait_for('event="rule restored"', 2)
    assert lookups(routed) == before
    print(f"\n27,000 sockets: the last came back after {max(watcher.restored()):.1f} ms")


# 03: one table of descriptors, shared by hundreds of processes.

DESCRIPTORS = """import ctypes, os, resource, sys, time
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
one = os.open("/dev/null", os.O_RDONLY)
for _ in range(limit - 100): os.dup(one)
libc = ctypes.CDLL(None)
for _ in range(int(sys.argv[2])):
    if libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x400 | 17, 0, 0, 0, 0) == 0:  # CLONE_FILES
        libc.prctl(1, 9)
        while True: libc.pause()
os.write(1, b"up\\n")
time.sleep(1000)"""


def test_03_descriptors_without_number_keep_the_rules_from_nothing(routed: RoutedNode) -> None:
    routed.kube_router()
    before = lookups(routed)
    words = ["unshare", "--net", "--pid", "--fork", "--kill-child", sys.executable, "-c", DESCRIPTORS, "19000", "300"]
    process = routed.machine.popen(words, stdout=subprocess.PIPE)
    is_up(process)
    watcher = routed.watch()
    routed.start_networkd()
    watcher.wait_for('event="rule restored"', 2)
    assert lookups(routed) == before
