"""Whether systemd-networkd deleted rules that are gone without anybody having seen the deletion.

Needed after a restart of janitor, after lost events, and if the deleter cannot be seen. Three conditions must hold, or
the rule is only reported: networkd was at work in the unwatched time, it left nothing that it would have deleted too,
and the rule's owner is alive and uses the rule.
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
"""How old a record of rules that come and go with pods may be."""


@dataclass(frozen=True, slots=True)
class Unwatched:
    """The unwatched time, and the rules at both of its ends. Times are since the epoch."""

    before: tuple[PolicyRule, ...]  # all foreign rules at `since_ns`
    there: tuple[PolicyRule, ...]  # the rules now
    since_ns: int
    now_ns: int
    clock_set: bool = False  # the wall clock was set since then


def missing_evidence(owned: OwnedRule, seen: OwnersSeen, unwatched: Unwatched) -> tuple[Reason, ...] | Unknown:
    """What speaks against networkd as the deleter; empty if nothing does. Unknown if not everything could be seen."""
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
    """Why systemd-networkd cannot have deleted rules since `since_ns` (current wall clock), or why that is unknown.

    `process`: the process whose start `since_ns` is; "" if it is the time of the record.
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
    """Whether networkd has started, or configured a link, since then.

    It rewrites the state file of a link when it configures it, and that of an unmanaged link when it appears. The
    file's time is by the clock of that moment and proves nothing if the clock was set.
    """
    started = networkd.pid and networkd.started_ns > since_ns
    ours = [link for link in networkd.links if link.network_file and link.state in _CONFIGURED]
    return bool(started) or any(not clock_set and link.changed_ns > since_ns for link in ours)


def left_over(rules: Sequence[PolicyRule], routing: Routing) -> list[Reason]:
    """As a reason, the remaining rules that networkd would have deleted too. Rules that may have come back do not
    count.

    Rules that a .network file declares are `proto static`; networkd keeps them.
    """
    left = [rule for rule in rules if rule.foreign and rule.protocol != RTPROT_STATIC and not _heals(rule, routing)]
    if not left:
        return []
    return [because(Code.OTHER_RULES_LEFT, rules=tuple(str(rule) for rule in left))]


def _heals(rule: PolicyRule, routing: Routing) -> bool:
    found = profile_of(rule, routing.profiles)
    return found is not None and found[1].self_heals_after is not None
