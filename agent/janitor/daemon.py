"""The daemon's loop: one thread that waits for its parts' descriptors, a timer and the signals, and for nothing else.

What takes long is not done here: a pass over the leases and the syncing of new ones are processes of their own
(passing.py, syncing.py), so a deleted rule is put back at once whatever else goes on, and SIGTERM is obeyed within a
second: a pass that only looks is ended, one that changes something ends after the batch at hand or is killed, which
its journal allows for. The loop ends when it is told to, and for nothing that a node can do to it: a part that fails is
said to have failed, and begun anew a little later, while the others go on.
"""

import gc
import math
import os
import select
import signal
from collections import Counter, deque
from collections.abc import Callable, Container
from typing import Final

from janitor.clock_watch import ClockWatch
from janitor.core.evidence import Unknown
from janitor.host import procfs
from janitor.host.http import Server
from janitor.host.notify import notify, reloading, watchdog_s
from janitor.host.procfs import clock
from janitor.host.rights import Lack
from janitor.host.signals import Signals
from janitor.keeping import Keeping
from janitor.lease_pass import Order
from janitor.part import Part
from janitor.passing import SECOND, Passing
from janitor.report.metrics import Figures
from janitor.report.page import Deed, deed
from janitor.restoring import RuleKeeper, Say
from janitor.seen import Health, Seen
from janitor.sole import Sole
from janitor.standing import Settings, SettingsError, carry_over, figures, health, missing, mode, status
from janitor.syncing import Syncing
from janitor.textfile import Textfile

_LONGEST_WAIT_S: Final = 60.0
_BEGIN_AGAIN_S: Final = 30
_ASLEEP_S: Final = 90
"""A round that took longer than it ever waits: the machine was suspended, or this process stopped."""
_PATIENCE_S: Final = 0.4
"""What a pass is given to end after SIGTERM, of the second that all of it may take."""
_DEEDS: Final = 100
_EVERY: Final = ("clock", "rules", "leases", "durable", "http", "textfile")


