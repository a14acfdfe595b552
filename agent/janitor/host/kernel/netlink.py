"""The kernel's policy rules, over rtnetlink(7): dump, watch, add and delete.

pyroute2 decodes them; other dumps are in host/kernel/iproute.py. Rules have a raw socket of their own for two reasons.
They are written back exactly as the kernel sent them, including attributes unknown here. And a pyroute2 socket is
unusable after one ENOBUFS (svinota/pyroute2#1034), which for us only means that another dump is due.
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pyroute2.netlink.rtnl.fibmsg import fibmsg

from janitor.core.model.rules import RTPROT_KERNEL, RTPROT_UNSPEC, Family, PolicyRule
from janitor.host.files import printable

_NEWRULE, _DELRULE, _GETRULE, _ERROR, _DONE = 32, 33, 34, 2, 3
_REQUEST, _ACK, _ECHO, _EXCL, _CREATE, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x4, 0x8, 0x200, 0x400, 0x300, 0x10
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_RULE = struct.Struct("=8BI")  # struct fib_rule_hdr
_ATTRIBUTE = struct.Struct("=HH")
_FAMILIES: Final[dict[int, Family]] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_GROUPS: Final = (8, 19)  # RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE, _BUFFER = 33, 8 << 20
_INVERT: Final = 2
_PROTOCOL: Final = 21
_ADDRESSES: Final = (1, 2)  # FRA_DST, FRA_SRC
_UNSET: Final = 0xFFFFFFFF  # the kernel's value for a suppressor that is not set
_ACTIONS: Final = {1: "lookup", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_STOCK: Final = ((0, 255), (32766, 254), (32767, 253))  # priority and table of local, main, default
_LONGEST_NS: Final = 100_000_000
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Event:
    """A rule was added or deleted by the owner of the netlink port `port`; 0 is the kernel itself."""

    made: bool
    rule: PolicyRule
    port: int


class Interrupted(OSError):  # noqa: N818 (that is what it is)
    """The rules changed during every attempt of a dump, or messages were lost. Dump again for the current rules."""


class RuleSocket:
    """Dumps, adds and deletes rules. With `watch`, a second socket reports every change.

    Belongs to the network namespace of the thread that makes it. Raises OSError from the kernel.
    """

    def __init__(self, *, watch: bool = False) -> None:
        self._talk = self._open()
        self.port: int = self._talk.getsockname()[0]
        self._watch: socket.socket | None = None
        if watch:
            self._watch = self._open()
            try:
                self._watch.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:
                self._watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            for group in _GROUPS:
                self._watch.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            self._watch.setblocking(False)

    @staticmethod
    def _open() -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        opened.bind((0, 0))
        # Other processes with CAP_NET_ADMIN can send messages, too, with any port in them. To a connected socket, only
        # the kernel can; messages to a group still come from anybody.
        opened.connect((0, 0))
        return opened

    def fileno(self) -> int:
        """The watching socket, for select; -1 without one."""
        return -1 if self._watch is None else self._watch.fileno()

    def close(self) -> None:
        """Close both sockets."""
        self._talk.close()
        if self._watch is not None:
            self._watch.close()

    def events(self) -> Iterator[Event]:
        """The changes since the last call. Interrupted if the kernel had to drop some of them.

        Returns after 0.1 s even if there are more: rules can be made faster than they are read.
        """
        until = time.monotonic_ns() + _LONGEST_NS
        while self._watch is not None and time.monotonic_ns() < until:
            try:
                data, sender = self._watch.recvfrom(1 << 18)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Interrupted(errno.ENOBUFS, "the kernel returned more rules than were read") from None
                raise
            if sender[0] != 0:
                continue  # not from the kernel
            for kind, _, port, payload in _messages(data):
                if kind in (_NEWRULE, _DELRULE) and payload[0] in _FAMILIES:
                    yield Event(kind == _NEWRULE, decode(payload), port)

    def dump(self) -> tuple[PolicyRule, ...]:
        """Every rule of both families, in the kernel's order. Interrupted if the rules changed during each attempt."""
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
        self._talk.send(_HEADER.pack(28, _GETRULE, _REQUEST | _DUMP, 1, 0) + _RULE.pack(family, *[0] * 8))
        rules: list[PolicyRule] = []
        whole = True
        while True:
            for kind, flags, _, payload in _messages(self._talk.recv(1 << 18)):
                whole = whole and not flags & _DUMP_INTERRUPTED
                if kind == _DONE:
                    return rules if whole else None
                if kind == _ERROR:
                    raise _error(payload)
                if kind == _NEWRULE:
                    rules.append(decode(payload))

    def add(self, rule: PolicyRule) -> PolicyRule:
        """Add the rule exactly as it was, with its `protocol`. Returns it with the priority that the kernel assigned.

        FileExistsError if it exists.
        """
        flags = _REQUEST | _ACK | _ECHO | _CREATE
        try:
            return self._ask(_NEWRULE, flags | _EXCL, _payload(rule)) or rule
        except FileExistsError:
            # The kernel compares only the attributes that the new rule has: a narrower rule of the same priority and
            # table counts as the same one (net/core/fib_rules.c, rule_exists).
            if any(one.exact == rule.exact for one in self.dump()):
                raise
            return self._ask(_NEWRULE, flags, _payload(rule)) or rule

    def remove(self, rule: PolicyRule) -> None:
        """Delete the rule. FileNotFoundError if it does not exist."""
        self._ask(_DELRULE, _REQUEST | _ACK, _payload(rule))

    def _ask(self, kind: int, flags: int, payload: bytes) -> PolicyRule | None:
        self._talk.send(_HEADER.pack(_HEADER.size + len(payload), kind, flags, 2, 0) + payload)
        echo: PolicyRule | None = None
        while True:
            for answer, _, _, said in _messages(self._talk.recv(1 << 16)):
                if answer == kind:
                    echo = decode(said)
                elif answer == _ERROR:
                    if struct.unpack_from("=i", said)[0]:
                        raise _error(said)
                    return echo


