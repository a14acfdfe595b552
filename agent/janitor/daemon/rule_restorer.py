"""Puts back the rules that systemd-networkd has deleted, as far as they are wanted, as core/rules/mirror.py says."""

from dataclasses import dataclass

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.core.model.routing import OwnedRule
from janitor.core.model.rules import PolicyRule, Step
from janitor.core.model.unknown import Unknown
from janitor.core.rules.mirror import CHECK_NS
from janitor.core.rules.profiles import SECOND
from janitor.core.rules.rule_memory import RuleMemory
from janitor.daemon.uncertainty import Doubt
from janitor.host.files import describe_os_error, os_error_identity
from janitor.host.kernel.netlink import RuleSocket
from janitor.host.kernel.procfs import clock
from janitor.host.rule_owners import Owners
from janitor.report.events import Log, LogEvent
from janitor.report.words import texts


@dataclass(slots=True)
class Restoring:
    """Works for one keeper, on its memory."""

    memory: RuleMemory
    socket: RuleSocket
    owners: Owners
    doubt: Doubt
    log: Log
    observe_only: bool
    _refused: object = None  # what the kernel refused last
    _postponed_ns: int = 0  # the postponement that was said last

    def restore(self) -> int | None:
        """One round, for what is owed and still wanted as far as is known right now.

        Returns when to compare with the kernel, on CLOCK_BOOTTIME; None where nothing was to be done.
        """
        now = clock().boottime_ns
        self._forget_unwanted()
        if not self.memory.mirror.pending_restore():
            return None
        try:
            steps = self.memory.mirror.due(self.socket.dump(), now)
        except OSError as error:
            self.log(LogEvent.RULES_NOT_RESTORED, why=f"cannot read the rules: {describe_os_error(error)}")
            return now + CHECK_NS
        for step in steps:
            if self._carry_out(step) and step.do == "add":
                self._is_back(step.rule)
        self._log_postponed(now)
        return self.memory.mirror.deleted_by_networkd_ns + CHECK_NS

    def withdraw(self, now: int) -> None:
        """Forget what nobody wants any more; what we put back a moment ago on older knowledge goes again."""
        for kept, reasons in self.memory.mirror.unwanted(self._why_not):
            why = "; ".join(texts(reasons))
            self.log(LogEvent.RULE_FORGOTTEN, rule=str(kept.rule), profile=kept.profile.name, why=why)
            if kept.put_back_lately(now) and not kept.pending_since_ns:
                self.take_away(kept.rule, why)

    def take_away(self, rule: PolicyRule, why: str) -> None:
        """A rule that we made, and that there must not be any more."""
        if self._carry_out(Step("remove", rule)):
            self.log(LogEvent.OWN_RULE_REMOVED, rule=str(rule), why=why)

    def _forget_unwanted(self) -> None:
        """Of what is owed; where it cannot be told whether anybody wants a rule, that one waits."""
        for kept in self.memory.mirror.waiting():
            reasons = (because(Code.ONLY_OBSERVING),) if self.observe_only else self._why_not(kept.owned)
            # Nothing brings a forgotten rule back, and what was seen before the deletion may be old: an owner that has
            # just been started anew, with other arguments or another range, has made its rules already. The check that
            # follows every deletion looks again first.
            old = bool(reasons) and not self.observe_only and self.owners.looked_ns < kept.pending_since_ns
            kept.undecided = old or isinstance(reasons, Unknown)
            if reasons and not kept.undecided and not isinstance(reasons, Unknown):
                self.memory.mirror.forget(kept.rule)
                why = "; ".join(texts(reasons))
                self.log(
                    LogEvent.RULE_NOT_RESTORED, rule=str(kept.rule), profile=kept.profile.name, by=kept.by, why=why
                )

    def _why_not(self, owned: OwnedRule) -> tuple[Reason, ...] | Unknown:
        """Why nobody wants the rule any more; nothing if somebody does."""
        reasons = self.owners.why_not(owned)
        if isinstance(reasons, Unknown):
            self.doubt.about(reasons)
        return reasons

    def _carry_out(self, step: Step) -> bool:
        """Tell the kernel. False where it refuses, which is said; that somebody was quicker is as good as done."""
        rule = step.rule
        try:
            if step.do == "remove":
                self.socket.remove(rule)
            else:
                self.socket.add(rule)
        except (FileExistsError, FileNotFoundError):
            pass
        except OSError as error:
            refused = (step.do, rule, os_error_identity(error))
            if refused != self._refused:
                self.log(LogEvent.RULE_NOT_RESTORED, rule=str(rule), why=describe_os_error(error), hint=_hint(error))
            self._refused = refused
            return False
        if step.do == "remove":
            self.memory.deleted(rule)
        else:
            self.memory.made(rule)
        return True

    def _is_back(self, rule: PolicyRule) -> None:
        """Note that it has been made; say so, unless it was only moved behind another one."""
        kept, now = self.memory.mirror.find(rule), clock().boottime_ns
        pending_since_ns = kept.pending_since_ns if kept is not None else 0
        self.memory.mirror.restored(rule, now)
        if kept is None or not pending_since_ns:
            return
        self.memory.counts.restored[kept.profile.name] += 1
        late = f"{(now - pending_since_ns) / 1e6:.2f}"
        self.log(LogEvent.RULE_RESTORED, rule=str(rule), profile=kept.profile.name, deleted_by=kept.by, after_ms=late)
        if kept.broken_ns:
            self.log(
                LogEvent.RULE_RESTORE_SUSPENDED,
                rule=str(rule),
                restored=len(kept.times),
                then="its deletion is only reported for one hour",
            )

    def _log_postponed(self, now: int) -> None:
        due_ns = self.memory.mirror.due_ns(now)
        if due_ns is not None and due_ns > now + CHECK_NS and due_ns != self._postponed_ns:
            seconds = f"{(due_ns - now) / SECOND:.1f}"
            self.log(
                LogEvent.RESTORING_POSTPONED,
                rules=len(self.memory.mirror.pending_restore()),
                for_s=seconds,
                why="the rules keep being deleted",
            )
            self._postponed_ns = due_ns


def _hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "janitor needs CAP_NET_ADMIN in the node's network namespace"
    return ""
