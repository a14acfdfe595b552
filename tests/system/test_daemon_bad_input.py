"""What a node does to the daemon: a full disk, another runtime, a mount that goes, many pods at once, silence."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import runtimes
from tests.lab.cache import REPOSITORY, MissingError
from tests.lab.daemon import ENDPOINT, Daemon
from tests.lab.networkd import wait_for
from tests.lab.node import NodeFactory
from tests.system.test_daemon import aged

pytestmark = pytest.mark.system


def test_a_full_disk_is_said_and_nothing_is_changed_until_there_is_room(node: NodeFactory) -> None:
    machine = node()
    leaked = aged(machine, 3)
    fill = "mount -t tmpfs -o size=16k lab /var/lib/janitor; mkdir /run/text; mount -t tmpfs -o size=64k lab /run/text"
    machine.run(["sh", "-ec", f"{fill}; cat /dev/zero >/var/lib/janitor/full || cat /dev/zero >/run/text/full || :"])
    with Daemon(machine, ahead=100, config='interval = 1\ntextfile = "/run/text/janitor.prom"\n') as daemon:
        daemon.wait_for("No space left on device.*")
        daemon.wait_for('event="textfile not written"')
        daemon.wait_for("event=pass")
        time.sleep(2)
        assert set(leaked) <= machine.addresses().keys()
        assert daemon.get("/healthz")[0] == 200
        machine.run(["sh", "-c", "rm /var/lib/janitor/full /run/text/full"], check=True)
        daemon.wait_for('event="lease freed"', 3)
        wait_for(lambda: (machine.root / "run/text/janitor.prom").exists(), "the textfile")
    assert not set(leaked) & machine.addresses().keys()


@pytest.mark.parametrize("series", [("1.6", "1.7"), ("1.7", "2.4"), ("1.6", "2.4")], ids="-".join)
def test_the_runtime_is_upgraded_under_it(node: NodeFactory, series: tuple[str, str]) -> None:
    try:
        old, new = map(runtimes.of_series, series)
    except MissingError as error:
        pytest.skip(str(error))
    machine = node(containerd=old)
    pods = [machine.kubelet.run() for _ in range(3)]
    with Daemon(machine, ahead=100) as daemon:
        daemon.wait_for("event=pass.*live=3")
        machine.kill_runtime()
        daemon.wait_for('event="pass incomplete"')
        machine.replace_runtime(new)
        assert machine.kubelet.version().lstrip("v").startswith(series[1])
        wait_for(lambda: daemon.metric("janitor_unseen_parts") == 0, "a complete pass")
        pods.append(machine.kubelet.run())
        daemon.wait_for("event=pass.*live=4")
        assert "freed" not in daemon.log()
        assert {pod.ip for pod in pods} == set(machine.addresses())
        machine.kubelet.stop(pods[0])
        daemon.wait_for("event=pass.*live=3", 2)


def test_the_leases_are_unmounted_and_come_back(node: NodeFactory) -> None:
    """What is below the mount is another directory, and nothing is written into that."""
    machine = node()
    pods = [machine.kubelet.run() for _ in range(3)]
    with Daemon(machine, ahead=100) as daemon:
        daemon.wait_for("event=pass.*live=3")
        machine.run(["sh", "-c", "mkdir /run/aside && mount --bind /var/lib/cni /run/aside && umount -l /var/lib/cni"])
        wait_for(lambda: "live=3" not in daemon.log().strip().splitlines()[-1], "a pass that misses them")
        time.sleep(2)
        written = machine.run(["find", "/var/lib/cni", "-type", "f"]).stdout
        machine.run(["mount", "--bind", "/run/aside", "/var/lib/cni"], check=True)
        daemon.wait_for("event=pass.*live=3", 2)
        synced = daemon.metric("janitor_files_synced_total")
        machine.kubelet.run()
        wait_for(lambda: daemon.metric("janitor_files_synced_total") >= synced + 3, "the new pod's files to be synced")
        assert written == ""
        assert "freed" not in daemon.log()
    assert {pod.ip for pod in pods} < set(machine.addresses())


def test_many_pods_come_and_go_at_once(node: NodeFactory) -> None:
    machine = node()
    with Daemon(machine, ahead=100) as daemon, ThreadPoolExecutor(8) as context:
        daemon.wait_for("event=pass")

        def live() -> None:
            pod = machine.kubelet.run()
            assert (machine.leases() / pod.ip).read_bytes()[:64].decode() == pod.id
            machine.kubelet.stop(pod)
            machine.kubelet.remove(pod)

        for done in [context.submit(live) for _ in range(40)]:
            done.result()
        passes = daemon.metric("janitor_passes_total")
        wait_for(lambda: daemon.metric("janitor_passes_total") >= passes + 2, "two more passes")
        assert daemon.metric("janitor_leases_freed_total") == 0
        assert machine.addresses() == {}
        assert daemon.process.poll() is None


def test_one_line_whatever_hangs(node: NodeFactory) -> None:
    """As node-problem-detector asks: it waits 5 s."""
    machine = node()
    machine.kubelet.run()
    plugin = json.loads((REPOSITORY / "kubernetes/node-problem-detector/janitor.json").read_text())
    runtime = next(pid for pid, words in machine.machine.processes().items() if words.endswith("/containerd"))
    machine.machine.kill(runtime, "STOP")
    try:
        began = time.monotonic()
        done = machine.janitor(*plugin["rules"][0]["args"], *ENDPOINT, timeout=15)
        print(f"{time.monotonic() - began:.2f} s: {done.stdout}")
        assert done.returncode == 2
        assert 0 < len(done.stdout.strip()) <= plugin["pluginConfig"]["max_output_length"]
    finally:
        machine.machine.kill(runtime, "CONT")


def test_it_holds_no_more_after_many_passes_than_before(node: NodeFactory) -> None:
    """The soak in small (tests/bench/soak.py): threads, descriptors and watches, while pods come and go."""
    machine = node()
    machine.kubelet.run()
    with Daemon(machine) as daemon:

        def held() -> tuple[int, int, int, int]:
            """While no pass is made: only the syncing child is there."""
            wait_for(lambda: len(daemon.children()) == 1, "a moment between two passes")
            mine, (child,) = Path(f"/proc/{daemon.process.pid}"), daemon.children()
            watches = sum(p.read_text().count("inotify wd") for p in Path(f"/proc/{child}/fdinfo").iterdir())
            fds = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (daemon.process.pid, child)]
            return len(list((mine / "task").iterdir())), fds[0], fds[1], watches

        def a_while() -> None:
            pod = machine.kubelet.run()
            daemon.reload()
            for path in ("/", "/metrics", "/nothing"):
                daemon.get(path)
            machine.kubelet.stop(pod)
            machine.kubelet.remove(pod)
            passes = daemon.metric("janitor_passes_total")
            wait_for(lambda: daemon.metric("janitor_passes_total") > passes, "a pass")

        daemon.wait_for("event=pass")
        a_while()
        before = held()
        for _ in range(5):
            a_while()
        wait_for(lambda: held() == before, f"it to hold no more than {before}")
