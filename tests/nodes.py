"""The node of a test that needs its boot, and none of its processes."""

from __future__ import annotations

from pathlib import Path

from janitor.host.node import NOT_ASKED, Node


def booted(root: Path | str, boot_id: str) -> Node:
    return Node(str(root), NOT_ASKED, boot_id)
