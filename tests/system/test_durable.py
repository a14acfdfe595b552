"""What the daemon syncs survives a power cut, and the kubelet's own stop and remove then release every address.

The lab's power cuts spare what has been synced; strace says what that is, call by call, on the daemon's own process.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.kubelet import Pod
from tests.lab.networkd import wait_for
from tests.lab.networks import calico
from tests.lab.node import Node, NodeFactory

pytestmark = pytest.mark.system

# -ttt: when, since the epoch; -y: which file a descriptor is. A call counts when it has returned 0.
_CALL = re.compile(r"^(\d+\.\d+) fsync\(\d+<([^>]+)>\)\s+= 0$", re.MULTILINE)


@contextmanager
def traced(node: Node) -> Iterator[tuple[Daemon, Path]]:
    """A daemon under strace, and where the calls are written; it watches when this begins."""
    calls = node.machine.directory / "calls"
    calls.mkdir()
    # -D: the daemon itself is the process that was started, and gets its signals.
    how = ("-D", "-ff", "--seccomp-bpf", "-ttt", "-y", "-e", "trace=fsync,inotify_add_watch")
    strace = ("strace", *how, "-o", f"{calls}/of")
    with Daemon(node, before=strace) as daemon:
        daemon.wait_for("event=pass")
        wait_for(lambda: '"/var/lib/cni"' in text(calls), "the watch")
        time.sleep(0.2)  # those on what is in it
        yield daemon, calls


def text(calls: Path) -> str:
    """What all of its processes called; strace writes a file for each, so that no call is cut in two."""
    return "".join(path.read_text() for path in sorted(calls.iterdir()))


def synced(calls: Path) -> dict[str, list[float]]:
    """When each file was synced, since the epoch, by its path on the node."""
    found: dict[str, list[float]] = {}
    for at, path in _CALL.findall(text(calls)):
        found.setdefault(path, []).append(float(at))
    return found


def files_of(node: Node, pods: list[Pod]) -> dict[str, Path]:
    """The leases and cache entries of these pods: path on the node -> path here."""
    ids = {pod.id for pod in pods}
    here = [node.leases() / pod.ip for pod in pods]
    here += [path for path in node.results.iterdir() if any(i in path.name for i in ids)]
    return {f"/var/lib/cni/{path.relative_to(node.cni_dir)}": path for path in here}


def test_after_a_cut_the_runtime_finds_everything_and_cleans_up_by_itself(node: NodeFactory) -> None:
    machine = node(calico("10.52.0.0/28"))
    before = machine.kubelet.run()
    machine.sync()
    with traced(machine) as (daemon, calls):
        pods = [machine.kubelet.run() for _ in range(8)]
        wanted = files_of(machine, pods)
        assert len(wanted) == 3 * 8  # a lease, the network's cache entry and the loopback's
        wait_for(lambda: wanted.keys() <= synced(calls).keys(), "every file to be synced")
        there = synced(calls)
        directories = {path.rpartition("/")[0] for path in wanted}
        for directory in directories:
            latest = max(path.stat().st_mtime for at, path in wanted.items() if at.startswith(f"{directory}/"))
            assert max(there[directory]) > latest, directory
        late = sorted(there[at][-1] - path.stat().st_mtime for at, path in wanted.items())
        print(f"\nsynced after {1000 * late[len(late) // 2]:.1f} ms (median), {1000 * late[-1]:.1f} ms (last)")
        # Only what strace has seen being synced, since it was last written, is on the disk.
        machine.sync([path for at, path in wanted.items() if there[at][-1] >= path.stat().st_mtime])
        assert daemon.metric("janitor_files_synced_total") >= len(wanted)
    lost = machine.cut()
    assert not set(lost) & set(wanted.values())
    time.sleep(2.5)
    machine.boot()
    for pod in (before, *pods):
        machine.kubelet.stop(pod)
        machine.kubelet.remove(pod)
    assert machine.addresses() == {}


def test_what_is_made_later_is_watched_too(node: NodeFactory) -> None:
    """Another network's directory, multus' and flannel's, and another mount over /var/lib/cni."""
    machine = node()
    later = """cd /var/lib/cni; mkdir -p multus networks/second; sleep 0.1
echo x >networks/second/10.9.0.2; echo x >multus/abc; mkdir flannel; mkdir -p .janitor-quarantine/pass
echo x >.janitor-quarantine/pass/file; echo x >networks/second/lock; echo x >flannel/id"""
    mount = """mount -t tmpfs lab /var/lib/cni; mkdir -p /var/lib/cni/networks/third
echo x >/var/lib/cni/networks/third/10.9.1.2"""
    with traced(machine) as (_, calls):
        machine.run(["sh", "-c", later], check=True)
        expected = {f"/var/lib/cni/{name}" for name in ("networks/second/10.9.0.2", "multus/abc", "flannel/id")}
        wait_for(lambda: expected <= synced(calls).keys(), "what was made later")
        assert "/var/lib/cni/networks/second/lock" not in synced(calls)
        assert not [path for path in synced(calls) if "quarantine/" in path]  # each pass has one, and they stay
        machine.run(["sh", "-c", mount], check=True)
        wait_for(lambda: "/var/lib/cni/networks/third/10.9.1.2" in synced(calls), "the new mount")
