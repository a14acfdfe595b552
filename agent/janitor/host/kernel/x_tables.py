"""The rules of x_tables (iptables-legacy) in the network namespace of the calling thread, in the kernel's format.

Uses two options of a raw socket, as in <linux/netfilter_ipv4/ip_tables.h> and <linux/netfilter_ipv6/ip6_tables.h>. Only
tables in use are read, so that no module is loaded. Standard library only.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from janitor.host.files import read_bounded

_TABLES: Final = (
    ("ip_tables_names", socket.AF_INET, socket.IPPROTO_IP),
    ("ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6),
)
_INFO, _ENTRIES = 64, 65
_NAME: Final = 32
_SIZE_AT: Final = _NAME + 4 + 5 * 4 + 5 * 4 + 4  # after the name, the hooks, two arrays of five and the number
_INFO_SIZE: Final = _SIZE_AT + 4
_BEFORE: Final = 40  # offset of the entries: name and size, aligned to eight
_MOST: Final = 256 << 20
_TIMES: Final = 5


def rules() -> Iterator[bytes]:
    """The rules of each table, one byte string per table; nothing if no table is in use. OSError."""
    for names, family, level in _TABLES:
        try:
            tables = read_bounded(f"/proc/thread-self/net/{names}", 1 << 16).split()
        except FileNotFoundError:
            continue  # a kernel without x_tables, or the module is not loaded
        if not tables:
            continue
        with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as asked:
            for table in tables:
                yield _read(asked, level, table)


def _read(asked: socket.socket, level: int, table: bytes) -> bytes:
    for _ in range(_TIMES):
        info = _option(asked, level, _INFO, table, _INFO_SIZE)
        size: int = struct.unpack_from("=I", info, _SIZE_AT)[0]
        if size > _MOST:
            raise OSError(errno.E2BIG, f"the table {table.decode('ascii', 'replace')} holds {size} bytes")
        head = table.ljust(_NAME, b"\0") + struct.pack("=I", size)
        try:
            return _option(asked, level, _ENTRIES, head, _BEFORE + size)[_BEFORE:]
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise  # EAGAIN: its size has changed meanwhile
    raise OSError(errno.EAGAIN, "x_tables changes faster than it can be read")


def _option(asked: socket.socket, level: int, option: int, head: bytes, size: int) -> bytes:
    """getsockopt(2) with a request in the buffer, which Python's socket module does not support."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(head, size)
    length = ctypes.c_uint32(size)
    if libc.getsockopt(asked.fileno(), level, option, buffer, ctypes.byref(length)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"reading a table of x_tables: {os.strerror(error)}")
    return buffer.raw[: length.value]
