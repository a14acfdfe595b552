"""The kernel's policy rules, over rtnetlink(7): dumped, watched, made and deleted.

They are written back exactly as the kernel sent them, attributes that nobody here knows included. A socket that lost
messages (ENOBUFS) is no worse for it: it means no more than that a dump is due. Standard library only.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from janitor.core.rules import RTPROT_KERNEL, RTPROT_UNSPEC, Family, PolicyRule
from janitor.host import rtnetlink
from janitor.host.files import printable
from janitor.host.rtnetlink import ERROR, REQUEST, attributes, messages

_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_ACK, _ECHO, _EXCL, _CREATE = 0x4, 0x8, 0x200, 0x400
_RULE = struct.Struct("=8BI")  # struct fib_rule_hdr
_FAMILIES: Final[dict[int, Family]] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_GROUPS: Final = (8, 19)  # RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE, _BUFFER = 33, 8 << 20
_INVERT: Final = 2
_PROTOCOL: Final = 21
_ADDRESSES: Final = (1, 2)  # FRA_DST, FRA_SRC
_UNSET: Final = 0xFFFFFFFF  # what the kernel sends for a suppressor that is not set
_GOTO: Final = 2
_ACTIONS: Final = {1: "lookup", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_STOCK: Final = ((0, 255), (32766, 254), (32767, 253))  # priority and table of local, main, default
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Event:
    """A rule was made or deleted, by whoever has the netlink port `port`; 0 is the kernel itself."""

    made: bool
    rule: PolicyRule
    port: int


class Interrupted(OSError):  # noqa: N818 (that is what it is)
    """A dump that others kept changing; or messages were lost. The next dump tells the truth."""


class RuleSocket:
    """Dumps, makes and deletes rules; with `watch`, another socket tells of every change.

    Belongs to the network namespace of the thread that makes it. OSError as the kernel gives it.
    """

    def __init__(self, *, watch: bool = False) -> None:
        self._talk = rtnetlink.open_socket()
        self.port: int = self._talk.getsockname()[0]
        self._watch: socket.socket | None = None
        if watch:
            self._watch = rtnetlink.open_socket()
            try:
                self._watch.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:
                self._watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            for group in _GROUPS:
                self._watch.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            self._watch.setblocking(False)

    def fileno(self) -> int:
        """The watching socket, for select."""
        return -1 if self._watch is None else self._watch.fileno()

    def close(self) -> None:
        """Close both."""
        self._talk.close()
        if self._watch is not None:
            self._watch.close()

    def events(self) -> Iterator[Event]:
        """What has happened since the last call. Interrupted where the kernel had to drop some of it."""
        while self._watch is not None:
            try:
                data = self._watch.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Interrupted(errno.ENOBUFS, "the kernel had more to say of rules than was read") from None
                raise
            for kind, _, port, payload in messages(data):
                if kind in (_NEWRULE, _DELRULE) and payload[0] in _FAMILIES:
                    yield Event(kind == _NEWRULE, decode(payload), port)

    def dump(self) -> tuple[PolicyRule, ...]:
        """Every rule of both families, in the kernel's order. Interrupted where it never held still."""
        rules: list[PolicyRule] = []
        for family in _FAMILIES:
            for _ in range(_ATTEMPTS):
                try:
                    found = self._dump(family)
                except OSError as error:
                    if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                        raise
                    found = []  # a kernel without this family
                if found is not None:
                    rules += found
                    break
            else:
                raise Interrupted(errno.EINTR, f"the rules changed during each of {_ATTEMPTS} dumps")
        return tuple(rules)

    def _dump(self, family: int) -> list[PolicyRule] | None:
        found = rtnetlink.dump(self._talk, _GETRULE, _RULE.pack(family, *[0] * 8), _NEWRULE)
        return None if found is None else [decode(payload) for payload in found]

    def add(self, rule: PolicyRule) -> PolicyRule:
        """Make the rule exactly as it was, under its `protocol`; returns it with the priority that the kernel gave it.

        FileExistsError where it is there already.
        """
        flags = REQUEST | _ACK | _ECHO | _CREATE
        try:
            return self._ask(_NEWRULE, flags | _EXCL, _payload(rule)) or rule
        except FileExistsError:
            # The kernel compares only what the new rule names: a narrower one of the same priority and table is taken
            # for it (net/core/fib_rules.c, rule_exists).
            if any(one.exact == rule.exact for one in self.dump()):
                raise
            return self._ask(_NEWRULE, flags, _payload(rule)) or rule

    def remove(self, rule: PolicyRule) -> None:
        """Delete the rule. FileNotFoundError where it is not there."""
        self._ask(_DELRULE, REQUEST | _ACK, _payload(rule))

    def _ask(self, kind: int, flags: int, payload: bytes) -> PolicyRule | None:
        self._talk.send(rtnetlink.packed(kind, flags, payload))
        echo: PolicyRule | None = None
        while True:
            for answer, _, _, said in messages(self._talk.recv(1 << 16)):
                if answer == kind:
                    echo = decode(said)
                elif answer == ERROR:
                    if struct.unpack_from("=i", said)[0]:
                        raise rtnetlink.error(said)
                    return echo


