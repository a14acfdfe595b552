"""`janitor run` on a real node: it frees, it shows, it obeys, and nothing that a node does ends it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.daemon import ENDPOINT, Daemon
from tests.lab.networkd import wait_for
from tests.lab.node import Node, NodeFactory
from tests.system.test_clean import leak

pytestmark = pytest.mark.system

OBSERVE = 'interval = 1\nmode = "observe"\n'


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    """One node for the tests that leave it as they found it: three pods, a runtime that is younger than they are."""
    with Node() as made:
        made.boot()
        for _ in range(3):
            made.kubelet.run()
        time.sleep(3)  # machines take longer between a lease and a runtime's next start
        yield made


def aged(node: Node, number: int) -> list[str]:
    """Orphans that are older than the runtime."""
    leaked = leak(node, number)
    time.sleep(2.5)
    node.restart_runtime()
    return leaked


@pytest.mark.promise
def test_orphans_go_pods_stay_and_every_action_has_its_proof(node: NodeFactory) -> None:
    machine = node()
    live = sorted(machine.kubelet.run().ip for _ in range(3))
    aged(machine, 250)
    textfile = machine.root / "run/janitor.prom"
    with Daemon(machine, ahead=100, config='interval = 1\ntextfile = "/run/janitor.prom"\n') as daemon:
        daemon.wait_for('event="lease freed"', 250)
        daemon.wait_for("event=pass.*live=3 free=250")
        assert sorted(machine.addresses()) == live
        lines = [line for line in daemon.log().splitlines() if 'event="lease freed"' in line]
        assert all("container=dead" in line and 'proof="' in line and "pass=" in line for line in lines)
        assert daemon.metric("janitor_leases_freed_total") == 250
        assert daemon.metric("janitor_pod_addresses_free") == 250
        assert daemon.metric("janitor_oldest_orphan_age_seconds") == 0
        assert machine.kubelet.run().ip not in live

        # By hand, while it runs: undo puts back what is still free, and clean waits for the daemon's pass to end.
        daemon.configure(f'{OBSERVE}textfile = "/run/janitor.prom"\n')
        daemon.reload()
        daemon.wait_for('event="configuration read" mode=observe')
        undone = machine.janitor("undo")
        assert "249 files put back, 1 not" in undone.stdout, undone.stdout + undone.stderr
        daemon.wait_for("event=pass.*pending=249")  # what was put back is watched anew
        assert daemon.metric("janitor_leases") == 253
        page = daemon.get("/")[1]
        assert page.count('<li class="pending"') == 249
        assert len(re.findall(r"lease freed: 10\.52\.0\.\d+ of k8s-pod-network", page)) == 100
        cleaned = machine.janitor_later(800, "clean", "--yes", "--no-wait", *ENDPOINT)
        assert (cleaned.returncode, "249 freed" in cleaned.stdout) == (0, True), cleaned.stdout + cleaned.stderr
        assert len(machine.addresses()) == 4

        written = textfile.read_text()
        assert "janitor_leases_freed_total 250.0" in written
        assert "process_" not in written
        if shutil.which("promtool"):
            for text in (written, daemon.get("/metrics")[1]):
                checked = subprocess.run(
                    ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
                )
                assert (checked.returncode, checked.stderr) == (0, "")
        assert daemon.stop() < 1


def test_each_check_has_its_mode(node: NodeFactory) -> None:
    machine = node()
    leaked = aged(machine, 3)
    corrupt = machine.leases() / leaked[0]
    corrupt.write_bytes(b"")
    os.utime(corrupt, ns=(corrupt.stat().st_atime_ns, (machine.leases() / leaked[1]).stat().st_mtime_ns))
    settings = 'interval = 1\n[checks]\nleases = "observe"\nLEASE001 = "repair"\n'
    with Daemon(machine, ahead=100, config=settings) as daemon:
        daemon.wait_for('event="lease freed"', 2)
        daemon.wait_for("event=pass.*free=252")
        assert sorted(machine.addresses()) == [leaked[0]]
        # A configuration that cannot be used changes nothing, and that is said.
        for broken in ("intervall = 1\n", '[checks]\nLEASE999 = "repair"\n', "interval = 0.5\n", "interval = \n"):
            daemon.configure(broken)
            said = daemon.log().count("the previous configuration stays active")
            daemon.reload()
            daemon.wait_for("the previous configuration stays active", said + 1)
        assert daemon.process.poll() is None


def waits_for_the_lock(daemon: Daemon) -> bool:
    """Whether a pass of its has host-local's lock file open."""
    for child in daemon.children():
        for descriptor in Path(f"/proc/{child}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()).endswith("/k8s-pod-network/lock"):
                    return True
    return False


def test_it_ends_at_once_whatever_is_under_way(shared: Node) -> None:
    runtime = next(pid for pid, words in shared.machine.processes().items() if words.endswith("/containerd"))
    with Daemon(shared) as daemon:
        daemon.wait_for("event=pass")
        shared.machine.kill(runtime, "STOP")
        try:
            wait_for(lambda: len(daemon.children()) == 2, "a pass that hangs")
            time.sleep(0.5)
            assert daemon.stop() < 1
        finally:
            shared.machine.kill(runtime, "CONT")
    # While it waits for host-local's lock, in the middle of a change.
    leaked = aged(shared, 40)
    with (shared.leases() / "lock").open() as lock, Daemon(shared, ahead=100) as daemon:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wait_for(lambda: waits_for_the_lock(daemon), "a pass that waits for host-local's lock")
        assert daemon.stop() < 1
    assert set(leaked) <= shared.addresses().keys()
    # Told to observe at that point, it ends that pass first; after it has said so it changes nothing.
    with (shared.leases() / "lock").open() as lock, Daemon(shared, ahead=100) as daemon:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wait_for(lambda: waits_for_the_lock(daemon), "a pass that waits for host-local's lock")
        daemon.configure(OBSERVE)
        daemon.reload()
        daemon.wait_for('event="configuration changes"')
        fcntl.flock(lock, fcntl.LOCK_UN)
        before, after = daemon.wait_for('event="configuration read" mode=observe').split("configuration read")
        assert before.count('event="lease freed"') <= 16  # the batch at hand
        assert 'event="pass ended early"' in before
        left = shared.addresses().keys()
        daemon.wait_for("event=pass ")
        time.sleep(2.5)
        assert shared.addresses().keys() == left
        assert "lease freed" not in after
    # What a pass did whose daemon is killed before it could log it, the next daemon tells; nothing is told twice.
    with (shared.leases() / "lock").open() as lock, Daemon(shared, ahead=100) as daemon:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wait_for(lambda: waits_for_the_lock(daemon), "a pass that waits for host-local's lock")
        daemon.kill(signal.SIGSTOP)
        fcntl.flock(lock, fcntl.LOCK_UN)
        wait_for(lambda: not set(leaked) & shared.addresses().keys(), "the pass has freed them")
        daemon.kill()
        daemon.process.wait()
        assert "lease freed" not in daemon.log()
    with Daemon(shared, config=OBSERVE) as daemon:  # which one that only observes may do as well
        told = daemon.wait_for('event="lease freed".*interrupted before it could log this', len(left & set(leaked)))
        assert {found[1] for found in re.finditer('"lease freed" address=([^ ]+)', told)} == left & set(leaked)
        daemon.wait_for("event=pass ")
        daemon.stop()
    with Daemon(shared) as daemon:
        assert "lease freed" not in daemon.wait_for("event=pass ")


def test_a_runtime_that_goes_and_comes_back(shared: Node) -> None:
    with Daemon(shared) as daemon:
        daemon.wait_for("event=pass")
        complete = daemon.metric("janitor_last_complete_pass_timestamp_seconds")
        shared.kill_runtime()
        daemon.wait_for('event="pass incomplete"')
        assert daemon.get("/healthz") == (200, "ok\n")
        assert daemon.metric("janitor_unseen_parts") > 0
        shared.start_runtime()
        wait_for(lambda: daemon.metric("janitor_unseen_parts") == 0, "a complete pass")
        assert daemon.metric("janitor_last_complete_pass_timestamp_seconds") > complete


def test_a_pass_that_is_killed_is_made_again(shared: Node) -> None:
    """As the out-of-memory killer does it; the syncing child is begun again as well."""
    runtime = next(pid for pid, words in shared.machine.processes().items() if words.endswith("/containerd"))
    with Daemon(shared) as daemon:
        daemon.wait_for("event=pass")
        shared.machine.kill(runtime, "STOP")
        try:
            wait_for(lambda: len(daemon.children()) == 2, "a pass that hangs")
            for pid in daemon.children():
                os.kill(pid, signal.SIGKILL)
            daemon.wait_for('event="pass failed" why="its process exited with status -9"')
            daemon.wait_for('event="syncing failed" status=-9')
        finally:
            shared.machine.kill(runtime, "CONT")
        assert "The last pass failed" in daemon.get("/")[1]
        wait_for(lambda: len(daemon.children()) >= 1, "the syncing child")
        wait_for(lambda: "The last pass failed" not in daemon.get("/")[1], "a pass")
        assert daemon.metric("janitor_passes_total") >= 3


def test_one_a_node_and_the_next_takes_over(shared: Node) -> None:
    with Daemon(shared) as first, Daemon(shared) as second:
        first_or_second = (first, second)
        wait_for(lambda: any("event=started" in one.log() for one in first_or_second), "one of them")
        at_work, waiting = sorted(first_or_second, key=lambda one: "event=started" not in one.log())
        waiting.wait_for("event=waiting why=\"'janitor run' \\(process [0-9]+\\) is already at work on this node")
        assert "event=started" not in waiting.log()
        at_work.kill()
        waiting.wait_for("event=started")
        waiting.wait_for("event=pass")
        # Somebody removes its lock: alone, it takes it again; where another was faster, it stops, and waits for that.
        shutil.rmtree(shared.root / "run/janitor")
        waiting.wait_for('event="lock lost".*then="the lock was taken again"')
        waiting.kill(signal.SIGSTOP)
        shutil.rmtree(shared.root / "run/janitor")
        with Daemon(shared) as faster:
            faster.wait_for("event=started")
            waiting.kill(signal.SIGCONT)
            waiting.wait_for('event="lock lost".*then="this daemon does nothing until it gets the lock again"')
            wait_for(lambda: waiting.children() == [], "none of its work goes on")
            faster.stop()
        waiting.wait_for("event=started", 2)


def test_without_the_right_to_rules_and_with_its_port_taken(shared: Node) -> None:
    taken = shared.popen(
        ["python3", "-c", "import socket, time; s = socket.create_server(('127.0.0.1', 9742)); time.sleep(600)"]
    )
    time.sleep(0.3)
    with Daemon(shared, before=("setpriv", "--bounding-set", "-net_admin")) as daemon:
        daemon.wait_for('event="not listening".*Address already in use')
        daemon.wait_for('event="rules not watched".*CAP_NET_ADMIN')
        daemon.wait_for("event=pass")
        taken.kill()
        taken.wait()
        wait_for(lambda: daemon.get("/healthz")[0] == 200, "the port", 25)
        status, body = daemon.get("/readyz")
        assert (status, body.startswith("CAP_NET_ADMIN is missing: policy rules")) == (503, True), body


def test_what_systemd_is_told(shared: Node) -> None:
    """READY, STATUS, WATCHDOG, RELOADING, STOPPING; and SIGSTOP, after which it goes on."""
    path = shared.root / "run/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(os.path.relpath(path))
        listener.settimeout(10)
        heard: list[str] = []

        def until(word: str) -> str:
            while not any(word in message for message in heard):
                heard.append(listener.recv(65536).decode())
            return next(message for message in heard if word in message)

        env = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "400000"}
        with Daemon(shared, env=env) as daemon:
            until("READY=1")
            assert "k8s-pod-network: 250 of 253 free" in until("STATUS=k8s")
            until("WATCHDOG=1")
            daemon.reload()
            assert "MONOTONIC_USEC=" in until("RELOADING=1")
            daemon.kill(signal.SIGSTOP)
            time.sleep(0.5)
            daemon.kill(signal.SIGCONT)
            heard.clear()
            until("WATCHDOG=1")
            daemon.stop()
            until("STOPPING=1")
    path.unlink()