class Daemon:
    """All of it. `read` reads the settings anew; SettingsError where they cannot be used."""

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], say: Say, dropped: Counter[str] | None = None
    ) -> None:
        """`dropped` counts what `say` could not say."""
        self.settings = settings
        self._dropped = Counter() if dropped is None else dropped
        self._read = read
        self._say = say
        self._deeds: deque[Deed] = deque(maxlen=_DEEDS)
        self._seen = Seen(self.figures, self.health, lambda: mode(self.settings), lambda: tuple(self._deeds))
        self._parts: dict[str, Part] = {}
        self._broken: dict[str, int] = {}  # until when, by part
        self._ended: dict[str, Part] = {}  # parts that will be made anew, for what they have counted
        self._sole = Sole(lambda: self.settings.options.root, self.say)
        self._round = clock()
        self._began_ns = self._round.boottime_ns
        self._chores_ns = 0
        self._written_ns = 0
        self._status = ""
        self._watchdog_s = watchdog_s()
        self._lacks: tuple[Lack, ...] = ()

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        gc.freeze()  # what is there now stays, and stays shared with the children
        with Signals() as signals:
            try:
                while not self._told_to_end(signals):
                    self._once(signals)
                notify(STOPPING="1", STATUS="ending")
                self.say("ending")
            finally:
                self._close()

    # The loop.

    def _once(self, signals: Signals) -> None:
        self._stop_unless_sole()
        if not self._sole.held and clock().boottime_ns >= self._sole.due_ns:
            self._start()
        self._run_parts(frozenset())  # whatever is due, or has just been made
        self._chores()
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        for part in self._parts.values():
            readers, writers = part.descriptors()
            for fd in readers:
                poll.register(fd, select.POLLIN)
            for fd in writers:
                poll.register(fd, select.POLLOUT)
        dues = [due for part in self._parts.values() if (due := part.due_ns())] + list(self._broken.values())
        dues += [] if self._sole.held else [self._sole.due_ns]
        wait_s = (min([*dues, self._chores_ns]) - clock().boottime_ns) / SECOND
        wait_s = min(max(wait_s, 0), _LONGEST_WAIT_S)
        ready = poll.poll(math.ceil(1000 * wait_s))
        before, self._round = self._round, clock()
        if self._round.boottime_ns - before.boottime_ns > _ASLEEP_S * SECOND:
            self._began_ns = self._round.boottime_ns  # what did not happen meanwhile is nobody's fault
        if isinstance(watch := self._parts.get("clock"), ClockWatch):
            watch.turned(before, self._round, wait_s)
        self._stop_unless_sole()
        self._run_parts(frozenset(fd for fd, _ in ready if fd != signals.fileno()))

    def _run_parts(self, ready: frozenset[int]) -> None:
        now = clock().boottime_ns
        for name, until in list(self._broken.items()):
            if now >= until:
                del self._broken[name]
                self._begin(_EVERY if self._sole.held else ("http",))
        for name, part in list(self._parts.items()):
            readers, writers = part.descriptors()
            due = part.due_ns()  # which may be "now": the clock comes after it
            if not ((due and clock().boottime_ns >= due) or ready.intersection(readers) or ready.intersection(writers)):
                continue
            try:
                part.run(ready)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other parts go on)
                self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        self.say("part failed", part=name, why=f"{type(error).__name__}: {error}", again_s=_BEGIN_AGAIN_S)
        self._end(name)
        self._broken[name] = clock().boottime_ns + _BEGIN_AGAIN_S * SECOND

    def _told_to_end(self, signals: Signals) -> bool:
        received = signals.received()
        if received & {signal.SIGTERM, signal.SIGINT}:
            return True
        if signal.SIGHUP in received:
            self._reload()
        return False

    # Beginning and end of the parts.

    def _stop_unless_sole(self) -> None:
        """Whoever removes our lock lets a second daemon begin."""
        if not self._sole.still():
            for name in list(self._parts):
                self._end(name)
            self._broken.clear()

    def _start(self) -> None:
        """Begin, if this is the only daemon on the node, whatever carries the other one."""
        if not self._sole.take():
            if self._sole.another:
                self._end("http")  # the other one shows itself
            elif "http" not in self._parts:
                self._begin(("http",))  # nobody else is at work: whoever asks is to be told why this one is not
            return
        self._begin()
        self._run_parts(frozenset())
        notify(READY="1")
        self.say("started", pid=os.getpid(), mode=mode(self.settings))

    def _begin(self, only: Container[str] = _EVERY) -> None:
        """Make every part (of `only`) that is wanted, not there, and has not just failed."""
        wanted = self.settings
        makers: dict[str, Callable[[], Part] | None] = {  # the clock before the passes that read its note
            "clock": (lambda: ClockWatch(wanted.options.root, self.say)) if wanted.leases else None,
            "rules": (lambda: Keeping(self._keeper, self.say, self._watching)) if wanted.rules else None,
            "leases": (lambda: Passing(self._order, wanted.interval_s, self.say)) if wanted.leases else None,
            "durable": lambda: Syncing(wanted.options.root, wanted.options.data_dirs, self.say),
            "http": None,
            "textfile": lambda: Textfile(wanted.textfile, self.figures, self.say),
        }
        if not (wanted.durable and wanted.leases):
            makers["durable"] = None
        if (listen := wanted.listen) is not None:
            makers["http"] = lambda: Server(listen, self._seen.answer, self.say)
        for name, make in makers.items():
            if name not in only:
                continue
            if make is None:
                self._end(name)
                self._ended.pop(name, None)
            elif name not in self._parts and name not in self._broken:
                self._parts[name] = make()
                carry_over(self._ended.pop(name, None), self._parts[name])

    def _end(self, name: str) -> None:
        part = self._parts.pop(name, None)
        if part is None:
            return
        self._ended[name] = part
        try:
            part.close(_PATIENCE_S)
        except Exception as error:  # noqa: BLE001 (it is going away anyhow)
            self.say("part failed", part=name, why=f"{type(error).__name__}: {error}")

    def _close(self) -> None:
        rules = self._parts.get("rules")
        if isinstance(rules, Keeping):
            rules.last_round()
        for name in list(self._parts):
            self._end(name)
        self._sole.close()

    def _reload(self) -> None:
        """Read the settings again. Where they cannot be used, the old ones stay."""
        reloading()
        try:
            new = self._read()
        except Exception as error:  # noqa: BLE001 (whatever a file can be like, the one that was read stays)
            why = str(error) if isinstance(error, SettingsError) else f"{type(error).__name__}: {error}"
            self.say("configuration not read", why=why, then="the old one stays in force")
        else:
            old, self.settings = self.settings, new
            if (old.options, old.repair_rules) != (new.options, new.repair_rules):
                self._end("rules")
            if old.options != new.options:
                self._end("durable")
            if old.listen != new.listen:
                self._end("http")
            if self._sole.held:
                self._begin()
            leases = self._parts.get("leases")
            textfile = self._parts.get("textfile")
            if isinstance(textfile, Textfile):
                textfile.path = new.textfile
                textfile.soon()
            if not isinstance(leases, Passing):
                self._in_force()
                return
            leases.interval_s = new.interval_s
            leases.soon()
            same = (old.options, old.policy, old.keep_days) == (new.options, new.policy, new.keep_days)
            if same and not leases.ending:
                self._in_force()
                return
            # Nothing is done any more by the old order once it is said that the new one is in force.
            leases.end_pass(self._in_force)
            if leases.ending:
                self.say("configuration changes", then="the pass that is under way ends first")
            return
        notify(READY="1")

    def _in_force(self) -> None:
        self.say("configuration read", mode=mode(self.settings))
        notify(READY="1")

    def _keeper(self) -> RuleKeeper | Unknown:
        wanted, proc = self.settings, procfs.find_proc(self.settings.options.root)
        if isinstance(proc, Unknown):
            return proc
        if wanted.repair_rules and wanted.no_rules:
            return Unknown(wanted.no_rules)
        options = wanted.options
        return RuleKeeper(options.root, proc, options.profiles, self.say, observe_only=not wanted.repair_rules)

    def _watching(self, keeper: RuleKeeper) -> None:
        self.say("watching rules", learned=len(keeper.mirror.kept), pid=os.getpid())

    def _order(self, tidy: bool, postponed: frozenset[str]) -> Order:
        wanted = self.settings
        tidy = tidy and wanted.policy.about("LEASE")  # who only observes leaves quarantine and journal alone
        return Order(wanted.options, wanted.policy, wanted.keep_days, tidy, postponed)

    # What is said and shown.

    def say(self, event: str, **fields: object) -> None:
        """A line of the log; what was done is kept for the page."""
        self._say(event, **fields)
        done = deed(clock().realtime_ns / 1e9, event, fields)
        if done is not None:
            self._deeds.appendleft(done)

    def figures(self) -> Figures:
        """All numbers there are, now."""
        return figures(self.settings, self._ended | self._parts, self._dropped, self._lacks)

    def health(self) -> Health:
        """How the daemon is, now."""
        found = health(self.settings, self._ended | self._parts, self._began_ns, self._lacks)
        if self._sole.held or not self._sole.why:
            return found
        # To start it anew would make no lock.
        return Health("", f"not at work: {self._sole.why}; {found.unready}".rstrip("; "), found.problem)

    def _chores(self) -> None:
        """The watchdog and the status; and that there is something new for the textfile."""
        now = clock().boottime_ns
        passing = self._parts.get("leases")
        ended = passing.ended_ns if isinstance(passing, Passing) else 0
        if now < self._chores_ns and ended <= self._written_ns:
            return
        every = min(_LONGEST_WAIT_S, self._watchdog_s or _LONGEST_WAIT_S)
        self._chores_ns = now + int(every * SECOND)
        if self._watchdog_s:
            notify(WATCHDOG="1")
        before, self._lacks = self._lacks, missing(self.settings)
        for lack in [lack for lack in self._lacks if lack not in before]:
            self.say("missing", what=lack.what, why=lack.why)
        if not self._sole.held:
            return
        words = status(self.figures(), self.health())
        if words != self._status:
            notify(STATUS=words)
            self._status = words
        textfile = self._parts.get("textfile")
        if isinstance(textfile, Textfile) and ended > self._written_ns:
            textfile.soon()
        self._written_ns = max(ended, self._written_ns)
