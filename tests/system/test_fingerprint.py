"""The fingerprint check ends a pass on a node where nothing has happened, and none after a change that matters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.kubelet import Pod
from tests.lab.networkd import wait_for
from tests.lab.node import Node

pytestmark = pytest.mark.system

_LOOK = """import sys
from janitor.host.fingerprint import fingerprint_of, places
from janitor.host.node import find_node
from janitor.passes.scan import Options, observe
fingerprint = places(observe(Options(cri_endpoints=("unix:///run/containerd/containerd.sock",))))
print(fingerprint_of(find_node("/"), fingerprint), flush=True)
for line in sys.stdin:
    print(fingerprint_of(find_node("/"), fingerprint), flush=True)
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Node() as made:
        made.boot()
        for _ in range(3):
            made.kubelet.run()
        yield made


def results(daemon: Daemon) -> dict[str, float]:
    """Passes by their result."""
    lines = [line for line in daemon.get("/metrics")[1].splitlines() if line.startswith("janitor_passes_total{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


def test_every_fifth_pass_is_a_full_one(shared: Node) -> None:
    with Daemon(shared) as daemon:
        wait_for(lambda: results(daemon).get("unchanged", 0) >= 8, "eight passes that ended after the check", 40)
        found = results(daemon)
        # Two full ones first: one to know what to check, one with a check before it.
        assert found["complete"] == 2 + (found["unchanged"] - 1) // 4, found
        assert daemon.get("/healthz") == daemon.get("/readyz") == (200, "ok\n")
        daemon.reload()
        daemon.wait_for("configuration read")
        wait_for(lambda: results(daemon)["complete"] >= found["complete"] + 2, "two whole passes after a reload")


def test_every_pass_is_a_full_one_while_a_lease_waits(shared: Node) -> None:
    waiting = shared.leases() / "10.52.0.250"
    waiting.write_bytes(b"")
    try:
        with Daemon(shared) as daemon:
            wait_for(lambda: results(daemon).get("complete", 0) >= 6, "six passes", 30)
            assert results(daemon)["unchanged"] == 0
    finally:
        waiting.unlink()


def test_what_a_lease_hangs_on_shows(shared: Node) -> None:
    node = shared
    process = node.popen([sys.executable, "-c", _LOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    stdout, stdin = process.stdout, process.stdin

    def seen() -> str:
        stdin.write("\n")
        stdin.flush()
        return stdout.readline().strip()

    first = stdout.readline().strip()
    assert len(first) == 64
    assert [seen() for _ in range(5)] == [first] * 5

    def differs(what: str) -> None:
        nonlocal first
        time.sleep(0.5)
        now = seen()
        assert now != first, what
        assert len(now) == 64, what
        time.sleep(1)
        first = seen()

    def lease(name: str) -> Path:
        return node.leases() / name

    try:
        pod: Pod = node.kubelet.run()
        differs("a pod came")
        lease(pod.ip).write_bytes(b"")
        differs("its lease was emptied")
        tasks = node.root / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / pod.id
        (tasks / "exec.pid").write_text("1")
        (tasks / "exec.pid").unlink()
        assert seen() == first, "a probe was executed in it"
        pause = node.pause_of(pod)
        assert pause is not None
        node.machine.kill(pause, "KILL")
        differs("its only process was killed")
        node.kubelet.stop(pod)
        node.kubelet.remove(pod)
        lease(pod.ip).unlink(missing_ok=True)
        differs("it went")
        node.run(["ip", "rule", "add", "from", "10.42.0.0/24", "lookup", "77"], check=True)
        differs("a rule was made")
        configuration = next(path for path in sorted(node.net_d.iterdir()) if path.suffix == ".conflist")
        os.utime(configuration)
        differs("the CNI configuration was written anew")
        node.kill_runtime()
        differs("the runtime was killed")
        node.start_runtime()
        differs("and started")
    finally:
        stdin.close()
        process.wait(10)
        stdout.close()
