"""What hides from the kernel witness, or is too much for it: that it is seen, or said, and that the rest goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.lab.daemon import Daemon
from tests.lab.networks import canal
from tests.lab.node import JANITOR, Node, NodeFactory
from tests.system.test_traps import SOCKET

pytestmark = pytest.mark.system

FIREWALL = {"type": "firewall", "backend": "iptables"}
OLD = "10.52.0.100"
UP = f"ip link set lo up; ip address add {OLD}/32 dev lo"
STRANGER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


class Hostile:
    """Starts what harms, waits until it has said that it is up, and ends it after the test."""

    def __init__(self, programs: ExitStack) -> None:
        self.programs = programs

    def __call__(self, machine: Node, argv: list[str]) -> subprocess.Popen[str]:
        process = self.programs.enter_context(machine.popen(argv, stdout=subprocess.PIPE))
        self.programs.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with ExitStack() as programs:
        yield Hostile(programs)


def old_lease(node: NodeFactory, *networks: Any) -> Node:
    """A node with one lease that nothing but a sighting, or something unseen, keeps: its runtime is younger."""
    machine = node(*networks, boot=False)
    machine.boot(start_runtime=False)
    machine.leases().mkdir(parents=True)
    (machine.leases() / OLD).write_bytes(f"{'e' * 64}\r\neth0".encode())
    time.sleep(3)
    machine.start_runtime()
    return machine


def report(machine: Node, *words: str, timeout: float = 100) -> dict[str, Any]:
    done = machine.janitor("scan", "-o", "json", "--cri-endpoint", SOCKET, *words, timeout=timeout)
    assert "Traceback" not in done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def verdicts(said: dict[str, Any]) -> dict[str, str]:
    return {lease["address"]: lease["verdict"] for lease in said["leases"]}


def findings(said: dict[str, Any], identifier: str) -> list[str]:
    return [finding["summary"] for finding in said["findings"] if finding["id"] == identifier]


@pytest.mark.parametrize("there", ["mkfifo", "ln -s /run/device", "touch"])
def test_01_what_lies_over_a_pin_is_not_opened(node: NodeFactory, hostile: Hostile, there: str) -> None:
    """An unprivileged user hides a namespace of his own under a FIFO, or under a link to a file of the node's."""
    machine = old_lease(node)
    machine.run(["mkfifo", "/run/device"], check=True)  # whoever opens it waits for ever
    hidden = f"""
        mount -t tmpfs t /tmp; mkdir /tmp/p; mount -t tmpfs t /tmp/p; touch /tmp/p/x
        unshare --net sh -c 'mount --bind /proc/self/ns/net /tmp/p/x'
        mount -t tmpfs t /tmp/p; {there} /tmp/p/x; echo up; exec sleep 600"""
    hostile(machine, [*STRANGER, "unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", hidden])
    said = report(machine, timeout=60)
    assert verdicts(said) == {OLD: "orphaned"}
    (finding,) = findings(said, "SCAN004")
    assert "the network namespaces that it hides" in finding


def test_01_a_pin_of_the_nodes_own_that_is_hidden_keeps(node: NodeFactory, hostile: Hostile) -> None:
    machine = old_lease(node)
    hidden = f"""
        mkdir /run/p; mount -t tmpfs t /run/p; touch /run/p/x
        unshare --net sh -c '{UP}; mount --bind /proc/self/ns/net /run/p/x'; mount -t tmpfs t /run/p; echo up
        exec sleep 600"""
    hostile(machine, ["sh", "-ec", hidden])
    said = report(machine)
    assert (verdicts(said), said["status"]) == ({OLD: "pending"}, "unknown")


DESCRIPTORS = """
import ctypes, os, resource, signal, sys
entries, processes, flags = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, 2 * resource.getrlimit(resource.RLIMIT_NOFILE)[1:])
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
libc = ctypes.CDLL(None)
libc.prctl(4, 1, 0, 0, 0) # PR_SET_DUMPABLE, as after an execve
null = os.open("/dev/null", 0)
for _ in range(entries): os.dup(null)
for _ in range(processes):
    if libc.syscall(56, flags | signal.SIGCHLD, 0, 0, 0, 0) == 0: # clone(2) on x86_64
        libc.prctl(1, 9, 0, 0, 0) # PR_SET_PDEATHSIG
        while True: signal.pause()
print("up", flush=True)
signal.pause()
"""
CLONE_FILES = 0x400


@pytest.mark.parametrize("flags", [CLONE_FILES, 0], ids=["one table", "tables of their own"])
def test_03_descriptors_without_number_do_not_keep_a_pass_from_ending(
    node: NodeFactory, hostile: Hostile, flags: int
) -> None:
    machine = old_lease(node)
    hostile(machine, [sys.executable, "-c", DESCRIPTORS, "19000", "400", str(flags)])
    began = time.monotonic()
    said = report(machine)
    assert time.monotonic() - began < 60
    assert verdicts(said) == {OLD: "orphaned"}
    assert bool(findings(said, "SCAN004")) == (flags == 0)


