"""What the boot stage may meet besides files: late starts, other processes, odd mounts, a kill at any moment."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from janitor.host.runtime.sockets import CRI
from tests.lab import boot_stages
from tests.lab.boot_stages import PYTHON, SCRIPT, SHELLS, STAGES, EarlyMachine, Stage
from tests.lab.networks import calico
from tests.lab.node import JANITOR, NodeFactory

pytestmark = pytest.mark.system

ID = "0123456789abcdef" * 4
LEASE = f"{ID}\r\neth0".encode()
CANAL = "networks/k8s-pod-network"
CACHED = f"results/k8s-pod-network-{ID}-eth0"
FILES = {f"{CANAL}/10.52.0.2": LEASE, f"{CANAL}/10.52.0.3": b"", f"{CANAL}/10.52.0.4": b"mine", CACHED: b""}
GONE = frozenset({f"{CANAL}/10.52.0.2", f"{CANAL}/10.52.0.3", CACHED})
CONFIGURATION = {"10-canal.conflist": json.dumps(calico().config).encode()}


@pytest.fixture
def machine(_real_components: None) -> Iterator[EarlyMachine]:
    """A machine of its own for each test, with two leases to free, a foreign one and a blank cache entry."""
    if reason := boot_stages.missing():
        pytest.skip(reason)
    made = EarlyMachine()
    try:
        made.power_on()
        made.lay_out(FILES, CONFIGURATION)
        yield made
    finally:
        made.close()


@pytest.fixture(params=STAGES, ids=lambda stage: stage.name)
def stage(request: pytest.FixtureRequest) -> Stage:
    found: Stage = request.param
    return found


def refused(machine: EarlyMachine, stage: Stage, why: str, *, ledger: bool = False) -> None:
    """It changes nothing, says why in one line, and exits 0, or 1 if that is asked for."""
    for words, code in (((), 0), (("--strict",), 1)):
        done = machine.stage(stage, *words)
        assert (done.returncode, done.stderr.count("\n"), why in done.stderr) == (code, 1, True), done
        assert machine.held() == FILES
        assert machine.quarantined() == []
        assert (machine.root / "run/janitor/ledger.json").exists() == ledger


def freed(machine: EarlyMachine, stage: Stage, *words: str) -> str:
    done = machine.stage(stage, "--strict", *words)
    assert done.returncode == 0, done
    assert machine.held() == {path: content for path, content in FILES.items() if path not in GONE}, done.stderr
    assert machine.quarantined() == sorted(FILES[path] for path in GONE)
    return done.stderr


@contextmanager
def running(machine: EarlyMachine, *argv: str, ready: Callable[[], bool]) -> Iterator[None]:
    process = machine.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not ready():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["containerd", "containerd-shim-runc-v2", "crio", "kubelet", "k3s-server", "conmon"])
def test_a_runtime_is_running(machine: EarlyMachine, stage: Stage, name: str) -> None:
    program = machine.root / "run" / name
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    comm = name[:15]
    with running(
        machine,
        f"/run/{name}",
        "100",
        ready=lambda: (
            comm in machine.run(["cat", "/proc/2/comm"]).stdout
            or any(name in command for command in machine.processes().values())
        ),
    ):
        refused(machine, stage, f"{comm} (process ")
        assert "on a running node use 'janitor clean'" in machine.stage(stage).stderr
    freed(machine, stage)


@pytest.mark.parametrize("path", [CRI[0], CRI[1], CRI[4]])
def test_a_socket_answers(machine: EarlyMachine, stage: Stage, path: str) -> None:
    (machine.root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    listen = f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen(); time.sleep(100)"
    with running(machine, "python3", "-c", listen, ready=lambda: path in machine.run(["cat", "/proc/net/unix"]).stdout):
        refused(machine, stage, f"a container runtime already answers at {path}")
    # The socket of a runtime that is gone answers nobody.
    assert (machine.root / path.lstrip("/")).is_socket()
    freed(machine, stage)


# The first process of new PID namespaces, named as the one of a node, with a socket as a socket unit has it; then $1.
_SOCKET_UNIT = """
import os, socket, subprocess, sys
open("/proc/self/comm", "w").write("systemd")
listens = socket.socket(socket.AF_UNIX)
listens.bind("/run/cri-dockerd.sock")
listens.listen()
listens.setblocking(False)
served = subprocess.Popen(["sleep", "100"], pass_fds=[listens.fileno()]) if sys.argv[1] == "served" else None
code = subprocess.run(sys.argv[2:]).returncode
try:
    listens.accept()
    print("somebody came")
