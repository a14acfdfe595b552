"""Rules that are gone though nobody was seen to delete them: whether that was systemd-networkd.

So it is after our own restart, after events were lost, and where the deleter is out of sight. What there was before,
what there is now and what networkd has left behind then decide (core/corroboration.py). What there was before is kept
here, and written down for the janitor after this one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from janitor.core.evidence import Clock
from janitor.core.mirror import Kept, Mirror
from janitor.core.rules import Exact, PolicyRule
from janitor.core.unknown import Unknown
from janitor.doubt import Doubt
from janitor.host import mirror_note
from janitor.host.attribution import Attribution
from janitor.host.mirror_note import Note
from janitor.host.node import Node
from janitor.host.owners import Owners
from janitor.host.procfs import clock
from janitor.report.events import Log, LogEvent
from janitor.report.words import texts


@dataclass(slots=True)
class Unattributed:
    """Judges for one keeper, with its mirror and its counts."""

    mirror: Mirror
    owners: Owners
    who: Attribution
    doubt: Doubt
    counts: Counter[str]
    log: Log
    _before: dict[Exact, PolicyRule] = field(default_factory=dict)  # every foreign rule, as last known
    _since: Clock = field(default_factory=clock)  # until then nothing had been missed
    _suspects: list[PolicyRule] = field(default_factory=list)  # deleted by somebody out of sight, not judged yet
    _undecided: bool = False  # who deleted one cannot be told yet: what is known of before is still needed

    # What there was before.

    def made(self, rule: PolicyRule) -> None:
        """There is such a rule now."""
        if rule.foreign:
            self._before[rule.exact] = rule

    def deleted(self, rule: PolicyRule) -> None:
        """It was deleted, by somebody who is known."""
        self._before.pop(rule.exact, None)

    def suspect(self, rule: PolicyRule) -> None:
        """It was deleted, by somebody out of sight."""
        self._suspects.append(rule)

    def remember(self, there: Sequence[PolicyRule]) -> None:
        """Up to now nothing has been missed, unless something is still to be decided."""
        if not self._undecided:
            self._before = {rule.exact: rule for rule in there if rule.foreign}
            self._since = clock()

    # Judging.

    def compare(self, there: Sequence[PolicyRule]) -> None:
        """Learn what is new among the kernel's rules, and judge what is not there any more."""
        self._undecided = False
        self._judge_suspects(there)
        self._judge(self.mirror.compare(there, declared=self.owners.declared), there)
        self.remember(there)

    def _judge_suspects(self, there: Sequence[PolicyRule]) -> None:
        """Without the host's PID namespace networkd cannot be told from others by its process."""
        suspects, self._suspects = self._suspects, []
        if not suspects:
            return
        self.owners.blind = self.who.blind()
        self.log(
            LogEvent.DELETER_OUT_OF_SIGHT, rules=len(suspects), then="judged by what is gone and by networkd's traces"
        )
        self._judge([kept for rule in suspects if (kept := self.mirror.find(rule)) is not None], there)
        for rule in suspects:
            self.deleted(rule)

    def _judge(self, gone: Sequence[Kept], there: Sequence[PolicyRule]) -> None:
        now = clock().boottime_ns
        # That networkd has spared what we have just put back proves nothing.
        ours = {kept.rule.exact for kept in self.mirror.by_exact.values() if kept.put_back_lately(now)}
        before = [rule for rule in self._before.values() if rule.exact not in ours]
        for kept in gone:
            reasons = self.owners.why_not_networkd(kept.rule, kept.profile, kept.match, before, there, self._since)
            if isinstance(reasons, Unknown):
                self._undecided = True
                self.doubt.about(reasons)
            elif reasons:
                self.mirror.forget(kept.rule)
                self.counts["deleted by unknown"] += 1
                self.log(LogEvent.RULE_GONE, rule=str(kept.rule), left="; ".join(texts(reasons)))
            else:
                self.counts["deleted by systemd-networkd"] += 1
                self.mirror.wiped(kept.rule, now)

    # What survives us.

    def save(self, node: Node, namespace: int) -> None:
        """Write down the mirror and what there was before. OSError."""
        at = self._since if self._undecided else clock()
        kept, counts = self.mirror.kept, dict(self.counts)
        mirror_note.write(node, namespace, at, self._before.values(), kept, counts)

    def go_on_from(self, note: Note, there: Sequence[PolicyRule]) -> None:
        """Know what an earlier janitor knew, owe what it owed, and judge what has gone since it stopped watching."""
        self.counts.update(note.counts)
        present = {rule.exact for rule in there}
        gone: list[Kept] = []
        for one in note.kept:
            if one.rule.exact in present:
                continue
            if one.owed:
                self.mirror.owed_before(one.rule, clock().boottime_ns)
            elif (kept := self.mirror.learn(one.rule)) is not None:
                gone.append(kept)
        for one in note.kept:
            known = self.mirror.find(one.rule)
            if known is not None:
                known.ours, known.times, known.broken_ns = one.ours, one.times, one.broken_ns
        self._before = {rule.exact: rule for rule in note.foreign}
        self._since = note.at
        self._judge(gone, there)
        self.remember(there)
