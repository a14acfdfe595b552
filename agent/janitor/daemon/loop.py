"""The daemon's loop: one thread that waits only for its components' descriptors, a timer and signals.

Slow work is not done here. A lease pass and the syncing of new leases are processes of their own (lease_worker.py,
fsync_worker.py), so a deleted rule is restored at once, and SIGTERM takes effect within a second: a pass that only
looks is ended; one that makes changes ends after its current batch or is killed, which its journal covers. The loop
ends only on a signal, whatever happens on the node: a component that fails is logged and restarted a little later,
while the others go on.
"""

import gc
import math
import os
import select
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.retry import SECOND
from janitor.core.model.unknown import unseen
from janitor.daemon.clock_watch import ClockWatch
from janitor.daemon.component import Health
from janitor.daemon.endpoints import Endpoints, Overview, Seen, log_server
from janitor.daemon.fsync_worker import Syncing
from janitor.daemon.lease_pass import Order
from janitor.daemon.lease_worker import Passing
from janitor.daemon.pass_record import PassRecord
from janitor.daemon.reporter import Reporter
from janitor.daemon.rule_keeper import RuleKeeper, start_keeper
from janitor.daemon.rule_worker import Keeping
from janitor.daemon.singleton import Sole
from janitor.daemon.status import Settings, SettingsError, changes, health, metrics, missing, mode, status
from janitor.daemon.supervisor import Parts, Slot
from janitor.daemon.textfile import Textfile
from janitor.host.kernel import procfs
from janitor.host.kernel.procfs import clock
from janitor.host.kernel.signals import Signals
from janitor.host.systemd.notify import notify, reloading
from janitor.passes.scan import load_checks
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family

_LONGEST_WAIT_S: Final = 5.0
"""A freeze no longer than the loop's own wait is not detected, and counts as watching."""
_CHORES_S: Final = 60.0
_ASLEEP_S: Final = 90
"""A turn longer than this exceeds every wait of the loop: the machine was suspended, or this process stopped."""
_ORDERED: Final = {"options", "policy", "keep_days"}
"""The settings that a lease pass depends on: a change ends the running pass."""