def test_time_in_which_it_was_frozen_counts_for_every_janitor_as_sleep(shared: Node) -> None:
    """As `docker pause` does it: the clocks go on, and no pod is made."""
    note = shared.root / "run/janitor/clock.json"
    with Daemon(shared, config="interval = 60\n") as daemon:  # longer than it is frozen
        daemon.wait_for("event=pass")
        time.sleep(1)  # it waits for the next one now
        before = json.loads(note.read_text())["stalled_ns"]
        daemon.kill(signal.SIGSTOP)
        time.sleep(11)
        daemon.kill(signal.SIGCONT)
        daemon.wait_for('event="daemon stalled" for_s=')
        stalled_ns = json.loads(note.read_text())["stalled_ns"]
        assert stalled_ns - before > 5e9
        assert json.loads(shared.janitor("collect").stdout)["started"]["asleep_ns"] >= stalled_ns
        note.unlink()
        daemon.reload()
        wait_for(note.exists, "the next pass")
        assert json.loads(note.read_text())["stalled_ns"] == stalled_ns


def test_reading_the_configuration_again_reaches_every_part(shared: Node) -> None:
    with Daemon(shared) as daemon:
        daemon.wait_for("event=pass")
        assert daemon.get("/healthz")[0] == 200
        assert len(daemon.children()) >= 1
        daemon.configure('interval = 60\nmode = "observe"\ndurable = false\nlisten = ""\n')
        daemon.reload()
        daemon.wait_for('event="configuration read" mode=observe')
        daemon.wait_for('event="watching rules"', 2)  # begun anew, for it only observes now
        assert daemon.get("/healthz")[0] == 0
        wait_for(lambda: daemon.children() == [], "nobody to sync, and no pass for a minute")
        daemon.configure("interval = 1\n")
        daemon.reload()
        daemon.wait_for('event="configuration read" mode=repair')
        daemon.wait_for("event=listening", 2)
        wait_for(lambda: daemon.get("/readyz") == (200, "ok\n"), "all of it")


