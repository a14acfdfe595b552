"""One pass of the daemon over the leases: look, do what is allowed, and report the resulting state.

Runs in a process of its own (host/worker.py). While it only looks, SIGTERM ends it at once: there is nothing to clean
up. While it makes changes, SIGTERM ends it after the current batch; the journal covers a kill.
"""

import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

from janitor.core.leases.file_identity import identity_of
from janitor.core.leases.judgement import FREEABLE, Verdict
from janitor.core.model.action import Action, DiscardEntry, Policy, RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import known
from janitor.core.model.fingerprint import Fingerprint
from janitor.core.model.outcome import Entry
from janitor.core.model.reason import Reason, because
from janitor.host.changes import state
from janitor.host.changes.journal import Journal
from janitor.host.changes.undo import purge, recover
from janitor.host.cni.locks import DAEMON, Busy, only_janitor
from janitor.host.files import describe_os_error
from janitor.host.fingerprint import fingerprint_of, places
from janitor.host.kernel.procfs import clock
from janitor.host.node import Node, find_node
from janitor.passes.clean import STOPPED, Look, carry_out, leave_mark, look
from janitor.passes.scan import Options
from janitor.report.document import make_report
from janitor.report.events import Log, LogEvent
from janitor.report.page import page
from janitor.report.pass_lines import FindingFigures, Line, LogLine, Looked, NetworkFigures, Unchanged
from janitor.report.words import text, texts

CARRIED_OUT: Final = {
    "free": LogEvent.LEASE_FREED, "discard": LogEvent.CACHE_ENTRY_DISCARDED, "reserve": LogEvent.LEASE_RESERVED,
}  # fmt: skip
_NOT_CARRIED_OUT: Final = {
    "free": LogEvent.LEASE_NOT_FREED,
    "discard": LogEvent.CACHE_ENTRY_NOT_DISCARDED,
    "reserve": LogEvent.LEASE_NOT_RESERVED,
}
"""By kind of action."""

_Acted = Callable[[str, Action, bool, Reason | None], None]
"""Reports the outcome of an action: acted(pass_id, action, done, detail)."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a pass has to do. `tidy`: also complete interrupted actions and drop old passes."""

    options: Options
    policy: Policy
    keep_days: float
    tidy: bool
    postponed: frozenset[str] = frozenset()  # keys of actions that must not be tried yet
    fingerprint: Fingerprint = field(default_factory=Fingerprint)  # from the previous pass


def lease_pass(order: Order, tell: Callable[[Line], None]) -> None:
    """One complete pass. Reports each action once it is in the journal, and finally the state of the node.

    If the previous pass saw everything and had nothing to do or to wait for, and the fingerprint has not changed since,
    this pass ends after the fingerprint check.
    """
    began, node = clock(), find_node(order.options.root)
    digest = fingerprint_of(node, order.fingerprint)
    if digest and digest == order.fingerprint.digest and not order.tidy:
        tell(Unchanged())
        return
    order = replace(order, policy=replace(order.policy, postponed=order.postponed))

    def log(event: LogEvent, /, **fields: object) -> None:
        tell(LogLine(event, _texts(fields)))

    def acted(pass_id: str, action: Action, done: bool, detail: Reason | None) -> None:
        tell(_action_line(pass_id, action, done, detail))

    with ExitStack() as held:
        still = _alone(order, held, log)
        now, settled = _look(order, still is not None, log), False
        if still is not None and order.policy.about("LEASE") and (now.plan.actions or order.tidy):
            if problem := leave_mark(now.evidence):
                log(LogEvent.MARK_NOT_WRITTEN, why=text(problem))
            acting = _Act(order, log, acted, still)
            if acting.act(now):
                now = _look(order, not still(), log)
            settled = acting.settled
        elif still is not None:
            settled = _only_tell(node, log, acted)
    tell(_looked(now, began.boottime_ns, settled=settled, fingerprint=_fingerprint(now, order.fingerprint, digest)))


