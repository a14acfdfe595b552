"""inotify(7), which Python does not have: changes in directories as they happen. Standard library only."""

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

CLOSE_WRITE: Final = 0x8
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ISDIR: Final = 0x40000000
_ONLYDIR: Final = 0x01000000
_HEADER: Final = struct.Struct("iIII")
_BUFFER: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Happened:
    """A change of `name` in `directory`. `name` is "" for the directory itself; both are "" after a queue overflow."""

    directory: str
    name: str
    mask: int


@dataclass(slots=True)
class Inotify:
    """An inotify instance. OSError if the kernel refuses one (fs.inotify.max_user_instances)."""

    _fd: int = field(init=False)
    directories: dict[int, str] = field(default_factory=dict)  # by watch descriptor

    def __post_init__(self) -> None:
        self._fd = _call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor, for select."""
        return self._fd

    def watch(self, directory: str) -> None:
        """Watch one directory, not its subdirectories. Watching it again is no error. OSError if that fails."""
        mask = CLOSE_WRITE | MOVED_TO | CREATE | DELETE_SELF | MOVE_SELF | _ONLYDIR
        self.directories[_call("inotify_add_watch", self._fd, os.fsencode(directory), mask)] = directory

    def happened(self) -> Iterator[Happened]:
        """The queued events, without waiting."""
        while True:
            try:
                data = os.read(self._fd, _BUFFER)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                descriptor, mask, _, length = _HEADER.unpack_from(data, at)
                at += _HEADER.size + length
                name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
                directory = self.directories.get(descriptor, "")
                if mask & IGNORED:
                    self.directories.pop(descriptor, None)
                yield Happened(directory, name, mask)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def _call(name: str, *arguments: int | bytes) -> int:
    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
