"""Whether two threads share a kernel object, by kcmp(2). Standard library only."""

import ctypes
import os
import platform
from typing import Final

FILES: Final = 2
FS: Final = 3  # root directory; setns(2) and unshare(2) ensure that the mount namespace is the same, too
_NUMBER: Final = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "loongarch64": 272, "armv7l": 378, "ppc64le": 354,
                  "s390x": 343}.get(platform.machine())  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)


def compare(first: int, second: int, kind: int) -> int | None:
    """0 if shared, otherwise 1 or 2 in a total order of all objects; None if that cannot be determined."""
    if _NUMBER is None:
        return None
    answer: int = _libc.syscall(_NUMBER, first, second, kind, 0, 0)
    return answer if answer in (0, 1, 2) else None


class SharedTables:
    """Large descriptor tables that were already read, each with one process that has it.

    Searched by bisection, because a pod may have as many large tables as its memory holds.
    """

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._sorted: list[tuple[int, int]] = []  # (process or thread ID, descriptor of its directory in /proc)
        self._most = 128  # each takes a descriptor; the default limit is 1024

    def seen(self, task: int) -> bool:
        """Whether the table of this thread was already read."""
        return bool(self._sorted) and compare(task, task, FILES) == 0 and self._find(task)[1]

    def add(self, task: int) -> None:
        """Note that its table has been read completely."""
        at, there = self._find(task)
        if there or len(self._sorted) >= self._most or compare(task, task, FILES) is None:
            return
        try:
            self._sorted.insert(at, (task, os.open(f"{self._proc}/{task}", os.O_RDONLY | os.O_DIRECTORY)))
        except OSError:
            return

    def close(self) -> None:
        """Close the directories."""
        for _, directory in self._sorted:
            os.close(directory)
        self._sorted.clear()

    def _find(self, task: int) -> tuple[int, bool]:
        low, high = 0, len(self._sorted)
        while low < high:
            middle = (low + high) // 2
            other, directory = self._sorted[middle]
            order = compare(task, other, FILES)
            # The ID of an ended process may have been reused by one with another place in the order. Then a table is
            # read once more; or, if the table seems to be the one we look for, this check finds out.
            if order is None or (order == 0 and not _there(directory)):
                os.close(directory)
                del self._sorted[middle]
                low, high = 0, len(self._sorted)
                continue
            if order == 0:
                return middle, True
            low, high = (low, middle) if order == 1 else (middle + 1, high)
        return low, False


def _there(directory: int) -> bool:
    try:
        os.stat("comm", dir_fd=directory)
    except OSError:
        return False
    return True
