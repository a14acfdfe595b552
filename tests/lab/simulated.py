"""A node for machines without root or containerd: a directory that looks like a node's root, and a runtime in it.

Files, sockets and calls are those of a real node, as far as janitor looks at them. There are no namespaces or processes
behind them, and /proc is written by hand. It proves nothing about containerd or the kernel: that takes node.Node.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.kubelet import Kubelet
from tests.lab.networks import Network, canal
from tests.lab.node import JANITOR, read_leases
from tests.lab.pagecache import Loss, PageCache
from tests.lab.simulated_network import SimulatedNetwork
from tests.lab.simulated_proc import FakeProc
from tests.lab.simulated_runtime import VERSION, Runtime, Sandbox

NODE_ADDRESS = "192.0.2.10"  # RFC 5737: for documentation


class SimulatedNode:
    """The same interface as node.Node, as far as the demo and tests of janitor's reports need it."""

    version = VERSION

    def __init__(self, network: Network | None = None) -> None:
        self.network = network or canal()
        # Short, because the path of a Unix socket is limited to 107 bytes.
        self.root = Path(tempfile.mkdtemp(prefix="janitor-sim-")).resolve()
        atexit.register(self.close)
        self.boot_id = ""
        self.kubelet = Kubelet(lambda: self.socket, cgroup_parent="")
        for name in ("etc/cni/net.d", "var/lib/cni", "var/lib/kubelet"):
            (self.root / name).mkdir(parents=True)
        self.network.write(self.net_d)
        self._cni = SimulatedNetwork(self.network, self.cni_dir)
        self._page_cache = PageCache(self.cni_dir)
        self._proc = FakeProc(self.root / "proc")
        self._sandboxes: dict[str, Sandbox] = {}
        self._shims: dict[str, int] = {}
        self._runtime: Runtime | None = None

    @property
    def cni_dir(self) -> Path:
        """/var/lib/cni."""
        return self.root / "var/lib/cni"

    @property
    def net_d(self) -> Path:
        """/etc/cni/net.d."""
        return self.root / "etc/cni/net.d"

    @property
    def results(self) -> Path:
        """libcni's cache."""
        return self.cni_dir / "results"

    @property
    def socket(self) -> Path:
        """The runtime's socket."""
        return self.root / "run/containerd/containerd.sock"

    def leases(self, network: str | None = None) -> Path:
        """host-local's directory."""
        return self.cni_dir / "networks" / (network or self.network.name)

    def addresses(self, network: str | None = None) -> dict[str, bytes]:
        """The leases: address -> content of its file."""
        return read_leases(self.leases(network))

    def boot(self) -> None:
        """Power on, with a new boot ID."""
        if self._runtime is not None:
            raise RuntimeError("the simulated node is running")
        self.boot_id = str(uuid.uuid4())
        for sandbox in self._sandboxes.values():
            sandbox.ready = False  # its processes did not survive
        self._proc.boot(self.boot_id, runtime=os.getpid())
        self._show_routes()
        self._runtime = Runtime(self.socket, self._sandboxes, self)

    def sync(self) -> None:
        """Mark everything under /var/lib/cni as written to the disk: no later cut damages it."""
        self._page_cache.sync()

    def cut(self, loss: Loss = "empty") -> list[Path]:
        """Cut the power. Unsynced files younger than half a minute become `loss`; returns those."""
        if self._runtime is not None:
            self._runtime.stop()
            self._runtime = None
        self._shims.clear()
        for name in ("run", "proc"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        return self._page_cache.lose(loss)

    def janitor(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run this checkout's `janitor` on it: `args`, with --root after the first one."""
        env = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
        argv = [str(JANITOR), *args[:1], "--root", str(self.root), *args[1:]]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout, check=False)

    # Requests of the runtime.

    def start_pod(self, sandbox: Sandbox) -> None:
        """CNI ADD, then a shim and a pause process; the latter has its own network namespace."""
        metadata = sandbox.metadata
        net = None if sandbox.host_network else self._proc.new_namespace()
        if net is not None:
            sandbox.address = self._cni.add(sandbox.id, metadata.namespace, metadata.name, metadata.uid)
        command = ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", sandbox.id]
        shim = self._proc.add("containerd-shim", [*command, "-address", "/run/containerd/containerd.sock"])
        if net is None:
            sandbox.pause = self._proc.add("pause", ["/pause"], parent=shim)
        else:
            sandbox.pause = self._proc.add("pause", ["/pause"], parent=shim, net=net, mnt=net + 1_000_000)
            self._proc.set_network(sandbox.pause, [sandbox.address], [])
        self._shims[sandbox.id] = shim
        task = self.root / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / sandbox.id
        task.mkdir(parents=True)
        self._show_routes()

    def stop_pod(self, sandbox: Sandbox) -> None:
        """The processes end first, then CNI DEL runs."""
        shim = self._shims.pop(sandbox.id, None)
        if shim is not None:
            self._proc.remove(sandbox.pause)
            self._proc.remove(shim)
            shutil.rmtree(self.root / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / sandbox.id)
        sandbox.ready = False
        self._show_routes()
        if not sandbox.host_network:
            self._cni.delete(sandbox.id)

    def _show_routes(self) -> None:
        """Set the node's own namespace: its address, and one host route for each pod, as canal and ptp make them."""
        routes = [self._sandboxes[pod].address for pod in self._shims if pod in self._sandboxes]
        self._proc.set_network(1, [NODE_ADDRESS], [route for route in routes if route])

    def close(self) -> None:
        """Power off and remove its directory; may be called twice."""
        atexit.unregister(self.close)
        if self.root.exists():
            self.cut("intact")
            shutil.rmtree(self.root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
