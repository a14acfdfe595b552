"""The traps: thirty-two ways in which a naive janitor frees the address of a live pod, each set up on a real node.

Every test lets `janitor clean --yes --no-wait` run twice, as if 700 seconds lay between, and compares all files below
/var/lib/cni/networks before and after. Exactly one may be gone: a control, which the real host-local wrote for a
container that never was. So no test passes because nothing was freed, and none because only what it looks at was left.

A lab clock stands in for waiting (tests/lab/clock.py; a time namespace would not do, as the kernel shifts the start of
the runtime along with the clock, so that it would never have been running for a minute). All evidence is the node's.
Of what cannot be had here (Kata, a clock that is set, NFS, other nodes) tests/cases/test_traps.py has the part that is
missing.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.lab import clock, image
from tests.lab.kubelet import Kubelet, Pod, RpcError
from tests.lab.machine import PATH
from tests.lab.networks import PORTMAP, SLOW, Network, canal, dual_stack
from tests.lab.node import Node, NodeFactory
from tests.lab.runtimes import Containerd

pytestmark = pytest.mark.system

CONTAINERDS = ("1.6", "2.4")
SOCKET = "unix:///run/containerd/containerd.sock"
NETWORKS = "/var/lib/cni/networks"
CONTROL = "10.52.0.200"
DEAD = "c0ffee" + "0" * 58  # the control's owner: nobody, ever
STRANGER = "e" * 64  # likewise, for leases that a test makes up

Files = dict[str, tuple[str, int, int, bytes]]


# One pass, and two of them.

_seconds = itertools.count(700, 700)


def argv(*words: str, endpoint: str = SOCKET) -> list[str]:
    """A pass 700 seconds after the one before, whichever node that was on."""
    janitor = [sys.executable, str(Path(clock.__file__)), str(next(_seconds))]
    return [*janitor, "clean", "--yes", "--no-wait", "--cri-endpoint", endpoint, *words]


def one_pass(node: Node, *words: str, endpoint: str = SOCKET) -> subprocess.CompletedProcess[str]:
    done = node.run(argv(*words, endpoint=endpoint), timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 2), done.stdout + done.stderr
    return done


def clean(node: Node, *words: str, endpoint: str = SOCKET) -> str:
    """Two passes in which everything could be looked at, the first of which has watched for the second."""
    for _ in range(5):
        passes = [one_pass(node, *words, endpoint=endpoint) for _ in range(2)]
        # A thread that ends while it is looked at makes a pass inconclusive on some kernels; the next one is not.
        if not any("/ns/net: Permission denied" in done.stderr for done in passes):
            break
    said = "".join(done.stdout + done.stderr for done in passes)
    assert passes[-1].returncode in (0, 1), said
    return said


# What is on the disk.


def files(node: Node) -> Files:
    """Everything below /var/lib/cni/networks: kind, inode, time of the last change, bytes."""
    top = node.cni_dir / "networks"
    found: Files = {}
    for path in sorted(top.rglob("*")):
        if path.name == ".janitor-node":  # what a pass that frees leaves beside the networks
            continue
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        kind = "directory" if path.is_dir() else "file"
        # Of a directory only that it is there: renaming something in it changes its times.
        stamp = 0 if kind == "directory" else info.st_mtime_ns
        found[str(path.relative_to(top))] = (kind, info.st_ino, stamp, content)
    return found


def ipam_of(network: Network) -> dict[str, Any]:
    ipam: dict[str, Any] = network.config["plugins"][0]["ipam"]
    return ipam


def host_local(
    node: Node, container_id: str, address: str, *, network: str = "", subnet: str = "", interface: str = "eth0"
) -> str:
    """CNI ADD of the real host-local for `container_id`, asking for `address`; the lease, below the data directory."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]} if subnet else ipam_of(node.networks[0])
    name = network or node.networks[0].name
    config = {"cniVersion": "0.3.1", "name": name, "type": "ptp", "ipam": ipam}
    environment = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": container_id, "CNI_NETNS": "/none", "CNI_IFNAME": interface,
        "CNI_PATH": "/opt/cni/bin", "CNI_ARGS": f"IP={address}",
    }  # fmt: skip
    node.run(["/opt/cni/bin/host-local"], env=environment, input=json.dumps(config), check=True)
    lease = f"{name}/{address}"
    assert (node.cni_dir / "networks" / lease).exists()
    return lease


def control(node: Node) -> str:
    """The lease that is really dead."""
    return host_local(node, DEAD, CONTROL)


def frees(node: Node, dead: Sequence[str], *words: str, endpoint: str = SOCKET) -> str:
    """Clean, and show that of all files exactly the leases `dead` have gone, and nothing was changed or added."""
    before = files(node)
    assert set(dead) <= before.keys()
    said = clean(node, *words, endpoint=endpoint)
    assert files(node) == {path: seen for path, seen in before.items() if path not in dead}, said
    for lease in dead:
        name, _, address = lease.partition("/")
        assert f"freed {address} of {name}" in said, said
    return said


def frees_only_the_control(node: Node, *words: str, endpoint: str = SOCKET) -> str:
    return frees(node, [control(node)], *words, endpoint=endpoint)


def lease_of(pod: Pod | str, network: str = "k8s-pod-network") -> str:
    return f"{network}/{pod if isinstance(pod, str) else pod.ip}"


# What is done to pods.


