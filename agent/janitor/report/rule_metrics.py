"""The metrics of the policy rules that the daemon keeps."""

from typing import get_args

from janitor.core.rules.rule_memory import Deleter, RuleCounts
from janitor.report.events import LogEvent
from janitor.report.metrics import Family, actions, gauge


def rule_metrics(counts: RuleCounts, watched: int | None) -> tuple[Family, ...]:
    """Restorations and deletions. `watched`: the number of watched rules, None while they cannot be watched."""
    deleted = tuple(((by,), counts.deleted[by]) for by in get_args(Deleter))
    return (
        actions(LogEvent.RULE_RESTORED, counts.restored),
        Family(
            "janitor_rule_deletions",
            "Deletions of watched policy rules, by who deleted them.",
            "counter",
            deleted,
            ("by",),
        ),
        gauge("janitor_rules_watched", "Number of watched policy rules.", watched or 0),
        gauge("janitor_rules_watching", "1 if the policy rules are watched, otherwise 0.", float(watched is not None)),
    )