def test_03_descriptors_of_the_nodes_own_are_all_read(node: NodeFactory, hostile: Hostile) -> None:
    """Beside a stranger's: what exceeds a share is named, and what root's processes hold is found all the same."""
    machine = old_lease(node)
    hostile(machine, [sys.executable, "-c", DESCRIPTORS, "19000", "400", "0"])
    program = f"""
import ctypes, os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, 2 * resource.getrlimit(resource.RLIMIT_NOFILE)[1:])
libc = ctypes.CDLL(None)
old = os.open("/proc/self/ns/net", 0)
for _ in range(19_000): os.dup(old)
libc.unshare(0x40000000); os.system("{UP}"); os.open("/proc/self/ns/net", 0)
libc.setns(old, 0x40000000); print("up", flush=True); time.sleep(600)"""
    hostile(machine, [sys.executable, "-c", program])
    assert verdicts(report(machine)) == {OLD: "live"}


def test_08_a_pod_with_the_whole_range_on_its_interface_is_named(node: NodeFactory) -> None:
    machine = old_lease(node)
    pod = machine.kubelet.run()
    inside = ["nsenter", f"--net=/proc/{machine.pause_of(pod)}/ns/net", "ip"]
    lines = "".join(f"address add 10.52.0.{number}/32 dev lo\n" for number in range(90, 110))
    machine.run([*inside, "-batch", "-"], input=lines, check=True)
    said = report(machine)
    assert verdicts(said) == {OLD: "live", pod.ip: "live"}
    (finding,) = [finding for finding in said["findings"] if finding["id"] == "SCAN003"]
    name = next(lease["pod"] for lease in said["leases"] if lease["address"] == pod.ip)
    assert name in finding["summary"]
    assert f'ignore_namespaces = ["{name}"]' in finding["fix"]["text"]
    machine.machine.configure(f'[scope]\nignore_namespaces = ["{name}"]\n')
    decided = report(machine)
    assert verdicts(decided) == {OLD: "orphaned", pod.ip: "live"}
    assert findings(decided, "SCAN003") == []


@pytest.mark.parametrize("how", ["address add {}/32 dev lo", "route add {}/32 dev lo"], ids=["addresses", "routes"])
def test_08_what_is_spread_over_many_namespaces_is_named(node: NodeFactory, hostile: Hostile, how: str) -> None:
    """Of a user of the node, or of a pod that may make a user namespace: one address, or one route, in each."""
    machine = old_lease(node)
    one = "unshare --net sh -c 'ip link set lo up; ip {}; sleep 600 & :'; "
    spread = "".join(one.format(how.format(f"10.52.0.{number}")) for number in range(90, 110))
    script = f"{spread} echo up; exec sleep 600"
    hostile(machine, [*STRANGER, "unshare", "--user", "--map-root-user", "sh", "-ec", script])
    said = report(machine)
    assert verdicts(said) == {OLD: "live"}
    (finding,) = findings(said, "SCAN003")
    assert "with 19 more network namespaces, has 20 addresses of the pods' ranges" in finding


def test_18_whoever_repeats_the_containers_of_leases_is_named(node: NodeFactory, hostile: Hostile) -> None:
    """Any user of the node can read them, and a shim is known by the container that it names."""
    machine = old_lease(node)
    ids = [letter * 64 for letter in "abcde"]
    for number, one in enumerate(ids):
        (machine.leases() / f"10.52.0.{number + 96}").write_bytes(f"{one}\r\neth0".encode())
    hostile(machine, [*STRANGER, "sh", "-c", "echo up; sleep 600; :", *ids])
    said = report(machine)
    assert verdicts(said)[OLD] == "live"
    (finding,) = findings(said, "SCAN003")
    assert "name 5 containers of leases that no runtime knows" in finding


THREAD = "import ctypes, os, subprocess, threading, time; libc = ctypes.CDLL(None)\n"
KEEP = f"""
    old = os.open("/proc/thread-self/ns/net", 0); libc.unshare(0x40000000); os.system("{UP}")
    keep = os.open("/proc/thread-self/ns/net", 0); libc.setns(old, 0x40000000)"""
WITNESS = {
    "a thread's own descriptors": f"""
def body():
    libc.unshare(0x400){KEEP}
    print("up", flush=True); time.sleep(600)
threading.Thread(target=body).start()""",
    "a thread's own mounts": f"""
def body():
    libc.unshare(0x200); libc.unshare(0x20000); libc.mount(b"none", b"/", None, 0x44000, None)
    libc.mount(b"t", b"/mnt", b"tmpfs", 0, None); open("/mnt/x", "w").close()
    subprocess.run(["sh", "-c", "unshare --net sh -c '{UP}; mount --bind /proc/self/ns/net /mnt/x'"])
    print("up", flush=True); time.sleep(600)
threading.Thread(target=body).start()""",
    "the threads of an ended leader": f"""
def body():{KEEP}
    time.sleep(1); print("up", flush=True); time.sleep(600)
threading.Thread(target=body).start(); time.sleep(0.5); libc.syscall(60, 0)""",
    "the command line of an ended leader": f"""
def body():
    time.sleep(1); print("up", flush=True); time.sleep(600)
threading.Thread(target=body).start(); time.sleep(0.5); libc.syscall(60, 0)
# -id {"e" * 64}""",
    "a tap device": f"""
import fcntl, struct
old = os.open("/proc/self/ns/net", 0); libc.unshare(0x40000000); os.system("{UP}")
tap = os.open("/dev/net/tun", 2); fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH", b"tap0", 2))
libc.setns(old, 0x40000000); print("up", flush=True); time.sleep(600)""",
    "an open file that was a pin": f"""
subprocess.run(["sh", "-c", "touch /run/x; unshare --net sh -c '{UP}; mount --bind /proc/self/ns/net /run/x'"])
keep = os.open("/run/x", 0); subprocess.run(["umount", "-l", "/run/x"])
print("up", flush=True); time.sleep(600)""",
}