def until(condition: Callable[[], object], what: str, timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)


def not_ready(node: Node, pod: Pod) -> None:
    until(lambda: not any(p.id == pod.id and p.ready for p in node.kubelet.list()), f"{pod.name} becomes NOTREADY")


def kill(node: Node, pod: Pod, *, shim: bool) -> int:
    """Kill its pause process, and before that its shim if that is told; the PID that pause had, inside."""
    pause, its_shim = node.pause_of(pod), node.shim_of(pod)
    assert pause is not None
    assert its_shim is not None
    if shim:
        node.machine.kill(its_shim)
        until(lambda: its_shim not in node.machine.processes(), "the shim ends")
    node.run(["sh", "-c", f"kill -KILL {pause}"])  # with its shim gone the runtime may have been faster
    until(lambda: node.machine.processes().get(pause) != "/pause", "pause ends")
    return pause


def namespace_of(node: Node, pod: Pod) -> str:
    """The file that keeps its network namespace."""
    spec = json.loads(node.kubelet.status(pod).info["info"])["runtimeSpec"]
    (path,) = [str(n["path"]) for n in spec["linux"]["namespaces"] if n["type"] == "network"]
    return path


def remove_namespace(node: Node, pod: Pod) -> None:
    path = namespace_of(node, pod)
    node.run(["sh", "-c", f"umount {path} && rm {path}"], check=True)


def remove_task(node: Node, pod: Pod) -> None:
    """What a shim that was killed leaves in /run."""
    path = f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{pod.id}"
    node.run(["sh", "-c", f"umount --lazy {path}/rootfs; rm -rf {path}; test ! -e {path}"], check=True)


def kept_by_the_list_alone(node: Node, pod: Pod) -> None:
    """NOTREADY, and the kernel knows nothing of it any more."""
    path = namespace_of(node, pod)
    kill(node, pod, shim=False)
    not_ready(node, pod)
    node.run(["sh", "-c", f"umount {path} && rm {path}"], check=True)


