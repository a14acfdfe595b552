"""Nodes of tests that need a boot, and no processes or hardly any."""

from __future__ import annotations

from pathlib import Path

from janitor.host.kernel.procfs import boot_id, find_proc
from janitor.host.node import NOT_ASKED, Node


def with_processes(root: Path) -> str:
    """A node below `root` whose first process is there; the ID of its boot."""
    (root / "proc/1").mkdir(parents=True)
    (root / "proc/1/root").symlink_to(root)
    (root / "proc/self").symlink_to("1")
    (root / "proc/sys/kernel/random").mkdir(parents=True)
    (root / "proc/sys/kernel/random/boot_id").write_text("this-boot\n")
    assert boot_id(find_proc(str(root))) == "this-boot"
    return "this-boot"


def booted(root: Path | str, boot: str) -> Node:
    """A node of which only the files and the boot can be seen."""
    return Node(str(root), NOT_ASKED, boot)
