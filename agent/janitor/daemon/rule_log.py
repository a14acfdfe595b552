"""Log lines about each rule, limited for rules that come and go too fast to read."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.rules import Exact, PolicyRule
from janitor.report.events import Log, LogEvent

_LINES: Final = 500
"""Log lines per rule and minute; further ones are only counted."""


@dataclass(slots=True)
class RuleLog:
    """Lines about rules; call `log_untold` once a minute."""

    log: Log
    _lines: Counter[Exact] = field(default_factory=Counter)

    def log_rule(self, rule: PolicyRule, event: LogEvent, /, **fields: str) -> None:
        """Log the event, unless this rule has used up its lines."""
        self._lines[rule.exact] += 1
        if self._lines[rule.exact] <= _LINES:
            self.log(event, rule=str(rule), **fields)

    def log_untold(self) -> None:
        """Log how many lines were left out, and start the next minute."""
        untold = sum(times - _LINES for times in self._lines.values() if times > _LINES)
        if untold:
            then = "a program keeps adding and deleting these rules"
            self.log(LogEvent.RULES_COME_AND_GO, not_told=untold, then=then)
        self._lines.clear()
