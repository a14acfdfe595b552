"""Addresses that are up where one does not look first. Each would be a live pod's; none may be called dead.

One old, ownerless lease for each place, on a node whose runtime is younger than all of them: whatever the kernel
witness misses is `orphaned` at once.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.lab.node import JANITOR, Node, NodeFactory

pytestmark = pytest.mark.system

SOCKET = "unix:///run/containerd/containerd.sock"
ADDRESS = "10.52.0.100"
UP = f"ip link set lo up; ip address add {ADDRESS}/32 dev lo"


def pin(path: str) -> str:
    return f"touch {path}; unshare --net sh -c '{UP}; mount --bind /proc/self/ns/net {path}'"


# Programs that bring the address up somewhere, say so, and stay. Shell, or Python where it takes system calls.
SHELL = {
    "in another mount namespace": f"""
        exec unshare --mount sh -c "mkdir /run/elsewhere; mount -t tmpfs t /run/elsewhere; {pin("/run/elsewhere/a")}
        echo up; sleep 600" """,
    "under a name with a separator in it": f"""
        export F=$(printf '/run/netns/a\\034b'); touch "$F"
        unshare --net sh -c '{UP}; mount --bind /proc/self/ns/net "$F"'; echo up; sleep 600""",
    "beside a process in a chroot": f"""
        exec unshare --mount sh -c "mkdir -p /run/hidden /run/cell/usr; mount -t tmpfs t /run/hidden
        {pin("/run/hidden/a")}; mount --bind /usr /run/cell/usr
        for d in bin lib lib64; do ln -s usr/\\$d /run/cell/\\$d; done
        sleep 600 & echo up; exec chroot /run/cell /bin/sleep 600" """,
    "in a mount namespace without a process": f"""
        mkdir /run/kept; mount --bind /run/kept /run/kept; mount --make-private /run/kept; touch /run/kept/ns
        # On a busy machine unshare(1) may find its child's namespace gone before it has kept it.
        until unshare --mount=/run/kept/ns sh -c "mkdir /run/deep; mount -t tmpfs t /run/deep; {pin("/run/deep/a")}"
        do rmdir /run/deep; done
        echo up; sleep 600""",
}
PYTHON = {
    "in a thread": f"""
import ctypes, os, threading, time
def body():
    ctypes.CDLL(None).unshare(0x40000000); os.system("{UP}"); print("up", flush=True); time.sleep(600)
threading.Thread(target=body).start()""",
    "behind an open file": f"""
import ctypes, os, time
libc = ctypes.CDLL(None)
old = os.open("/proc/self/ns/net", 0)
libc.unshare(0x40000000); os.system("{UP}")
new = os.open("/proc/self/ns/net", 0)
libc.setns(old, 0x40000000); print("up", flush=True); time.sleep(600)""",
}


@pytest.fixture
def old_lease(node: NodeFactory) -> Node:
    """A node with one lease that only a sighting keeps: its runtime is younger."""
    machine = node(boot=False)
    machine.boot(start_runtime=False)
    machine.leases().mkdir(parents=True)
    (machine.leases() / ADDRESS).write_bytes(f"{'e' * 64}\r\neth0".encode())
    (machine.leases() / "10.52.0.101").write_bytes(b"")
    time.sleep(3)
    machine.start_runtime()
    return machine


Stays = Callable[..., None]


@pytest.fixture
def stays() -> Iterator[Stays]:
    """Starts a program of a node's, waits until it has said that it is up, and ends it after the test."""
    with ExitStack() as programs:

        def start(machine: Node, argv: list[str], **options: Any) -> None:
            process = programs.enter_context(machine.popen(argv, stdout=subprocess.PIPE, **options))
            programs.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"

        yield start


def scan(machine: Node, *words: str) -> dict[str, Any]:
    done = machine.janitor("scan", "-o", "json", "--cri-endpoint", SOCKET, *words)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def verdict(report: dict[str, Any], address: str = ADDRESS) -> str:
    (found,) = [lease["verdict"] for lease in report["leases"] if lease["address"] == address]
    return str(found)


def test_nothing_hidden(old_lease: Node) -> None:
    report = scan(old_lease)
    assert (verdict(report), verdict(report, "10.52.0.101")) == ("orphaned", "corrupt")


@pytest.mark.parametrize("place", SHELL)
def test_a_namespace_pinned(old_lease: Node, place: str, stays: Stays) -> None:
    stays(old_lease, ["sh", "-c", SHELL[place]])
    time.sleep(0.2)
    report = scan(old_lease)
    assert verdict(report) == "live", report["findings"]


@pytest.mark.parametrize("place", PYTHON)
def test_a_namespace_kept(old_lease: Node, place: str, stays: Stays) -> None:
    stays(old_lease, [sys.executable, "-c", PYTHON[place]])
    assert verdict(scan(old_lease)) == "live"


def test_a_plugin_with_an_empty_string_in_its_environment(old_lease: Node, stays: Stays) -> None:
    program = f"""
import ctypes, os
strings = (ctypes.c_char_p * 5)(b"PATH=/bin", b"", b"CNI_COMMAND=ADD", b"CNI_CONTAINERID={"e" * 64}", None)
words = (ctypes.c_char_p * 4)(b"sh", b"-c", b"echo up; sleep 600; true", None)
ctypes.CDLL(None).execve(b"/bin/sh", words, strings)"""
    stays(old_lease, [sys.executable, "-c", program])
    assert verdict(scan(old_lease)) == "live"