def test_lines_as_json(shared: Node) -> None:
    with Daemon(shared, "--log-format", "json", "--listen", "") as daemon:
        daemon.wait_for('"pass"')
        daemon.stop()
        lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert [line["event"] for line in lines][-1] == "ending"
    assert all(line["level"] in ("info", "notice", "warning") for line in lines)


def test_nobody_can_hold_it_up_by_its_port(shared: Node) -> None:
    """Slow, long, many and wrong requests; each gets its answer or is dropped, and the loop goes on."""
    talk = """import socket
def say(data, size=65536):
    s = socket.create_connection(('127.0.0.1', 9742), 5); s.sendall(data)
    answer = b''
    while part := s.recv(size): answer += part
    return answer
print(say(b'GET /healthz HTTP/1.0\\r\\n\\r\\n').split()[1], say(b'POST / HTTP/1.1\\r\\n\\r\\n').split()[1],
    say(b'nonsense\\n\\n').split()[1], say(b'GET /' + b'x' * 9000).split()[1], say(b'HEAD / HTTP/1.1\\n\\n')[-4:])
idle = [socket.create_connection(('127.0.0.1', 9742)) for _ in range(40)]
print(say(b'GET /healthz HTTP/1.0\\r\\n\\r\\n').split()[1])"""
    with Daemon(shared) as daemon:
        daemon.wait_for("event=listening")
        done = shared.run(["python3", "-c", talk], timeout=60)
        assert done.stdout == "b'200' b'405' b'400' b'431' b'\\r\\n\\r\\n'\nb'200'\n", done.stdout + done.stderr
