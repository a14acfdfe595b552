"""What a power cut does to files whose content was not on the disk yet.

A file's name is committed with the file system's journal within seconds, its content is written back after about half a
minute, and nothing in the chain of a pod's network syncs. Killing a namespace does not lose the page cache, so the lab
brings young files into the state that was measured on a machine that does.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

Loss = Literal["empty", "nul", "missing", "intact"]

# Younger files were lost in every measured cut, older ones mostly not.
WRITE_BACK = 28.0

Identity = tuple[int, int, int]


class PageCache:
    """Keeps track of which files under a directory count as written to the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._synced: dict[Path, Identity] = {}

    def sync(self, only: Iterable[Path] | None = None) -> None:
        """Mark everything written so far, or only these files as they are now, as on the disk, however young."""
        if only is None:
            self._synced = {}
        self._synced |= {path: _identity(path) for path in files(self.directory) if only is None or path in set(only)}

    def lose(self, loss: Loss, window: float = WRITE_BACK) -> list[Path]:
        """The power is cut: damage each unsynced file younger than `window`; returns those."""
        if loss == "intact":
            return []
        now = time.time()
        hit = [path for path in files(self.directory) if self._in_memory_only(path, now - window)]
        for path in hit:
            damage(path, loss)
        self.sync()  # the present state is what the disk has
        return hit

    def _in_memory_only(self, path: Path, since: float) -> bool:
        if path.name == "lock" or path.name.startswith("last_reserved_ip."):
            return False  # always empty anyway, and never found damaged
        if path.name == ".janitor-node":
            return False  # janitor syncs it before giving it this name
        return self._synced.get(path) != _identity(path) and path.stat().st_mtime > since


def files(directory: Path) -> Iterator[Path]:
    """Every regular file below a directory."""
    for path in sorted(directory.rglob("*")):
        if stat.S_ISREG(path.lstat().st_mode):
            yield path


def damage(path: Path, loss: Loss) -> None:
    """Bring one file into the state that a power cut leaves; its modification time stays."""
    before = path.stat()
    match loss:
        case "empty":
            os.truncate(path, 0)
        case "nul":
            with path.open("r+b") as file:
                file.write(bytes(before.st_size))
        case "missing":
            path.unlink()
            return
        case "intact":
            return
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _identity(path: Path) -> Identity:
    status = path.stat()
    return (status.st_ino, status.st_mtime_ns, status.st_size)
