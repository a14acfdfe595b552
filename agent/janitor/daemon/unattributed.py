"""Judges whether systemd-networkd deleted rules that are gone without anybody having seen the deletion.

This happens after a restart of janitor, after lost events, and if the deleter cannot be seen. The earlier rules, the
present ones and the traces of networkd then decide (core/rules/corroboration.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from janitor.core.model.rules import PolicyRule
from janitor.core.model.unknown import Unknown
from janitor.core.rules.mirror import Kept
from janitor.core.rules.rule_memory import RuleMemory
from janitor.daemon.uncertainty import Doubt
from janitor.host.changes.saved_rules import Note
from janitor.host.kernel.attribution import Attribution
from janitor.host.kernel.procfs import clock
from janitor.host.rule_owners import Owners
from janitor.report.events import Log, LogEvent
from janitor.report.words import texts


@dataclass(slots=True)
class Unattributed:
    """Judges for one keeper, on its memory."""

    memory: RuleMemory
    owners: Owners
    who: Attribution
    doubt: Doubt
    log: Log

    def compare(self, there: Sequence[PolicyRule]) -> None:
        """Learn the kernel's new rules, and judge those that are gone."""
        self.memory.undecided = False
        self._judge_suspects(there)
        self._judge(self.memory.mirror.compare(there, declared=self.owners.declared), there)
        self.memory.remember(there, clock())

    def _judge_suspects(self, there: Sequence[PolicyRule]) -> None:
        """Judge deletions by unseen processes: without the host's PID namespace networkd cannot be told from others."""
        suspects, self.memory.suspects = self.memory.suspects, []
        if not suspects:
            return
        self.owners.blind = self.who.blind()
        self.log(
            LogEvent.DELETER_OUT_OF_SIGHT,
            rules=len(suspects),
            then="judged by which rules are gone and by systemd-networkd's traces",
        )
        self._judge([kept for rule in suspects if (kept := self.memory.mirror.find(rule)) is not None], there)
        for rule in suspects:
            self.memory.deleted(rule)

    def _judge(self, gone: Sequence[Kept], there: Sequence[PolicyRule]) -> None:
        now, mirror, deleted = clock().boottime_ns, self.memory.mirror, self.memory.counts.deleted
        before = self.memory.before_without_ours(now)
        for kept in gone:
            reasons = self.owners.why_not_networkd(kept.owned, before, there, self.memory.since)
            if isinstance(reasons, Unknown):
                self.memory.undecided = True
                self.doubt.about(reasons)
            elif reasons:
                mirror.forget(kept.rule)
                deleted["unknown"] += 1
                self.log(LogEvent.RULE_GONE, rule=str(kept.rule), left="; ".join(texts(reasons)))
            else:
                deleted["systemd-networkd"] += 1
                mirror.deleted_by_networkd(kept.rule, now)

    def go_on_from(self, note: Note, there: Sequence[PolicyRule]) -> None:
        """Take over an earlier janitor's state and pending rules, and judge what is gone since it stopped watching."""
        memory, mirror = self.memory, self.memory.mirror
        memory.counts = note.counts
        present = {rule.exact for rule in there}
        gone: list[Kept] = []
        for one in note.kept:
            if one.rule.exact in present:
                continue
            if one.pending_restore:
                mirror.pending_before(one.rule, clock().boottime_ns)
            elif (kept := mirror.learn(one.rule)) is not None:
                gone.append(kept)
        for one in note.kept:
            known = mirror.find(one.rule)
            if known is not None:
                known.ours, known.times, known.broken_ns = one.ours, one.times, one.broken_ns
        memory.before = {rule.exact: rule for rule in note.foreign}
        memory.since = note.at
        self._judge(gone, there)
        memory.remember(there, clock())
