"""Keeps the policy rules: watches them, says who deleted one, and has put back what systemd-networkd has deleted.

What there should be is in core/rules/mirror.py, putting it back in restoring.py, and what nobody was seen to delete is
judged in unattributed.py. One object, driven by a loop: call `readable` when its socket is, and `tick` when `due_ns`
has come.
"""

import select
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.retry import SECOND, earliest, is_due
from janitor.core.model.routing import Profile
from janitor.core.model.rules import PolicyRule
from janitor.core.rules.mirror import CHECK_NS, Mirror
from janitor.core.rules.rule_memory import RuleMemory
from janitor.daemon.rule_log import RuleLog
from janitor.daemon.rule_restorer import Restoring
from janitor.daemon.unattributed import Unattributed
from janitor.daemon.uncertainty import Doubt
from janitor.host.changes import saved_rules as mirror_note
from janitor.host.files import describe_os_error, unknown
from janitor.host.kernel.attribution import Actor, Attribution
from janitor.host.kernel.namespaces import in_network
from janitor.host.kernel.netlink import Interrupted, RuleSocket
from janitor.host.kernel.procfs import Proc, clock
from janitor.host.node import node_with
from janitor.host.rule_owners import Owners
from janitor.report.events import Log, LogEvent

QUIET_S: Final = 0.001
"""networkd deletes one rule after the other within a millisecond; put back together, they keep their order."""
BURST_S: Final = 0.01
"""The longest that a burst is waited out."""
SUSPECT_NS: Final = 100_000_000
RESYNC_NS: Final = 60 * SECOND
_ATTEMPTS: Final = 5


