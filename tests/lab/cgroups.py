"""The control groups of a node's pods: one subtree by name, in every hierarchy of cgroup v1, or in v2's only one.

A cgroup cannot be in a namespace that ends with the node, so these are removed explicitly.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The root of each hierarchy."""
    # v2 alone: ROOT itself is the hierarchy. v1, or both: one directory per hierarchy below ROOT.
    return [ROOT] if (ROOT / "cgroup.controllers").exists() else [top for top in ROOT.iterdir() if top.is_dir()]


def find(name: str) -> list[Path]:
    """The directories called `name` at the root of each hierarchy."""
    return [top / name for top in hierarchies() if (top / name).is_dir()]


def make(name: str) -> None:
    """Make a subtree for a kubelet, which expects it to exist, with all processors and all memory."""
    for top in hierarchies():
        (top / name).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (top / name / file).exists() and (top / file).exists():  # v1, where children inherit nothing
                (top / name / file).write_text((top / file).read_text())


def unit(name: str, service: str) -> list[Path]:
    """Make the control group of a system service, as systemd on the machine `name` would, and return where.

    It is in a slice of the machine's own: machines share the group of their first processes.
    """
    found = [top / service for top in _slices(name)]
    for directory in found:
        directory.mkdir(parents=True, exist_ok=True)
    return found


def _slices(name: str) -> list[Path]:
    """The places of that slice, below this process's own: in cgroup v2 and in v1's named hierarchy."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, hierarchy, own = line.split(":", 2)
        tops = {"": (ROOT, ROOT / "unified"), "name=systemd": (ROOT / "systemd",)}.get(hierarchy, ())
        found += [top / own.lstrip("/") for top in tops if (top / own.lstrip("/") / "cgroup.procs").exists()][:1]
    return [above / f"{name}.slice" for above in found]


def remove(name: str, timeout: float = 5.0) -> None:
    """Remove the subtree. Its processes are dead already, but a cgroup stays busy a moment longer."""
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
    # Only rmdir: the files in a cgroup belong to the kernel and disappear with their directory.
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)