def _fingerprint(now: Look, before: Fingerprint, digest: str) -> Fingerprint:
    """The fingerprint for the next pass. The digest is from before the look, so a change during the look shows."""
    try:
        there = places(now.evidence)
    except OSError:
        return Fingerprint()
    idle = not (now.plan.actions or now.plan.refusals or now.judgement.unseen)
    idle = idle and all(lease.verdict in (Verdict.LIVE, Verdict.FOREIGN) for lease in now.judgement.leases)
    return replace(there, digest=digest) if idle and there == replace(before, digest="") else there


def _action_line(pass_id: str, action: Action, done: bool, detail: Reason | None) -> LogLine:
    fields = {
        **({"path": action.path} if isinstance(action, DiscardEntry)
           else {"address": action.name, "network": action.directory.rpartition("/")[2]}),
        "pod": action.pod,
        "container": "" if isinstance(action, RestoreRule | WriteSetting) else action.container_id,
        "proof": "; ".join(texts(action.proof)), "detail": "" if detail is None else text(detail), "pass": pass_id,
    }  # fmt: skip
    return LogLine((CARRIED_OUT if done else _NOT_CARRIED_OUT)[action.kind], fields, action.key, detail)


def _texts(fields: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items()}


def _alone(order: Order, held: ExitStack, log: Log) -> Callable[[], Reason | None] | None:
    """The lock that allows changes, as a check that it is still held. None: the pass may only look."""
    try:
        return held.enter_context(only_janitor(order.options.root, DAEMON))
    except Busy as busy:
        log(LogEvent.ONLY_LOOKING, why=text(busy.reason))
    except OSError as error:
        log(LogEvent.LOCK_NOT_TAKEN, why=describe_os_error(error), then="this pass changes nothing")
    return None


def _look(order: Order, note: bool, log: Log) -> Look:
    try:
        return look(order.options, order.policy, note=note)
    except OSError as error:
        log(LogEvent.NOTES_NOT_WRITTEN, why=describe_os_error(error), then="no lease can complete the grace period")
        return look(order.options, order.policy, note=False)


@dataclass(slots=True)
class _Act:
    """The changing part of a pass. `still` returns why the lock is lost, or None."""

    order: Order
    log: Log
    acted: _Acted
    still: Callable[[], Reason | None]
    asked: list[int] = field(default_factory=list)
    settled: bool = False

    def act(self, now: Look) -> bool:
        """Carry out the plan and tidy the journal. True if anything was tried and the pass was not stopped."""
        signal.signal(signal.SIGTERM, lambda number, _: self.asked.append(number))
        node = find_node(self.order.options.root)
        journal = Journal(node.root)
        try:
            journal.load()
            untold = _untold(node, journal)
            for entry in recover(node, journal):
                detail = "" if entry.detail is None else text(entry.detail)
                self.log(LogEvent.EARLIER_PASS_CUT_SHORT, path=entry.action.path, state=entry.state, detail=detail)
            _tell(untold, self.acted)
        except OSError as error:
            self.log(LogEvent.JOURNAL_NOT_USED, why=describe_os_error(error), then="this pass changes nothing")
            return False
        tried = bool(now.plan.actions) and self._carry_out(now, journal)
        if not self.asked:
            self._purge(node, journal)
        self.settled = not self.asked
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return tried and not self.asked

    def _stop(self) -> Reason | None:
        return STOPPED if self.asked else self.still()

    def _carry_out(self, now: Look, journal: Journal) -> bool:
        context, both, work = carry_out(now, self.order.options, self.order.policy, journal, self._stop)
        for why, number in Counter(r.reasons for r in both.refusals if r not in now.plan.refusals).items():
            self.log(LogEvent.LEASES_SKIPPED, leases=str(number), why="; ".join(texts(why)))
        try:
            state.write_log_cursor(context.node, context.pass_id, 0)
        except OSError as error:
            self.log(
                LogEvent.NOTES_NOT_WRITTEN,
                why=describe_os_error(error),
                then="if this pass is killed, some of its actions may not be logged",
            )
        left, tried, stopped = 0, False, None
        for outcome in work:
            if not outcome.tried:  # not a refusal
                left, stopped = left + 1, outcome.detail
                continue
            self.acted(context.pass_id, outcome.action, outcome.event == "done", outcome.detail)
            tried = True
        if stopped is not None:
            self.log(LogEvent.PASS_ENDED_EARLY, why=text(stopped), left=str(left))
        return tried

    def _purge(self, node: Node, journal: Journal) -> None:
        days = self.order.keep_days
        try:
            purged = purge(node, journal, days)
        except OSError as error:
            self.log(LogEvent.OLD_PASSES_NOT_DROPPED, why=describe_os_error(error))
            return
        if purged.passes:
            self.log(LogEvent.OLD_PASSES_DROPPED, passes=str(purged.passes), files=str(purged.files), days=f"{days:g}")


