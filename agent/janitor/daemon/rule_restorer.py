"""Restores the rules that systemd-networkd deleted and that are still wanted, following core/rules/mirror.py."""

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
    _refused: object = None  # the last refusal of the kernel
    _postponed_ns: int = 0  # the last postponement that was logged

    def restore(self) -> int | None:
        """One round for the rules that are pending and still wanted, by what is known now.

        Returns when to compare with the kernel, on CLOCK_BOOTTIME; None if there was nothing to do.
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
        """Forget rules that are no longer wanted. Those restored a moment ago on older knowledge are removed again."""
        for kept, reasons in self.memory.mirror.unwanted(self._why_not):
            why = "; ".join(texts(reasons))
            self.log(LogEvent.RULE_FORGOTTEN, rule=str(kept.rule), profile=kept.profile.name, why=why)
            if kept.put_back_lately(now) and not kept.pending_since_ns:
                self.take_away(kept.rule, why)

    def take_away(self, rule: PolicyRule, why: str) -> None:
        """Remove a rule that janitor made and that must not exist any more."""
        if self._carry_out(Step("remove", rule)):
            self.log(LogEvent.OWN_RULE_REMOVED, rule=str(rule), why=why)

    def _forget_unwanted(self) -> None:
        """Forget pending rules that are no longer wanted. A rule waits while that cannot be told."""
        for kept in self.memory.mirror.waiting():
            reasons = (because(Code.ONLY_OBSERVING),) if self.observe_only else self._why_not(kept.owned)
            # Forgetting cannot be reversed, and what was seen before the deletion may be old: an owner that was just
            # restarted with other arguments or another range has already made its rules. The check after every deletion
            # looks again first.
            old = bool(reasons) and not self.observe_only and self.owners.looked_ns < kept.pending_since_ns
            kept.undecided = old or isinstance(reasons, Unknown)
            if reasons and not kept.undecided and not isinstance(reasons, Unknown):
                self.memory.mirror.forget(kept.rule)
                why = "; ".join(texts(reasons))
                self.log(
                    LogEvent.RULE_NOT_RESTORED, rule=str(kept.rule), profile=kept.profile.name, by=kept.by, why=why
                )

    def _why_not(self, owned: OwnedRule) -> tuple[Reason, ...] | Unknown:
        """Why the rule is no longer wanted: empty if it is, Unknown if that cannot be told."""
        reasons = self.owners.why_not(owned)
        if isinstance(reasons, Unknown):
            self.doubt.about(reasons)
        return reasons

    def _carry_out(self, step: Step) -> bool:
        """Tell the kernel. False if it refuses, which is logged. If somebody was faster, the step counts as done."""
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
        """Record the restored rule; log it unless it was only moved behind another one."""
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
