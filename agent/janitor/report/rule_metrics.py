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
        Family("janitor_rule_deletions", "Policy rules that somebody deleted.", "counter", deleted, ("by",)),
        gauge("janitor_rules_watched", "Policy rules that are watched.", watched or 0),
        gauge("janitor_rules_watching", "1 while the policy rules can be watched.", float(watched is not None)),
    )
