"""rtnetlink(7), as much of it as is needed: questions, whole dumps, messages and their attributes.

Belongs to the network namespace of the thread that opens the socket. Standard library only: a library that knows every
message of the kernel takes ten MiB of the daemon and, on a node with 250 pods, half the time of a pass.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

ERROR: Final = 2
REQUEST: Final = 0x1
_DONE: Final = 3
_DUMP: Final = 0x300
_DUMP_INTERRUPTED: Final = 0x10
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct rtattr
_KIND: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVE: Final = 1 << 18


def open_socket() -> socket.socket:
    """A socket to the kernel, with a port of its own."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    opened.bind((0, 0))
    return opened


def packed(kind: int, flags: int, payload: bytes) -> bytes:
    """One message, ready to be sent."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, 1, 0) + payload


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, ready to be sent."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, port, payload) of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, port, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(payload: bytes, offset: int) -> Iterator[tuple[int, int, bytes]]:
    """(type, offset of the value, value) of each attribute from `offset` on, where the message's own header ends."""
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _KIND, offset + 4, payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def dump(talk: socket.socket, question: int, payload: bytes, answer: int) -> list[bytes] | None:
    """The payloads of all `answer` messages; None where things changed meanwhile, so that it is not whole. OSError."""
    talk.send(packed(question, REQUEST | _DUMP, payload))
    found: list[bytes] = []
    whole = True
    while True:
        for kind, flags, _, said in messages(talk.recv(_RECEIVE)):
            whole = whole and not flags & _DUMP_INTERRUPTED
            if kind == _DONE:
                return found if whole else None
            if kind == ERROR:
                raise error(said)
            if kind == answer:
                found.append(said)


def ask(talk: socket.socket, question: int, payload: bytes, answer: int) -> bytes:
    """The payload of the one answer to a question that is no dump. OSError."""
    talk.send(packed(question, REQUEST, payload))
    while True:
        for kind, _, _, said in messages(talk.recv(_RECEIVE)):
            if kind == ERROR:
                raise error(said)
            if kind == answer:
                return said


def error(payload: bytes) -> OSError:
    """What an error message says; number 0 for an acknowledgement."""
    number = -struct.unpack_from("=i", payload)[0]
    return OSError(number, os.strerror(number))
