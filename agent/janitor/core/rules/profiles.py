"""Profiles: whose rules janitor knows, and how it tells that their owner still wants them.

A profile is data (core/rules/shipped/*.toml, /etc/janitor/profiles.d/*.toml). What no enabled profile matches is never
learned and never restored.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Network
from janitor.core.model.reason import Reason, because
from janitor.core.model.routing import Match, OwnedRule, Profile, Routing, RuleOwner
from janitor.core.model.rules import RTPROT_STATIC, PolicyRule
from janitor.core.model.unknown import Unknown, known, unseen

GONE_S = 600
"""How long, in seconds, the owner's process may be absent (as in an upgrade) before its rules count as left over."""

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class OwnersSeen:
    """What one look saw of the rules' owners."""

    routing: Routing
    configured: tuple[str, ...] | Unknown  # the ranges of their CNI configuration
    blind: bool = False  # the host's processes cannot be seen, so an absent owner proves nothing


def profile_of(rule: PolicyRule, profiles: Sequence[Profile]) -> tuple[Profile, Match] | None:
    """The first enabled profile that matches the rule; None for the kernel's own rules and for priority 0."""
    if rule.priority == 0 or not rule.foreign:
        return None
    for profile in profiles:
        for match in profile.rules:
            if profile.enabled and _matches(rule, match):
                return profile, match
    return None


def _matches(rule: PolicyRule, match: Match) -> bool:
    if match.table and (rule.action != "lookup" or rule.table not in match.table):
        return False
    if match.priority is not None and not match.priority[0] <= rule.priority <= match.priority[1]:
        return False
    suppressed = rule.value("suppress_prefixlength")
    if match.suppress_prefixlength is not None and suppressed != str(match.suppress_prefixlength):
        return False
    for wanted, there in ((match.source, rule.value("from")), (match.fwmark, rule.value("fwmark"))):
        if (wanted in ("any", "pod-range") and not there) or (wanted == "none" and there):
            return False
    return True


def known_rules(routing: Routing) -> list[PolicyRule]:
    """The rules of owners that are running; a static rule of the same shape is not theirs."""
    found = [(rule, profile_of(rule, routing.profiles)) for rule in known(routing.rules)]
    return [
        rule
        for rule, owner in found
        if owner
        and rule.protocol != RTPROT_STATIC
        and (not owner[0].alive.process or running_owners(owner[0], routing))
    ]


def configured_ranges(routing: Routing, networks: tuple[Network, ...] | Unknown) -> tuple[str, ...] | Unknown:
    """The pod ranges in the CNI configuration that the rules' owners maintain."""
    if isinstance(routing.owners, Unknown):
        return routing.owners
    if isinstance(networks, Unknown):
        return networks
    used = {owner.configuration for owner in routing.owners if owner.configuration}
    files = used | {path for profile in routing.profiles for path in profile.alive.configuration}
    unread = sorted(used - {network.source for network in networks})
    if unread:
        return unseen(Code.NO_POD_RANGE_READ, source=unread[0])
    found: list[str] = []
    for network in networks:
        if network.source not in files:
            continue
        if isinstance(network.range_sets, Unknown):
            return network.range_sets
        found += [part.subnet for parts in network.range_sets for part in parts]
    return tuple(dict.fromkeys(found))


def rules_unseen(routing: Routing, networks: tuple[Network, ...] | Unknown) -> tuple[Unknown, ...]:
    """What could not be seen of policy routing, if the CNI configuration of a profile's owner exists on this node."""
    files = {path for profile in routing.profiles for path in profile.alive.configuration}
    if not any(network.source in files for network in known(networks)):
        return ()
    parts = (routing.rules, routing.routes, routing.links, routing.owners, routing.networkd)
    return tuple(dict.fromkeys(part for part in parts if isinstance(part, Unknown)))


def pod_ranges(routing: Routing, configured: tuple[str, ...] | Unknown) -> tuple[str, ...]:
    """The possible pod ranges of the node: those in the CNI configuration, and the prefixes of the pods' bridge."""
    return tuple(dict.fromkeys([*known(configured), *bridge_ranges(routing)]))


def bridge_ranges(routing: Routing) -> tuple[str, ...]:
    """The prefixes of the pods' bridge."""
    found = [
        str(ip_network(address, strict=False))
        for link in known(routing.links)
        if link.name == "kube-bridge"
        for address in link.addresses
        if not ip_network(address, strict=False).is_link_local
    ]
    return tuple(dict.fromkeys(found))