def _error(payload: bytes) -> OSError:
    number = -struct.unpack_from("=i", payload)[0]
    return OSError(number, os.strerror(number))


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, port, payload) of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, port, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(payload: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, offset of the value, value) of each attribute of a rule."""
    offset = _RULE.size
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind, offset + 4, payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def whole(payload: bytes) -> bool:
    """Whether the payload ends with its last attribute, and its addresses have the length for its family."""
    end, size = _RULE.size, 4 if payload[:1] == bytes([socket.AF_INET]) else 16
    for kind, offset, value in _attributes(payload):
        if kind in _ADDRESSES and len(value) != size:
            return False
        end = offset + ((len(value) + 3) & ~3)
    return len(payload) >= _RULE.size and payload[0] in _FAMILIES and end - 3 <= len(payload) <= end


def _payload(rule: PolicyRule) -> bytes:
    """The payload that makes this rule: the kernel's own, with the protocol of `rule`, without computed flags.

    Only the flag FIB_RULE_INVERT is part of a rule. The kernel would keep the other flags forever: a rule whose
    interface was missing when it was read would be shown as detached even after the interface has appeared.
    """
    payload = bytearray(rule.payload)
    struct.pack_into("=I", payload, 8, struct.unpack_from("=I", payload, 8)[0] & _INVERT)
    for kind, offset, _ in _attributes(rule.payload):
        if kind == _PROTOCOL:
            payload[offset] = rule.protocol
    return bytes(payload)


@lru_cache(maxsize=1 << 16)
def decode(payload: bytes) -> PolicyRule:
    """A rule from the payload of RTM_NEWRULE or RTM_DELRULE. Cached: each dump brings the same payloads."""
    message = fibmsg(_HEADER.pack(_HEADER.size + len(payload), _NEWRULE, 0, 0, 0) + payload)
    message.decode()
    known = {name: value for name, value in message["attrs"] if name.startswith("FRA_")}
    # Before Linux 4.17, rules have no protocol. networkd then takes the stock rules for the kernel's; so do we.
    stock = (known.get("FRA_PRIORITY", 0), message["table"]) in _STOCK
    protocol = int(known.get("FRA_PROTOCOL", RTPROT_KERNEL if stock else RTPROT_UNSPEC))
    action = _ACTIONS.get(message["action"], f"action {message['action']}")
    if message["action"] == 2:
        action = f"goto {known.get('FRA_GOTO', 0)}"
    return PolicyRule(
        family=4 if message["family"] == socket.AF_INET else 6,
        priority=int(known.get("FRA_PRIORITY", 0)),
        protocol=protocol,
        selectors=tuple(_selectors(message, known, payload)),
        action=action,
        table=int(known.get("FRA_TABLE", message["table"])) if action == "lookup" else 0,
        payload=payload,
    )


def _selectors(message: Any, known: dict[str, Any], payload: bytes) -> Iterator[tuple[str, str]]:
    if message["flags"] & _INVERT:
        yield "not", ""
    for name, attribute, length in (("from", "FRA_SRC", "src_len"), ("to", "FRA_DST", "dst_len")):
        if attribute in known:
            yield name, f"{known[attribute]}/{message[length]}"
    if message["tos"]:
        yield "tos", f"{message['tos']:#x}"
    mark, mask = known.get("FRA_FWMARK", 0), known.get("FRA_FWMASK", 0)
    if mark or mask:
        yield "fwmark", f"{mark:#x}" if mask == _UNSET else f"{mark:#x}/{mask:#x}"
    for name, attribute in (
        ("iif", "FRA_IIFNAME"), ("oif", "FRA_OIFNAME"), ("uidrange", "FRA_UID_RANGE"), ("ipproto", "FRA_IP_PROTO"),
        ("sport", "FRA_SPORT_RANGE"), ("dport", "FRA_DPORT_RANGE"), ("tun_id", "FRA_TUN_ID"), ("realms", "FRA_FLOW"),
    ):  # fmt: skip
        if attribute in known:
            word = printable(str(known[attribute]))
            yield name, word.replace(":", "-") if attribute.endswith("RANGE") else word
    if known.get("FRA_L3MDEV"):
        yield "l3mdev", ""
    for name in ("suppress_prefixlength", "suppress_ifgroup"):
        value = known.get("FRA_SUPPRESS_PREFIXLEN" if name == "suppress_prefixlength" else "FRA_SUPPRESS_IFGROUP")
        if value is not None and value != _UNSET:
            yield name, str(value)
    understood = {number for number, _, _ in fibmsg.nla_map}
    for kind, _, value in sorted(_attributes(payload)):
        if kind not in understood:
            yield f"attribute-{kind}", value.hex()
