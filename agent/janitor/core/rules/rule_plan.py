"""Which of kube-router's rules are gone, and whether janitor may restore them without having seen them before.

Nothing was watched here, so a rule is derived from the node's pod ranges and from a populated table that no rule looks
up. That takes more evidence than a live mirror does, and every missing piece of evidence is reported.
"""

from janitor.core.model.action import Action, Plan, Refusal, RestoreRule
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known
from janitor.core.model.reason import Reason, because
from janitor.core.model.routing import OwnedRule, Routing
from janitor.core.model.rules import RTPROT_KERNEL, RTPROT_UNSPEC, derived
from janitor.core.rules.corroboration import left_over, not_at_work
from janitor.core.rules.profiles import (
    OwnersSeen,
    bridge_ranges,
    configured_ranges,
    not_asked_for,
    not_in_use,
    not_wanted,
    running_owners,
)

GoneRule = OwnedRule
"""A missing rule of a profile that leads a pod range to a populated table, as its owner would make it."""


def gone_rules(seen: OwnersSeen) -> list[GoneRule]:
    """Every missing rule that its owner must have made, given the routes that it serves."""
    routing, configured = seen.routing, seen.configured
    if isinstance(routing.rules, Unknown) or isinstance(routing.routes, Unknown):
        return []
    found: list[GoneRule] = []
    for profile in routing.profiles:
        for match in profile.rules:
            if match.source != "pod-range" or isinstance(routing.owners, Unknown):
                continue
            for table in match.table:
                families = {route.family for route in routing.routes if route.table == table}
                # Both sources are needed: kube-router never removes an old range from its configuration.
                ranges = [source for source in bridge_ranges(routing) if source in known(configured)]
                protocol = RTPROT_KERNEL if profile.protocol == "kernel" else RTPROT_UNSPEC
                wanted = [derived(source, table, protocol) for source in ranges]
                owned = [GoneRule(rule, profile, match) for rule in wanted if rule.family in families]
                found += [
                    one
                    for one in owned
                    if not any(there.identity == one.rule.identity for there in routing.rules)
                    and not_wanted(one, seen) == ()
                ]
    return found


def plan_rules(evidence: Evidence) -> Plan:
    """A restoration for each missing rule if all evidence points to networkd; else a refusal with what does not."""
    routing = evidence.routing
    seen = OwnersSeen(routing, configured_ranges(routing, evidence.networks))
    boot_ns = evidence.started.realtime_ns - evidence.started.boottime_ns
    actions: list[Action] = []
    refusals: list[Refusal] = []
    for gone in gone_rules(seen):
        missing = _missing(gone, routing, boot_ns, evidence.clock_set_ns)
        if missing:
            refusals.append(Refusal(gone.rule.words, (*missing, because(Code.BY_HAND, command=gone.rule.adding.text))))
            continue
        proof = (
            because(Code.TABLE_NOT_LOOKED_UP, table=gone.rule.table),
            because(Code.OWNER_RUNS, process=gone.profile.alive.process),
            because(Code.NETWORKD_AT_WORK),
        )
        actions.append(RestoreRule(gone.rule.words, gone.rule.payload.hex(), proof))
    return Plan(tuple(actions), tuple(refusals))


def _missing(gone: GoneRule, routing: Routing, boot_ns: int, clock_set_ns: int | Unknown) -> list[Reason]:
    """What speaks against networkd having deleted the rule, or is unknown (kube-router#1815, k0s#5623)."""
    reasons: list[Reason] = []
    # The youngest of several owners decides: networkd must have been at work since all of them started.
    started_ns = max((one.started_ns for one in running_owners(gone.profile, routing)), default=0)
    since = boot_ns + started_ns if started_ns else 0
    clock_set = isinstance(clock_set_ns, Unknown) or clock_set_ns > started_ns
    reasons += not_at_work(routing, since, gone.profile.alive.process, clock_set=clock_set)
    reasons += left_over(known(routing.rules), routing)
    same = [rule for rule in known(routing.rules) if rule.value("from") == gone.rule.value("from")]
    if same:
        reasons.append(because(Code.OTHER_RULE, rule=str(same[0])))
    unused = not_in_use(gone.profile, routing)
    unused = (because(Code.TABLE_USE_NOT_SEEN, unused.reason),) if isinstance(unused, Unknown) else unused
    return [*reasons, *not_asked_for(gone.rule, gone.profile, routing), *unused]