except BlockingIOError:
    print("nobody came")
sys.exit(code)
"""


def test_a_socket_unit_waits_for_the_first_to_come(machine: EarlyMachine, stage: Stage) -> None:
    """cri-docker.socket: systemd listens, and whoever connects starts the runtime. Nobody answers there yet."""
    for served in ("served", "waiting"):
        (machine.root / "run/cri-dockerd.sock").unlink(missing_ok=True)
        program = ["/usr/bin/env", f"PATH={stage.path}", *stage.command, "--strict"]
        unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "python3", "-c", _SOCKET_UNIT, served]
        done = machine.run([*unshare, *program])
        if served == "served":
            assert (done.returncode, "already answers at /run/cri-dockerd.sock" in done.stderr) == (1, True), done
            assert machine.held() == FILES
        else:
            assert (done.returncode, done.stdout) == (0, "nobody came\n"), done
            assert machine.quarantined() == sorted(FILES[path] for path in GONE)


# As above, but the socket unit's path has been taken by a runtime: the unit's own socket is at no name any more.
_TAKEN = """
import os, socket, subprocess, sys
open("/proc/self/comm", "w").write("systemd")
path = "/run/cri-dockerd.sock"
listens = socket.socket(socket.AF_UNIX)
listens.bind(path)
listens.listen()
os.unlink(path)
listen = "import socket,time; s=socket.socket(1); s.bind(%r); s.listen(); print(1,flush=True); time.sleep(99)"
runtime = subprocess.Popen(["python3", "-c", listen % path], stdout=subprocess.PIPE)
runtime.stdout.readline()
code = subprocess.run(sys.argv[1:]).returncode
runtime.kill()
sys.exit(code)
"""


def test_a_runtime_has_taken_the_path_of_a_socket_unit(machine: EarlyMachine, stage: Stage) -> None:
    program = ["/usr/bin/env", f"PATH={stage.path}", *stage.command, "--strict"]
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "python3", "-c", _TAKEN]
    done = machine.run([*unshare, *program])
    assert (done.returncode, "already answers at /run/cri-dockerd.sock" in done.stderr) == (1, True), done
    assert machine.held() == FILES


def test_a_distribution_with_a_configuration_of_its_own(machine: EarlyMachine, stage: Stage) -> None:
    """k3s does not load /etc/cni/net.d: what podman has there is podman's, unless k3s has the same network."""
    machine.run(["sh", "-c", "mount -t tmpfs lab /var/lib/rancher || mkdir -p /var/lib/rancher"])
    own = machine.root / "var/lib/rancher/k3s/agent/etc/cni/net.d"
    own.mkdir(parents=True)
    flannel = b'{"name": "cbr0", "plugins": [{"type": "flannel", "delegate": {}}]}'
    cilium = b'{"name": "cilium", "plugins": [{"type": "cilium-cni"}]}'
    pods = "networks/cbr0/10.42.0.2"
    for content, gone in ((flannel, {pods: b""}), (CONFIGURATION["10-canal.conflist"], FILES), (cilium, {})):
        machine.lay_out({**FILES, pods: b""}, CONFIGURATION)
        (own / "10.conflist").write_bytes(content)
        done = machine.stage(stage)
        kept = {path: data for path, data in {**FILES, pods: b""}.items() if path not in gone or data == b"mine"}
        assert (done.returncode, machine.held()) == (0, kept), done