def running_owners(profile: Profile, routing: Routing) -> tuple[RuleOwner, ...]:
    """The running processes of the profile's owner, usually one.

    If there are several, one may be an impostor. So a reason against a rule must hold for all of them: an impostor must
    not suppress a rule that the real owner wants.
    """
    return tuple(m for m in known(routing.owners) if m.name == profile.alive.process)


def not_wanted(
    owned: OwnedRule, seen: OwnersSeen, gone_s: float = 0.0, last: RuleOwner | None = None
) -> tuple[Reason, ...] | Unknown:
    """The reasons why nobody wants the rule any more; empty if it is wanted.

    `gone_s` is how long the owner's process has been absent. `last` is that process when it was last seen: while it
    restarts, its old arguments still count. Unknown if something that the answer depends on could not be seen: then the
    rule must neither be restored nor forgotten.
    """
    rule, profile, match = owned.rule, owned.profile, owned.match
    routing, configured = seen.routing, seen.configured
    if profile.alive.process and isinstance(routing.owners, Unknown):
        return routing.owners
    if match.source == "pod-range" and rule.value("from") not in pod_ranges(routing, configured):
        for part in (configured, routing.links):
            if isinstance(part, Unknown):
                return part
    reasons: list[Reason] = []
    alive, running = profile.alive, running_owners(profile, routing)
    if alive.process and not running and gone_s >= GONE_S:
        reasons.append(because(Code.OWNER_GONE, process=alive.process, seconds=round(gone_s)))
    refusing = (*alive.refused_by, *alive.refused_by_family.get(str(rule.family), ()))
    said = running or ((last,) if last is not None else ())
    refused = [next((word for word in refusing if _has_flag(one.arguments, word)), "") for one in said]
    if refused and all(refused):
        reasons.append(because(Code.OWNER_REFUSES, process=alive.process, flag=refused[0]))
    if alive.configuration and running and not any(one.configuration for one in running):
        reasons.append(because(Code.OWNER_CONFIGURATION_GONE, path=alive.configuration[0]))
    if match.source == "pod-range":
        ranges = pod_ranges(routing, configured)
        if rule.value("from") not in ranges:
            reasons.append(
                because(Code.NOT_A_POD_RANGE, range=str(rule.value("from")), ranges=ranges or ("none known",))
            )
    return tuple(reasons)


def not_asked_for(rule: PolicyRule, profile: Profile, routing: Routing) -> tuple[Reason, ...]:
    """Why the owner makes no rules of this family, by its arguments. Needed where none was ever seen."""
    flag = profile.alive.asked_by_family.get(str(rule.family), "")
    if not flag or any(_has_flag(one.arguments, flag) for one in running_owners(profile, routing)):
        return ()
    return (because(Code.OWNER_NOT_ASKED, process=profile.alive.process, flag=flag),)


def not_in_use(profile: Profile, routing: Routing, *, blind: bool = False) -> tuple[Reason, ...] | Unknown:
    """What is missing of the owner, and of the routes and links that its rules lead to; Unknown if not all was seen.

    Needed where the deleter is unknown. `blind`: the host's processes cannot be seen, so no process is required.
    """
    for part in (routing.links, routing.routes, () if blind else routing.owners):
        if isinstance(part, Unknown):
            return part
    reasons: list[Reason] = []
    if not blind and profile.alive.process and not running_owners(profile, routing):
        reasons.append(because(Code.OWNER_NOT_RUNNING, process=profile.alive.process))
    up = {link.name for link in known(routing.links) if link.up}
    if profile.alive.link and not any(re.fullmatch(profile.alive.link, name) for name in up):
        reasons.append(because(Code.NO_LINK_UP, link=profile.alive.link))
    for table in profile.alive.tables:
        routes = [route for route in known(routing.routes) if route.table == table]
        if not routes:
            reasons.append(because(Code.TABLE_EMPTY, table=table))
        elif not any(route.device in up for route in routes):
            reasons.append(because(Code.TABLE_LINKS_DOWN, table=table))
    return tuple(reasons)


def _has_flag(arguments: tuple[str, ...], flag: str) -> bool:
    """Whether `--name=value` is in effect: Go's pflag uses the last one."""
    name, _, value = flag.partition("=")
    given = [word.partition("=")[2] or "true" for word in arguments if word.partition("=")[0] == name]
    return bool(given) and _boolean(given[-1]) == _boolean(value or "true")


def _boolean(text: str) -> str:
    """The text as Go's strconv.ParseBool reads it: "true" or "false"; anything else is returned unchanged."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return "true"
    return "false" if text in ("0", "f", "F", "false", "FALSE", "False") else text