def whole(payload: bytes) -> bool:
    """Whether the payload ends where its last attribute does, and holds addresses of its family's length."""
    end, size = _RULE.size, 4 if payload[:1] == bytes([socket.AF_INET]) else 16
    for kind, offset, value in attributes(payload, _RULE.size):
        if kind in _ADDRESSES and len(value) != size:
            return False
        end = offset + ((len(value) + 3) & ~3)
    return len(payload) >= _RULE.size and payload[0] in _FAMILIES and end - 3 <= len(payload) <= end


def _payload(rule: PolicyRule) -> bytes:
    """What makes this rule: the kernel's own payload, with the protocol of `rule`, without what the kernel computes.

    Of the flags only FIB_RULE_INVERT is part of a rule. The kernel would keep the others for ever, and a rule whose
    interface was missing when it was read would be shown as detached even after that has come.
    """
    payload = bytearray(rule.payload)
    struct.pack_into("=I", payload, 8, struct.unpack_from("=I", payload, 8)[0] & _INVERT)
    for kind, offset, _ in attributes(rule.payload, _RULE.size):
        if kind == _PROTOCOL:
            payload[offset] = rule.protocol
    return bytes(payload)


# Attributes by number (linux/fib_rules.h): what they are called here, and how their value reads.
_TEXT, _U8, _U32, _BE64, _U16S, _U32S = "text", "=B", "=I", ">Q", "=HH", "=II"
_KNOWN: Final = {
    1: ("dst", ""), 2: ("src", ""), 3: ("iif", _TEXT), 4: ("goto", _U32), 6: ("priority", _U32), 10: ("fwmark", _U32),
    11: ("realms", _U32), 12: ("tun_id", _BE64), 13: ("suppress_ifgroup", _U32), 14: ("suppress_prefixlength", _U32),
    15: ("table", _U32), 16: ("fwmask", _U32), 17: ("oif", _TEXT), 19: ("l3mdev", _U8), 20: ("uidrange", _U32S),
    21: ("protocol", _U8), 22: ("ipproto", _U8), 23: ("sport", _U16S), 24: ("dport", _U16S),
}  # fmt: skip
_SILENT: Final = (0, 18)  # FRA_UNSPEC, FRA_PAD
_WHOLE_PORTS: Final = ((28, b"\xff\xff"), (29, b"\xff\xff"))  # from Linux 6.15 on every single port has its mask


@lru_cache(maxsize=4096)
def decode(payload: bytes) -> PolicyRule:
    """A rule from the payload of RTM_NEWRULE or RTM_DELRULE. Remembered: a dump brings the same ones each time."""
    family, _, _, _, low, _, _, does, _ = _RULE.unpack_from(payload)
    known: dict[str, Any] = {}
    unknown: list[tuple[int, bytes]] = []
    for kind, _, value in attributes(payload, _RULE.size):
        name, form = _KNOWN.get(kind, ("", ""))
        read = _value(form, value, family) if name else None
        if read is not None:
            known[name] = read
        elif kind not in _SILENT and (kind, value) not in _WHOLE_PORTS:
            unknown.append((kind, value))
    priority, table = known.get("priority", 0), known.get("table", low)
    # Linux before 4.17 says nothing of protocols; networkd then takes the stock rules for the kernel's, and so do we.
    protocol = known.get("protocol", RTPROT_KERNEL if (priority, low) in _STOCK else RTPROT_UNSPEC)
    action = f"goto {known.get('goto', 0)}" if does == _GOTO else _ACTIONS.get(does, f"action {does}")
    return PolicyRule(
        family=4 if family == socket.AF_INET else 6,
        priority=priority,
        protocol=protocol,
        selectors=(*_selectors(payload, known), *((f"attribute-{kind}", v.hex()) for kind, v in sorted(unknown))),
        action=action,
        table=table if action == "lookup" else 0,
        payload=payload,
    )


def _value(form: str, value: bytes, family: int) -> int | str | None:
    """The value of an attribute; None where it is not as long as such a value is."""
    if form == _TEXT:
        return printable(os.fsdecode(value.rstrip(b"\0")))
    if not form:
        return socket.inet_ntop(family, value) if len(value) == (4 if family == socket.AF_INET else 16) else None
    if len(value) != struct.calcsize(form):
        return None
    numbers = struct.unpack(form, value)
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]}-{numbers[1]}"


def _selectors(payload: bytes, known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    _, to_length, from_length, tos, *_, flags = _RULE.unpack_from(payload)
    if flags & _INVERT:
        yield "not", ""
    for name, attribute, length in (("from", "src", from_length), ("to", "dst", to_length)):
        if attribute in known:
            yield name, f"{known[attribute]}/{length}"
    if tos:
        yield "tos", f"{tos:#x}"
    mark, mask = known.get("fwmark", 0), known.get("fwmask", 0)
    if mark or mask:
        yield "fwmark", f"{mark:#x}" if mask == _UNSET else f"{mark:#x}/{mask:#x}"
    for name in ("iif", "oif", "uidrange", "ipproto", "sport", "dport", "tun_id", "realms"):
        if name in known:
            yield name, str(known[name])
    if known.get("l3mdev"):
        yield "l3mdev", ""
    for name in ("suppress_prefixlength", "suppress_ifgroup"):
        if known.get(name, _UNSET) != _UNSET:
            yield name, str(known[name])