@pytest.mark.parametrize("place", ["/var/lib/janitor", "/run/janitor"])
def test_a_full_disk(machine: EarlyMachine, stage: Stage, place: str) -> None:
    """What was begun on a disk that has no room for it is not left there, and nothing is moved."""
    files = {f"{CANAL}/10.52.{n // 250}.{n % 250 + 2}": LEASE for n in range(1500)}
    machine.lay_out(files, CONFIGURATION)
    made = machine.run(["sh", "-c", f"mkdir -p {place} && mount -t tmpfs -o size=256k lab {place}"])
    assert made.returncode == 0, made
    done = machine.stage(stage)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done
    assert "nothing done: " in done.stderr
    assert machine.held() == files
    used = int(machine.run(["df", "--output=used", place]).stdout.split()[1])
    assert used <= 8, machine.run(["ls", "-lR", place]).stdout  # KiB: a lock, and empty directories


def test_a_network_namespace_is_mounted(machine: EarlyMachine, stage: Stage) -> None:
    machine.run(["ip", "netns", "add", "cni-1"], check=True)
    refused(machine, stage, "network namespace")
    machine.run(["ip", "netns", "del", "cni-1"], check=True)
    machine.run(["umount", "/run/netns"])
    freed(machine, stage)


def test_a_network_namespace_is_held_open(machine: EarlyMachine, stage: Stage) -> None:
    with running(machine, "sh", "-c", "exec 3</proc/self/ns/net; touch /run/ready; exec sleep 100",
                 ready=(machine.root / "run/ready").exists):  # fmt: skip
        refused(machine, stage, "network namespace")
    freed(machine, stage)


@pytest.mark.promise
def test_twice(machine: EarlyMachine, stage: Stage) -> None:
    freed(machine, stage)
    again = machine.stage(stage, "--strict")
    assert (again.returncode, "the boot stage has already run in this boot" in again.stderr) == (1, True)


def test_the_ledger_of_another_boot_or_of_nobody(machine: EarlyMachine, stage: Stage) -> None:
    """/run/janitor may have come along with a container's root, or with a disk."""
    ledger = machine.root / "run/janitor/ledger.json"
    ledger.parent.mkdir()
    for content in ("", "garbage", "[]", '{"files": []}'):
        ledger.write_text(content)
        refused(machine, stage, "/run/janitor/ledger.json", ledger=True)
    ledger.write_text('{"boot_id": "10000000-0000-4000-8000-000000000000", "files": []}')
    freed(machine, stage)


def test_another_janitor_is_at_work(machine: EarlyMachine, stage: Stage) -> None:
    (machine.root / "run/janitor").mkdir()
    holds = ["sh", "-c", "exec 9>/run/janitor/lock; flock 9; touch /run/ready; exec sleep 100"]
    with running(machine, *holds, ready=(machine.root / "run/ready").exists):
        refused(machine, stage, "is already at work on this node")
    freed(machine, stage)


def test_ledger_only(machine: EarlyMachine) -> None:
    """It moves nothing; and every form writes the same ledger, which `janitor clean` then counts on."""
    ledgers = []
    for number, path in enumerate(sorted(FILES)):  # a clock at 1970, and nanoseconds with zeros in front
        os.utime(machine.cni / path, ns=(0, (0, 5, 7_000_000_001, 1_600_000_000_000_000_020)[number]))
    for stage in STAGES:
        (machine.root / "run/janitor/ledger.json").unlink(missing_ok=True)
        done = machine.stage(stage, "--ledger-only", "--strict")
        assert (done.returncode, "recorded 3 leases" in done.stderr) == (0, True), done
        assert machine.held() == FILES
        found = json.loads((machine.root / "run/janitor/ledger.json").read_text())
        assert found["boot_id"] == machine.boot_id
        ledgers.append(sorted(found["files"], key=lambda file: str(file["path"])))
    assert len(ledgers[0]) == 3
    assert all(ledger == ledgers[0] for ledger in ledgers)


