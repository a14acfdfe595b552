"""Which of kube-router's rules are gone, and whether janitor may make them anew without having seen them.

Nobody has watched here, so a rule is derived: from the node's pod ranges, and the table that is populated and that
nothing looks up any more. That takes more evidence than a live mirror needs, and every piece that is missing is said.
"""

from dataclasses import dataclass

from janitor.core.action import Action, Plan, Refusal
from janitor.core.corroboration import at_work_since
from janitor.core.evidence import Evidence, Unknown, known
from janitor.core.profiles import bridge_ranges, configured_ranges, maker, not_in_use, not_wanted, profile_of
from janitor.core.prose import listing
from janitor.core.routing import Match, Profile, Routing
from janitor.core.rules import RTPROT_STATIC, PolicyRule, derived


@dataclass(frozen=True, slots=True)
class GoneRule:
    """A rule of a profile that leads a pod range to a populated table, and is not there."""

    rule: PolicyRule  # as it would be made
    profile: Profile
    match: Match


def gone_rules(routing: Routing, configured: tuple[str, ...]) -> list[GoneRule]:
    """Every rule that an owner who runs must have made, by the routes that it serves, and that is not there."""
    if isinstance(routing.rules, Unknown) or isinstance(routing.routes, Unknown):
        return []
    found: list[GoneRule] = []
    for profile in routing.profiles:
        for match in profile.rules:
            if match.source != "pod-range" or maker(profile, routing) is None:
                continue
            for table in match.table:
                families = {route.family for route in routing.routes if route.table == table}
                # Both must say so: kube-router never takes an old range out of its configuration.
                wanted = [derived(source, table) for source in bridge_ranges(routing) if source in configured]
                found += [
                    GoneRule(rule, profile, match)
                    for rule in wanted
                    if rule.family in families
                    and not any(one.identity == rule.identity for one in routing.rules)
                    and not not_wanted(rule, profile, match, routing, configured)
                ]
    return found


def plan_rules(evidence: Evidence) -> Plan:
    """An action for each rule that is gone, if everything speaks for networkd; else a refusal with what does not."""
    routing = evidence.routing
    configured = configured_ranges(routing, evidence.networks)
    boot_ns = evidence.started.realtime_ns - evidence.started.boottime_ns
    actions: list[Action] = []
    refusals: list[Refusal] = []
    for gone in gone_rules(routing, configured):
        missing = _missing(gone, routing, boot_ns)
        if missing:
            refusals.append(Refusal(gone.rule.words, "; ".join(missing)))
            continue
        proof = (
            f"table {gone.rule.table} has routes on links that are up, and nothing looks it up for these pods",
            f"{gone.profile.alive.process} runs, and makes this rule only when it starts",
            "systemd-networkd has been at work since, and no other foreign rule is left",
        )
        actions.append(Action("restore", "", gone.rule.words, "", "", "", proof, content=gone.rule.payload.hex()))
    return Plan(tuple(actions), tuple(refusals))


def _missing(gone: GoneRule, routing: Routing, boot_ns: int) -> list[str]:
    """What speaks against networkd having deleted it, or is not known (facts: kube-router#1815, k0s#5623)."""
    reasons: list[str] = []
    running = maker(gone.profile, routing)
    since = boot_ns + running.started_ns if running is not None else 0
    if isinstance(routing.networkd, Unknown):
        reasons.append(f"whether systemd-networkd was at work is not known: {routing.networkd.reason}")
    elif not any(at_work_since(networkd, since) for networkd in routing.networkd):
        reasons.append(f"systemd-networkd has done nothing since {gone.profile.alive.process} started")
    left = [rule for rule in known(routing.rules) if rule.foreign and rule.protocol != RTPROT_STATIC]
    left = [rule for rule in left if not _heals(rule, routing)]
    if left:
        those = listing([str(rule) for rule in left])
        reasons.append(f"systemd-networkd would have deleted these as well, and they are there: {those}")
    same = [rule for rule in known(routing.rules) if rule.value("from") == gone.rule.value("from")]
    if same:
        reasons.append(f"there is another rule for the same pods: {same[0]}")
    return [*reasons, *not_in_use(gone.profile, routing)]


def _heals(rule: PolicyRule, routing: Routing) -> bool:
    """Whether it may be there although networkd has deleted it, because its owner makes it again by itself.

    Of a dual-stack node's two rules one may be back already as well.
    """
    found = profile_of(rule, routing.profiles)
    return found is not None and (found[1].self_heals_after is not None or found[1].source == "pod-range")
