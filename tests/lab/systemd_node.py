"""A node with a real systemd as PID 1, real units, Debian's containerd and host-local: systemd-nspawn over a tree.

debootstrap makes the tree once, and it is kept in the lab's cache. Each node gets an overlay over it, which is its
disk. A power cut is SIGKILL of its PID 1: every process, /run and the network namespaces go with it. It also loses what
a real machine would have had only in its page cache (pagecache.py). Nothing of it is visible outside its mount
namespace.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.lab import cgroups, image, runtimes, tree
from tests.lab.cache import REPOSITORY
from tests.lab.kubelet import Kubelet
from tests.lab.machine import OURS
from tests.lab.networks import Network, canal
from tests.lab.node import read_leases
from tests.lab.pagecache import Loss, PageCache

# Runs in its own mount namespace: sh -c _START sh OPTIONS ROOT NAME ARGUMENTS. nspawn and everything that it starts get
# a control group of the node's name in each hierarchy (except cpuset, which needs more than a directory; nothing is
# limited here).
_START = """
mount -t overlay -o "$1" lab "$2" && mount -t tmpfs lab /run/systemd || exit 1
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    group=${procs%/*}
    case $group in */cpuset | *'*'*) continue ;; esac
    [ -f "$procs" ] || continue
    mkdir -p "$group/$3" && echo $$ >"$group/$3/cgroup.procs"
    [ "$group" = /sys/fs/cgroup ] && break
