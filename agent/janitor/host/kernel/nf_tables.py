"""The rules and sets of nf_tables in the network namespace of the calling thread, in the kernel's format.

Over nfnetlink, as in <linux/netfilter/nfnetlink.h> and <linux/netfilter/nf_tables.h>. Standard library only.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETRULE, _GETSET, _GETSETELEM, _GETGEN = 7, 10, 13, 16
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE, _INTERRUPTED = 2, 3, 0x10
_HEADER: Final = struct.Struct("=IHHII")
_FAMILY: Final = struct.Struct("=BBH")
# The table and the name of a set. A request for its elements has the same two under other numbers.
_SET_TABLE, _SET_NAME = 1, 2
_ELEMENTS_TABLE, _ELEMENTS_SET = 1, 2
_NESTED: Final = 0x3FFF
_MOST: Final = 256 << 20  # bytes, of all answers together
_SETS: Final = 20_000
_SECONDS: Final = 20.0
_TIMES: Final = 5
_NONE: Final = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOPROTOOPT)


def rules() -> Iterator[bytes]:
    """The netlink attributes of each rule and of each set's elements; nothing if the kernel has no nf_tables.

    OSError if the kernel refuses, if there is more than the limits allow, or if it keeps changing.
    """
    try:
        family = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        if error.errno in _NONE:
            return
        raise
    with family as asked:
        asked.settimeout(5)
        table = _Table(asked)
        try:
            yield from table.dump(_GETRULE, 0, b"")
        except OSError as error:
            if error.errno in _NONE and not table.there():
                return
            raise
        sets = list(table.dump(_GETSET, 0, b""))
        if len(sets) > _SETS:
            raise OSError(errno.E2BIG, f"there are more than {_SETS} sets in nf_tables")
        for one in sets:
            # Each message of a dump begins with the family.
            names = _attributes(one[_FAMILY.size :])
            payload = _attribute(_ELEMENTS_TABLE, names[_SET_TABLE]) + _attribute(_ELEMENTS_SET, names[_SET_NAME])
            try:
                yield from table.dump(_GETSETELEM, one[0], payload)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise  # ENOENT: it has been removed meanwhile


class _Table:
    """One conversation with the kernel, within the limits."""

    def __init__(self, asked: socket.socket) -> None:
        self._socket, self._number, self._left = asked, 0, _MOST
        self._until = time.monotonic() + _SECONDS

    def dump(self, what: int, family: int, payload: bytes) -> list[bytes]:
        """The bodies of all answers, each starting with its family. Repeated if the tables changed meanwhile."""
        for _ in range(_TIMES):
            found = self._once(what, family, payload, _REQUEST | _DUMP)
            if found is not None:
                return found
        raise OSError(errno.EAGAIN, "nf_tables changes faster than it can be read")

    def there(self) -> bool:
        """Whether the kernel has nf_tables at all: it can then tell their generation."""
        try:
            self._once(_GETGEN, 0, b"", _REQUEST | _ACK)
        except OSError as error:
            return error.errno not in _NONE
        return True

    def _once(self, what: int, family: int, payload: bytes, flags: int) -> list[bytes] | None:
        self._number += 1
        body = _FAMILY.pack(family, 0, 0) + payload
        length = _HEADER.size + len(body)
        self._socket.sendto(_HEADER.pack(length, _SUBSYSTEM | what, flags, self._number, 0) + body, (0, 0))
        found: list[bytes] = []
        whole = True
        while True:
            data = self._socket.recv(1 << 20)
            self._left -= len(data)
            if self._left < 0 or time.monotonic() > self._until:
                raise OSError(errno.E2BIG, "nf_tables contains more than can be read")
            at = 0
            while at + _HEADER.size <= len(data):
                size, kind, said, number, _ = _HEADER.unpack_from(data, at)
                if size < _HEADER.size:
                    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
                part = data[at + _HEADER.size : at + size]
                at += (size + 3) & ~3
                if number != self._number:
                    continue
                whole = whole and not said & _INTERRUPTED
                if kind in (_ERROR, _DONE):
                    code = -struct.unpack_from("=i", part)[0] if len(part) >= 4 else 0
                    if code == errno.EINTR:
                        return None
                    if code:
                        raise OSError(code, os.strerror(code))
                    return found if whole else None
                found.append(part)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & _NESTED] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)
