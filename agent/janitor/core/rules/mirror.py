"""The live mirror: which rules there should be, learned from the kernel while they are there.

Whoever makes a rule, other than janitor, teaches it; whoever deletes one, other than systemd-networkd, makes it
forgotten. What networkd deletes is owed: it is put back, in the recorded order, by the steps that `due` names.
Pure: time comes in as nanoseconds of CLOCK_BOOTTIME, the kernel's word as dumps and events. What may go wrong with
such a thing has gone wrong elsewhere (cloudnativelabs/kube-router#1738), so it is bounded on every side.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from janitor.core.model.reason import Reason
from janitor.core.model.routing import Match, OwnedRule, Profile
from janitor.core.model.rules import RTPROT_KERNEL, RTPROT_STATIC, Exact, PolicyRule, Step, replay
from janitor.core.model.unknown import Unknown
from janitor.core.rules.profiles import SECOND, profile_of

CHECK_NS: Final = 250_000_000
"""After the last deletion of a burst, a dump says whether all of it is back."""
ROUNDS: Final = 3
TOKENS: Final = 10
TOKEN_NS: Final = 5 * SECOND
"""One burst in five seconds, ten of them at once: as Tailscale does, which has had years of it."""
MANY: Final = 30
HOUR_NS: Final = 3600 * SECOND
"""A rule that had to be restored so often within an hour is reported from then on, and left alone."""
COPY_NS: Final = 5 * SECOND
"""For so long after we restored a rule, its owner's making it too is the two of us acting at once."""
OBSERVE_ONLY_S: Final = 10
"""What its owner restores by itself within so many seconds is left to it."""

Wanted = Callable[[OwnedRule], tuple[Reason, ...] | Unknown]
"""Says why nobody wants a rule any more; nothing if somebody does; Unknown if it cannot be told."""


@dataclass(slots=True)
class Kept:
    """One rule of the mirror. `owed_ns`: since when networkd has it deleted; 0 while it is there."""

    rule: PolicyRule
    profile: Profile
    match: Match
    ours: bool = False
    pending_since_ns: int = 0
    by: str = ""  # who deleted it
    undecided: bool = False  # it is owed, but whether anybody wants it is still to be seen: nothing is done about it
    networkds: bool = False  # systemd-networkd made it: it is not owed
    restored_ns: int = 0
    times: tuple[int, ...] = ()  # when it was restored, within the last hour
    broken_ns: int = 0
    place: int = 0  # among those of its priority, which the kernel has in the order in which they were made

    @property
    def owned(self) -> OwnedRule:
        """The rule with its owner."""
        return OwnedRule(self.rule, self.profile, self.match)

    def put_back_lately(self, now_ns: int) -> bool:
        """Whether we made it, and only a moment ago."""
        return self.ours and now_ns - self.restored_ns < COPY_NS

    @property
    def watched_only(self) -> bool:
        """Whether its deletion is only counted."""
        heals = self.match.self_heals_after
        return self.networkds or bool(self.broken_ns) or (heals is not None and heals <= OBSERVE_ONLY_S)

    @property
    def left_alone(self) -> str:
        """Why that is so."""
        if self.networkds:
            return "systemd-networkd made it itself"
        return "restored too often" if self.broken_ns else "its owner adds it again by itself"