done
cd / && shift 3 && exec systemd-nspawn "$@"
"""

UNITS = REPOSITORY / "systemd"
BOOT_S = 60.0

# cgroup v1 is read-only in a container of systemd-nspawn, but runc has to write to it.
_CGROUPS = """#!/bin/sh
for mount in $(awk '$2 ~ "^/sys/fs/cgroup" { print $2 }' /proc/mounts); do mount -o remount,bind,rw "$mount"; done
exit 0
"""
_LAB_DROP_IN = """[Service]
ExecStartPre=/usr/local/bin/cgroups-rw
ExecStartPost=/bin/sh -c "ctr -n k8s.io images import --snapshotter native /var/lib/pause.tar"
"""


def missing() -> str | None:
    """Why no such node can be made on this machine, or None."""
    absent = [name for name in ("debootstrap", "systemd-nspawn") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (apt-get install debootstrap systemd-container)" if absent else None


class SystemdNode:
    """One machine, powered off at first; a context manager that leaves nothing behind."""

    def __init__(self, network: Network | None = None, base: Path | None = None, *, ours: bool = True) -> None:
        """`ours`: its configuration declares that its lease directories are used by no other node (machine.py)."""
        self.network = network or canal()
        self.name = f"lab-{uuid.uuid4().hex[:8]}"
        self.directory = Path(tempfile.mkdtemp(prefix="janitor-systemd-")).resolve()
        self.disk = self.directory / "disk"  # the overlay's upper layer: everything that this node has written
        self._base = base or tree.base()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0
        self.kubelet = Kubelet(lambda: self.root / "run/containerd/containerd.sock", cgroup_parent=f"/{self.name}")
        atexit.register(self.close)
        for name in ("disk", "work", "root", "etc-janitor"):
            (self.directory / name).mkdir()
        for name in ("etc/cni/net.d", "etc/containerd", "etc/systemd/system/containerd.service.d",
                     "opt/janitor/bin", "usr/local/bin", "var/lib/cni"):  # fmt: skip
            (self.disk / name).mkdir(parents=True)
        self.network.write(self.disk / "etc/cni/net.d")
        # By way of /run, as init.sh does: this node's configuration must not apply to a node nested in it.
        (self.disk / "etc/janitor").symlink_to("/run/lab/etc-janitor")
        self._ours = ours
        self.configure("")
        config = runtimes.Containerd(Path("/usr/bin"), "1.6").config().replace("/opt/cni/bin", "/usr/lib/cni")
        (self.disk / "etc/containerd/config.toml").write_text(config)
        (self.disk / "etc/systemd/system/containerd.service.d/lab.conf").write_text(_LAB_DROP_IN)
        (self.disk / "usr/local/bin/cgroups-rw").write_text(_CGROUPS)
        (self.disk / "usr/local/bin/cgroups-rw").chmod(0o755)
        (self.disk / "var/lib/pause.tar").write_bytes(image.archive())
        self._page_cache = PageCache(self.disk / "var/lib/cni")

    # Paths, as seen from the host.

    @property
    def root(self) -> Path:
        """The root directory of the running node."""
        if not self._init:
            raise RuntimeError(f"{self.name} has no power: boot it first")
        return Path(f"/proc/{self._init}/root")

    @property
    def leases(self) -> Path:
        """host-local's directory; on the disk, so that it can be read while the node is off."""
        return self.disk / "var/lib/cni/networks" / self.network.name

    def addresses(self) -> dict[str, bytes]:
        """The leases: address -> content of its file."""
        return read_leases(self.leases)

    # Installation.

    def install(self, unit: str = "janitor-boot.service", command: str = "janitor-boot") -> None:
        """Put this checkout's boot stage where its unit expects it, and enable the unit as an administrator would."""
        place = self.disk / "opt/janitor/bin" / command
        place.symlink_to(Path(sys.executable).with_name(command))
        shutil.copy(UNITS / unit, self.disk / "etc/systemd/system" / unit)
        wants = self.disk / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")

    def configure(self, text: str) -> None:
        """Write janitor's configuration: `text`, and the line about the lease directories."""
        (self.directory / "etc-janitor/janitor.toml").write_text(OURS * self._ours + text)

    # Power.

    def boot(self, wait: bool = True) -> None:
        """Power on; by default, wait until containerd answers."""
        if self._nspawn is not None:
            raise RuntimeError(f"{self.name} is running")
        root = self.directory / "root"
        options = f"lowerdir={self._base},upperdir={self.disk},workdir={self.directory / 'work'}"
        binds = {str(REPOSITORY), sys.base_prefix} - {"/usr", "/usr/local"}
        words = [
            "unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh", options, str(root), self.name,
            "--quiet", f"--directory={root}", f"--machine={self.name}", "--boot", "--private-network", "--register=no",
            "--keep-unit", "--capability=all", "--system-call-filter=@keyring bpf", "--console=pipe",
            *(f"--bind-ro={path}" for path in sorted(binds)),
            f"--bind={self.directory / 'etc-janitor'}:/run/lab/etc-janitor",
        ]  # fmt: skip
        with (self.directory / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )
        deadline = time.monotonic() + BOOT_S
        while not (self._answers() if wait else self._find_init()):
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                self.cut("intact")
                said = "\n".join((self.directory / "console.log").read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{self.name} did not come up:\n{said}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            if not self._find_init():
                return False
            if not (self.root / "run/containerd/containerd.sock").exists():
                return False
            return self.show("containerd.service", "ActiveState") == "active" and self.kubelet.network_ready()
        except (OSError, RuntimeError, grpc.RpcError):
            return False

    def _find_init(self) -> bool:
        """Whether systemd has started: until then nspawn's child is still nspawn itself."""
        if self._nspawn is None or self._nspawn.poll() is not None:
            return False
        try:
            for pid in Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split():
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    self._init = int(pid)
                    return True
        except OSError:
            pass  # it has just ended
        return False

    def sync(self) -> None:
        """Mark everything under /var/lib/cni as written to the disk: no later cut damages it."""
        self._page_cache.sync()

    def cut(self, loss: Loss = "empty") -> list[Path]:
        """Cut the power. Unsynced files younger than half a minute become `loss`; returns those."""
        nspawn, self._nspawn = self._nspawn, None
        if nspawn is not None:
            if self._init:
                os.kill(self._init, signal.SIGKILL)  # nspawn sees it and ends in order
            else:
                nspawn.kill()
            nspawn.wait(30)
        self._init = 0
        cgroups.remove(self.name)
        return self._page_cache.lose(loss)

    # What runs on it.

    def run(
        self, argv: Sequence[str], *, check: bool = False, timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end and return its output."""
        namespaces = ["--mount", "--net", "--pid", "--uts", "--root"]
        words = ["nsenter", "--target", str(self._init), *namespaces, "--", "env", "-C", "/", *argv]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False, **options
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} on {self.name}: exit {done.returncode}: {done.stderr or done.stdout}")
        return done

    def journal(self, unit: str) -> list[dict[str, Any]]:
        """The log of a unit, and systemd's about it, from this boot, as journalctl's JSON."""
        lines = self.run(["journalctl", "--boot", "-o", "json", "-u", unit, "--no-pager"], check=True).stdout
        return [json.loads(line) for line in lines.splitlines()]

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run(["systemctl", "show", "-P", name, unit], check=True).stdout.strip()

    # The end.

    def close(self) -> None:
        """Power off and discard the disk; may be called twice."""
        atexit.unregister(self.close)
        self.cut("intact")
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
