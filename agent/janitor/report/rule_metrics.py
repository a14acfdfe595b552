"""The metrics of the policy rules that the daemon keeps."""

from collections import Counter

from janitor.report.events import LogEvent
from janitor.report.metrics import Family, actions, gauge


def rule_metrics(counts: Counter[str], watched: int | None) -> tuple[Family, ...]:
    """What was restored and deleted; `watched`: how many rules are, None while they cannot be watched."""
    restored = {
        name.removeprefix("restored "): number for name, number in counts.items() if name.startswith("restored ")
    }
    deleted = tuple(((by,), counts[f"deleted by {by}"]) for by in ("systemd-networkd", "others", "unknown"))
    return (
        actions(LogEvent.RULE_RESTORED, restored),
        Family("janitor_rule_deletions", "Policy rules that somebody deleted.", "counter", deleted, ("by",)),
        gauge("janitor_rules_watched", "Policy rules that are watched.", watched or 0),
        gauge("janitor_rules_watching", "1 while the policy rules can be watched.", float(watched is not None)),
    )
