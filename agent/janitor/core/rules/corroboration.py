"""Whether rules that are gone, and that nobody was seen to delete, were deleted by systemd-networkd.

Asked after our own restart, after events were lost, and where the deleter is out of sight. Then three things have to
come together, or the rule is only reported: networkd was at work in the time nobody watched, it has left nothing that
it would have deleted, and the owner of the rule is alive and has a use for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.reason import Reason, because
from janitor.core.model.routing import Networkd, OwnedRule, Routing
from janitor.core.model.rules import RTPROT_STATIC, PolicyRule
from janitor.core.rules.networkd import deletes
from janitor.core.rules.profiles import OwnersSeen, not_in_use, not_wanted, profile_of

_CONFIGURED = ("configuring", "configured", "failed")
DYNAMIC_S = 600
"""How old a note of rules may be that come and go with pods."""


@dataclass(frozen=True, slots=True)
class Unwatched:
    """The time in which nobody watched, and the rules at both of its ends. Times are since the epoch."""

    before: tuple[PolicyRule, ...]  # all foreign rules as they were at `since_ns`
    there: tuple[PolicyRule, ...]  # and what is there now
    since_ns: int
    now_ns: int
    clock_set: bool = False  # the wall clock was set since then


def missing_evidence(owned: OwnedRule, seen: OwnersSeen, unwatched: Unwatched) -> tuple[Reason, ...] | Unknown:
    """What speaks against networkd; nothing if all speaks for it. Unknown where not all could be seen."""
    profile, routing, since_ns = owned.profile, seen.routing, unwatched.since_ns
    wanted, used = not_wanted(owned, seen), not_in_use(profile, routing, blind=seen.blind)
    if isinstance(routing.networkd, Unknown):
        return routing.networkd
    if isinstance(wanted, Unknown):
        return wanted
    if isinstance(used, Unknown):
        return used
    reasons: list[Reason] = []
    if profile.dynamic and unwatched.now_ns - since_ns > DYNAMIC_S * 1_000_000_000:
        reasons.append(because(Code.RULE_NOTE_TOO_OLD, seconds=DYNAMIC_S, owner=profile.title))
    reasons += not_at_work(routing, since_ns, "", clock_set=unwatched.clock_set)
    present = {one.exact for one in unwatched.there}
    reasons += left_over([one for one in unwatched.before if one.exact in present], routing)
    return tuple(dict.fromkeys([*reasons, *wanted, *used]))


def not_at_work(routing: Routing, since_ns: int, process: str, *, clock_set: bool = False) -> list[Reason]:
    """Why systemd-networkd has not deleted rules since that time (by today's wall clock), or whether is not known.

    `process` is whose start that time is; "" for the time of the note.
    """
    if isinstance(routing.networkd, Unknown):
        return [because(Code.NETWORKD_NOT_SEEN, routing.networkd.reason)]
    since = f"since {process} started" if process else "since then"
    running = [networkd for networkd in routing.networkd if _at_work_since(networkd, since_ns, clock_set=clock_set)]
    if not running and clock_set:
        return [because(Code.NETWORKD_NOT_STARTED, since=since)]
    if not running:
        return [because(Code.NETWORKD_NOT_AT_WORK, since=since)]
    off = [networkd for networkd in running if not deletes(networkd)]
    return [because(Code.NETWORKD_KEEPS_RULES)] if off else []


def _at_work_since(networkd: Networkd, since_ns: int, *, clock_set: bool) -> bool:
    """Whether it has started, or has configured a link, since.

    It rewrites the state of a link when it configures it; of links that it does not manage as well, when they appear.
    A file's time is by the clock of then, and may lie anywhere where that was set.
    """
    started = networkd.pid and networkd.started_ns > since_ns
    ours = [link for link in networkd.links if link.network_file and link.state in _CONFIGURED]
    return bool(started) or any(not clock_set and link.changed_ns > since_ns for link in ours)


def left_over(rules: Sequence[PolicyRule], routing: Routing) -> list[Reason]:
    """The rules that it would have deleted as well, as a reason; what may be back by itself is none.

    What a .network file declares is `proto static`; networkd keeps that.
    """
    left = [rule for rule in rules if rule.foreign and rule.protocol != RTPROT_STATIC and not _heals(rule, routing)]
    if not left:
        return []
    return [because(Code.OTHER_RULES_LEFT, rules=tuple(str(rule) for rule in left))]


def _heals(rule: PolicyRule, routing: Routing) -> bool:
    found = profile_of(rule, routing.profiles)
    return found is not None and found[1].self_heals_after is not None