class Daemon:
    """The whole daemon. `read` reads the settings again; SettingsError if they are invalid."""

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], log: Log, dropped: Counter[str] | None = None
    ) -> None:
        """`dropped` counts the log lines that `log` could not write."""
        self.settings = settings
        self._dropped = Counter() if dropped is None else dropped
        self._read = read
        self._reporter = Reporter(log)
        self.log = self._reporter.log
        self._seen = Seen(
            self.overview,
            self.metrics,
            self.health,
            lambda: mode(self.settings),
            lambda: tuple(self._reporter.action_records),
        )
        # The clock comes before the passes that read its note.
        self._clock = Slot("clock", self._clock_watch, lambda: self.settings.leases)
        self._rules = Slot("rules", self._keeping, lambda: self.settings.rules, frozenset({"options", "repair_rules"}))
        self._leases = Slot("leases", self._passing, lambda: self.settings.leases)
        self._durable = Slot(
            "durable", self._syncing, lambda: self.settings.durable and self.settings.leases, frozenset({"options"})
        )
        self._http = Slot(
            "http", self._endpoints, lambda: self.settings.listen is not None, frozenset({"listen", "hosts"})
        )
        self._textfile = Slot("textfile", lambda: Textfile(self.settings.textfile, self.metrics, self.log))
        slots = (self._clock, self._rules, self._leases, self._durable, self._http, self._textfile)
        self._parts = Parts(self.log, slots)
        self._sole = Sole(lambda: self.settings.options.root, self.log)
        self._round = clock()
        self._began_ns = self._round.boottime_ns
        self._chores_ns = 0
        self._shown_ns = 0  # end of the pass that the status and the textfile show

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        gc.freeze()  # keep present objects out of garbage collection, and their pages shared with the children
        with Signals() as signals:
            try:
                while not self._told_to_end(signals):
                    self._once(signals)
                notify(STOPPING="1", STATUS="shutting down")
                self.log(LogEvent.ENDING)
            finally:
                self._close()

    # The loop.

    def _once(self, signals: Signals) -> None:
        self._stop_unless_sole()
        if not self._sole.held and clock().boottime_ns >= self._sole.due_ns:
            self._start()
        self._run_parts(frozenset())  # what is due, or has just been created
        self._chores()
        ready = self._wait(signals)
        self._stop_unless_sole()
        self._run_parts(ready)

    def _wait(self, signals: Signals) -> frozenset[int]:
        """Wait for a signal, a ready descriptor or a due time. Returns the ready descriptors."""
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        readers, writers = self._parts.descriptors()
        for fd in readers:
            poll.register(fd, select.POLLIN)
        for fd in writers:
            poll.register(fd, select.POLLOUT)
        dues = [*self._parts.dues_ns(), self._chores_ns, *([] if self._sole.held else [self._sole.due_ns])]
        wait_s = min(max((min(dues) - clock().boottime_ns) / SECOND, 0), _LONGEST_WAIT_S)
        self._turned(0)  # before the judgement of a pass that was just started
        ready = poll.poll(math.ceil(1000 * wait_s))
        self._turned(wait_s)
        return frozenset(fd for fd, _ in ready if fd != signals.fileno())

    def _turned(self, wait_s: float) -> None:
        """Half a turn has passed, in which the loop meant to wait `wait_s`."""
        before, self._round = self._round, clock()
        if self._round.boottime_ns - before.boottime_ns > _ASLEEP_S * SECOND:
            self._began_ns = self._round.boottime_ns  # no component was late: none could run
        if watch := self._clock.part:
            watch.turned(before, self._round, wait_s)

    def _run_parts(self, ready: frozenset[int]) -> None:
        if self._parts.rested():
            self._begin()
        self._parts.run(ready)

    def _told_to_end(self, signals: Signals) -> bool:
        received = signals.received()
        if received & {signal.SIGTERM, signal.SIGINT}:
            return True
        if signal.SIGHUP in received:
            self._reload()
        return False

    # Start and end of the components.

    def _stop_unless_sole(self) -> None:
        """Stop if the lock is lost: somebody who removes its file lets a second daemon start."""
        if not self._sole.still():
            self._parts.end_all()

    def _start(self) -> None:
        """Start, unless another daemon (a unit, a pod, one started by hand) has the node's lock."""
        if not self._sole.take():
            if self._sole.another:
                self._http.end(self.log)  # the other daemon answers requests
            else:
                self._http.begin(self.log)  # no other daemon is at work: requests must be told why this one is not
            return
        self._begin()
        self._run_parts(frozenset())
        notify(READY="1")
        self.log(LogEvent.STARTED, pid=os.getpid(), mode=mode(self.settings))

    def _begin(self) -> None:
        if self._sole.held:
            self._parts.begin()
        else:
            self._parts.prepare()
            self._http.begin(self.log)

    def _clock_watch(self) -> ClockWatch:
        return ClockWatch(self.settings.options.root, self.log)

    def _keeping(self) -> Keeping:
        return Keeping(self._keeper, self.log, self._watching)

    def _passing(self) -> Passing:
        load_checks()
        return Passing(self._order, self.settings.interval_s, self.log)

    def _syncing(self) -> Syncing:
        options = self.settings.options
        return Syncing(options.root, options.data_dirs, self.log)

    def _endpoints(self) -> Endpoints:
        where, hosts = self.settings.listen, self.settings.hosts
        assert where is not None  # noqa: S101 (for the type checker: it is not wanted then)
        return Endpoints(where, self._seen.answer, lambda event: log_server(event, self.log), hosts)

    def _close(self) -> None:
        if rules := self._rules.part:
            rules.last_round()
        self._parts.end_all()
        self._sole.close()

    def _reload(self) -> None:
        """Read the settings again, and restart the components that they change. Invalid settings are not applied."""
        reloading()
        try:
            new = self._read()
        except Exception as error:  # noqa: BLE001 (whatever a file can be like, the one that was read stays)
            why = str(error) if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}"
            self.log(LogEvent.CONFIGURATION_NOT_READ, why=why, then="the previous configuration stays active")
            notify(READY="1")
            return
        changed, self.settings = changes(self.settings, new), new
        self._parts.end_changed(changed)
        if self._sole.held:
            self._begin()
        else:
            self._parts.prepare()
        self._write_textfile()
        if leases := self._leases.part:
            leases.interval_s = new.interval_s
            leases.soon()
            if changed & _ORDERED or leases.ending:
                # Once the new settings are logged as in force, nothing may still be done by the old order.
                leases.end_pass(self._in_force)
                if leases.ending:
                    self.log(LogEvent.CONFIGURATION_CHANGES, then="it takes effect when the running pass has ended")
                return
        self._in_force()

    def _in_force(self) -> None:
        self.log(LogEvent.CONFIGURATION_READ, mode=mode(self.settings))
        notify(READY="1")

    def _keeper(self) -> RuleKeeper | Unknown:
        wanted, proc = self.settings, procfs.find_proc(self.settings.options.root)
        if isinstance(proc, Unknown):
            return proc
        if wanted.repair_rules and wanted.no_rules:
            return unseen(Code.RULES_NOT_KEPT, why=wanted.no_rules)
        options = wanted.options
        return start_keeper(options.root, proc, options.profiles, self.log, observe_only=not wanted.repair_rules)

    def _watching(self, keeper: RuleKeeper) -> None:
        self.log(LogEvent.WATCHING_RULES, learned=len(keeper.memory.mirror.kept), pid=os.getpid())

    def _order(self, tidy: bool, postponed: frozenset[str]) -> Order:
        wanted = self.settings
        tidy = tidy and wanted.policy.about("LEASE")  # a daemon that only observes leaves quarantine and journal alone
        watch = self._clock.part
        where = replace(wanted.options, clocks=watch.noted() if watch is not None else None)
        return Order(where, wanted.policy, wanted.keep_days, tidy, postponed)

    # Reports.

    def metrics(self) -> tuple[Family, ...]:
        """All current metrics."""
        return (*metrics(self._reporter.missing_privileges, self._dropped["lines"]), *self._parts.metrics())

    def health(self) -> Health:
        """The current health of the daemon."""
        idle = "" if self._sole.held else self._sole.why
        return health(self._parts.healths(self._began_ns), self._reporter.missing_privileges, idle)

    def overview(self) -> Overview:
        """What is currently known about the node."""
        leases, rules = self._leases.known(), self._rules.known()
        record = leases.record if leases is not None else PassRecord()
        age_s = (clock().boottime_ns - record.looked_ns) / SECOND if record.looked_ns else None
        keeper = rules.keeper if rules is not None else None
        watched = len(keeper.memory.mirror.kept) if keeper is not None else None
        return Overview(record.looked, age_s, leases is not None, watched)

    def _chores(self) -> None:
        """The watchdog and the status, periodically and after each pass; after a pass also the textfile."""
        now, leases = clock().boottime_ns, self._leases.part
        ended_ns = leases.record.ended_ns if leases is not None else 0
        news = ended_ns > self._shown_ns
        if now < self._chores_ns and not news:
            return
        self._chores_ns = now + int(min(_CHORES_S, self._reporter.watchdog_s or _CHORES_S) * SECOND)
        self._reporter.alive()
        self._reporter.missing(missing(self.settings))
        if not self._sole.held:
            return
        self._reporter.status(status(self.overview(), self.health()))
        if news:
            self._shown_ns = ended_ns
            self._write_textfile()

    def _write_textfile(self) -> None:
        if textfile := self._textfile.part:
            textfile.path = self.settings.textfile
            textfile.soon()
