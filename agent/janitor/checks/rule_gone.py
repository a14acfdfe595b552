"""RULE001: kube-router's rule is gone: its table is populated, but no rule looks it up."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import Evidence, known
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import NEW_LINE, Command, Fix, Part
from janitor.core.model.routing import Routing
from janitor.core.model.text import count
from janitor.core.rules.networkd import RULES, is_off
from janitor.core.rules.profiles import OwnersSeen, configured_ranges, running_owners
from janitor.core.rules.rule_plan import GoneRule, gone_rules, plan_rules


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding per profile."""
    routing = evidence.routing
    by_profile: dict[str, list[GoneRule]] = {}
    for gone in gone_rules(OwnersSeen(routing, configured_ranges(routing, evidence.networks))):
        by_profile.setdefault(gone.profile.title, []).append(gone)
    would = {action.name for action in plan_rules(evidence).actions}
    for title, rules in by_profile.items():
        yield Finding.of(
            id=FindingId.RULE001,
            subject=title,
            summary=f"{title}'s {'rule is' if len(rules) == 1 else 'rules are'} gone: {_words(rules)}",
            evidence=tuple(dict.fromkeys(line for gone in rules for line in _evidence(gone, routing))),
            explanation=(
                "Pods no longer reach the API server or other nodes: without the rule their packets leave through the "
                "wrong interface, or not at all, with addresses that the network between the nodes does not know. "
                "kube-router adds the rule only when it starts (cloudnativelabs/kube-router#1815), but "
                "systemd-networkd deletes it whenever it configures a link."
            ),
            fix=_fix(rules, would, routing),
        )


def _fix(rules: list[GoneRule], would: set[str], routing: Routing) -> Fix:
    """What helps now, then what prevents a repetition."""
    owner = rules[0].profile.alive.process
    if not running_owners(rules[0].profile, routing):
        parts: list[str | Part] = [f"start {owner}, which then adds them; until then, by hand:"]
    elif would >= {gone.rule.words for gone in rules}:
        parts = [Command("janitor clean --only rules"), ", or by hand:"]
    else:
        why = Command("janitor clean --only rules --dry-run")
        parts = ["by hand ('", why, "' shows why janitor would not do it):"]
    parts += [part for gone in rules for part in (NEW_LINE, gone.rule.adding)]
    if not all(is_off(networkd, RULES) for networkd in known(routing.networkd)):
        parts += [NEW_LINE, Command("janitor clean --fix networkd", "so that it does not happen again")]
    return Fix.of(*parts)


def _words(rules: list[GoneRule]) -> str:
    return ", ".join(gone.rule.words for gone in rules)


def _evidence(gone: GoneRule, routing: Routing) -> Iterator[str]:
    table, family = gone.rule.table, gone.rule.family
    routes = [route for route in known(routing.routes) if (route.table, route.family) == (table, family)]
    devices = ", ".join(sorted({route.device for route in routes}))
    source = gone.rule.value("from")
    yield f"table {table} has {count(len(routes), 'route')}, on {devices}, but no rule leads there from {source}"
    for probe in routing.probes:
        if (":" in probe.destination) != (family == 6) or probe.table == table:
            continue
        packet = f"a packet from a pod to the node {probe.destination}"
        if probe.error:
            yield f"{packet} goes nowhere: {probe.error}"
        else:
            yield f"{packet} leaves through {probe.device} (table {probe.table}), not through {devices}"
    for networkd in known(routing.networkd):
        if networkd.pid:
            yield f"systemd-networkd {networkd.version} is running (process {networkd.pid})"
