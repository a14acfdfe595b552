"""The live mirror: which rules should exist, learned from the kernel while they exist.

A rule that anybody but janitor adds is learned; one that anybody but systemd-networkd deletes is forgotten. A rule that
networkd deletes is pending: it is put back, in the recorded order, by the steps of `due`.

Pure: time comes in as nanoseconds of CLOCK_BOOTTIME, the kernel's state as dumps and events. Such repairs have gone
wrong elsewhere (cloudnativelabs/kube-router#1738), so everything here is bounded.
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
"""How long after the last deletion of a burst a dump verifies that all rules are back."""
ROUNDS: Final = 3
TOKENS: Final = 10
TOKEN_NS: Final = 5 * SECOND
"""One burst per five seconds, at most ten at once: Tailscale's limits, proven over years."""
MANY: Final = 30
HOUR_NS: Final = 3600 * SECOND
"""A rule that was restored this often within an hour is only reported from then on."""
COPY_NS: Final = 5 * SECOND
"""If the owner adds a rule within this time after janitor restored it, both acted at once: one copy is removed."""
OBSERVE_ONLY_S: Final = 10
"""A rule that its owner restores within this many seconds is left to the owner."""

Wanted = Callable[[OwnedRule], tuple[Reason, ...] | Unknown]
"""Returns why a rule is no longer wanted: empty if it is wanted, Unknown if that cannot be told."""


@dataclass(slots=True)
class Kept:
    """One rule of the mirror. `pending_since_ns`: when networkd deleted it; 0 while it exists."""

    rule: PolicyRule
    profile: Profile
    match: Match
    ours: bool = False
    pending_since_ns: int = 0
    by: str = ""  # who deleted it
    undecided: bool = False  # pending, but not yet known to be wanted: nothing is done
    networkds: bool = False  # systemd-networkd made it: it is never pending
    restored_ns: int = 0
    times: tuple[int, ...] = ()  # restorations within the last hour
    broken_ns: int = 0
    place: int = 0  # order of creation among rules of equal priority, as the kernel keeps them

    @property
    def owned(self) -> OwnedRule:
        """The rule with its owner."""
        return OwnedRule(self.rule, self.profile, self.match)

    def put_back_lately(self, now_ns: int) -> bool:
        """Whether janitor restored it within COPY_NS."""
        return self.ours and now_ns - self.restored_ns < COPY_NS

    @property
    def watched_only(self) -> bool:
        """Whether its deletion is only counted, not repaired."""
        heals = self.match.self_heals_after
        return self.networkds or bool(self.broken_ns) or (heals is not None and heals <= OBSERVE_ONLY_S)

    @property
    def left_alone(self) -> str:
        """Why it is only watched."""
        if self.networkds:
            return "systemd-networkd made it itself"
        return "restored too often" if self.broken_ns else "its owner adds it again by itself"