@dataclass(slots=True)
class Mirror:
    """The rules of both families, those of one priority in the order in which the kernel has them."""

    profiles: tuple[Profile, ...]
    by_exact: dict[Exact, Kept] = field(default_factory=dict)
    placed: int = 0
    tokens: float = TOKENS
    filled_ns: int = 0
    rounds: int = 0
    deleted_by_networkd_ns: int = 0  # the last deletion by networkd

    @property
    def kept(self) -> list[Kept]:
        """All of them, in the kernel's order."""
        return sorted(self.by_exact.values(), key=lambda k: (k.rule.family, k.rule.priority, k.place))

    def find(self, rule: PolicyRule) -> Kept | None:
        """What is known of this very rule."""
        return self.by_exact.get(rule.exact)

    # What is learned.

    def learn(self, rule: PolicyRule) -> Kept | None:
        """There is such a rule now, by whomever. None where no enabled profile knows it, or it is known already."""
        kept = self.find(rule)
        if kept is not None:
            if kept.pending_since_ns:
                kept.pending_since_ns, kept.ours = 0, False
                self._place(kept)  # made again by its owner: the kernel has put it behind its equals
            return None
        found = profile_of(rule, self.profiles)
        if found is None:
            return None
        kept = self.by_exact[rule.exact] = Kept(rule, *found)
        self._place(kept)
        return kept

    def added(self, rule: PolicyRule, now_ns: int, *, by_networkd: bool = False) -> list[Step]:
        """Somebody else has made a rule. Where the same one is owed, or was put back a moment ago, there is to be one.

        That is its owner, starting at the same moment as networkd. The steps take away what we made.
        """
        self.learn(rule)
        made = self.find(rule)
        if made is None:
            return []
        made.networkds = by_networkd
        copies = [
            k
            for k in self.by_exact.values()
            if k.rule.identity == rule.identity
            and k.rule.exact != rule.exact
            and (k.pending_since_ns or k.put_back_lately(now_ns))
        ]
        for k in copies:
            del self.by_exact[k.rule.exact]
        return [Step("remove", k.rule) for k in copies if not k.pending_since_ns]

    def forget(self, rule: PolicyRule) -> Kept | None:
        """Somebody who may do so has deleted it: it is not put back. None where it was not in the mirror."""
        return self.by_exact.pop(rule.exact, None)

    def pending_before(self, rule: PolicyRule, now_ns: int) -> None:
        """An earlier janitor owed it when it ended: so do we."""
        kept = self.learn(rule) or self.find(rule)
        if kept is not None:
            kept.pending_since_ns, kept.by = now_ns, "systemd-networkd, before janitor was restarted"

    def deleted_by_networkd(self, rule: PolicyRule, now_ns: int, by: str = "systemd-networkd") -> Kept | None:
        """networkd has deleted it. None where it was not in the mirror."""
        kept = self.find(rule)
        if kept is None:
            return None
        if now_ns - self.deleted_by_networkd_ns > CHECK_NS:
            self.rounds = 0  # another burst
        kept.pending_since_ns = self.deleted_by_networkd_ns = now_ns
        kept.by, kept.undecided = by, False
        if kept.profile.protocol == "kernel":  # pinned: the next wipe does not touch it
            del self.by_exact[kept.rule.exact]
            kept.rule = replace(kept.rule, protocol=RTPROT_KERNEL)
            self.by_exact[kept.rule.exact] = kept
        return kept

    # What is to be done.

    def pending_restore(self) -> list[Kept]:
        """What networkd has deleted and is to be put back."""
        return [kept for kept in self.waiting() if not kept.undecided]

    def waiting(self) -> list[Kept]:
        """The same, with those of which it is still to be seen whether anybody wants them."""
        return [kept for kept in self.by_exact.values() if kept.pending_since_ns and not kept.watched_only]

    def due_ns(self, now_ns: int) -> int | None:
        """When to call `due` again; None for not before something happens."""
        if not self.pending_restore():
            return None
        self._fill(now_ns)
        wait = 0 if self.tokens >= 1 or self.rounds else int((1 - self.tokens) * TOKEN_NS)
        rest = self.deleted_by_networkd_ns + TOKEN_NS if self.rounds >= ROUNDS else 0
        return max(now_ns + wait, rest)

    def due(self, there: Sequence[PolicyRule], now_ns: int) -> list[Step]:
        """The steps of one round of this burst, for `there`, the kernel's rules right now; [] while none is allowed.

        A burst costs a token, with its first round.
        """
        self._fill(now_ns)
        if self.rounds >= ROUNDS and now_ns - self.deleted_by_networkd_ns >= TOKEN_NS:
            self.rounds = 0
        exact = {rule.exact for rule in there}
        for kept in self.by_exact.values():
            if kept.pending_since_ns and kept.rule.exact in exact:
                kept.pending_since_ns = 0  # its owner was quicker
        pending_restore = self.pending_restore()
        if not pending_restore or (self.tokens < 1 and not self.rounds) or self.rounds >= ROUNDS:
            return []
        ours = frozenset(kept.rule for kept in self.by_exact.values() if kept.ours and not kept.pending_since_ns)
        wanted = [kept.rule for kept in self.kept if not (kept.watched_only or kept.undecided)]
        may = {kept.rule.exact for kept in pending_restore} | {rule.exact for rule in ours}
        steps = [step for step in replay(wanted, there, ours) if step.rule.exact in may]
        if steps:
            self.tokens -= self.rounds == 0
            self.rounds += 1
        else:
            # A copy that does the same is there: nothing is left to put back.
            for kept in pending_restore:
                del self.by_exact[kept.rule.exact]
        return steps

    def restored(self, rule: PolicyRule, now_ns: int) -> Kept | None:
        """It is back, by us. None where it was not in the mirror."""
        kept = self.find(rule)
        if kept is not None:
            self._place(kept)
        if kept is not None and kept.pending_since_ns:
            kept.ours, kept.pending_since_ns, kept.restored_ns = True, 0, now_ns
            kept.times = (*(at for at in kept.times if at > now_ns - HOUR_NS), now_ns)
            if len(kept.times) >= MANY:
                kept.broken_ns = now_ns
        return kept

    def close_breakers(self, now_ns: int) -> None:
        """Breakers that have been open for an hour close again."""
        for kept in self.by_exact.values():
            if kept.broken_ns and now_ns - kept.broken_ns > HOUR_NS:
                kept.broken_ns, kept.times = 0, ()

    def unwanted(self, why_not: Wanted) -> list[tuple[Kept, tuple[Reason, ...]]]:
        """Forget what nobody wants any more; with the reasons."""
        reasons = [(kept, why_not(kept.owned)) for kept in self.kept]
        gone = [(kept, why) for kept, why in reasons if why and not isinstance(why, Unknown)]
        for kept, _ in gone:
            del self.by_exact[kept.rule.exact]
        return gone

    def compare(self, there: Iterable[PolicyRule], *, declared: bool = False) -> list[Kept]:
        """Learn what there is, and return what is gone although nobody was seen to delete it.

        `declared`: networkd's own configuration declares rules, which are `proto static`; those are its own business.
        """
        found = list(there)
        for rule in found:
            fresh = self.learn(rule)
            if fresh is not None:
                fresh.networkds = declared and rule.protocol == RTPROT_STATIC
        exact = {rule.exact for rule in found}
        return [kept for kept in self.kept if not kept.pending_since_ns and kept.rule.exact not in exact]

    def _place(self, kept: Kept) -> None:
        """Behind those of its priority, as the kernel does."""
        self.placed += 1
        kept.place = self.placed

    def _fill(self, now_ns: int) -> None:
        if self.filled_ns:
            self.tokens = min(TOKENS, self.tokens + (now_ns - self.filled_ns) / TOKEN_NS)
        self.filled_ns = now_ns
