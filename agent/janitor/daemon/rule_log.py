"""What becomes of each rule, for the log: of one that comes and goes faster than anybody reads, only some lines."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.rules import Exact, PolicyRule
from janitor.report.events import Log, LogEvent

_LINES: Final = 500
"""So many lines of what becomes of one rule are written in a minute; the rest are counted."""


@dataclass(slots=True)
class RuleLog:
    """Lines about rules; `log_untold` ends a minute."""

    log: Log
    _lines: Counter[Exact] = field(default_factory=Counter)

    def log_rule(self, rule: PolicyRule, event: LogEvent, /, **fields: str) -> None:
        """Log it, unless this rule comes and goes so fast that nobody could read it."""
        self._lines[rule.exact] += 1
        if self._lines[rule.exact] <= _LINES:
            self.log(event, rule=str(rule), **fields)

    def log_untold(self) -> None:
        """How often rules came and went of which no line was written."""
        untold = sum(times - _LINES for times in self._lines.values() if times > _LINES)
        if untold:
            then = "a program keeps adding and deleting these rules"
            self.log(LogEvent.RULES_COME_AND_GO, not_told=untold, then=then)
        self._lines.clear()
