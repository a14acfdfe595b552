"""The control groups of a node's pods: one subtree by name, in every hierarchy of cgroup v1 or in v2's only one.

cgroups are the one thing a node cannot have in a namespace that dies with it, so they are removed by hand.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The top of each hierarchy."""
    # v2 alone: ROOT itself is the hierarchy. v1, or both: one directory for each below ROOT.
    return [ROOT] if (ROOT / "cgroup.controllers").exists() else [top for top in ROOT.iterdir() if top.is_dir()]


def find(name: str) -> list[Path]:
    """The directories called `name` at the top of each hierarchy."""
    return [top / name for top in hierarchies() if (top / name).is_dir()]


def make(name: str) -> None:
    """Make a subtree for a kubelet, which takes it to be there, with all processors and all memory."""
    for top in hierarchies():
        (top / name).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (top / name / file).exists() and (top / file).exists():  # v1; its children inherit nothing
                (top / name / file).write_text((top / file).read_text())


def unit(name: str, service: str) -> list[Path]:
    """Make the control group of a system service, as systemd on the machine called `name` would, and say where.

    In a slice of the machine's own: machines share the group that their first processes are in.
    """
    found = [top / service for top in _slices(name)]
    for directory in found:
        directory.mkdir(parents=True, exist_ok=True)
    return found


def _slices(name: str) -> list[Path]:
    """Where that slice is, or would be: in cgroup v2 and in v1's hierarchy of names, below where this process is."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, hierarchy, own = line.split(":", 2)
        tops = {"": (ROOT, ROOT / "unified"), "name=systemd": (ROOT / "systemd",)}.get(hierarchy, ())
        found += [top / own.lstrip("/") for top in tops if (top / own.lstrip("/") / "cgroup.procs").exists()][:1]
    return [above / f"{name}.slice" for above in found]


def remove(name: str, timeout: float = 5.0) -> None:
    """Remove the subtree. Its processes are dead already, but a cgroup is busy for a moment longer."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            for top in (*find(name), *_slices(name)):
                _remove_tree(top)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _remove_tree(top: Path) -> None:
    # Only rmdir: the files in a cgroup are the kernel's and go with their directory.
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)