@pytest.mark.promise
def test_undo_puts_all_of_it_back(machine: EarlyMachine, stage: Stage) -> None:
    inodes = {path: (machine.cni / path).stat().st_ino for path in GONE}
    freed(machine, stage)
    done = machine.run([str(JANITOR), "undo"])
    assert (done.returncode, "3 files put back" in done.stdout) == (0, True), done
    assert machine.held() == FILES
    assert {path: (machine.cni / path).stat().st_ino for path in GONE} == inodes


def test_the_lock_is_missing_or_held(machine: EarlyMachine, stage: Stage) -> None:
    lock = machine.cni / CANAL / "lock"
    holds = ["flock", f"/var/lib/cni/{CANAL}/lock", "sh", "-c", "touch /run/ready; sleep 100"]
    with running(machine, *holds, ready=(machine.root / "run/ready").exists):
        done = machine.stage(stage, "--strict")
        held = "is held by another process"
        if stage is PYTHON:  # the shell cannot find out who holds it
            held = r"has been held by process \d+ \(flock\) for more than 1 s"
        assert done.returncode == 1, done
        assert re.search(f"/lock {held}", done.stderr), done
        assert {CANAL + "/10.52.0.2", CANAL + "/10.52.0.3"} <= set(machine.held())
    (machine.root / "run/janitor/ledger.json").unlink()
    lock.unlink()
    done = machine.stage(stage, "--strict")
    assert (done.returncode, "has no lock file" in done.stderr) == (1, True), done
    assert not lock.exists()
    assert {CANAL + "/10.52.0.2", CANAL + "/10.52.0.3"} <= set(machine.held())


def test_without_flock_it_says_so(machine: EarlyMachine) -> None:
    busybox = SHELLS[1]
    said = freed(machine, Stage("no flock", busybox.command, busybox.path.partition(":")[0]))
    assert "flock is not installed, so host-local's lock was not taken" in said


def test_links(machine: EarlyMachine, stage: Stage) -> None:
    """A network's directory that is a link is left alone, and so is a lease; a data directory may be one."""
    (machine.cni / CANAL).rename(machine.cni / "real")
    (machine.cni / CANAL).symlink_to("../real")
    done = machine.stage(stage)
    assert "it is a symbolic link" in done.stderr
    assert machine.quarantined() == [b""]  # the cache entry
    machine.lay_out(FILES, CONFIGURATION)
    (machine.cni / CANAL / "10.52.0.9").symlink_to("10.52.0.2")
    (machine.cni / CANAL / "10.52.0.10").mkdir()
    os.mkfifo(machine.cni / CANAL / "10.52.0.11")
    (machine.cni / "networks").rename(machine.cni / "real")
    (machine.cni / "networks").symlink_to("real")
    machine.stage(stage, "--strict")
    assert sorted(path.name for path in (machine.cni / "real/k8s-pod-network").iterdir()) == [
        "10.52.0.10", "10.52.0.11", "10.52.0.4", "10.52.0.9", "last_reserved_ip.0", "lock",
    ]  # fmt: skip


def test_read_only_and_full(machine: EarlyMachine, stage: Stage) -> None:
    machine.run(["mount", "-o", "remount,bind,ro", "/var/lib/cni"], check=True)
    done = machine.stage(stage, "--strict")
    assert (done.returncode, done.stderr.count("\n"), machine.held()) == (1, 1, FILES), done
    assert machine.quarantined() == []
    machine.run(["mount", "-o", "remount,bind,rw", "/var/lib/cni"], check=True)
    machine.run(["sh", "-c", "mount -t tmpfs -o size=16k lab /var/lib/janitor; cat /dev/zero >/var/lib/janitor/zero"])
    done = machine.stage(stage, "--strict")
    assert (done.returncode, done.stderr.count("\n"), machine.held()) == (1, 1, FILES), done
    assert machine.quarantined() == []
    # Nothing was moved and there is no ledger, so a later stage of this boot, on a disk that can be written, goes on.
    assert not (machine.root / "run/janitor/ledger.json").exists()
    machine.run(["umount", "/var/lib/janitor"], check=True)
    freed(machine, stage)