@dataclass(slots=True)
class Mirror:
    """The rules of both families; rules of equal priority are in the kernel's order."""

    profiles: tuple[Profile, ...]
    by_exact: dict[Exact, Kept] = field(default_factory=dict)
    placed: int = 0
    tokens: float = TOKENS
    filled_ns: int = 0
    rounds: int = 0
    deleted_by_networkd_ns: int = 0  # the last deletion by networkd

    @property
    def kept(self) -> list[Kept]:
        """All rules, in the kernel's order."""
        return sorted(self.by_exact.values(), key=lambda k: (k.rule.family, k.rule.priority, k.place))

    def find(self, rule: PolicyRule) -> Kept | None:
        """The mirror's entry for exactly this rule."""
        return self.by_exact.get(rule.exact)

    # Learning.

    def learn(self, rule: PolicyRule) -> Kept | None:
        """Record that the rule exists, whoever made it. None if no enabled profile matches, or if it is known."""
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
        """Somebody else added a rule. Returns the steps that remove janitor's copies of it.

        If the same rule is pending or was restored a moment ago, its owner acted at the same time as janitor. Only one
        copy may remain.
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
        """Somebody entitled to it has deleted the rule: it is not put back. None if it was not in the mirror."""
        return self.by_exact.pop(rule.exact, None)

    def pending_before(self, rule: PolicyRule, now_ns: int) -> None:
        """The rule was pending when an earlier janitor ended, so it is pending again."""
        kept = self.learn(rule) or self.find(rule)
        if kept is not None:
            kept.pending_since_ns, kept.by = now_ns, "systemd-networkd, before janitor was restarted"

    def deleted_by_networkd(self, rule: PolicyRule, now_ns: int, by: str = "systemd-networkd") -> Kept | None:
        """networkd has deleted the rule. None if it was not in the mirror."""
        kept = self.find(rule)
        if kept is None:
            return None
        if now_ns - self.deleted_by_networkd_ns > CHECK_NS:
            self.rounds = 0  # a new burst
        kept.pending_since_ns = self.deleted_by_networkd_ns = now_ns
        kept.by, kept.undecided = by, False
        if kept.profile.protocol == "kernel":  # pinned: networkd's next wipe does not touch it
            del self.by_exact[kept.rule.exact]
            kept.rule = replace(kept.rule, protocol=RTPROT_KERNEL)
            self.by_exact[kept.rule.exact] = kept
        return kept

    # Restoring.

    def pending_restore(self) -> list[Kept]:
        """The rules that networkd deleted and that are to be put back."""
        return [kept for kept in self.waiting() if not kept.undecided]

    def waiting(self) -> list[Kept]:
        """The same, including those not yet known to be wanted."""
        return [kept for kept in self.by_exact.values() if kept.pending_since_ns and not kept.watched_only]

    def due_ns(self, now_ns: int) -> int | None:
        """When to call `due` again; None if only an event can change anything."""
        if not self.pending_restore():
            return None
        self._fill(now_ns)
        wait = 0 if self.tokens >= 1 or self.rounds else int((1 - self.tokens) * TOKEN_NS)
        rest = self.deleted_by_networkd_ns + TOKEN_NS if self.rounds >= ROUNDS else 0
        return max(now_ns + wait, rest)

    def due(self, there: Sequence[PolicyRule], now_ns: int) -> list[Step]:
        """The steps of the next round of this burst. `there` are the kernel's current rules; [] while no round is
        allowed.

        A burst costs one token, taken with its first round.
        """
        self._fill(now_ns)
        if self.rounds >= ROUNDS and now_ns - self.deleted_by_networkd_ns >= TOKEN_NS:
            self.rounds = 0
        exact = {rule.exact for rule in there}
        for kept in self.by_exact.values():
            if kept.pending_since_ns and kept.rule.exact in exact:
                kept.pending_since_ns = 0  # its owner was faster
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
            # An equivalent copy exists: there is nothing left to put back.
            for kept in pending_restore:
                del self.by_exact[kept.rule.exact]
        return steps

    def restored(self, rule: PolicyRule, now_ns: int) -> Kept | None:
        """janitor has restored the rule. None if it was not in the mirror."""
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
        """Close the breakers that have been open for an hour."""
        for kept in self.by_exact.values():
            if kept.broken_ns and now_ns - kept.broken_ns > HOUR_NS:
                kept.broken_ns, kept.times = 0, ()

    def unwanted(self, why_not: Wanted) -> list[tuple[Kept, tuple[Reason, ...]]]:
        """Forget the rules that are no longer wanted; returns them with the reasons."""
        reasons = [(kept, why_not(kept.owned)) for kept in self.kept]
        gone = [(kept, why) for kept, why in reasons if why and not isinstance(why, Unknown)]
        for kept, _ in gone:
            del self.by_exact[kept.rule.exact]
        return gone

    def compare(self, there: Iterable[PolicyRule], *, declared: bool = False) -> list[Kept]:
        """Learn the existing rules; returns those that are gone without a deletion having been seen.

        `declared`: networkd's own configuration declares rules. These are `proto static`, and networkd manages them
        itself.
        """
        found = list(there)
        for rule in found:
            fresh = self.learn(rule)
            if fresh is not None:
                fresh.networkds = declared and rule.protocol == RTPROT_STATIC
        exact = {rule.exact for rule in found}
        return [kept for kept in self.kept if not kept.pending_since_ns and kept.rule.exact not in exact]

    def _place(self, kept: Kept) -> None:
        """Put it behind the rules of its priority, as the kernel does."""
        self.placed += 1
        kept.place = self.placed

    def _fill(self, now_ns: int) -> None:
        if self.filled_ns:
            self.tokens = min(TOKENS, self.tokens + (now_ns - self.filled_ns) / TOKEN_NS)
        self.filled_ns = now_ns
