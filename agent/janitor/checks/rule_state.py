"""RULE002, RULE007 and SCAN002: duplicate rules, rules that the daemon has given up, and what was not seen."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import Evidence, known
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import NEW_LINE, Command, Fix
from janitor.core.model.routing import Routing
from janitor.core.model.rules import duplicates
from janitor.core.model.text import duration
from janitor.core.rules.profiles import known_rules, rules_unseen
from janitor.report.words import hint, text

_SECOND = 1_000_000_000


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding per rule, and one per part that was not seen."""
    routing = evidence.routing
    yield from _twice(routing)
    there = {rule.identity for rule in known(routing.rules)}
    for breaker in routing.breakers:
        if breaker.rule.identity in there:
            continue  # somebody has added it again
        since = duration((evidence.finished.boottime_ns - breaker.since_ns) / _SECOND)
        yield Finding.of(
            id=FindingId.RULE007,
            subject=str(breaker.rule),
            summary=f"janitor has stopped restoring {breaker.rule}: it was deleted too often",
            evidence=(f"restored {breaker.restored} times within an hour, the last time {since} ago",),
            explanation=(
                "Something makes systemd-networkd configure its links again and again: it is restarted in a loop, or "
                "a link keeps appearing and disappearing. janitor tries again one hour after it stopped."
            ),
            fix=Fix.of(
                breaker.rule.adding,
                NEW_LINE,
                Command("janitor clean --fix networkd", "so that it does not happen again"),
                NEW_LINE,
                Command("journalctl -b -u systemd-networkd", "shows what makes it configure its links so often"),
            ),
        )
    yield from _unseen(evidence, routing)


def _twice(routing: Routing) -> Iterator[Finding]:
    mine = known_rules(routing)
    for group in duplicates(mine):
        first, *others = group
        removing = [part for rule in others for part in ("; ", rule.removing)][1:]
        yield Finding.of(
            id=FindingId.RULE002,
            subject=str(first),
            summary=f"the same rule exists {len(group)} times: {first.words}",
            evidence=tuple(str(rule) for rule in group),
            explanation=(
                "All copies do the same. If the owner deletes one, the others stay in effect. `ip rule add` without a "
                "priority creates such copies."
            ),
            fix=Fix.of(*removing),
        )


def _unseen(evidence: Evidence, routing: Routing) -> Iterator[Finding]:
    for part in rules_unseen(routing, evidence.networks):
        yield Finding.of(
            id=FindingId.SCAN002,
            subject="scan",
            summary=text(part.reason),
            evidence=(),
            explanation="So janitor cannot know whether the policy rules of the pod network are complete.",
            fix=Fix.of(
                hint(part.reason)
                or "run janitor as root on the node itself; in a container with hostNetwork and hostPID"
            ),
            status="unknown",
        )