@pytest.mark.parametrize("place", WITNESS)
def test_09_an_address_that_is_up_is_seen(node: NodeFactory, hostile: Hostile, place: str) -> None:
    machine = old_lease(node)
    if "tun" in WITNESS[place] and not (machine.root / "dev/net/tun").exists():
        pytest.skip("this machine has no /dev/net/tun")
    hostile(machine, [sys.executable, "-c", THREAD + WITNESS[place]])
    assert verdicts(report(machine)) == {OLD: "live"}


MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.stdout.write(done.stdout.decode())
"""


def test_12_routes_without_number_cost_no_memory_and_hide_nothing(node: NodeFactory) -> None:
    machine = old_lease(node, canal("10.52.0.0/22"))
    pod = machine.kubelet.run()
    scan = [sys.executable, "-c", MEASURED, str(JANITOR), "scan", "-o", "json", "--cri-endpoint", SOCKET]
    before = int(machine.run(scan, timeout=100).stdout.partition("\n")[0])
    inside = ["nsenter", f"--net=/proc/{machine.pause_of(pod)}/ns/net", "ip"]
    routes = "".join(f"route add 11.{n >> 16}.{n >> 8 & 255}.{n & 255} dev lo\n" for n in range(200_000))
    machine.run([*inside, "-batch", "-"], input=f"link set lo up\n{routes}", check=True, timeout=300)
    text = machine.run(scan, timeout=100).stdout
    after, _, said = text.partition("\n")
    assert int(after) < before * 1.2
    assert verdicts(json.loads(said)) == {OLD: "orphaned", pod.ip: "live"}


# A file system that answers all but one question: what is asked when a file is closed, as execve(2) does on its way.
SILENT = """
import ctypes, os, struct
fuse = os.open("/dev/fuse", os.O_RDWR)
os.mkdir("/run/silent")
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fuse
assert ctypes.CDLL(None).mount(b"x", b"/run/silent", b"fuse", 0, options) == 0
print("up", flush=True)
def attributes(node):
    return struct.pack("=6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, (0o40755, 0o100644)[node - 1], *[1] * 6)
while True:
    _, kind, number, node = struct.unpack_from("=IIQQ", os.read(fuse, 1 << 20))
    answers = {26: struct.pack("=4I2H2I32x", 7, 31, 0, 0, 9, 9, 4096, 1), 14: struct.pack("=QQ", 1, 0),
               1: struct.pack("=4Q2I", 2, 0, 99, 99, 0, 0) + attributes(2),
               3: struct.pack("=QQ", 99, 0) + attributes(node)}
    if kind in answers: os.write(fuse, struct.pack("=IiQ", 16 + len(answers[kind]), 0, number) + answers[kind])
    elif kind != 25: os.write(fuse, struct.pack("=IiQ", 16, -38, number))
"""
WAITING = """
import ctypes, os, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
held = os.open("/run/silent/x", os.O_RDONLY)
print("up", flush=True)
os.execv("/bin/sleep", ["sleep", "600"])
"""


def test_16_who_never_comes_to_the_end_of_an_execve_stops_nothing(node: NodeFactory, hostile: Hostile) -> None:
    """Meanwhile the kernel says nothing of him, and whoever asks waits; newer ones do not even say when he started."""
    machine = old_lease(node)
    if not (machine.root / "dev/fuse").exists():
        pytest.skip("this machine has no /dev/fuse")
    server = hostile(machine, [sys.executable, "-c", SILENT])
    for name in ("kubelet", "containerd", "kube-router", "kube-proxy"):
        hostile(machine, [sys.executable, "-c", WAITING, name])
    hostile.programs.callback(server.kill)  # before those that wait for it: until then they cannot be killed
    time.sleep(0.5)
    said = report(machine, timeout=60)
    assert verdicts(said) == {OLD: "orphaned"}
    assert "reading them blocked" in " ".join(findings(said, "SCAN004"))
    assert "Traceback" not in machine.janitor("scan", timeout=60).stderr  # with its own search for the runtime
    with Daemon(machine) as daemon:
        daemon.wait_for("event=pass", timeout=40)
        assert "watching rules" in daemon.log()
        assert daemon.stop() < 5
