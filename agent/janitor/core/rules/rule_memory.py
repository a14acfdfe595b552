"""What the daemon knows of the policy rules from one look to the next: the mirror, what there was before, the counts.

Nothing here judges: core/rules/mirror.py says what is to be put back, core/rules/corroboration.py who deleted what
nobody saw being deleted. Pure.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from janitor.core.model.evidence import Clock
from janitor.core.model.rules import Exact, PolicyRule
from janitor.core.rules.mirror import Mirror

Deleter = Literal["systemd-networkd", "others", "unknown"]


@dataclass(slots=True)
class RuleCounts:
    """What was restored, by the name of the profile, and what was deleted, by whom."""

    restored: Counter[str] = field(default_factory=Counter)
    deleted: Counter[Deleter] = field(default_factory=Counter)


@dataclass(slots=True)
class RuleMemory:
    """Of one network namespace. Up to `since` nothing has been missed."""

    mirror: Mirror
    since: Clock
    before: dict[Exact, PolicyRule] = field(default_factory=dict)  # every foreign rule, as last known
    suspects: list[PolicyRule] = field(default_factory=list)  # deleted by somebody out of sight, not judged yet
    undecided: bool = False  # who deleted one cannot be told yet: what is known of before is still needed
    counts: RuleCounts = field(default_factory=RuleCounts)

    def made(self, rule: PolicyRule) -> None:
        """There is such a rule now."""
        if rule.foreign:
            self.before[rule.exact] = rule

    def deleted(self, rule: PolicyRule) -> None:
        """It was deleted, by somebody who is known."""
        self.before.pop(rule.exact, None)

    def remember(self, there: Sequence[PolicyRule], now: Clock) -> None:
        """Up to now nothing has been missed, unless something is still to be decided."""
        if not self.undecided:
            self.before = {rule.exact: rule for rule in there if rule.foreign}
            self.since = now

    def before_without_ours(self, now_ns: int) -> tuple[PolicyRule, ...]:
        """What there was before; that networkd has spared what we have just put back proves nothing."""
        ours = {kept.rule.exact for kept in self.mirror.by_exact.values() if kept.put_back_lately(now_ns)}
        return tuple(rule for rule in self.before.values() if rule.exact not in ours)