@contextmanager
def stays(node: Node, program: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A shell script that says `up`, and then stays until the end of the block."""
    with node.popen(["sh", "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, **options) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


# A pass that is caught in the middle.


def holds_open(pid: int, path: Path) -> bool:
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if fd.stat().st_ino == path.stat().st_ino:
                return True
        except OSError:
            continue  # closed since
    return False


@dataclass
class Caught:
    """A second pass that is at host-local's lock, which the test holds."""

    process: subprocess.Popen[str]
    said: str = ""


@contextmanager
def caught_at_the_lock(node: Node, *words: str, lock: str = "lock") -> Iterator[Caught]:
    """Let a pass watch; then hold `lock` as host-local does, and let the next pass come there and wait.

    The block does what may happen meanwhile. At its end the lock is released and the pass runs to its end.
    """
    one_pass(node, *words)
    directory = node.leases()
    held = os.open(directory / lock, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        process = node.popen(argv(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until(lambda: holds_open(process.pid, node.leases() / "lock"), "it comes to the lock")
        caught = Caught(process)
        yield caught
        assert process.poll() is None, "it did not wait for the lock"
    finally:
        os.close(held)
    caught.said, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 1), caught.said


# Nodes that several traps share: everything is set up, then there is one run of clean, then each test looks.


@dataclass
class Outcome:
    """A node after clean, what was below /var/lib/cni/networks before and after, and what tests want to know."""

    node: Node
    before: Files
    after: Files
    said: str
    pods: dict[str, Pod] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def gone(self, *paths: str) -> None:
        """These were dead, and are freed."""
        for path in paths:
            assert path in self.before
            assert path not in self.after, self.said

    def untouched(self, *paths: str) -> None:
        """These are what they were, and the control is gone."""
        assert lease_of(CONTROL) in self.before
        assert lease_of(CONTROL) not in self.after, self.said
        for path in paths:
            assert self.after.get(path) == self.before[path], (path, self.said)


def outcome(node: Node, dead: Sequence[str], *words: str) -> Outcome:
    gone = [*dead, control(node)]
    before = files(node)
    said = clean(node, *words)
    after = files(node)
    assert not set(gone) & after.keys(), said
    assert after.keys() <= before.keys()
    return Outcome(node, before, after, said)


# 1 to 3: a birth.


def test_trap_01_add_in_flight(node: NodeFactory) -> None:
    """The address is on the disk while the pod is still being made, and no list of sandboxes has it yet."""
    machine = node(canal(chain=[SLOW]))
    machine.slow("hold-ADD").touch()
    future = machine.kubelet.run_async("slow")
    machine.held()
    (address,) = machine.addresses()
    assert machine.kubelet.list() == ()
    frees_only_the_control(machine)
    machine.slow("hold-ADD").unlink()
    assert future.result(timeout=20).ip == address


def test_trap_02_creation_stuck_past_the_deadline(node: NodeFactory) -> None:
    """The kubelet has given a RunPodSandbox up long ago, and the runtime is still in the middle of it."""
    machine = node(canal(chain=[SLOW]))
    for command in ("ADD", "DEL"):
        machine.slow(f"hold-{command}").touch()
    future = machine.kubelet.run_async("stuck", timeout=2)
    machine.held()
    (address,) = machine.addresses()
    with pytest.raises(RpcError) as given_up:
        future.result(timeout=20)
    assert given_up.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    machine.held("DEL")  # it cleans up, and is stuck in that
    frees_only_the_control(machine)
    for command in ("ADD", "DEL"):
        machine.slow(f"hold-{command}").unlink()
    until(lambda: address not in machine.addresses(), "the runtime releases the address itself")


IN_OPEN = 0x20


@contextmanager
def stopped_at_the_leases(node: Node) -> Iterator[subprocess.Popen[str]]:
    """A pass that is stopped at the moment at which it opens the directory of the leases."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    assert watch >= 0
    try:
        assert libc.inotify_add_watch(watch, os.fsencode(node.leases()), IN_OPEN) >= 0
        process = node.popen(argv(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert select.select([watch], [], [], 20)[0]
        process.send_signal(signal.SIGSTOP)
    finally:
        os.close(watch)
    assert process.poll() is None
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)


def test_trap_03_owners_listed_before_leases(node: NodeFactory) -> None:
    """A pod born between the two looks has a lease, and is in no list that was made before."""
    machine = node()
    dying, living = machine.kubelet.run(), machine.kubelet.run()
    control(machine)
    before = machine.addresses()
    born = []
    for _ in range(2):
        with stopped_at_the_leases(machine) as process:
            born.append(machine.kubelet.run())
            if len(born) == 2:
                machine.kubelet.stop(dying)
        said, _ = process.communicate(timeout=60)
        assert process.returncode in (0, 1), said
    assert f"freed {CONTROL} of" in said
    expected = {living.ip: before[living.ip]} | {pod.ip: f"{pod.id}\r\neth0".encode() for pod in born}
    assert machine.addresses() == expected


# 4 to 7: the runtime's list.


def test_trap_04_only_ready_sandboxes_are_kept(node: NodeFactory) -> None:
    """A sandbox whose pause process died is NOTREADY, and its containers go on, or its DEL is still to come."""
    machine = node()
    headless, listed = machine.kubelet.run(), machine.kubelet.run()
    kill(machine, headless, shim=False)
    not_ready(machine, headless)
    kept_by_the_list_alone(machine, listed)
    frees_only_the_control(machine)


OTHER = "/run/other/containerd.sock"


@contextmanager
def another_containerd(node: Node) -> Iterator[Kubelet]:
    """A second containerd, as docker brings one along: the same CNI configuration, everything else its own."""
    config = node.containerd.config().replace("/var/lib/containerd", "/var/lib/other").replace(
        "/run/containerd", "/run/other"
    )  # fmt: skip
    (node.root / "run/other.toml").write_text(f'{config}[grpc]\n  address = "{OTHER}"\n')
    containerd = node.containerd.directory / "containerd"
    kubelet = Kubelet(lambda: node.root / OTHER.lstrip("/"), cgroup_parent=f"/{node.machine.name}")
    environment = {"PATH": f"{node.containerd.directory}:{PATH}"}
    arguments = [str(containerd), "--config", "/run/other.toml"]
    log = (node.machine.directory / "other.log").open("w")
    with log, node.popen(arguments, env=environment, stdout=log, stderr=log) as process:

        def answers() -> bool:
            try:
                return kubelet.network_ready()
            except RpcError:
                return False

        try:
            until(answers, "the other containerd answers")
            yield kubelet
        finally:
            process.kill()


def test_trap_05_a_successful_empty_list(node: NodeFactory) -> None:
    """The list has nothing in it and is an answer all the same: a wrong socket, or a runtime that lost its memory."""
    machine = node()
    running, listed = machine.kubelet.run(), machine.kubelet.run()
    kept_by_the_list_alone(machine, listed)
    with another_containerd(machine) as other:
        assert other.list() == ()
        frees_only_the_control(machine, endpoint=f"unix://{OTHER}")
    # And now the right socket, of a runtime that does not remember.
    machine.kubelet.stop(listed)
    machine.kubelet.remove(listed)
    machine.lose_metadata()
    assert machine.kubelet.list() == ()
    frees_only_the_control(machine)
    assert list(machine.addresses()) == [running.ip]


def test_trap_06_a_sandbox_that_the_runtime_did_not_load(node: NodeFactory) -> None:
    """After a restart CRI leaves out, without a word, what it could not load within ten seconds or at all."""
    machine = node()
    hung, lost = machine.kubelet.run(), machine.kubelet.run()
    kept_by_the_list_alone(machine, lost)
    remove_task(machine, lost)
    shim = machine.shim_of(hung)
    assert shim is not None
    machine.machine.kill(shim, "STOP")
    # It loads what carries this label: without it the record is there and CRI passes it over.
    ctr = str(machine.containerd.directory / "ctr")
    label = "io.cri-containerd.kind="
    machine.run([ctr, "-n", "k8s.io", "containers", "label", lost.id, label], check=True)
    machine.restart_runtime()
    listed = {pod.id: pod.ready for pod in machine.kubelet.list()}
    # 2.x has a second record of each sandbox, and finds it there: that trap is gone; the hung shim's is not.
    assert (lost.id in listed) == (machine.containerd.series >= "2")
    assert not listed.get(hung.id, False)
    frees_only_the_control(machine)


def test_trap_07_an_error_taken_for_an_empty_list(node: NodeFactory) -> None:
    """The runtime is down, hangs or is not initialised yet: nobody has said that there are no sandboxes."""
    machine = node()
    running, listed = machine.kubelet.run(), machine.kubelet.run()
    kept_by_the_list_alone(machine, listed)
    control(machine)
    before = files(machine)
    one_pass(machine)  # from here on nothing but an answer is missing
    (daemon,) = [pid for pid, command in machine.machine.processes().items() if command.endswith("/containerd")]
    machine.machine.kill(daemon, "STOP")
    assert one_pass(machine, "--deadline", "0.3").returncode == 2
    machine.kill_runtime()
    assert one_pass(machine).returncode == 2
    restart = threading.Thread(target=machine.start_runtime)
    restart.start()
    while restart.is_alive():  # whatever it answers meanwhile, or does not
        one_pass(machine)
        assert {lease_of(running), lease_of(listed)} <= files(machine).keys()
    restart.join()
    clean(machine)
    assert files(machine) == {path: seen for path, seen in before.items() if path != lease_of(CONTROL)}


# 8 to 14: what is no lease of a sandbox, and what is one though it does not look so.


def test_trap_08_several_runtimes_share_the_network(node: NodeFactory) -> None:
    """nerdctl, ctr, podman, docker, buildkit and a second CRI runtime write to the same directory."""
    machine = node()
    machine.kubelet.run()
    machine.import_image(image.archive(), "-n", "default")
    ctr = str(machine.containerd.directory / "ctr")
    run = [ctr, "run", "--detach", "--cni", "--snapshotter", "native", image.NAME, "web"]
    before = set(machine.addresses())
    machine.run(run, env={"PATH": f"{machine.containerd.directory}:{PATH}"}, check=True)
    (address,) = set(machine.addresses()) - before
    assert machine.addresses()[address].startswith(b"default-web")
    machine.run([ctr, "task", "kill", "--signal", "KILL", "web"], check=True)
    for last, owner in enumerate(
        ("k8s.io-" + STRANGER, "default-" + STRANGER, STRANGER[:12], "a3hd82kfmq90zxw71bvtp4c5e", "moby-" + STRANGER)
    ):
        host_local(machine, owner, f"10.52.0.{100 + last}")
    with another_containerd(machine) as other:
        machine.import_image(image.archive(), "--address", OTHER, "-n", "k8s.io")
        strange = other.run()
        assert strange.id not in [pod.id for pod in machine.kubelet.list()]
        frees_only_the_control(machine)
        assert strange.ip in machine.addresses()


MULTUS = {"network": "second", "subnet": "10.77.0.0/24"}


@pytest.fixture(scope="module")
def rebooted(default_containerd: Containerd | None) -> Iterator[Outcome]:
    """Seven pods from before a power cut: all NOTREADY, nothing of them in the kernel, kept by their IDs alone."""
    with Node(default_containerd, [dual_stack()]) as machine:
        machine.boot()
        # All at once: for each, the plugin waits until its IPv6 address is known to be nobody else's.
        names = ("id-only", "crlf-only", "lf", "newline", "spaces", "multus", "both")
        futures = {name: machine.kubelet.run_async(name) for name in names}
        pods = {name: future.result(timeout=60) for name, future in futures.items()}
        second = host_local(machine, pods["multus"].id, "10.77.0.9", interface="net1", **MULTUS)
        forms = {"id-only": "{}", "crlf-only": "{}\r\n", "lf": "{}\neth0", "newline": "{}\r\neth0\n", "spaces": " {} "}
        for name, form in forms.items():
            path = machine.leases() / pods[name].ip
            path.write_bytes(form.format(pods[name].id).encode())
        machine.sync()
        machine.cut()
        machine.boot()
        assert [pod.ready for pod in machine.kubelet.list()] == [False] * len(pods)
        neighbour = pods["id-only"].id[:-1] + ("0" if pods["id-only"].id[-1] != "0" else "1")
        dead = [
            host_local(machine, neighbour, "10.52.0.201"),
            host_local(machine, pods["lf"].id[:8] + "0" * 56, "10.52.0.202"),
            host_local(machine, DEAD, "10.77.0.200", interface="net1", **MULTUS),
        ]
        # host-local gives one address of each family.
        dead += [path for path, seen in files(machine).items() if seen[3].startswith(neighbour.encode())][1:]
        found = outcome(machine, dead, "--data-dir", NETWORKS)
        found.pods.update(pods)
        found.notes["second"] = second
        yield found


def test_trap_09_ids_compared_by_prefix_or_content_as_a_whole(rebooted: Outcome) -> None:
    """A lease has an interface's name on a second line, an old one has not, and an ID is all its 64 digits."""
    for name in ("id-only", "crlf-only", "lf", "newline", "spaces"):
        rebooted.untouched(lease_of(rebooted.pods[name]))
    # One digit different is another container, and that one is dead.
    rebooted.gone(lease_of("10.52.0.201"), lease_of("10.52.0.202"))


def test_trap_10_the_same_id_in_several_directories(rebooted: Outcome) -> None:
    """multus gives one sandbox several interfaces: one ID, two networks, net1 beside eth0.

    multus is not installed here; the call it makes for the second network was made by hand, to the real host-local.
    """
    rebooted.untouched(lease_of(rebooted.pods["multus"]), rebooted.notes["second"])
    rebooted.gone("second/10.77.0.200")


def test_trap_11_the_second_address_of_a_pod(rebooted: Outcome) -> None:
    """The kubelet and the status of a sandbox tell one address; a dual-stack pod has another one."""
    pods = rebooted.pods.values()
    both = [lease_of(address) for pod in pods for address in pod.addresses]
    assert len(both) == 2 * len(rebooted.pods)
    rebooted.untouched(*both)


API = """
import http.server, json, sys
pods = {"items": [{"metadata": {"name": "gone", "namespace": "default"}, "spec": {"nodeName": "node"}, "status":
    {"phase": "Running", "podIP": "%(dead)s", "podIPs": [{"ip": "%(dead)s"}]}}]}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open("/run/asked", "a").write(self.path + chr(10))
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(pods).encode())
    def log_message(self, *words): pass
server = http.server.HTTPServer(("127.0.0.1", 10255), Handler)
print("up", flush=True); server.serve_forever()
"""


@pytest.fixture(scope="module")
def ordinary(default_containerd: Containerd | None) -> Iterator[Outcome]:
    """A node at peace, whose API is behind, and in whose directory a lot lies about."""
    podman = {
        "cniVersion": "0.4.0", "name": "podman",
        "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}}],
    }  # fmt: skip
    with Node(default_containerd, [canal(), Network("87-podman.conflist", podman)]) as machine, ExitStack() as programs:
        machine.boot()
        program = "exec {} -c '{}'".format(sys.executable, (API % {"dead": CONTROL}).replace("'", "'\\''"))
        programs.enter_context(stays(machine, program))
        pods = {
            "web": machine.kubelet.run(),
            "static": machine.kubelet.run("kube-proxy-node", "kube-system"),
        }
        here = machine.leases()
        notes: dict[str, Any] = {
            "no sandbox": [
                host_local(machine, owner, f"10.52.0.{150 + last}", interface=interface)
                for last, (owner, interface) in enumerate(
                    (
                        ("source-vip", "source-vip"),
                        ("cilium-agent-router", "cilium_host"),
                        ("reserved", "eth0"),
                        ("gateway", "cni0"),
                    )
                )
            ],
            "podman": host_local(machine, STRANGER, "10.88.0.5", network="podman", subnet="10.88.0.0/16"),
        }
        (here / "10.52.0.160").write_text("the printer on the second floor\n")
        (here / "10.52.0.161").write_text("10.52.0.161")
        notes["no sandbox"] += [lease_of("10.52.0.160"), lease_of("10.52.0.161")]
        orphan = f"{STRANGER}\r\neth0".encode()
        for name in ("10.52.0.170.bak", ".10.52.0.171.swp", "10.52.0.172~", "10.52.000.173", "last_reserved_ip"):
            (here / name).write_bytes(orphan)
        (here / "10.52.0.174").mkdir()
        (here / "10.52.0.174/10.52.0.175").write_bytes(orphan)
        (here / "10.52.0.176").symlink_to("10.52.0.170.bak")
        control(machine)  # so that what comes now is not written over
        (here / "last_reserved_ip.0").write_bytes(b"")
        (here / "last_reserved_ip.1").write_bytes(orphan)
        before = files(machine)
        said = clean(machine)
        found = Outcome(machine, before, files(machine), said, pods, notes)
        found.notes["asked"] = (machine.root / "run/asked").exists()
        yield found


def test_trap_12_the_status_of_pods_taken_for_the_truth(ordinary: Outcome) -> None:
    """What the API says of addresses is late: it has those of pods that are gone, and not yet those of new ones.

    A stand-in for the kubelet's read-only API says that a running pod has the control's address, and knows no other.
    """
    ordinary.untouched(lease_of(ordinary.pods["web"]))
    assert not ordinary.notes["asked"]


def test_trap_13_leases_of_no_sandbox(ordinary: Outcome) -> None:
    """Addresses that an agent, a gateway or a person has reserved, in host-local's own form or in nobody's."""
    ordinary.untouched(*ordinary.notes["no sandbox"])


def test_trap_14_bookkeeping_taken_for_leases(ordinary: Outcome) -> None:
    """`lock` and `last_reserved_ip.N` lie among the leases, empty like damaged ones, or with what a lease has."""
    names = ("lock", "last_reserved_ip.0", "last_reserved_ip.1", "last_reserved_ip")
    assert [ordinary.before[lease_of(name)][3] for name in names[:2]] == [b"", b""]
    ordinary.untouched(*(lease_of(name) for name in names))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_trap_15_the_empty_file_of_an_add_in_progress(node: NodeFactory) -> None:
    """Between making the file and writing to it host-local has an empty lease on the disk, as a power cut leaves one.

    strace holds the real host-local before its write; it has the lock then. The control is in another network.
    """
    machine = node()
    machine.kubelet.run()
    path = f"{NETWORKS}/k8s-pod-network/10.52.0.60"
    config = {"cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "ptp", "ipam": ipam_of(machine.networks[0])}
    environment = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": STRANGER, "CNI_NETNS": "/none", "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin", "CNI_ARGS": "IP=10.52.0.60",
    }  # fmt: skip
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "inject=write:delay_enter=60000000"]
    with machine.popen(
        [*words, "/opt/cni/bin/host-local"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as tracer:
        try:
            assert tracer.stdin is not None
            tracer.stdin.write(json.dumps(config))
            tracer.stdin.close()
            until(lambda: machine.addresses().get("10.52.0.60") == b"", "the file is there, and nothing in it")
            dead = host_local(machine, DEAD, "10.77.0.200", **MULTUS)
            frees(machine, [dead], "--data-dir", NETWORKS)
            assert tracer.poll() is None
            assert machine.addresses()["10.52.0.60"] == b""
        finally:
            tracer.kill()  # what it traced goes on
    until(lambda: machine.addresses()["10.52.0.60"] == f"{STRANGER}\r\neth0".encode(), "host-local goes on")


def test_trap_16_pods_that_the_api_does_not_know(ordinary: Outcome) -> None:
    """Static pods run without an API, and their mirror in it may be missing."""
    ordinary.untouched(lease_of(ordinary.pods["static"]))
    assert not ordinary.notes["asked"]


# 17 to 21: what the kernel shows, and how.


@pytest.fixture(scope="module")
def forgotten(default_containerd: Containerd | None) -> Iterator[Outcome]:
    """Pods that the runtime has forgotten, each of which the kernel shows in one way only."""
    with Node(default_containerd) as machine, ExitStack() as programs:
        machine.boot()
        pods = {name: machine.kubelet.run(name) for name in ("whole", "hidden", "pinned", "reused", "gone")}
        # Its address has moved into a virtual machine, as far as the namespaces tell.
        address = namespace_of(machine, pods["hidden"])
        flush = f"nsenter --net={address} ip address flush dev eth0; ip route del {pods['hidden'].ip}"
        machine.run(["sh", "-c", flush], check=True)
        pids = {}
        for name in ("pinned", "reused"):
            pids[name] = kill(machine, pods[name], shim=True)
            # The route is up as long as the namespace is; that would be a second way.
            machine.run(["ip", "route", "del", pods[name].ip], check=True)
        namespace = namespace_of(machine, pods["gone"])
        pids["gone"] = kill(machine, pods["gone"], shim=True)
        machine.run(["sh", "-c", f"umount {namespace} && rm {namespace}"], check=True)
        for name in pids:
            remove_task(machine, pods[name])
        for name in ("reused", "gone"):
            takes = f"echo {pids[name] - 1} >/proc/sys/kernel/ns_last_pid; sleep 600 & echo $! >/run/pid; echo up; wait"
            programs.enter_context(stays(machine, takes))
            assert int((machine.root / "run/pid").read_text()) == pids[name]
        owned = "unshare --user --map-root-user --net sh -c 'ip link set lo up; ip address add {} dev lo; echo up; cat'"
        programs.enter_context(stays(machine, f"exec {owned.format('10.52.0.90')}"))
        host_local(machine, STRANGER, "10.52.0.90")
        machine.lose_metadata()
        host = machine.kubelet.run(host_network=True)
        assert [pod.id for pod in machine.kubelet.list()] == [host.id]
        report = json.loads(machine.janitor("scan", "-o", "json", "--cri-endpoint", SOCKET).stdout)
        found = outcome(machine, [lease_of(pods["gone"])])
        found.pods.update(pods)
        found.notes["reasons"] = {
            lease["address"]: [reason["text"] for reason in lease["reasons"]] for lease in report["leases"]
        }
        yield found


def test_trap_17_a_list_of_host_network_pods_only(forgotten: Outcome) -> None:
    """Pods on the host's network have no lease: a list of them is not empty, and says nothing about any other pod."""
    forgotten.untouched(lease_of(forgotten.pods["whole"]))


def test_trap_18_an_address_that_no_namespace_shows(forgotten: Outcome) -> None:
    """With Kata, SR-IOV or a macvtap the address is in a virtual machine; with user namespaces, in one owned elsewhere.

    Here it was taken off the interface, and the route to it away: nothing but the shim speaks for it. Kata itself is
    in tests/cases/test_traps.py.
    """
    forgotten.untouched(lease_of(forgotten.pods["hidden"]), lease_of("10.52.0.90"))
    reasons = forgotten.notes["reasons"][forgotten.pods["hidden"].ip]
    assert any("(containerd-shim) is running for it" in reason for reason in reasons), reasons
    assert not any("address" in reason for reason in reasons), reasons


def test_trap_19_a_sandbox_without_a_process(forgotten: Outcome) -> None:
    """cri-o drops the pause process: nothing but a mount keeps the network namespace, and no PID leads to it."""
    forgotten.untouched(lease_of(forgotten.pods["pinned"]))
    reasons = forgotten.notes["reasons"][forgotten.pods["pinned"].ip]
    assert any("up in the network namespace of /run/netns/" in reason for reason in reasons), reasons
    assert not any("process" in reason or "CRI" in reason for reason in reasons), reasons


def test_trap_20_a_pid_that_somebody_else_has_now(forgotten: Outcome) -> None:
    """The PID in a sandbox's status leads to another process by now, and so to another network namespace.

    One such pod still has its namespace. Of the other nothing is left but that its PID is alive: it is dead.
    """
    forgotten.untouched(lease_of(forgotten.pods["reused"]))
    reasons = forgotten.notes["reasons"][forgotten.pods["reused"].ip]
    assert any("up in the network namespace of /run/netns/" in reason for reason in reasons), reasons
    assert not any("process" in reason or "CRI" in reason for reason in reasons), reasons
    forgotten.gone(lease_of(forgotten.pods["gone"]))


def test_trap_21_janitor_in_namespaces_of_its_own(forgotten: Outcome) -> None:
    """In a container it sees its own processes and mounts, and not those of the node, unless it is told where."""
    machine = forgotten.node
    dead, pod = control(machine), lease_of(forgotten.pods["pinned"])
    before = files(machine)
    # Without the host's PIDs nothing at all is freed.
    for _ in range(2):
        inner = "mount -t proc proc /proc && exec " + " ".join(argv())
        done = machine.run(["unshare", "--pid", "--mount", "--fork", "sh", "-c", inner])
        assert (done.returncode, "janitor cannot see the process that answers" in done.stderr) == (2, True), done.stderr
    assert files(machine) == before
    # With them, but in a mount namespace into which the node's mounts do not get.
    for _ in range(2):
        inner = "umount /run/netns/*; ls /run/netns >&2; exec " + " ".join(argv())
        done = machine.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", inner])
        assert done.returncode in (0, 1), done.stderr
    assert files(machine) == {path: seen for path, seen in before.items() if path != dead}
    assert pod in before


# 22 to 25: between the judgement and the change.


def test_trap_22_a_clock_that_was_set(node: NodeFactory) -> None:
    """A board without a battery starts in 1970: by the file's time a lease of this minute is as old as the world.

    A clock cannot be set here without setting everybody's: that half is in tests/cases/test_traps.py.
    """
    machine = node()
    dead = control(machine)
    time.sleep(2.2)
    machine.restart_runtime()
    fresh = machine.leases() / "10.52.0.80"
    fresh.write_bytes(f"{STRANGER}\r\neth0".encode())
    os.utime(fresh, (0, 0))
    before = files(machine)
    said = one_pass(machine).stdout
    assert f"freed {CONTROL} of" in said
    assert files(machine) == {path: seen for path, seen in before.items() if path != dead}


def rewrite(path: Path, container_id: str) -> None:
    """As host-local does: the old file is removed and a new one made."""
    path.unlink()
    path.write_bytes(f"{container_id}\r\neth0".encode())


def test_trap_23_a_lease_that_is_rewritten_after_the_judgement(node: NodeFactory) -> None:
    """The address has gone to another container, or to the same one again, between the judgement and the removal."""
    machine = node()
    machine.kubelet.run()
    for last in (61, 62, 63):
        host_local(machine, STRANGER, f"10.52.0.{last}")
    dead = control(machine)
    with caught_at_the_lock(machine):
        rewrite(machine.leases() / "10.52.0.61", "f" * 64)
        rewrite(machine.leases() / "10.52.0.62", STRANGER)
        (machine.leases() / "10.52.0.63").write_bytes(f"{STRANGER}\r\neth0".encode())  # the same bytes, written again
        before = files(machine)
    assert files(machine) == {path: seen for path, seen in before.items() if path != dead}


def test_trap_24_a_lock_that_excludes_nobody(node: NodeFactory) -> None:
    """fcntl's locks do not exclude flock's; after `rm -rf` the lock that is held is not the one others take.

    That a lock on NFS is nobody else's is in tests/cases/test_traps.py.
    """
    machine = node()
    machine.kubelet.run()
    # host-local uses flock: somebody who holds the other kind of lock does not hold janitor up …
    with (machine.leases() / "lock").open("r+") as wrong:
        fcntl.lockf(wrong, fcntl.LOCK_EX)
        frees_only_the_control(machine)
    # … and who holds this kind does. What was waited for is of no use when it has been replaced meanwhile.
    kept, dead = control(machine), host_local(machine, DEAD, "10.77.0.200", **MULTUS)
    with caught_at_the_lock(machine, "--data-dir", NETWORKS) as caught:
        (machine.leases() / "lock").unlink()
        (machine.leases() / "lock").touch(0o750)
        before = files(machine)
    assert "replaced while janitor waited for its lock" in caught.said
    assert kept in before
    assert files(machine) == {path: seen for path, seen in before.items() if path != dead}


def test_trap_25_a_plugin_that_locks_the_directory(node: NodeFactory) -> None:
    """Up to v0.6 host-local took its lock on the directory, not on the file in it."""
    machine = node()
    machine.kubelet.run()
    rewritten = host_local(machine, STRANGER, "10.52.0.61")
    dead = control(machine)
    with caught_at_the_lock(machine, lock="."):
        time.sleep(0.3)
        assert {rewritten, dead} <= files(machine).keys()
        rewrite(machine.leases() / "10.52.0.61", "f" * 64)
        before = files(machine)
    assert files(machine) == {path: seen for path, seen in before.items() if path != dead}


# 26 to 32: others.


FIREWALL: dict[str, Any] = {"type": "firewall", "backend": "iptables"}


def test_trap_26_a_late_del_that_goes_by_address(node: NodeFactory) -> None:
    """A stopped sandbox's DEL is still to come, and firewall's removes the rules of whoever has the address then."""
    machine = node(canal("10.52.0.0/28", cni_version="0.4.0", chain=[PORTMAP, FIREWALL]))
    late, empty = machine.kubelet.run(), machine.kubelet.run()
    for pod in (late, empty):
        kept_by_the_list_alone(machine, pod)
    (machine.leases() / empty.ip).write_bytes(b"")  # as after a power cut: it does not even name its sandbox
    dead = host_local(machine, DEAD, "10.52.0.9")
    frees(machine, [dead])
    others = [machine.kubelet.run() for _ in range(11)]
    assert not {late.ip, empty.ip} & {pod.ip for pod in others}
    with pytest.raises(RpcError, match="no IP addresses available"):
        machine.kubelet.run()
    for pod in (late, empty):
        machine.kubelet.stop(pod)
    rules = machine.run(["iptables-save"], check=True).stdout
    for pod in others:
        assert f"-d {pod.ip}/32" in rules


def test_trap_27_rules_that_still_lead_to_the_address(node: NodeFactory) -> None:
    """A hostPort of the dead pod leads to its address, and so to whoever gets that next.

    CNI DEL of the whole chain takes the rule away; where it fails, the lease stays.
    """
    machine = node()
    pod = machine.kubelet.run(host_ports={8080: 80})
    kept_by_the_list_alone(machine, pod)
    remove_task(machine, pod)
    machine.lose_metadata()
    portmap = machine.disk / "plugins/portmap"
    real = portmap.rename(machine.disk / "portmap")
    portmap.write_text('#!/bin/sh\necho \'{"code": 11, "msg": "iptables is locked"}\'; exit 1\n')
    portmap.chmod(0o755)
    said = frees_only_the_control(machine)
    assert "iptables is locked" in said
    assert f"{pod.ip}:80" in machine.run(["iptables-save"], check=True).stdout
    # Once it can be done, both go.
    real.rename(portmap)
    clean(machine)
    assert machine.addresses() == {}
    assert f"{pod.ip}:80" not in machine.run(["iptables-save"], check=True).stdout


def test_trap_27_rules_that_still_lead_to_the_address_and_no_cache_entry(node: NodeFactory) -> None:
    """The same without libcni's cache entry: nobody can run its DEL, and the rule is still there."""
    machine = node()
    pod = machine.kubelet.run(host_ports={8080: 80})
    kept_by_the_list_alone(machine, pod)
    remove_task(machine, pod)
    machine.lose_metadata()
    for entry in machine.results.glob(f"*{pod.id}*"):
        entry.unlink()
    frees_only_the_control(machine)
    assert f"{pod.ip}:80" in machine.run(["iptables-save"], check=True).stdout


def test_trap_28_a_network_that_was_renamed_or_moved(node: NodeFactory) -> None:
    """After a change of the range, the directory or the name, leases of before belong to pods that still run."""
    machine = node()
    old = [machine.kubelet.run() for _ in range(2)]
    kept_by_the_list_alone(machine, old[1])
    strange = host_local(machine, STRANGER, "10.52.0.99")
    # Another range: what is outside is reported only.
    moved = canal("10.53.0.0/24").write(machine.net_d)
    machine.restart_runtime()
    dead = host_local(machine, DEAD, "10.53.0.200", network="k8s-pod-network", subnet="10.53.0.0/24")
    frees(machine, [dead])
    assert {*(lease_of(pod) for pod in old), strange} <= files(machine).keys()
    # Another name: the old directory is still that of the listed sandboxes', so that what is dead in it goes.
    moved.unlink()
    canal("10.54.0.0/24", name="renamed").write(machine.net_d)
    machine.restart_runtime()
    dead = host_local(machine, DEAD, "10.54.0.200", network="renamed", subnet="10.54.0.0/24")
    frees(machine, [dead, strange])
    assert {lease_of(pod) for pod in old} <= files(machine).keys()
    # With the runtime's memory it is nobody's, and nothing in it is touched any more.
    strange = host_local(machine, STRANGER, "10.52.0.98")
    machine.lose_metadata()
    dead = host_local(machine, DEAD, "10.54.0.201", network="renamed", subnet="10.54.0.0/24")
    frees(machine, [dead])
    assert {strange, *(lease_of(pod) for pod in old)} <= files(machine).keys()


def test_trap_29_containers_that_are_stopped_and_come_back(ordinary: Outcome) -> None:
    """podman restarts a container, or restores it from a checkpoint, with the ID and the address that it had.

    podman is not installed here; its network is, and the lease in it is the real host-local's. The ID looks like CRI's.
    """
    ordinary.untouched(ordinary.notes["podman"])


def test_trap_31_quarantine_and_other_files_among_the_leases(ordinary: Outcome) -> None:
    """Whatever is put into the directory counts as a lease for host-local, and its DEL deletes from it, recursively."""
    odd = {path for path in ordinary.before if "10.52.0.17" in path or "10.52.000.173" in path}
    assert len(odd) == 7
    ordinary.untouched(*odd)
    assert set(ordinary.after) == set(ordinary.before) - {lease_of(CONTROL)}
    (quarantined,) = ordinary.node.disk.rglob(f"*{CONTROL}")
    assert ordinary.node.cni_dir / "networks" not in quarantined.parents


def test_trap_32_two_janitors(node: NodeFactory) -> None:
    """A DaemonSet's and systemd's: what one has freed and host-local has given out anew, the other thinks dead."""
    machine = node()
    machine.kubelet.run()
    host_local(machine, STRANGER, "10.52.0.61")
    dead = control(machine)
    with caught_at_the_lock(machine) as first:
        second = one_pass(machine)
        assert (second.returncode, "is already at work on this node" in second.stderr) == (2, True), second.stderr
        assert {dead, lease_of("10.52.0.61")} <= files(machine).keys()
        rewrite(machine.leases() / "10.52.0.61", "f" * 64)
        before = files(machine)
    assert first.said.count(f"freed {CONTROL}") == 1
    assert files(machine) == {path: seen for path, seen in before.items() if path != dead}
