"""A real systemd as the first process of a container: systemd-nspawn with a few files and this machine's /usr.

It starts a target without dependencies, so it is up within a second. Services run `standin`, a program that sleeps
whatever its arguments are. Nothing of it is visible outside its namespaces.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.lab import cgroups, image, namespaces

REPOSITORY = Path(__file__).parents[2]
# In its own mount namespace: sh -c _START sh NAME ARGUMENTS. Everything that nspawn starts gets a control group of that
# name in each hierarchy, so that it can be removed again (except cpuset, which needs more than a directory).
_START = """
mount -t tmpfs lab /run/systemd || exit 1
for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    top=${procs%/*}
    case $top in */cpuset) continue ;; esac
    [ -f "$procs" ] || continue
    mkdir -p "$top/$1" && echo $$ >"$top/$1/cgroup.procs"
    [ "$top" = /sys/fs/cgroup ] && break
done
shift && exec systemd-nspawn "$@"
"""
_UP_S = 30.0


def missing() -> str | None:
    """Why no such systemd can run on this machine, or None."""
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed (apt-get install systemd-container)"
    if not Path("/usr/lib/systemd/systemd").exists():
        return "there is no /usr/lib/systemd/systemd: /usr is not merged, or there is no systemd"
    return namespaces.missing()


class Systemd:
    """One systemd. `directory` is its root, in which files may be written before and while it runs."""

    def __init__(self) -> None:
        self.name = f"lab-{uuid.uuid4().hex[:8]}"
        self.base = Path(tempfile.mkdtemp(prefix="janitor-systemd-")).resolve()
        self.directory = self.base / "root"
        for name in ("etc/systemd/system", "usr", "proc", "sys", "dev", "run", "tmp", "var/lib", "root", "opt"):
            (self.directory / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.directory / name).symlink_to(f"usr/{name}")
        self.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")  # else it would treat this as a first boot
        self.write("/etc/os-release", "ID=lab\n")
        self.write("/etc/passwd", "root:x:0:0:root:/tmp:/bin/sh\n")
        self.write("/etc/group", "root:x:0:\n")
        self.write("/etc/systemd/system/lab.target", "[Unit]\nDefaultDependencies=no\n")
        self.standin = self.directory / "opt/standin"
        self.standin.write_bytes(image.program(platform.machine()))
        self.standin.chmod(0o755)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.init = 0

    def write(self, path: str, text: str) -> Path:
        """Write a file of this machine."""
        file = self.directory / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    @property
    def root(self) -> str:
        """Its root directory, for `--root`."""
        return f"/proc/{self.init}/root"

    def __enter__(self) -> Self:
        binds = {"/usr", str(REPOSITORY), sys.base_prefix}
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh",
            self.name,
            "--quiet",
                 f"--directory={self.directory}", "--boot", "--private-network", "--register=no", "--keep-unit",
                 "--console=pipe", f"--machine={self.name}",
                 *(f"--bind-ro={path}" for path in sorted(binds) if not path.startswith("/usr/")),
                 "--", "--unit=lab.target"]  # fmt: skip
        with (self.base / "console").open("wb") as console:
            self._nspawn = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, cwd="/", start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def _wait(self) -> None:
        assert self._nspawn is not None
        deadline = time.monotonic() + _UP_S
        while time.monotonic() < deadline and self._nspawn.poll() is None:
            children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
            for child in children:
                if Path(f"/proc/{child}/root", "run/systemd/private").exists():
                    self.init = int(child)
                    return
            time.sleep(0.05)
        raise RuntimeError(f"systemd did not start: {(self.base / 'console').read_text(errors='replace')[-2000:]}")

    def run(self, *argv: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
        """Run a program inside; returns its standard output."""
        words = ["nsenter", "--target", str(self.init), "--mount", "--pid", "--uts", "--net", "--", *argv]
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=60, check=False, cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(environment or {})},
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def main_pid(self, unit: str) -> int:
        """The service's main process, by its PID inside; 0 if it does not run."""
        return int(self.run("systemctl", "show", "--property=MainPID", "--value", unit).strip())

    def argv(self, unit: str) -> list[str]:
        """The command line of the service's main process."""
        data = Path(f"{self.root}/proc/{self.main_pid(unit)}/cmdline").read_bytes()
        return data.decode("utf-8", "replace").removesuffix("\0").split("\0")

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Power off at once, and remove everything."""
        if self.init:
            try:
                os.kill(self.init, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self._nspawn is not None:
            try:
                self._nspawn.wait(10)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        self.init, self._nspawn = 0, None
        cgroups.remove(self.name)
        shutil.rmtree(self.base, ignore_errors=True)
