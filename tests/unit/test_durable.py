"""host/cni/durable.py by itself: bursts, more than can be queued, and what is gone before it is synced."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from janitor.host.cni.durable import keep_durable
from janitor.host.node import files_only
from tests.lab.networkd import wait_for

PROGRAM = """import sys
from janitor.host.cni.durable import keep_durable
from janitor.host.node import files_only
keep_durable(files_only(sys.argv[1]), (), lambda line: (sys.stdout.buffer.write(line + b"\\n"), sys.stdout.flush()))"""


class Syncer:
    """The syncing process, over a root directory in memory, where fsync(2) costs nothing."""

    def __init__(self, root: Path) -> None:
        self.cni = root / "var/lib/cni"
        self.leases = self.cni / "networks/net"
        self.leases.mkdir(parents=True)
        self.output = root / "said"
        with self.output.open("w") as out:
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(root)], stdout=out)
        self.write("10.0.0.1")
        wait_for(lambda: self.synced() >= 1, "the first file to be synced")

    def write(self, name: str) -> None:
        (self.leases / name).write_text("x")

    def synced(self) -> int:
        return sum(int(line.split()[1]) for line in self.output.read_text().splitlines() if line.startswith("synced"))


@pytest.fixture
def syncer() -> Iterator[Syncer]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="janitor-") as root:
        made = Syncer(Path(root))
        try:
            yield made
            assert made.process.poll() is None
            assert "trouble" not in made.output.read_text()
        finally:
            made.process.kill()
            made.process.wait()


def test_two_hundred_at_once_come_and_go(syncer: Syncer) -> None:
    for number in range(200):
        syncer.write(f"10.0.1.{number}")
    wait_for(lambda: syncer.synced() >= 201, "all of them")
    for number in range(200):
        syncer.write(f"10.0.2.{number}")
        (syncer.leases / f"10.0.2.{number}").unlink()
    syncer.write("10.0.3.1")
    last = syncer.synced()
    wait_for(lambda: syncer.synced() > last or syncer.synced() >= 202, "the last one")


def test_a_directory_behind_a_link_is_not_synced_and_that_is_said(tmp_path: Path) -> None:
    said: list[bytes] = []

    class EnoughError(Exception):
        pass

    def tell(line: bytes) -> None:
        said.append(line)
        raise EnoughError

    top, elsewhere = tmp_path / "var/lib/cni", tmp_path / "elsewhere"
    top.mkdir(parents=True)
    elsewhere.mkdir()
    (top / "networks").symlink_to(elsewhere)
    with pytest.raises(EnoughError):
        keep_durable(files_only(str(tmp_path)), (), tell)
    assert said[0].startswith(f"trouble {top}/networks: it is a symbolic link".encode())


@pytest.mark.system
def test_more_than_can_be_queued(syncer: Syncer) -> None:
    """While it is stopped: the kernel drops what does not fit, and it looks for itself what is young."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 50_000:
        pytest.skip(f"this kernel queues {most} events")
    syncer.process.send_signal(signal.SIGSTOP)
    for number in range(most // 2 + 1000):  # two events each
        syncer.write(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    syncer.process.send_signal(signal.SIGCONT)
    wait_for(lambda: syncer.synced() >= most // 2 + 1000, "every file")


def test_the_directory_goes_and_comes(syncer: Syncer) -> None:
    before = syncer.synced()
    syncer.cni.rename(syncer.cni.with_name("old"))
    syncer.leases.mkdir(parents=True)
    syncer.write("10.0.0.9")
    wait_for(lambda: syncer.synced() > before, "the new one to be watched")
