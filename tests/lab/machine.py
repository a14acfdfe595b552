"""The hardware and the kernel of a node: namespaces that are powered on and off around a directory, its disk.

A power cut is SIGKILL of the first process in them. Every process, /run and the network namespaces go with it; the disk
stays. Nothing of the host is changed: no file outside the machine's directory, no mount, no interface. Only the control
groups have to be removed explicitly.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import cgroups, namespaces

# The directories that init.sh binds into place.
DISK = ("cni", "net.d", "plugins", "kubelet", "janitor", "etc-janitor", "containerd", "etc-containerd")
# Each machine is a container of its host, so the lab must declare that nobody else uses its lease directories.
OURS = "data_dirs_are_ours = true\n"
# The same, for a node on which Kubernetes' own programs run.
KUBERNETES_DISK = ("etcd", "etc-kubernetes")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """One machine, powered off at first. Its processes end when this process does, in any case."""

    def __init__(self, *, kubernetes: bool = False, ours: bool = True) -> None:
        """`ours`: its configuration declares that its lease directories are used by no other node.

        `kubernetes`: etcd's data and /etc/kubernetes are on its disk, and the sysctls are as the kubelet wants them.
        """
        # Random, because the pods' cgroup has the same name, and all machines share the cgroups.
        self.name = f"lab-{uuid.uuid4().hex[:8]}"
        self.directory = Path(tempfile.mkdtemp(prefix="janitor-lab-")).resolve()
        self.disk = self.directory / "disk"
        self.boot_id = ""
        self._init: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[str]] = []
        self._starting = threading.Lock()  # a test may watch from one thread and act from another
        # For an interrupt before, or instead of, the context manager's end.
        atexit.register(self.close)
        for name in (*DISK, *(KUBERNETES_DISK if kubernetes else ())):
            (self.disk / name).mkdir(parents=True)
        (self.directory / "memory").mkdir()
        self._ours = ours
        self.configure("")

    def configure(self, text: str) -> None:
        """Write janitor's configuration: `text`, and the line about the lease directories."""
        (self.disk / "etc-janitor/janitor.toml").write_text(OURS * self._ours + text)

    @property
    def running(self) -> bool:
        return self._init is not None

    @property
    def pid(self) -> int:
        """The first process, by its PID on the host."""
        if self._init is None:
            raise RuntimeError(f"{self.name} has no power: boot it first")
        return self._init.pid

    @property
    def root(self) -> Path:
        """The running machine's root directory, with /run and /proc, as seen from the host."""
        return Path(f"/proc/{self.pid}/root")

    def power_on(self) -> None:
        """Boot, with a new boot ID."""
        if self._init is not None:
            raise RuntimeError(f"{self.name} is running")
        self.boot_id = str(uuid.uuid4())
        (self.directory / "boot_id").write_text(self.boot_id + "\n")
        errors = self.directory / "init.log"
        with errors.open("w") as log:
            self._init = namespaces.start_init(
                ["sh", str(Path(__file__).with_name("init.sh")), self.name],
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._init.stdout is not None
        if self._init.stdout.readline() != "ready\n":
            self.power_off()
            raise RuntimeError(f"{self.name} did not boot: {errors.read_text().strip() or 'no word why'}")
        # It prints this just before it execs the program that identifies a node, which takes a moment on a busy host.
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.pid}/comm").read_text() != "systemd\n" and time.monotonic() < deadline:
            time.sleep(0.002)

    def power_off(self) -> None:
        """Cut the power and wait until every process is gone; no effect when it is off."""
        init, self._init = self._init, None
        if init is not None:
            init.kill()
            # The kernel reaps an init only after every process in its namespace is dead and reaped. Processes that were
            # started from here must be reaped here.
            for process in self._started:
                process.wait()
            init.wait()
            for pipe in (init.stdin, init.stdout):
                if pipe is not None:
                    pipe.close()
        self._started.clear()
        cgroups.remove(self.name)

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str = "/", **popen: Any
    ) -> subprocess.Popen[str]:
        """Start a program inside. The Popen is the program itself, which ends with the machine at the latest."""
        environment = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"} | dict(env or {})
        popen.setdefault("stdin", subprocess.DEVNULL)
        with self._starting:
            process = namespaces.start_inside(self.pid, argv, environment, cwd, **popen)
            self._started = [other for other in self._started if other.poll() is None] + [process]
        return process

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        input: str | None = None,  # noqa: A002 - subprocess.run calls it so
        timeout: float = 60,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end and return its output."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        pipe = subprocess.PIPE
        with self.popen(argv, env=env, cwd=cwd, stdin=stdin, stdout=pipe, stderr=pipe) as process:
            try:
                out, err = process.communicate(input, timeout=timeout)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode != 0:
            said = err.strip() or out.strip()
            raise RuntimeError(f"{' '.join(argv)} on {self.name}: exit {process.returncode}: {said}")
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def processes(self) -> dict[int, str]:
        """Every process inside with its command line, by its PID inside."""
        found: dict[int, str] = {}
        for path in (self.root / "proc").glob("[0-9]*"):
            try:
                found[int(path.name)] = (path / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while being read
        return found

    def kill(self, pid: int, signal: str = "KILL") -> None:
        """Send a signal to a process, by its PID inside."""
        self.run(["sh", "-c", f"kill -{signal} {pid}"], check=True)  # the shell's own; minimal systems have no other

    def close(self) -> None:
        """Power off and discard the disk; may be called twice."""
        try:
            self.power_off()
        finally:
            if self.directory.exists():
                shutil.rmtree(self.directory)
        atexit.unregister(self.close)
