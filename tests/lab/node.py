"""A node whose power can be cut: a real containerd with host-local on a machine of namespaces.

A cut loses what a real machine would have had only in its page cache (pagecache.py). The rest of the disk is unchanged
at the next boot.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import grpc

from janitor.host.kernel.mounts import own_mounts
from tests.lab import image, namespaces, plugins, runtimes
from tests.lab.kubelet import Kubelet, Pod
from tests.lab.machine import PATH, Machine
from tests.lab.networks import Network, canal
from tests.lab.pagecache import WRITE_BACK, Loss, PageCache
from tests.lab.runtimes import Containerd

JANITOR = Path(sys.executable).with_name("janitor")


def missing() -> str | None:
    """Why no real node can be made on this machine, or None."""
    return namespaces.missing() or runtimes.missing() or plugins.missing()


class Node:
    """A Kubernetes node without its control plane; a context manager that leaves nothing behind."""

    def __init__(
        self,
        containerd: Containerd | None = None,
        networks: Sequence[Network] | None = None,
        *,
        large_images: bool = False,
        kubernetes: bool = False,
        ours: bool = True,
    ) -> None:
        """`large_images`: containers share their image's files, if the disk allows that.

        `kubernetes`: Kubernetes' own programs will run on it (cluster.py). `ours`: its configuration declares that its
        lease directories are used by no other node (machine.py).
        """
        self.containerd = containerd or runtimes.installed()
        self.networks = tuple(networks if networks is not None else (canal(),))
        self.machine = Machine(kubernetes=kubernetes, ours=ours)
        self.disk = self.machine.disk
        # An overlay, like most containers' disks, cannot carry another one.
        carries = own_mounts().filesystem_of(str(self.disk)) != "overlay"
        self.snapshotter = "overlayfs" if large_images and carries else "native"
        self.run = self.machine.run
        self.popen = self.machine.popen
        self.kubelet = Kubelet(lambda: self.socket, cgroup_parent=f"/{self.machine.name}")
        self._page_cache = PageCache(self.cni_dir)
        self._runtime: subprocess.Popen[str] | None = None
        plugins.install(self.disk / "plugins", self.containerd.plugins)
        (self.disk / "etc-containerd/config.toml").write_text(self.containerd.config(self.snapshotter))
        for network in self.networks:
            network.write(self.net_d)

    # Paths, as seen from the host.

    @property
    def root(self) -> Path:
        """The root directory of the running node."""
        return self.machine.root

    @property
    def boot_id(self) -> str:
        return self.machine.boot_id

    @property
    def cni_dir(self) -> Path:
        """/var/lib/cni."""
        return self.disk / "cni"

    @property
    def net_d(self) -> Path:
        """/etc/cni/net.d."""
        return self.disk / "net.d"

    @property
    def results(self) -> Path:
        """libcni's cache."""
        return self.cni_dir / "results"

    @property
    def socket(self) -> Path:
        """containerd's socket."""
        return self.root / "run/containerd/containerd.sock"

    @property
    def log(self) -> Path:
        """containerd's log of all boots."""
        return self.machine.directory / "containerd.log"

    def leases(self, network: str | None = None) -> Path:
        """host-local's directory of a network, by default of the first one."""
        return self.cni_dir / "networks" / (network or self.networks[0].name)

    def addresses(self, network: str | None = None) -> dict[str, bytes]:
        """The leases of a network: address -> content of its file."""
        return read_leases(self.leases(network))

    # Power.

    def boot(self, start_runtime: bool = True) -> None:
        """Power on. Without the runtime it stays at the point where `janitor boot` runs."""
        self.machine.power_on()
        for network in self.networks:
            network.prepare(self.root)
        if start_runtime:
            self.start_runtime()

    def sync(self, only: Iterable[Path] | None = None) -> None:
        """Mark all files under /var/lib/cni, or only these, as written to the disk: no later cut damages them."""
        self._page_cache.sync(only)

    def cut(self, loss: Loss = "empty", window: float = WRITE_BACK) -> list[Path]:
        """Cut the power. Unsynced files younger than `window` seconds become `loss`; returns those."""
        self.machine.power_off()
        self._runtime = None
        return self._page_cache.lose(loss, window)

    # The runtime.

    def start_runtime(self, timeout: float = 30) -> None:
        """Start containerd and wait until CRI answers and has found the network."""
        if self._runtime is not None and self._runtime.poll() is None:
            raise RuntimeError("containerd is running")
        argv = [str(self.containerd.directory / "containerd")]
        env = {"PATH": f"{self.containerd.directory}:{PATH}"}  # its shim is found in PATH
        with self.log.open("a") as log:
            self._runtime = self.popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + timeout
        while not self._runtime_answers():
            if self._runtime.poll() is not None or time.monotonic() > deadline:
                said = "\n".join(self.log.read_text().splitlines()[-15:])
                raise RuntimeError(f"containerd {self.containerd.version} did not come up:\n{said}")
            time.sleep(0.05)
        if image.NAME not in self._ctr("images", "list", "-q"):
            self.import_image(image.archive())

    def import_image(self, archive: bytes, *where: str) -> None:
        """Give the runtime an image, an OCI archive. `where` are further arguments of ctr: a namespace, a socket."""
        # 2.x imports with its transfer service, which unpacks only for the snapshotters in its configuration.
        local = ["--local"] if self.containerd.series >= "2" else []
        path = self.disk / "containerd/image.tar"
        path.write_bytes(archive)
        words = ["images", "import", *local, "--snapshotter", self.snapshotter, "/var/lib/containerd/image.tar"]
        self._ctr(*where, *words, timeout=120)
        path.unlink()

    def kill_runtime(self) -> None:
        """SIGKILL containerd only: pods stay alive, and so does a CNI plugin that it was waiting for."""
        if self._runtime is None:
            raise RuntimeError("containerd was not started")
        self._runtime.kill()
        self._runtime.wait()
        self._runtime = None

    def restart_runtime(self) -> None:
        """Kill containerd and start it again."""
        self.kill_runtime()
        self.start_runtime()

    def replace_runtime(self, containerd: Containerd) -> None:
        """Start another containerd instead, with a configuration for its version; the plugins stay."""
        if self._runtime is not None:
            self.kill_runtime()
        self.containerd = containerd
        (self.disk / "etc-containerd/config.toml").write_text(containerd.config(self.snapshotter))
        self.start_runtime()

    def lose_metadata(self) -> None:
        """Restart containerd without the database of what it runs."""
        self.kill_runtime()
        self.forget_metadata()
        self.start_runtime()

    def forget_metadata(self) -> None:
        """Remove that database, while the runtime does not run."""
        (self.disk / "containerd/io.containerd.metadata.v1.bolt/meta.db").unlink()

    def _runtime_answers(self) -> bool:
        try:
            self.kubelet.version(timeout=2)
            return not self.networks or self.kubelet.network_ready()
        except grpc.RpcError:
            return False

    def _ctr(self, *args: str, timeout: float = 60) -> str:
        ctr = str(self.containerd.directory / "ctr")
        return self.run([ctr, "-n", "k8s.io", *args], check=True, timeout=timeout).stdout

    # What runs on it.

    def janitor(self, *args: str, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run this checkout's `janitor` inside."""
        return self.run([str(JANITOR), *args], timeout=timeout, **options)

    def janitor_later(self, seconds: int, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """The same as if so many seconds more had passed (clock.py)."""
        argv = [sys.executable, str(Path(__file__).with_name("clock.py")), str(seconds), *args]
        return self.run(argv, timeout=timeout)

    def pause_of(self, pod: Pod, timeout: float = 5) -> int | None:
        """The PID, inside, of a pod's pause process: the child of its shim.

        RunPodSandbox returns while runc's init is still turning into it, so this waits.
        """
        shim = self.shim_of(pod)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for pid, command in self.machine.processes().items():
                stat = self.root / f"proc/{pid}/stat"
                if command == "/pause" and stat.read_text().rpartition(")")[2].split()[1] == str(shim):
                    return pid
            time.sleep(0.02)
        return None

    def shim_of(self, pod: Pod) -> int | None:
        """The PID, inside, of a pod's shim, which has the sandbox's ID in its command line."""
        for pid, command in self.machine.processes().items():
            if f" -id {pod.id} " in command:
                return pid
        return None

    # Orders for the slow plugin (plugins/slow.py).

    def slow(self, order: str) -> Path:
        """The file that gives the slow plugin an order, such as `hold-ADD`: touch it, unlink it."""
        return self.root / "run/lab/slow" / order

    def held(self, command: str = "ADD", timeout: float = 20) -> str:
        """Wait until the slow plugin holds a call, and return its container ID."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for path in self.slow("").glob(f"held-{command}-*"):
                return path.name.rpartition("-")[2]
            time.sleep(0.02)
        raise TimeoutError(f"no {command} came to the slow plugin in {timeout:g} s")

    # The end.

    def close(self) -> None:
        """Power off and discard the disk; may be called twice."""
        self.machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NodeFactory(Protocol):
    """The type of the fixture `node`: makes nodes that are removed after the test."""

    def __call__(
        self, *networks: Network, containerd: Containerd | None = None, boot: bool = True, ours: bool = True
    ) -> Node:
        """A running node with these networks (default: canal's), with the installed containerd by default."""


def read_leases(directory: Path) -> dict[str, bytes]:
    """The leases in one of host-local's directories: the files named like addresses, in order."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    leases = sorted(name for name in names if name != "lock" and not name.startswith("last_reserved_ip"))
    found: dict[str, bytes] = {}
    for name in leases:
        with suppress(FileNotFoundError):  # removed meanwhile
            found[name] = (directory / name).read_bytes()
    return found