@dataclass(slots=True)
class RuleKeeper:
    """The rules of one network namespace. Its hands and its judge work on the same memory."""

    place: mirror_note.Place
    socket: RuleSocket
    who: Attribution
    owners: Owners
    memory: RuleMemory
    log: Log
    observe_only: bool = False
    doubt: Doubt = field(init=False)
    unattributed: Unattributed = field(init=False)
    restoring: Restoring = field(init=False)
    _rule_log: RuleLog = field(init=False)
    _check_ns: int | None = None  # when to compare with the kernel on account of a deletion
    _resync_ns: int = 0  # when to do so whatever happens
    _save_ns: int | None = None  # when to write the mirror down; None where nothing is new
    _missed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Those who work for it."""
        self.doubt, self._rule_log = Doubt(self.log), RuleLog(self.log)
        self.unattributed = Unattributed(self.memory, self.owners, self.who, self.doubt, self.log)
        self.restoring = Restoring(self.memory, self.socket, self.owners, self.doubt, self.log, self.observe_only)

    # Beginning and end.

    def start(self) -> None:
        """Learn what is there, and look at what has happened since an earlier janitor stopped watching."""
        if self.owners.blind:
            then = "deletions are judged by which rules are gone and by systemd-networkd's traces"
            self.log(LogEvent.DELETERS_OUT_OF_SIGHT, why="no host PID namespace", then=then)
        self._look()
        there = self.socket.dump()
        self.memory.mirror.compare(there, declared=self.owners.declared)
        self.memory.remember(there, clock())
        note = self._note()
        if note is not None:
            self.unattributed.go_on_from(note, there)
            if self.memory.mirror.waiting():  # which is decided on a look that comes after it
                self._check_ns = clock().boottime_ns + CHECK_NS
        self._resync_ns = clock().boottime_ns + RESYNC_NS
        self._save()

    def close(self) -> None:
        """Write the mirror down, with what is owed, for the next one; and stop watching."""
        self._save()
        self.socket.close()

    def last_round(self) -> None:
        """There may be no next one: put back what is owed, as far as the bounds allow it now."""
        if self.memory.mirror.pending_restore():
            self.restoring.restore()

    def fileno(self) -> int:
        """What to select on."""
        return self.socket.fileno()

    @property
    def due_ns(self) -> int | None:
        """When to call `tick` at the latest, on CLOCK_BOOTTIME."""
        due_ns = self.memory.mirror.due_ns(clock().boottime_ns) if self._check_ns is None else None
        return earliest(self._resync_ns, self._check_ns, self.doubt.again_ns, self._save_ns, due_ns)

    # Hearing.

    def readable(self) -> None:
        """Take in what has happened, until a burst of deletions is over, and put back what is owed."""
        began = clock().boottime_ns
        try:
            self._take()
            while self.memory.mirror.pending_restore() and clock().boottime_ns - began < BURST_S * SECOND:
                if not select.select([self.socket], [], [], QUIET_S)[0]:
                    break
                self._take()
        except Interrupted as error:
            self.log(LogEvent.EVENTS_LOST, reason=describe_os_error(error), then="all rules are compared again")
            self._look()
            self._resync()
        if self.memory.mirror.pending_restore():
            self._restore()

    def _take(self) -> bool:
        """Take in what is there to read; whether there was anything."""
        actors: dict[int, Actor] = {}
        anything = False
        for event in self.socket.events():
            if event.port == self.socket.port:
                continue
            anything = True
            now = clock().boottime_ns
            self._save_ns = now + SECOND if self._save_ns is None else self._save_ns
            if event.port not in actors:
                actors[event.port] = self.who.who(event.port)
            if event.made:
                self._made(event.rule, actors[event.port], now)
            else:
                self._deleted(event.rule, actors[event.port], now)
        return anything

    def _made(self, rule: PolicyRule, actor: Actor, now: int) -> None:
        self.memory.made(rule)
        fresh = self.memory.mirror.find(rule) is None
        for step in self.memory.mirror.added(rule, now, by_networkd=actor.kind == "networkd"):
            self.restoring.take_away(step.rule, "its owner has added it again")
        kept = self.memory.mirror.find(rule)
        if fresh and kept is not None:
            likely = self._likely(actor, kept.profile)
            self._rule_log.log_rule(rule, LogEvent.RULE_LEARNED, made_by=str(actor), likely=likely)

    def _deleted(self, rule: PolicyRule, actor: Actor, now: int) -> None:
        if actor.kind == "unseen":
            self.memory.suspects.append(rule)
            self._check_ns = now + SUSPECT_NS
            return
        self.memory.deleted(rule)
        if actor.kind == "networkd":
            kept = self.memory.mirror.deleted_by_networkd(rule, now, str(actor))
            if kept is not None:
                self.memory.counts.deleted["systemd-networkd"] += 1
                self._check_ns = now + CHECK_NS
                if kept.watched_only:
                    self._rule_log.log_rule(rule, LogEvent.RULE_DELETED, by=str(actor), left=kept.left_alone)
        elif (kept := self.memory.mirror.forget(rule)) is not None:
            self.memory.counts.deleted["others"] += 1
            self._save_ns = now  # a janitor that ends now must not restore it in its next life
            likely = self._likely(actor, kept.profile)
            self._rule_log.log_rule(rule, LogEvent.RULE_DELETED, by=str(actor), likely=likely, left="it stays deleted")

    def _likely(self, actor: Actor, profile: Profile) -> str:
        """Who it was in all likelihood, where all that is known is that the socket is closed: kube-router's lives for
        one request."""
        maker = self.owners.likely(profile) if actor.kind == "gone" else None
        return str(Actor("process", maker.pid, maker.name)) if maker is not None else ""

    def _restore(self) -> None:
        check_ns = self.restoring.restore()
        if check_ns is not None:
            self._check_ns = max(self._check_ns or 0, check_ns)

    # Looking again.

    def tick(self) -> None:
        """Whatever is due: the check after a burst, tokens that have come, the regular comparison, the saving."""
        now = clock().boottime_ns
        compared = is_due(earliest(self._check_ns, self.doubt.again_ns, self._resync_ns), now)
        if compared:
            self._compare(now)
        if self.memory.mirror.pending_restore() or (compared and self.memory.mirror.waiting()):
            self._restore()
        self.doubt.end_unless_still()
        self._save_ns = None
        self._save()

    def _compare(self, now: int) -> None:
        """With what the owners of the rules want, and with what the kernel has."""
        if now >= self._resync_ns:
            self._rule_log.log_untold()
        self._check_ns, self._resync_ns = None, now + RESYNC_NS
        doubted = self.doubt.look_again()
        self._look()
        if doubted:
            self.owners.blind = self.who.blind()
        self.restoring.withdraw(now)
        self._resync()
        self.memory.mirror.close_breakers(now)

    def _look(self) -> None:
        """Look anew at the owners; say it once if a rule of theirs is gone that nobody saw being deleted."""
        self.owners.refresh()
        missed = tuple(gone.rule.words for gone in self.owners.gone())
        for words in set(missed) - set(self._missed):
            self.log(LogEvent.RULE_MISSING, rule=words, do="run 'janitor scan --only rules'")
        self._missed = missed
        self.who.remember(self.owners.networkd)

    def _resync(self) -> None:
        there = self._settled()
        if there is not None:
            self.unattributed.compare(there)

    def _settled(self) -> tuple[PolicyRule, ...] | None:
        """The kernel's rules, with no change on its way to us that they do not show yet; None where that never is."""
        for _ in range(_ATTEMPTS):
            try:
                self._take()
                there = self.socket.dump()
                if not self._take():
                    return there
            except Interrupted:
                continue
            except OSError as error:
                self.doubt.about(unknown(Code.CANNOT_READ_RULES, error))
                return None
        self._check_ns = clock().boottime_ns + CHECK_NS
        return None

    # What survives us.

    def _save(self) -> None:
        try:
            mirror_note.write(self.place, self.memory, clock())
        except OSError as error:
            self.log(LogEvent.MIRROR_NOT_SAVED, why=describe_os_error(error))

    def _note(self) -> mirror_note.Note | None:
        """What an earlier janitor wrote down in this boot, of this network namespace."""
        try:
            return mirror_note.read_here(self.place)
        except ValueError as error:
            self.log(LogEvent.MIRROR_NOT_READ, why=str(error))
            return None


def start_keeper(
    root: str, proc: Proc, profiles: tuple[Profile, ...], log: Log, *, observe_only: bool = False
) -> RuleKeeper:
    """A keeper at work, for the network namespace of process 1. OSError where the kernel does not let us watch."""
    path = f"{proc.path}/1/ns/net"
    node = node_with(root, proc)
    place = mirror_note.Place(node, Path(path).stat().st_ino)
    socket = in_network(path, lambda: RuleSocket(watch=True))
    who = Attribution(proc)
    owners = Owners(node, profiles, blind=who.blind())
    keeper = RuleKeeper(place, socket, who, owners, RuleMemory(Mirror(profiles), clock()), log, observe_only)
    keeper.start()
    return keeper
