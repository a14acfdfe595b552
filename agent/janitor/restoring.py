"""Keeps the policy rules: watches them, says who deleted one, and puts back what systemd-networkd has deleted.

The deciding is in core/mirror.py; this is its ears and hands. One object, driven by a loop: call `readable` when its
socket is, and `tick` when `deadline` has come.
"""

import select
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from janitor.core.mirror import CHECK_NS, COPY_NS, Kept, Mirror
from janitor.core.profiles import SECOND
from janitor.core.routing import Match, Profile
from janitor.core.rules import PolicyRule, Step
from janitor.core.unknown import Unknown
from janitor.host import mirror_note
from janitor.host.attribution import Attribution, Doer
from janitor.host.files import said
from janitor.host.namespaces import in_network
from janitor.host.netlink import Interrupted, RuleSocket
from janitor.host.owners import Owners
from janitor.host.procfs import Proc, boot_id, clock

QUIET_S: Final = 0.001
"""networkd deletes one rule after the other within a millisecond; put back together, they keep their order."""
BURST_S: Final = 0.01
"""The longest that a burst is waited out."""
SUSPECT_NS: Final = 100_000_000
_ATTEMPTS: Final = 5
RESYNC_NS: Final = 60 * SECOND

Say = Callable[..., None]
"""say(event, **fields): one line of the log."""


