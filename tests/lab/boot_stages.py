"""The boot stage in its forms, and a machine at the point where it runs: just booted, without a container runtime."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import REPOSITORY
from tests.lab.machine import PATH, Machine
from tests.lab.node import JANITOR

SCRIPT = REPOSITORY / "cloud-init/janitor-boot.sh"
APPLETS = Path("/run/lab/busybox")  # on the machine: only the applets of busybox, each by its name


@dataclass(frozen=True)
class Stage:
    """One way to run the boot stage: its command, and the programs it finds."""

    name: str
    command: tuple[str, ...]
    path: str = PATH


PYTHON = Stage("python", (str(JANITOR.with_name("janitor-boot")),))
SHELLS = (
    Stage("dash", ("dash", str(SCRIPT))),
    # With util-linux's flock, which Debian's busybox lacks.
    Stage("busybox", (f"{APPLETS}/ash", str(SCRIPT)), f"{APPLETS}:{APPLETS}-flock"),
    Stage("bash", ("bash", str(SCRIPT))),
)
STAGES = (PYTHON, *SHELLS)


def missing() -> str | None:
    """The shells that are not installed, or None."""
    absent = [name for name in ("busybox", "dash", "bash", "flock") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (apt-get install {' '.join(absent)})" if absent else None


class EarlyMachine(Machine):
    """A machine in early boot, whose disk can be replaced for each case."""

    def power_on(self) -> None:
        super().power_on()
        busybox = shutil.which("busybox")
        applets = self.root / APPLETS.relative_to("/")
        for directory in (applets, Path(f"{applets}-flock")):
            directory.mkdir(parents=True)
        for name in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
            (applets / name).symlink_to(str(busybox))
        (Path(f"{applets}-flock") / "flock").symlink_to(str(shutil.which("flock")))

    @property
    def cni(self) -> Path:
        """/var/lib/cni."""
        return self.disk / "cni"

    def lay_out(self, files: Mapping[str, bytes], configuration: Mapping[str, bytes]) -> None:
        """An empty disk with only these files, by paths in /var/lib/cni and /etc/cni/net.d; without /run/janitor."""
        for name in ("cni", "net.d", "janitor"):
            for path in (self.disk / name).iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(self.root / "run/janitor", ignore_errors=True)
        networks = {os.path.dirname(path) for path in files if path.startswith(("networks/", "else"))}
        for network in networks - {"networks"}:
            (self.cni / network).mkdir(parents=True)
            (self.cni / network / "lock").touch()
            (self.cni / network / "last_reserved_ip.0").write_bytes(b"10.52.0.9")
        for name, content in files.items():
            (self.cni / name).parent.mkdir(parents=True, exist_ok=True)
            (self.cni / name).write_bytes(content)
        for name, content in configuration.items():
            (self.disk / "net.d" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.disk / "net.d" / name).write_bytes(content)

    def stage(self, stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the boot stage."""
        return self.run(["/usr/bin/env", f"PATH={stage.path}", *stage.command, *words], timeout=300)

    def held(self) -> dict[str, bytes]:
        """Every regular file in /var/lib/cni except quarantined files, locks and bookkeeping."""
        return {
            str(path.relative_to(self.cni)): path.read_bytes()
            for path in sorted(self.cni.rglob("*"))
            if path.is_file()
            and not path.is_symlink()
            and ".janitor-quarantine" not in path.parts
            and path.name not in ("lock", "last_reserved_ip.0", ".janitor-node", ".janitor-node.new")
        }

    def quarantined(self) -> list[bytes]:
        """The contents of the quarantines, sorted."""
        places = [*self.cni.rglob(".janitor-quarantine/*/*"), *self.disk.glob("janitor/quarantine/*/*")]
        return sorted(path.read_bytes() for path in places)