@pytest.mark.parametrize("form", [PYTHON, SHELLS[0]], ids=lambda form: form.name)
def test_odd_things_in_place_of_its_files(machine: EarlyMachine, form: Stage) -> None:
    """It never waits for a FIFO; one sentence, and the boot goes on."""
    state, journal = machine.root / "run/janitor", machine.disk / "janitor/journal"
    kinds: tuple[Callable[[Path], object], ...] = (
        os.mkfifo,
        os.mkdir,
        _bind,
        lambda path: path.symlink_to("/nowhere/x"),
    )
    for path in (state / "lock", state / "ledger.json", journal, state / "ledger.json.new"):
        for kind in kinds:
            machine.lay_out(FILES, CONFIGURATION)
            state.mkdir()
            kind(path)
            if path.name == "ledger.json.new" and kind is not os.mkdir:
                freed(machine, form)  # left by an interruption, it is in nobody's way
                continue
            done = machine.stage(form, "--strict")
            assert (done.returncode, done.stderr.count("\n"), path.name.removesuffix(".new") in done.stderr) == (
                1,
                1,
                True,
            ), (path, done)
            assert "nothing done" in done.stderr
            assert machine.held() == FILES


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def test_nobody_to_tell(machine: EarlyMachine, stage: Stage) -> None:
    """A standard error that takes nothing changes neither what is done nor how it ends."""
    shown = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", "/usr/bin/env", f"PATH={stage.path}", *stage.command]
    assert machine.run([*shown, "--ledger-only"]).returncode == 0
    assert machine.held() == FILES
    assert machine.run(shown).returncode == 0
    (machine.root / "run/janitor/ledger.json").unlink()
    assert machine.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *shown[4:]]).returncode == 0
    assert machine.quarantined() == sorted(FILES[path] for path in GONE)
    assert machine.stage(stage, "--nonsense").returncode == 64


def test_leases_on_a_mount_of_their_own(machine: EarlyMachine, stage: Stage) -> None:
    machine.run(["mount", "-t", "tmpfs", "lab", "/var/lib/cni/networks"], check=True)
    directory = machine.root / "var/lib/cni/networks/k8s-pod-network"
    directory.mkdir()
    (directory / "lock").touch()
    (directory / "10.52.0.2").touch()
    done = machine.stage(stage, "--strict")
    assert done.returncode == 0, done
    assert sorted(path.name for path in directory.iterdir()) == ["lock"]
    assert len(list((directory.parent / ".janitor-quarantine").glob("*/*10.52.0.2"))) == 1


def test_another_root(machine: EarlyMachine, stage: Stage) -> None:
    """A container that sees the node under /host; and a disk at rest, of which nothing is known."""
    machine.run(["sh", "-c", "mkdir /run/host && mount --rbind / /run/host"], check=True)
    said = freed(machine, stage, "--root", "/run/host")
    assert "freed 2 of k8s-pod-network" in said
    machine.run(["sh", "-c", "mkdir -p /run/rest/var/lib/cni/networks"], check=True)
    done = machine.stage(stage, "--strict", "--root", "/run/rest")
    assert done.returncode == 1
    assert "nothing done" in done.stderr
    done = machine.stage(stage, "--strict", "--root", "/run/missing")
    assert (done.returncode, "is not a directory" in done.stderr) == (1, True)


