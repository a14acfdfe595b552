"""A FUSE file system with one file, a copy of a program, that stops answering on request.

Pods can serve such file systems (the sidecar of a cloud's FUSE driver has the descriptor), and an NFS server that a pod
names in its volumes can behave the same: `python -m tests.lab.silent_disk MOUNTPOINT PROGRAM NAME`; a line on standard
input makes it silent.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
import threading
from typing import Final

DEVICE: Final = "/dev/fuse"
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT, _OPENDIR, _INTERRUPT, _FORGETS = (
    1, 2, 3, 14, 15, 18, 25, 26, 27, 36, 42,
)  # fmt: skip
_TOP, _FILE = 1, 2
_SHARED: Final = 0  # flags of mount(2)


class Disk:
    """The server. While `silent`, it answers no request that a caller waits for."""

    def __init__(self, point: str, program: bytes, name: bytes) -> None:
        self.program, self.name, self.silent = program, name, False
        self.fd = os.open(DEVICE, os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if libc.mount(b"pod", point.encode(), b"fuse", _SHARED, options) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), point)

    def serve(self) -> None:
        while True:
            message = os.read(self.fd, 1 << 18)
            _, kind, unique, node = struct.unpack_from("=IIQQ", message)
            if kind not in (_FORGET, _FORGETS, _INTERRUPT) and not (self.silent and kind != _INIT):
                self._answer(kind, unique, node, message[40:])

    def _answer(self, kind: int, unique: int, node: int, body: bytes) -> None:
        error, answer = 0, b""
        if kind == _INIT:
            answer = struct.pack("=IIIIHHIIHH7I", 7, 31, 65_536, 0, 12, 10, 1 << 17, 1, 32, 0, *[0] * 7) + bytes(4)
        elif kind == _LOOKUP and body.rstrip(b"\0") == self.name:
            answer = struct.pack("=QQQQII", _FILE, 0, 0, 0, 0, 0) + self._attributes(_FILE)
        elif kind == _GETATTR:
            answer = struct.pack("=QII", 0, 0, 0) + self._attributes(node)
        elif kind in (_OPEN, _OPENDIR):
            answer = struct.pack("=QII", 1, 0, 0)
        elif kind == _READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            answer = self.program[offset : offset + size]
        elif kind not in (_RELEASE, _FLUSH):
            error = errno.ENOENT if kind == _LOOKUP else errno.ENOSYS
        os.write(self.fd, struct.pack("=IiQ", 16 + len(answer), -error, unique) + answer)

    def _attributes(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR, 0) if node == _TOP else (stat.S_IFREG, len(self.program))
        return struct.pack("=6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode | 0o755, 1, 0, 0, 0, 4096, 0)


def main() -> None:
    point, program, name = sys.argv[1:]
    with open(program, "rb") as file:
        disk = Disk(point, file.read(), os.fsencode(name))
    threading.Thread(target=disk.serve, daemon=True).start()
    print("up", flush=True)
    for _ in sys.stdin:
        disk.silent = True
        print("silent", flush=True)


if __name__ == "__main__":
    main()
