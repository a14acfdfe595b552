"""The component that keeps the policy rules: a RuleKeeper, made again whenever it fails."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from janitor.core.model.evidence import Unknown
from janitor.core.model.retry import SECOND, Retry, is_due
from janitor.core.rules.rule_memory import RuleCounts
from janitor.daemon.component import Health, Part
from janitor.daemon.rule_keeper import RuleKeeper
from janitor.host.files import describe_os_error, os_error_identity
from janitor.host.kernel.procfs import clock
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family
from janitor.report.rule_metrics import rule_metrics
from janitor.report.words import hint, text

_LONGEST_WAIT_S: Final = 60


@dataclass(slots=True)
class Keeping(Part):
    """`make` returns a started keeper (OSError), or why there is none. `watching` is called after each start."""

    make: Callable[[], RuleKeeper | Unknown]
    log: Log
    watching: Callable[[RuleKeeper], None]
    keeper: RuleKeeper | None = None
    counts_before: RuleCounts = field(default_factory=RuleCounts)  # of the last keeper
    _next_ns: int = 0  # when to start, while there is no keeper
    _retry: Retry = field(default_factory=lambda: Retry(1, _LONGEST_WAIT_S))
    _problem: object = None  # why there is no keeper, as last logged

    @property
    def counts(self) -> RuleCounts:
        """Restorations and deletions."""
        return self.keeper.memory.counts if self.keeper is not None else self.counts_before

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Descriptors to wait for: (readers, writers)."""
        return ([self.keeper.fileno()] if self.keeper is not None else []), []

    @property
    def due_ns(self) -> int | None:
        """When to run although no descriptor is ready."""
        return self.keeper.due_ns if self.keeper is not None else self._next_ns

    def run(self, ready: frozenset[int]) -> None:
        """Do what is due. OSError does not leave this method: the keeper is made again, a little later each time."""
        keeper = self.keeper
        try:
            if keeper is None:
                self._begin()
                return
            if keeper.fileno() in ready:
                keeper.readable()
            due = keeper.due_ns  # may be "now", so read it before the clock
            if is_due(due, clock().boottime_ns):
                keeper.tick()
        except OSError as error:
            self._broken(os_error_identity(error), describe_os_error(error))

    def last_round(self) -> None:
        """janitor is ending: restore what is pending, as far as the limits allow."""
        if self.keeper is not None:
            try:
                self.keeper.last_round()
            except Exception as error:  # noqa: BLE001 (the rest has to end in order all the same)
                self.log(LogEvent.RULES_NOT_RESTORED, why=f"{type(error).__name__}: {error}")

    def close(self, patience_s: float) -> None:
        """Save the mirror and stop. Nothing is restored: the next daemon may have been told not to."""
        del patience_s
        if self.keeper is not None:
            self.counts_before = self.keeper.memory.counts
            self.keeper.close()
            self.keeper = None

    def metrics(self) -> tuple[Family, ...]:
        """Restorations, deletions, and the number of watched rules."""
        return rule_metrics(self.counts, len(self.keeper.memory.mirror.kept) if self.keeper is not None else None)

    def health(self, awake_ns: int) -> Health:
        """Whether the rules are watched."""
        del awake_ns
        return Health(unready="" if self.keeper is not None else "the policy rules are not watched")

    def take_over(self, before: Self) -> None:
        """Continue the predecessor's counts."""
        self.counts_before = before.counts

    def _begin(self) -> None:
        if clock().boottime_ns < self._next_ns:
            return
        made = self.make()
        if isinstance(made, Unknown):
            self._broken(made.reason, text(made.reason), hint(made.reason))
            return
        self.keeper, self._problem = made, None
        self._retry.succeeded()
        self.watching(made)

    def _broken(self, problem: object, why: str, hint: str = "") -> None:
        if self.keeper is not None:
            self.close(0)
        wait = self._retry.failed()
        self._next_ns = clock().boottime_ns + int(wait * SECOND)
        if problem != self._problem:
            self.log(LogEvent.RULES_NOT_WATCHED, why=why, hint=hint, again_s=wait)
        self._problem = problem
