"""The daemon's note of the policy rules it keeps, for its successor in the same boot and for `scan`."""

import struct
from dataclasses import dataclass
from typing import Final, get_args

from janitor.core.model.evidence import Clock, Unknown
from janitor.core.model.routing import Breaker
from janitor.core.model.rules import PolicyRule
from janitor.core.rules.rule_memory import Deleter, RuleCounts, RuleMemory
from janitor.host.changes import state
from janitor.host.kernel.netlink import decode, whole
from janitor.host.node import Node

_RESTORED: Final = "restored "
_DELETED: Final = "deleted by "
"""Prefixes of the counters' names in the file."""


@dataclass(frozen=True, slots=True)
class KeptNote:
    """One rule of the mirror, as recorded."""

    rule: PolicyRule
    ours: bool
    pending_restore: bool
    times: tuple[int, ...]
    broken_ns: int


@dataclass(frozen=True, slots=True)
class Note:
    """The mirror at the time `at`, and every foreign rule that existed then."""

    namespace: int
    at: Clock
    foreign: tuple[PolicyRule, ...]
    kept: tuple[KeptNote, ...]
    counts: RuleCounts


@dataclass(frozen=True, slots=True)
class Place:
    """What a note belongs to: the node, in this boot, and the inode of its network namespace."""

    node: Node
    namespace: int


def write(place: Place, memory: RuleMemory, now: Clock) -> None:
    """Write the whole note or nothing; does nothing if the boot ID is not known. OSError."""
    if isinstance(place.node.boot_id, Unknown):
        return
    at = memory.since if memory.undecided else now
    document = {
        "namespace": place.namespace,
        "at": at.realtime_ns,
        "boottime": at.boottime_ns,
        "foreign": [rule.payload.hex() for rule in memory.before.values()],
        "kept": [
            {
                "rule": one.rule.payload.hex(),
                "ours": one.ours,
                "owed": bool(one.pending_since_ns),
                "times": one.times,
                "broken_ns": one.broken_ns,
            }
            for one in memory.mirror.kept
        ],
        "counts": _counted(memory.counts),
    }
    state.write_rules(place.node, document)


def read(node: Node) -> Note | None:
    """The note of this boot; None if there is none. ValueError if janitor has not written it."""
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
            _counts(document["counts"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, struct.error) as error:
        raise ValueError(f"{state.RULES} was not written by janitor: {error!r}") from None


def read_here(place: Place) -> Note | None:
    """The note of this boot and this network namespace; None if there is none. ValueError as above."""
    note = None if isinstance(place.node.boot_id, Unknown) else read(place.node)
    return note if note is not None and note.namespace == place.namespace else None


def _counted(counts: RuleCounts) -> dict[str, int]:
    restored = {f"{_RESTORED}{profile}": number for profile, number in counts.restored.items()}
    return restored | {f"{_DELETED}{by}": number for by, number in counts.deleted.items()}


def _counts(document: dict[str, int]) -> RuleCounts:
    counts = RuleCounts()
    for name, number in document.items():
        if name.startswith(_RESTORED):
            counts.restored[name.removeprefix(_RESTORED)] = int(number)
    for by in get_args(Deleter):
        if f"{_DELETED}{by}" in document:
            counts.deleted[by] = int(document[f"{_DELETED}{by}"])
    return counts


def _rule(text: str) -> PolicyRule:
    """ValueError if the payload is not whole: a note may have been truncated, and its rules go into the kernel."""
    payload = bytes.fromhex(text)
    if not whole(payload):
        raise ValueError("a rule in it is truncated")
    return decode(payload)


def open_breakers(node: Node) -> tuple[Breaker, ...]:
    """The rules that the daemon has given up for the time being."""
    try:
        note = read(node)
    except ValueError:
        return ()
    kept = note.kept if note is not None else ()
    return tuple(Breaker(one.rule, len(one.times), one.broken_ns) for one in kept if one.broken_ns)