def test_killed_at_any_moment(machine: EarlyMachine, stage: Stage) -> None:
    """No file is lost, the next run of janitor finds out where each is, and undo brings it back."""
    directories = [machine.cni, machine.disk / "janitor"]
    for delay in (0.04, 0.08, 0.12, 0.16, 0.22):
        machine.lay_out(FILES, CONFIGURATION)
        process = machine.popen(["/usr/bin/env", f"PATH={stage.path}", *stage.command], stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
        _reap(machine)
        found = sorted(list(machine.held().values()) + machine.quarantined())
        assert found == sorted(FILES.values()), delay
        done = machine.run([str(JANITOR), "undo", "--list"])
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
        machine.run([str(JANITOR), "undo"])
        assert machine.held() == FILES, (delay, [sorted(d.rglob("*")) for d in directories])


def _reap(machine: EarlyMachine) -> None:
    """Wait for what a killed shell had started."""
    deadline = time.monotonic() + 10
    while any(SCRIPT.name in c or c.startswith("mv ") for c in machine.processes().values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_command_is_the_same(machine: EarlyMachine) -> None:
    done = machine.run([str(JANITOR), "boot", "--strict"])
    assert (done.returncode, "freed 2 of k8s-pod-network; discarded 1 blank cache entry" in done.stderr) == (0, True), (
        done
    )
    assert done.stderr.startswith("janitor-boot: ")


def test_the_journal_gets_a_priority_and_nobody_else(machine: EarlyMachine, stage: Stage) -> None:
    """A service passes JOURNAL_STREAM on to what it starts, wherever that writes to."""
    program = f"PATH={stage.path} {' '.join(stage.command)}"
    own = "$(stat -L -c %d:%i /proc/self/fd/2)"
    for stream, said in ((own, "<5>janitor-boot: recorded"), ("8:1", "janitor-boot: ")):
        done = machine.run(["sh", "-c", f"export JOURNAL_STREAM={stream}; {program}"])
        assert done.stderr.startswith(said), done


def test_what_the_firewall_plugin_guards_can_be_cleaned_later(node: NodeFactory) -> None:
    """The ledger is what is left of the stage there: it proves age, so that no waiting is needed."""
    machine = node(calico(chain=({"type": "portmap"}, {"type": "firewall"})))
    pod = machine.kubelet.run()
    machine.cut("empty")
    machine.boot(start_runtime=False)
    done = machine.run([*PYTHON.command, "--strict"])
    assert (done.returncode, "1 lease left: its plugin chain contains firewall" in done.stderr) == (0, True), done
    machine.start_runtime()
    assert "boot ledger" in machine.janitor("explain", pod.ip).stdout


@pytest.mark.parametrize("form", [PYTHON, SHELLS[0]], ids=lambda form: form.name)
def test_the_largest_network(machine: EarlyMachine, form: Stage) -> None:
    """65,000 leases, half of them empty: all go in one pass, whatever clean's bound is."""
    addresses = [f"10.52.{high}.{low}" for high in range(254) for low in range(256) if (high, low) != (0, 4)]
    directory = machine.cni / CANAL
    for number, address in enumerate(addresses):
        (directory / address).write_bytes(LEASE if number % 2 else b"")
    done = machine.stage(form, "--strict")
    assert (done.returncode, f"freed {len(addresses)} of k8s-pod-network" in done.stderr) == (0, True), done
    assert sorted(path.name for path in directory.iterdir()) == ["10.52.0.4", "last_reserved_ip.0", "lock"]


@pytest.mark.parametrize("form", [PYTHON, SHELLS[0]], ids=lambda form: form.name)
def test_in_a_container_that_cannot_see_the_node(node: NodeFactory, form: Stage) -> None:
    """Its own processes, sockets and /run are all new; the leases are those of pods that live."""
    machine = node(calico())
    pods = [machine.kubelet.run() for _ in range(2)]
    leases = machine.addresses()
    program = " ".join(form.command)
    inside = f"mount -t proc lab /proc; mount -t tmpfs lab /run; mount -t tmpfs lab /etc/cni/net.d; {program} --strict"
    done = machine.run(["unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "sh", "-c", inside])
    assert (done.returncode, "only the processes of a container can be seen" in done.stderr) == (1, True), done
    assert machine.addresses() == leases
    assert {pod.ip for pod in pods} == set(leases)


def test_a_network_namespace_that_only_a_process_holds(machine: EarlyMachine, stage: Stage) -> None:
    up = "ip addr add 10.52.0.7/32 dev lo; ip link set lo up; touch /run/ready; exec sleep 100"
    with running(machine, "unshare", "--net", "sh", "-c", up, ready=(machine.root / "run/ready").exists):
        refused(machine, stage, "is already up in the network namespace of process")
    (machine.root / "run/ready").unlink()
    # A service with PrivateNetwork= has nothing but loopback in its own.
    up = "ip link set lo up; touch /run/ready; exec sleep 100"
    with running(machine, "unshare", "--net", "sh", "-c", up, ready=(machine.root / "run/ready").exists):
        freed(machine, stage)


def test_a_container_whose_directories_may_be_another_nodes(machine: EarlyMachine, stage: Stage) -> None:
    """Nothing shows that they are not the outer node's, or another container's, but the operator's word."""
    configuration = machine.disk / "etc-janitor/janitor.toml"
    for text in ("", "# data_dirs_are_ours = true\n", "interval = 1\n",
                 "[rules]\ndata_dirs_are_ours = true\n", 'x = """\ndata_dirs_are_ours = true\n"""\n',
                 "data_dirs_are_ours = true\ndata_dirs_are_ours = true\n", "data_dirs_are_ours = truely\n",
                 "data_dirs_are_ours = false\n"):  # fmt: skip
        configuration.write_text(text)
        refused(machine, stage, "set data_dirs_are_ours = true in /etc/janitor/janitor.toml")
    configuration.unlink()
    refused(machine, stage, "set data_dirs_are_ours = true in /etc/janitor/janitor.toml")
    assert not (machine.cni / "networks/.janitor-node").exists()
    configuration.write_text("interval = 1\n\tdata_dirs_are_ours=true # of its own\r\n[rules]\n")
    freed(machine, stage)


def test_marks_of_this_node_and_of_others(machine: EarlyMachine, stage: Stage) -> None:
    """What one form of the stage writes the others know; another node's stays, and so does all in its directory."""
    mark, number = machine.cni / "networks/.janitor-node", machine.disk / "janitor/node"
    freed(machine, stage)
    (word, version, own, machine_id, kind, inode) = mark.read_text().split()
    assert (word, version, kind, inode) == ("janitor-node", "1", "nested", str(mark.stat().st_ino))
    assert number.read_text().split()[:5] == [word, version, own, machine_id, kind]
    assert mark.stat().st_mode & 0o777 == number.stat().st_mode & 0o777 == 0o600

    def anew(*, number_too: bool = False) -> None:
        """The same disk, with the marks that are on it; the number is in a place of its own."""
        kept = [(path, path.rename(machine.disk / f"kept-{i}")) for i, path in enumerate((mark, number))]
        machine.lay_out(FILES, CONFIGURATION)
        for path, here in kept:
            if number_too or path == mark:
                here.rename(path)

    # Every form knows it.
    for other in STAGES:
        before = mark.stat()
        anew(number_too=True)
        freed(machine, other)
        assert mark.stat().st_ino == before.st_ino
    # Of a machine every form says the same.
    machine.lay_out(FILES, CONFIGURATION)
    freed(machine, PYTHON)
    assert mark.read_text().split()[3] == machine_id
    anew()
    mark.unlink()
    freed(machine, stage)
    own = mark.read_text().split()[2]
    # Without its number a container is another one, clone or not; here it has the same machine ID.
    anew()
    why = "/var/lib/cni/networks/.janitor-node marks its data directory as another node's "
    why += f"(number {own}, in a container); if only this node uses it"
    for words in ((), ("--strict",)):
        shutil.rmtree(machine.root / "run/janitor", ignore_errors=True)
        done = machine.stage(stage, *words)
        assert (done.returncode, why in done.stderr, "remove that file" in done.stderr) == (0, True, True), done
        assert "recorded 0 leases" in done.stderr
        assert machine.held() == FILES
        assert mark.read_text().split()[2] == own
    # One of the machine's first PID namespace is never a container's, whatever else is the same.
    machine.lay_out(FILES, CONFIGURATION)
    freed(machine, stage)
    for path in (mark, number):
        path.write_text(path.read_text().replace("nested", "first"))  # the same inode
    anew(number_too=True)
    done = machine.stage(stage)
    assert "in the machine's initial PID namespace); if" in done.stderr, done
    assert machine.held() == FILES
    # As it is told to go on.
    mark.unlink()
    shutil.rmtree(machine.root / "run/janitor")
    freed(machine, stage)
    assert mark.read_text().split()[4] == "nested"
