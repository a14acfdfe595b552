"""Keeps the policy rules: watches them, finds out who deleted one, and has those restored that systemd-networkd
deleted.

core/rules/mirror.py knows which rules should exist, rule_restorer.py restores them, and unattributed.py judges
deletions that nobody saw. A loop drives the one object: call `readable` when its socket is, and `tick` at `due_ns`.
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
"""networkd deletes its victims within a millisecond of each other; restored together, they keep their order."""
BURST_S: Final = 0.01
"""The longest wait for the end of a burst."""
SUSPECT_NS: Final = 100_000_000
RESYNC_NS: Final = 60 * SECOND
_ATTEMPTS: Final = 5


@dataclass(slots=True)
class RuleKeeper:
    """The rules of one network namespace. `restoring` and `unattributed` work on the same memory."""

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
    _check_ns: int | None = None  # when to compare with the kernel because of a deletion
    _resync_ns: int = 0  # when to compare in any case
    _save_ns: int | None = None  # when to save the mirror; None if nothing is new
    _missed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Create the helper objects."""
        self.doubt, self._rule_log = Doubt(self.log), RuleLog(self.log)
        self.unattributed = Unattributed(self.memory, self.owners, self.who, self.doubt, self.log)
        self.restoring = Restoring(self.memory, self.socket, self.owners, self.doubt, self.log, self.observe_only)

    # Start and end.

    def start(self) -> None:
        """Learn the present rules, and judge what has happened since an earlier janitor stopped watching."""
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
            if self.memory.mirror.waiting():  # decided by a look after this one
                self._check_ns = clock().boottime_ns + CHECK_NS
        self._resync_ns = clock().boottime_ns + RESYNC_NS
        self._save()

    def close(self) -> None:
        """Save the mirror, with pending rules, for the next daemon; stop watching."""
        self._save()
        self.socket.close()

    def last_round(self) -> None:
        """Restore what is pending, as far as the limits allow now: there may be no next daemon."""
        if self.memory.mirror.pending_restore():
            self.restoring.restore()

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self.socket.fileno()

    @property
    def due_ns(self) -> int | None:
        """When to call `tick` at the latest, on CLOCK_BOOTTIME."""
        due_ns = self.memory.mirror.due_ns(clock().boottime_ns) if self._check_ns is None else None
        return earliest(self._resync_ns, self._check_ns, self.doubt.again_ns, self._save_ns, due_ns)

    # Events.

    def readable(self) -> None:
        """Read events until a burst of deletions is over, then restore what is pending."""
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
        """Read all available events. Returns whether there were any."""
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
            self._save_ns = now  # a janitor that ends now must not restore it after its restart
            likely = self._likely(actor, kept.profile)
            self._rule_log.log_rule(rule, LogEvent.RULE_DELETED, by=str(actor), likely=likely, left="it stays deleted")

    def _likely(self, actor: Actor, profile: Profile) -> str:
        """The likely actor if only a closed socket is known: kube-router opens one per request."""
        maker = self.owners.likely(profile) if actor.kind == "gone" else None
        return str(Actor("process", maker.pid, maker.name)) if maker is not None else ""

    def _restore(self) -> None:
        check_ns = self.restoring.restore()
        if check_ns is not None:
            self._check_ns = max(self._check_ns or 0, check_ns)

    # Periodic looks.

    def tick(self) -> None:
        """Do what is due: a check after a burst, a postponed restoration, the periodic comparison, saving."""
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
        """Compare with what the rules' owners want, and with the kernel."""
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
        """Look at the owners again; log once each rule of theirs that is gone without a deletion having been seen."""
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
        """The kernel's rules, with no unread event that they do not show yet; None if that cannot be achieved."""
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

    # State that outlives the process.

    def _save(self) -> None:
        try:
            mirror_note.write(self.place, self.memory, clock())
        except OSError as error:
            self.log(LogEvent.MIRROR_NOT_SAVED, why=describe_os_error(error))

    def _note(self) -> mirror_note.Note | None:
        """The note of an earlier janitor from this boot and this network namespace."""
        try:
            return mirror_note.read_here(self.place)
        except ValueError as error:
            self.log(LogEvent.MIRROR_NOT_READ, why=str(error))
            return None


def start_keeper(
    root: str, proc: Proc, profiles: tuple[Profile, ...], log: Log, *, observe_only: bool = False
) -> RuleKeeper:
    """A started keeper for the network namespace of process 1. OSError if the kernel does not allow watching."""
    path = f"{proc.path}/1/ns/net"
    node = node_with(root, proc)
    place = mirror_note.Place(node, Path(path).stat().st_ino)
    socket = in_network(path, lambda: RuleSocket(watch=True))
    who = Attribution(proc)
    owners = Owners(node, profiles, blind=who.blind())
    keeper = RuleKeeper(place, socket, who, owners, RuleMemory(Mirror(profiles), clock()), log, observe_only)
    keeper.start()
    return keeper