@dataclass(slots=True)
class RuleKeeper:
    """The rules of one node. OSError from `start` where the kernel does not let us watch."""

    root: str
    proc: Proc
    profiles: tuple[Profile, ...]
    say: Say
    observe_only: bool = False
    counts: Counter[str] = field(default_factory=Counter)  # "restored kube-router", "deleted by systemd-networkd", …
    mirror: Mirror = field(init=False)
    _socket: RuleSocket = field(init=False)
    _who: Attribution = field(init=False)
    _boot_id: str = ""
    _namespace: int = 0
    _owners: Owners = field(init=False)
    _foreign: dict[Any, PolicyRule] = field(default_factory=dict)  # all there is, whoever's, as last known
    _suspects: list[PolicyRule] = field(default_factory=list)
    _check_ns: int = 0
    _save_ns: int = 0
    _resync_ns: int = 0
    _synced_at: int = 0  # since the epoch: until then nothing had been missed
    _refused: str = ""
    _postponed_ns: int = 0
    _missed: tuple[str, ...] = ()
    _unsure_ns: int = 0  # since when something that a decision rests on cannot be seen; 0 while all can
    _unsure: bool = False  # whether that is so as of the last look
    _retry_ns: int = 0  # when to look again for that reason
    _unjudged: bool = False  # a rule is gone, by whom could not be judged: what was known before is still needed

    # Beginning and end.

    def start(self) -> None:
        """Learn what is there, and look at what has happened since an earlier janitor stopped watching."""
        found = boot_id(self.proc)
        self._boot_id = found if isinstance(found, str) else ""
        path = f"{self.proc.path}/1/ns/net"
        self._namespace = Path(path).stat().st_ino
        self._socket = in_network(path, lambda: RuleSocket(watch=True))
        self._who = Attribution(self.proc)
        self._owners = Owners(self.root, self.proc, self.profiles, blind=self._who.blind())
        if self._owners.blind:
            self.say("deleters out of sight", why="no host PID namespace", then="judged by what goes and by traces")
        self.mirror = Mirror(self.profiles)
        self._look()
        there = self._socket.dump()
        self.mirror.compare(there, declared=self._owners.declared)
        self._remember(there)
        self._resume(there)
        self._resync_ns = clock().boottime_ns + RESYNC_NS
        self._save()

    def close(self) -> None:
        """Write the mirror down, with what is owed, for the next one; and stop watching."""
        self._save()
        self._socket.close()

    def last_round(self) -> None:
        """There may be no next one: put back what is owed, as far as the bounds allow it now."""
        if self.mirror.owed():
            self._restore()

    def fileno(self) -> int:
        """What to select on."""
        return self._socket.fileno()

    def deadline_ns(self) -> int:
        """When to call `tick` at the latest, on CLOCK_BOOTTIME."""
        now = clock().boottime_ns
        due = None if self._check_ns else self.mirror.due_ns(now)
        return min(at for at in (self._resync_ns, self._check_ns, self._retry_ns, self._save_ns, due) if at)

    # Events.

    def readable(self) -> None:
        """Take in what has happened, until a burst of deletions is over, and put back what is owed."""
        began = clock().boottime_ns
        try:
            self._take()
            while self.mirror.owed() and clock().boottime_ns - began < BURST_S * SECOND:
                if not select.select([self._socket], [], [], QUIET_S)[0]:
                    break
                self._take()
        except Interrupted as error:
            self.say("events lost", reason=said(error), then="all rules are compared anew")
            self._look()
            self._resync()
        if self.mirror.owed():
            self._restore()

    def _take(self) -> bool:
        """Take in what is there to read; whether there was anything."""
        doers: dict[int, Doer] = {}
        anything = False
        for event in self._socket.events():
            if event.port == self._socket.port:
                continue
            anything = True
            now = clock().boottime_ns
            self._save_ns = self._save_ns or now + SECOND
            if event.port not in doers:
                doers[event.port] = self._who.who(event.port)
            if event.made:
                self._made(event.rule, doers[event.port], now)
            else:
                self._deleted(event.rule, doers[event.port], now)
        return anything

    def _made(self, rule: PolicyRule, doer: Doer, now: int) -> None:
        if rule.foreign:
            self._foreign[rule.exact] = rule
        fresh = self.mirror.find(rule) is None
        for step in self.mirror.added(rule, now, by_networkd=doer.kind == "networkd"):
            self._do(step, "its owner has made it again")
        if fresh and self.mirror.find(rule) is not None:
            self.say("rule learned", rule=str(rule), made_by=str(doer))

    def _deleted(self, rule: PolicyRule, doer: Doer, now: int) -> None:
        if doer.kind == "unseen":
            self._suspects.append(rule)
            self._check_ns = now + SUSPECT_NS
            return
        self._foreign.pop(rule.exact, None)
        networkd = doer.kind == "networkd"
        kept = self.mirror.wiped(rule, now, str(doer)) if networkd else self.mirror.forget(rule)
        if kept is None:
            return
        self.counts[f"deleted by {'systemd-networkd' if networkd else 'others'}"] += 1
        if networkd:
            self._check_ns = now + CHECK_NS
            if kept.watched_only:
                self.say("rule deleted", rule=str(rule), by=str(doer), left=kept.left_alone)
        else:
            self._save_ns = now  # a janitor that ends now must not restore it in its next life
            self.say("rule deleted", rule=str(rule), by=str(doer), left="that is respected")

    # Putting back.

    def _restore(self) -> None:
        """One round, for what is owed and still wanted as far as is known right now."""
        now = clock().boottime_ns
        for kept in self.mirror.waiting():
            reasons = ("only observing",) if self.observe_only else self._why_not(kept.rule, kept.profile, kept.match)
            kept.undecided = isinstance(reasons, Unknown)
            if reasons and not isinstance(reasons, Unknown):
                self.mirror.forget(kept.rule)
                why = "; ".join(reasons)
                self.say("rule not restored", rule=str(kept.rule), profile=kept.profile.name, by=kept.by, why=why)
        if not self.mirror.owed():
            return
        try:
            steps = self.mirror.due(self._socket.dump(), now)
        except OSError as error:
            self.say("rules not restored", why=f"reading the rules: {said(error)}")
            self._check_ns = now + CHECK_NS
            return
        for step in steps:
            self._do(step)
        due_ns = self.mirror.due_ns(now)
        if due_ns is not None and due_ns > now + CHECK_NS and due_ns != self._postponed_ns:
            seconds = f"{(due_ns - now) / SECOND:.1f}"
            self.say("restoring postponed", rules=len(self.mirror.owed()), for_s=seconds, why="deleted again and again")
            self._postponed_ns = due_ns
        self._check_ns = max(self._check_ns, self.mirror.wiped_ns + CHECK_NS)

    def _do(self, step: Step, why: str = "") -> None:
        rule = step.rule
        before = self.mirror.find(rule)
        owed = before.owed_ns if before is not None else 0
        try:
            if step.do == "remove":
                self._socket.remove(rule)
                self._foreign.pop(rule.exact, None)
            else:
                self._socket.add(rule)
        except (FileExistsError, FileNotFoundError):
            pass  # somebody was quicker, and the result is the same
        except OSError as error:
            sentence = f"{step.do} {rule}: {said(error)}"
            if sentence != self._refused:
                self.say("rule not restored", rule=str(rule), why=said(error), hint=_hint(error))
            self._refused = sentence
            return
        now = clock().boottime_ns
        if step.do == "remove":
            if not owed and why:
                self.say("own rule removed", rule=str(rule), why=why)
            return
        kept = self.mirror.restored(rule, now)
        self._foreign[rule.exact] = rule
        if kept is not None and owed:
            self.counts[f"restored {kept.profile.name}"] += 1
            late = f"{(now - owed) / 1e6:.2f}"
            self.say("rule restored", rule=str(rule), profile=kept.profile.name, deleted_by=kept.by, after_ms=late)
            if kept.broken_ns:
                self.say("rule given up", rule=str(rule), restored=len(kept.times), then="only reported, for an hour")

    # Looking again.

    def tick(self) -> None:
        """Whatever is due: the check after a burst, tokens that have come, the regular comparison, the saving."""
        now = clock().boottime_ns
        looks = [at for at in (self._check_ns, self._retry_ns, self._resync_ns) if at and now >= at]
        if looks:
            self._check_ns, self._retry_ns, self._unsure = 0, 0, False
            self._resync_ns = now + RESYNC_NS
            self._look()
            if self._unsure_ns:
                self._owners.blind = self._who.blind()
            self._withdraw(now)
            self._resync()
            self.mirror.close_breakers(now)
        if self.mirror.owed() or (looks and self.mirror.waiting()):
            self._restore()
        if not self._unsure:
            self._unsure_ns = 0
        self._save_ns = 0
        self._save()

    def _resync(self) -> None:
        """Compare with the kernel: learn what is new; what is gone unseen needs more evidence."""
        there = self._settled()
        if there is None:
            return
        self._unjudged = False
        self._judge_suspects(there)
        self._unattributed(self.mirror.compare(there, declared=self._owners.declared), there, self._synced_at)
        self._remember(there)

    def _settled(self) -> tuple[PolicyRule, ...] | None:
        """The kernel's rules, with no change on its way to us that they do not show yet; None where that never is."""
        for _ in range(_ATTEMPTS):
            try:
                self._take()
                there = self._socket.dump()
                if not self._take():
                    return there
            except Interrupted:
                continue
            except OSError as error:
                self._cannot_tell(Unknown(f"reading the rules: {said(error)}"))
                return None
        self._check_ns = clock().boottime_ns + CHECK_NS
        return None

    def _judge_suspects(self, there: Sequence[PolicyRule]) -> None:
        """Deletions by somebody out of sight: without the host's PID namespace networkd cannot be told from others."""
        suspects, self._suspects = self._suspects, []
        if not suspects:
            return
        gone = [kept for rule in suspects if (kept := self.mirror.find(rule)) is not None]
        self._owners.blind = self._who.blind()
        self.say("deleter out of sight", rules=len(suspects), then="judged by what is gone and by networkd's traces")
        self._unattributed(gone, there, self._synced_at)
        for rule in suspects:
            self._foreign.pop(rule.exact, None)

    def _unattributed(self, gone: Sequence[Kept], there: Sequence[PolicyRule], since_ns: int) -> None:
        now = clock().boottime_ns
        for kept in gone:
            # What we have just put back is no proof that networkd spared it.
            kept_by_us = {
                k.rule.exact for k in self.mirror.by_exact.values() if k.ours and now - k.restored_ns < COPY_NS
            }
            before = tuple(rule for rule in self._foreign.values() if rule.exact not in kept_by_us)
            reasons = self._owners.why_not_networkd(kept.rule, kept.profile, kept.match, before, there, since_ns)
            if isinstance(reasons, Unknown):
                self._unjudged = True
                self._cannot_tell(reasons)
            elif reasons:
                self.mirror.forget(kept.rule)
                self.counts["deleted by unknown"] += 1
                self.say("rule gone", rule=str(kept.rule), left="; ".join(reasons))
            else:
                self.counts["deleted by systemd-networkd"] += 1
                self.mirror.wiped(kept.rule, now)

    def _withdraw(self, now: int) -> None:
        """Forget what nobody wants any more; what we put back a moment ago on older knowledge goes again."""
        for kept, reasons in self.mirror.unwanted(self._why_not):
            self.say("rule forgotten", rule=str(kept.rule), profile=kept.profile.name, why="; ".join(reasons))
            if kept.ours and not kept.owed_ns and now - kept.restored_ns < COPY_NS:
                self._do(Step("remove", kept.rule), "; ".join(reasons))

    def _why_not(self, rule: PolicyRule, profile: Profile, match: Match) -> tuple[str, ...] | Unknown:
        reasons = self._owners.why_not(rule, profile, match)
        if isinstance(reasons, Unknown):
            self._cannot_tell(reasons)
        return reasons

    def _cannot_tell(self, unseen: Unknown) -> None:
        """Nothing is done about a rule on what was not seen: it is looked for again soon, and said once."""
        now = clock().boottime_ns
        if not self._unsure_ns:
            self._unsure_ns = now
            then = "nothing is restored, forgotten or removed on that; it is looked at again"
            self.say("rules undecided", why=unseen.reason, hint=unseen.hint, then=then)
        self._unsure = True
        self._retry_ns = now + min(max(CHECK_NS, now - self._unsure_ns), RESYNC_NS)

    def _look(self) -> None:
        """Look anew at the owners; say it once if a rule of theirs is gone that nobody saw being deleted."""
        self._owners.refresh()
        missed = tuple(gone.rule.words for gone in self._owners.gone())
        for words in set(missed) - set(self._missed):
            self.say("rule missing", rule=words, do="see 'janitor scan --only rules'")
        self._missed = missed
        self._who.remember(self._owners.networkd)

    def _remember(self, there: Sequence[PolicyRule]) -> None:
        if self._unjudged:
            return
        self._foreign = {rule.exact: rule for rule in there if rule.foreign}
        self._synced_at = clock().realtime_ns

    # What survives us.

    def _save(self) -> None:
        if not self._boot_id:
            return
        now, foreign = self._synced_at if self._unjudged else clock().realtime_ns, self._foreign.values()
        try:
            mirror_note.write(
                self.root, self._boot_id, self._namespace, now, foreign, self.mirror.kept, dict(self.counts)
            )
        except OSError as error:
            self.say("mirror not saved", why=said(error))

    def _resume(self, there: Sequence[PolicyRule]) -> None:
        """What an earlier janitor knew in this boot, of this namespace, and is gone now."""
        try:
            note = mirror_note.read(self.root, self._boot_id) if self._boot_id else None
        except ValueError as error:
            self.say("mirror not read", why=str(error))
            return
        if note is None or note.namespace != self._namespace:
            return
        self.counts.update(note.counts)
        present = {rule.exact for rule in there}
        self._foreign = {rule.exact: rule for rule in note.foreign}
        for one in note.kept:
            if one.owed and one.rule.exact not in present:
                self.mirror.owed_before(one.rule, clock().boottime_ns)
        lost = [one.rule for one in note.kept if not one.owed and one.rule.exact not in present]
        gone = [fresh for rule in lost if (fresh := self.mirror.learn(rule)) is not None]
        known_before = {one.rule.exact: one for one in note.kept}
        for kept in self.mirror.kept:
            before = known_before.get(kept.rule.exact)
            if before is not None:
                kept.ours, kept.times, kept.broken_ns = before.ours, before.times, before.broken_ns
        self._synced_at = note.at_ns
        self._unattributed(gone, there, note.at_ns)
        self._remember(there)


def _hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "janitor needs CAP_NET_ADMIN in the node's network namespace"
    return ""
