"""What the daemon knows about the policy rules from look to look: the mirror, the earlier rules, and counts.

Nothing here judges: core/rules/mirror.py decides what is put back, core/rules/corroboration.py who made a deletion that
nobody saw. Pure.
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
    """Restorations by profile name, and deletions by who made them."""

    restored: Counter[str] = field(default_factory=Counter)
    deleted: Counter[Deleter] = field(default_factory=Counter)


@dataclass(slots=True)
class RuleMemory:
    """The memory of one network namespace. No event was missed up to `since`."""

    mirror: Mirror
    since: Clock
    before: dict[Exact, PolicyRule] = field(default_factory=dict)  # every foreign rule, as last known
    suspects: list[PolicyRule] = field(default_factory=list)  # deleted by somebody invisible, not judged yet
    undecided: bool = False  # a deleter is not known yet, so `before` is still needed
    counts: RuleCounts = field(default_factory=RuleCounts)

    def made(self, rule: PolicyRule) -> None:
        """The rule exists now."""
        if rule.foreign:
            self.before[rule.exact] = rule

    def deleted(self, rule: PolicyRule) -> None:
        """The rule was deleted, and the deleter is known."""
        self.before.pop(rule.exact, None)

    def remember(self, there: Sequence[PolicyRule], now: Clock) -> None:
        """Move `before` and `since` up to now, unless a deleter is still undecided."""
        if not self.undecided:
            self.before = {rule.exact: rule for rule in there if rule.foreign}
            self.since = now

    def before_without_ours(self, now_ns: int) -> tuple[PolicyRule, ...]:
        """The earlier rules without those that janitor has just restored: that networkd left these proves nothing."""
        ours = {kept.rule.exact for kept in self.mirror.by_exact.values() if kept.put_back_lately(now_ns)}
        return tuple(rule for rule in self.before.values() if rule.exact not in ours)