def _untold(node: Node, journal: Journal) -> list[Entry]:
    """What the last pass did and nobody logged, because its daemon or the pass itself was killed."""
    pass_id, told = state.read_log_cursor(node)
    return [e for e in journal.entries.values() if e.pass_id == pass_id and e.state == "done"][told:]


def _only_tell(node: Node, log: Log, acted: _Acted) -> bool:
    """For a pass that changes nothing: only reads the journal; interrupted actions stay so. True if all was logged."""
    if not state.read_log_cursor(node)[0]:
        return False
    journal = Journal(node.root)
    try:
        journal.load()
    except OSError as error:
        log(
            LogEvent.JOURNAL_NOT_READ,
            why=describe_os_error(error),
            then="actions of an earlier pass are not logged yet",
        )
        return False
    _tell(_untold(node, journal), acted)
    return True


def _tell(untold: list[Entry], acted: _Acted) -> None:
    for entry in untold:
        acted(entry.pass_id, entry.action, True, because(Code.CUT_OFF))


def _looked(now: Look, began_ns: int, *, settled: bool, fingerprint: Fingerprint) -> Looked:
    report = make_report(now.evidence, now.diagnosis)
    wall = clock().realtime_ns
    # If the clock was set back, a lease seems to lie in the future: it is at least as old as it has been watched.
    watched = {o.file: now.evidence.finished.boottime_ns - o.first_ns for o in known(now.evidence.observations)}
    ages = [
        max(wall - lease.file.mtime_ns, watched.get(identity_of(f"{lease.directory}/{lease.address}", lease.file), 0))
        for lease in now.judgement.leases
        if lease.verdict in FREEABLE and lease.file is not None
    ]
    numbers = Counter((finding.id, finding.severity) for finding in now.diagnosis.findings)
    # SCAN001 and SCAN002 already report what could not be seen at all.
    unseen = [text(part.reason) for part in now.judgement.unseen]
    unseen += [
        finding.summary for finding in now.diagnosis.findings if finding.status == "unknown" and finding.id != "SCAN001"
    ]
    waits = [refusal.wait_s for refusal in now.plan.refusals if refusal.wait_s]
    return Looked(
        at=wall / 1e9,
        took_s=(clock().boottime_ns - began_ns) / 1e9,
        unseen=tuple(dict.fromkeys(unseen)),
        networks=tuple(
            NetworkFigures(n.name, n.data_dir, n.capacity, n.free, n.freeable, n.verdicts)
            for n in report.networks
            if n.in_scope
        ),
        findings=tuple(FindingFigures(*key, number) for key, number in sorted(numbers.items())),
        oldest_orphan_s=max(0, *ages) / 1e9 if ages else None,
        soonest_s=min(waits, default=None),
        page=page(report, wall / 1e9),
        settled=settled,
        fingerprint=fingerprint,
    )
