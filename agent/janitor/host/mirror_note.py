"""What the daemon writes down of the policy rules it keeps, for its successor in the same boot, and for `scan`."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from janitor.core.evidence import Clock
from janitor.core.mirror import Kept
from janitor.core.routing import Breaker
from janitor.core.rules import PolicyRule
from janitor.host import state
from janitor.host.netlink import decode, whole
from janitor.host.node import Node


@dataclass(frozen=True, slots=True)
class KeptNote:
    """One rule of the mirror, as it was written down."""

    rule: PolicyRule
    ours: bool
    owed: bool
    times: tuple[int, ...]
    broken_ns: int


@dataclass(frozen=True, slots=True)
class Note:
    """The mirror as it was `at` that time, and every foreign rule there was then."""

    namespace: int
    at: Clock
    foreign: tuple[PolicyRule, ...]
    kept: tuple[KeptNote, ...]
    counts: dict[str, int]


def write(
    node: Node,
    namespace: int,
    at: Clock,
    foreign: Iterable[PolicyRule],
    kept: Iterable[Kept],
    counts: dict[str, int],
) -> None:
    """Write it down, whole or not at all. OSError where that fails."""
    document = {
        "namespace": namespace,
        "at": at.realtime_ns,
        "boottime": at.boottime_ns,
        "foreign": [rule.payload.hex() for rule in foreign],
        "kept": [
            {
                "rule": one.rule.payload.hex(),
                "ours": one.ours,
                "owed": bool(one.owed_ns),
                "times": one.times,
                "broken_ns": one.broken_ns,
            }
            for one in kept
        ],
        "counts": counts,
    }
    state.write_rules(node, document)


def read(node: Node) -> Note | None:
    """The note of this boot; None where there is none. ValueError for one that no janitor wrote."""
    document = state.read_rules(node)
    if not document:
        return None
    try:
        return Note(
            int(document["namespace"]),
            Clock(int(document["at"]), int(document["boottime"])),
            tuple(_rule(text) for text in document["foreign"]),
            tuple(
                KeptNote(
                    _rule(one["rule"]), bool(one["ours"]), bool(one["owed"]), tuple(int(at) for at in one["times"]),
                    int(one["broken_ns"]),
                )
                for one in document["kept"]
            ),
            {str(name): int(number) for name, number in document["counts"].items()},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, struct.error) as error:
        raise ValueError(f"{state.RULES} is none of janitor's: {error!r}") from None


def _rule(text: str) -> PolicyRule:
    """ValueError where it is not a whole payload: a note may have been cut, and what it says goes into the kernel."""
    payload = bytes.fromhex(text)
    if not whole(payload):
        raise ValueError("a rule in it is cut short")
    return decode(payload)


def open_breakers(node: Node) -> tuple[Breaker, ...]:
    """The rules that the daemon has given up for now."""
    try:
        note = read(node)
    except ValueError:
        return ()
    kept = note.kept if note is not None else ()
    return tuple(Breaker(one.rule, len(one.times), one.broken_ns) for one in kept if one.broken_ns)
