"""The mirror against a model of the kernel's rule list, with everybody acting in any order."""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from janitor.core.model.routing import Match, Profile
from janitor.core.model.rules import PolicyRule, Step, derived, replay
from janitor.core.rules.mirror import MANY, TOKEN_NS, TOKENS, Mirror

MS = 1_000_000
GENERIC = Profile("generic", "any rule", enabled=True, rules=(Match(),))


def made(number: int, priority: int, protocol: int = 0) -> PolicyRule:
    return replace(derived(f"10.{number}.0.0/24", 77), priority=priority, protocol=protocol)


def insert(kernel: list[PolicyRule], new: PolicyRule) -> bool:
    """As fib_nl_newrule does: behind those of equal priority; not a second time."""
    if any(one.exact == new.exact for one in kernel):
        return False
    kernel.insert(sum(one.priority <= new.priority for one in kernel), new)
    return True


RULES = st.lists(
    st.builds(made, st.integers(0, 6), st.sampled_from([100, 100, 200, 300]), st.sampled_from([0, 3, 17])),
    max_size=10,
    unique_by=lambda one: one.exact,
)


@given(RULES, st.data())
@settings(max_examples=500)
def test_what_was_wiped_returns_in_its_order(rules: list[PolicyRule], data: st.DataObject) -> None:
    """Whatever part of it is gone, and whatever part of the rest is ours, as long as what follows may be moved."""
    before: list[PolicyRule] = []
    for one in rules:
        insert(before, one)
    gone = data.draw(st.sets(st.sampled_from(before))) if before else set()
    kernel = [one for one in before if one not in gone]
    for step in replay(before, tuple(kernel), frozenset(kernel)):
        if step.do == "remove":
            kernel.remove(step.rule)
        else:
            assert insert(kernel, step.rule)
    assert kernel == before
    assert replay(before, tuple(kernel), frozenset(kernel)) == []


@given(RULES, RULES)
@settings(max_examples=500)
def test_nothing_is_removed_that_is_not_ours_and_no_copy_is_made(
    wanted: list[PolicyRule], there: list[PolicyRule]
) -> None:
    steps = replay(wanted, there, frozenset())
    assert all(step.do == "add" for step in steps)
    after = [*there, *(step.rule for step in steps)]
    for one in wanted:
        copies = sum(other.identity == one.identity for other in after)
        assert copies <= max(
            sum(other.identity == one.identity for other in wanted), sum(o.identity == one.identity for o in there)
        )


class Everybody(RuleBasedStateMachine):
    """networkd wipes, an operator and an owner add and delete, time passes; janitor follows the events at once."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: list[PolicyRule] = []
        self.mirror = Mirror((GENERIC,))
        self.now = TOKEN_NS
        self.deleted_by_hand: set[object] = set()
        self.added_ns: list[int] = []

    @initialize(rules=RULES)
    def begin(self, rules: list[PolicyRule]) -> None:
        for one in rules:
            insert(self.kernel, one)
        self.mirror.compare(self.kernel)

    def _do(self, steps: list[Step]) -> None:
        for step in steps:
            if step.do == "remove":
                assert step.rule in self.kernel
                self.kernel.remove(step.rule)
                continue
            assert step.rule.exact not in self.deleted_by_hand, "somebody had deleted it on purpose"
            insert(self.kernel, step.rule)
            self.mirror.restored(step.rule, self.now)
            self.added_ns.append(self.now)

    def _restore(self) -> None:
        self._do(self.mirror.due(tuple(self.kernel), self.now))

    @rule(data=st.data(), at_once=st.booleans())
    def networkd_wipes(self, data: st.DataObject, at_once: bool) -> None:
        gone = [one for one in self.kernel if one.foreign]
        for one in data.draw(st.permutations(gone)):
            self.kernel.remove(one)
            self.mirror.deleted_by_networkd(one, self.now)
        if at_once:
            self._restore()

    @precondition(lambda self: self.kernel)
    @rule(data=st.data())
    def somebody_deletes(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.kernel))
        self.kernel.remove(one)
        self.mirror.forget(one)
        self.deleted_by_hand.add(one.exact)

    @rule(number=st.integers(0, 6), priority=st.sampled_from([100, 200, 300]))
    def somebody_adds(self, number: int, priority: int) -> None:
        one = made(number, priority)
        if insert(self.kernel, one):
            self.deleted_by_hand.discard(one.exact)
            self._do(self.mirror.added(one, self.now))

    @rule(ms=st.sampled_from([1, 100, 300, 5_000, 60_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms * MS
        self._restore()
        self.mirror.close_breakers(self.now)

    @rule()
    def quiet(self) -> None:
        """After long enough nothing is owed, but what was given up."""
        for _ in range(4):
            self.now += 20 * TOKEN_NS
            self._restore()
        assert not self.mirror.pending_restore()
        there = {one.exact for one in self.kernel}
        for kept in self.mirror.kept:
            assert kept.rule.exact in there or kept.broken_ns

    @invariant()
    def bounded(self) -> None:
        rounds = len(set(self.added_ns))
        assert rounds <= TOKENS + (self.now - TOKEN_NS) / TOKEN_NS + 1
        for kept in self.mirror.kept:
            assert len(kept.times) <= MANY

    @invariant()
    def the_mirror_is_in_the_kernels_order(self) -> None:
        order = [one.exact for one in self.kernel]
        mirrored = [k.rule.exact for k in self.mirror.kept if k.rule.exact in order]
        assert mirrored == [one for one in order if one in mirrored]


Everybody.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestEverybody = Everybody.TestCase


def test_a_derived_rule_is_a_whole_message() -> None:
    for source, family, length in (("10.244.0.0/24", 2, 28), ("fd00:10:244::/64", 10, 40)):
        payload = derived(source, 77).payload
        assert len(payload) == length
        assert struct.unpack_from("=4B", payload)[:3] == (family, 0, int(source.rpartition("/")[2]))