def test_a_plugin_at_work_when_the_runtime_started_keeps_what_names_nobody(node: NodeFactory, stays: Stays) -> None:
    machine = node(boot=False)
    machine.boot(start_runtime=False)
    machine.leases().mkdir(parents=True)
    (machine.leases() / ADDRESS).write_bytes(b"")
    stays(machine, ["sh", "-c", "echo up; sleep 600; true"], env={"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "f" * 64})
    time.sleep(3)
    machine.start_runtime()
    assert verdict(scan(machine)) == "pending"


def test_what_is_left_of_an_id_is_compared_with_those_seen(old_lease: Node, stays: Stays) -> None:
    (old_lease.leases() / "10.52.0.102").write_bytes(b"deadbeefdeadbeef")
    time.sleep(3)
    old_lease.restart_runtime()
    assert verdict(scan(old_lease), "10.52.0.102") == "corrupt"
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "deadbeefdeadbeef" * 4}
    stays(old_lease, ["sh", "-c", "echo up; sleep 600; true"], env=environment)
    assert verdict(scan(old_lease), "10.52.0.102") == "live"


def test_the_disk_of_another_node_is_not_judged_by_this_ones_processes(node: NodeFactory) -> None:
    """As in a rescue system: the other's disk is mounted, and /proc and /run of this one are bound into it."""
    other, here = node(), node(boot=False)
    pod = other.kubelet.run()
    here.boot(start_runtime=False)
    time.sleep(3)
    here.start_runtime()
    prepare = f"""
        mkdir -p /run/mnt/proc /run/mnt/run /run/mnt/etc/cni/net.d /run/mnt/var/lib/cni
        mount --bind {other.cni_dir} /run/mnt/var/lib/cni && cp /etc/cni/net.d/* /run/mnt/etc/cni/net.d/
        mount --bind /run /run/mnt/run && mount -t proc proc /run/mnt/proc"""
    here.run(["sh", "-c", prepare], check=True)
    report = scan(here, "--root", "/run/mnt")
    assert (verdict(report, pod.ip), report["status"]) == ("pending", "unknown")


def test_a_lease_directory_that_the_runtime_does_not_see(node: NodeFactory) -> None:
    machine = node()
    inner = f"""
        mount -t tmpfs t /var/lib/cni; mkdir -p /var/lib/cni/networks/k8s-pod-network
        printf '{"e" * 64}\\r\\neth0' > /var/lib/cni/networks/k8s-pod-network/{ADDRESS}
        touch -d 2001-01-01 /var/lib/cni/networks/k8s-pod-network/{ADDRESS}
        {JANITOR} scan -o json --cri-endpoint {SOCKET}"""
    machine.kubelet.run()  # so that there is a directory on the runtime's side as well
    report = json.loads(machine.run(["unshare", "--mount", "sh", "-c", inner]).stdout)
    assert verdict(report) == "foreign"
    assert "sees a different directory" in report["leases"][0]["reason"]["text"]


def test_from_outside_through_the_root_of_a_process(node: NodeFactory) -> None:
    """A node in a container (kind) from its host: its own root, and process numbers that are not ours."""
    machine = node()
    pod = machine.kubelet.run()
    argv = [str(JANITOR), "collect", "--root", f"/proc/{machine.machine.pid}/root"]
    evidence = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert evidence["boot_id"] == machine.boot_id
    assert pod.ip in [file["name"] for file in evidence["lease_directories"][0]["entries"]]
    assert evidence["endpoints"][0]["listeners"]["reason"]["code"] == "ListenerOutOfSight"


def test_an_interface_named_by_anybody_does_not_blind_janitor(node: NodeFactory, stays: Stays) -> None:
    machine = node()
    pod = machine.kubelet.run()
    program = """
        ip link add 'd\u00e9' type veth peer name x; ip link set 'd\u00e9' up; ip link set x up
        ODD=$(printf 'a\\034b'); ip link add "$ODD" type veth peer name y
        ip link set "$ODD" up; ip link set y up; echo up; sleep 600"""
    stays(machine, ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", program])
    time.sleep(1)  # until the link-local addresses are there
    report = scan(machine)
    assert (report["status"], verdict(report, pod.ip)) == ("ok", "live")


def test_odd_names_of_processes_and_ids(node: NodeFactory, stays: Stays) -> None:
    machine = node()
    pod = machine.kubelet.run()
    program = """
import ctypes, os
ctypes.CDLL(None).prctl(15, b"\\x1b[2Jx\\n", 0, 0, 0)
ctypes.CDLL(None).unshare(0x40000000)
print("up", flush=True)
environment = {b"CNI_CONTAINERID": b"\\xff\\xfe", b"CNI_COMMAND": b"\\x1b[2J"}
os.execve("/bin/sh", ["sh", "-c", "sleep 600; true"], environment)"""
    stays(machine, [sys.executable, "-c", program])
    for words in (["scan", "--all"], ["collect"], ["explain", pod.ip]):
        done = machine.janitor(*words, "--cri-endpoint", SOCKET)
        assert (done.returncode in (0, 1), done.stderr) == (True, "")
        assert "\x1b" not in done.stdout
