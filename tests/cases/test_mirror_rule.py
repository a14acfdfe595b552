"""What the mirror does about a deleted rule, clause by clause, and each thing that speaks against restoring it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from janitor.core.model.reason import Reason
from janitor.core.model.routing import (
    Link,
    ManagedLink,
    Match,
    Networkd,
    NetworkdSetting,
    OwnedRule,
    Profile,
    Route,
    Routing,
    RuleOwner,
)
from janitor.core.model.rules import RTPROT_KERNEL, RTPROT_STATIC, PolicyRule, derived
from janitor.core.rules.corroboration import DYNAMIC_S, Unwatched, missing_evidence
from janitor.core.rules.mirror import CHECK_NS, COPY_NS, HOUR_NS, MANY, ROUNDS, TOKEN_NS, TOKENS, Mirror
from janitor.core.rules.profiles import GONE_S, OwnersSeen, bridge_ranges, not_wanted, profile_of
from janitor.host import profiles
from tests.reasons import recorded, words

MS = 1_000_000
NOW = 10_000_000 * MS
GENERIC = Profile("generic", "any rule", enabled=True, rules=(Match(),))
KUBE_ROUTER: Profile = next(profile for profile in profiles.load() if profile.name == "kube-router")
RANGE = "10.244.0.0/24"
RULE: PolicyRule = replace(derived(RANGE, 77), priority=32765)
OTHER: PolicyRule = replace(derived("10.9.0.0/16", 99), priority=100)


def mirror(*there: PolicyRule, profile: Profile = GENERIC) -> Mirror:
    made = Mirror((profile,))
    made.compare(there)
    return made


def added(made: Mirror, there: tuple[PolicyRule, ...] = (), now_ns: int = NOW) -> list[PolicyRule]:
    """What one round puts back."""
    return [step.rule for step in made.due(there, now_ns) if step.do == "add"]


def round_of(made: Mirror, now_ns: int) -> bool:
    """networkd wipes, and the rule is put back if it may be."""
    made.deleted_by_networkd(RULE, now_ns)
    back = added(made, now_ns=now_ns)
    for rule in back:
        made.restored(rule, now_ns)
    return bool(back)


# Who deleted it.


def test_what_networkd_deletes_is_put_back() -> None:
    made = mirror(RULE)
    made.deleted_by_networkd(RULE, NOW)
    assert added(made) == [RULE]


def test_what_anybody_else_deletes_stays_away() -> None:
    made = mirror(RULE)
    assert made.forget(RULE) is not None
    assert made.find(RULE) is None
    made.deleted_by_networkd(RULE, NOW)
    assert added(made) == []


def test_what_networkd_makes_is_its_own_business() -> None:
    made = mirror()
    made.added(RULE, NOW, by_networkd=True)
    made.deleted_by_networkd(RULE, NOW)
    assert added(made) == []
    made.added(RULE, NOW)  # by its owner, since
    made.deleted_by_networkd(RULE, NOW)
    assert added(made) == [RULE]


def test_what_networkds_configuration_may_have_declared_is_its_own_business() -> None:
    static = replace(OTHER, protocol=RTPROT_STATIC)
    for declared, left in ((True, [RULE]), (False, [RULE, static])):
        made = Mirror((GENERIC,))
        made.compare((static, RULE), declared=declared)
        for rule in (static, RULE):
            made.deleted_by_networkd(rule, NOW)
        assert sorted(added(made), key=lambda r: -r.priority) == left


def test_what_its_owner_makes_again_by_itself_is_left_to_it() -> None:
    for seconds, left_alone in ((5, True), (300, False)):
        made = mirror(RULE, profile=replace(GENERIC, rules=(Match(self_heals_after=seconds),)))
        made.deleted_by_networkd(RULE, NOW)
        assert (added(made) == []) is left_alone


def test_what_is_owed_is_not_judged_as_if_nobody_had_seen_its_deletion() -> None:
    made = mirror(RULE, OTHER)
    made.deleted_by_networkd(RULE, NOW)
    assert [kept.rule for kept in made.compare(())] == [OTHER]


# Its owner acts as well.


def test_an_owner_that_was_quicker_gets_no_second_one() -> None:
    made = mirror(RULE)
    made.deleted_by_networkd(RULE, NOW)
    there = replace(RULE, payload=b"other")  # the kernel's own bytes of the same rule
    assert added(made, (there,)) == []
    assert made.pending_restore() == []
    made.deleted_by_networkd(RULE, NOW)
    assert added(made) == [RULE], "it is known as before"


@pytest.mark.parametrize(("later_ns", "taken_away"), [(COPY_NS - 1, True), (COPY_NS, False)])
def test_an_owner_that_makes_it_anew_leaves_one(later_ns: int, taken_away: bool) -> None:
    """Under another priority: a moment after ours there are two of us at the same thing; later it is meant."""
    made = mirror(RULE)
    assert round_of(made, NOW)
    anew = replace(RULE, priority=32764)
    assert [(s.do, s.rule) for s in made.added(anew, NOW + later_ns)] == [("remove", RULE)] * taken_away


def test_an_owner_that_makes_a_second_one_beside_its_own_keeps_both() -> None:
    made = mirror(RULE)
    assert made.added(replace(RULE, priority=32764), CHECK_NS) == []


def test_a_rule_that_its_owner_makes_again_has_its_place_behind_the_others() -> None:
    """As the kernel puts it; put back later, they keep that order."""
    first, second = replace(RULE, priority=100), OTHER
    made = mirror(first, second)
    made.deleted_by_networkd(first, NOW)
    made.added(first, NOW)
    assert [kept.rule for kept in made.kept] == [second, first]


def test_a_pinned_rule_comes_back_as_the_kernels() -> None:
    """The next wipe does not touch it."""
    made = mirror(RULE, profile=replace(GENERIC, protocol="kernel"))
    made.deleted_by_networkd(RULE, NOW)
    assert [rule.protocol for rule in added(made)] == [RTPROT_KERNEL]


# Bounds.


def test_a_burst_has_three_rounds() -> None:
    made = mirror(RULE)
    assert [round_of(made, NOW + n * MS) for n in range(ROUNDS + 2)] == [True] * ROUNDS + [False] * 2
    assert added(made, now_ns=NOW + TOKEN_NS) == []
    assert added(made, now_ns=NOW + ROUNDS * MS + 2 * TOKEN_NS) == [RULE]


def test_a_burst_costs_a_token_and_there_is_one_in_five_seconds() -> None:
    made = mirror(RULE)
    burst = CHECK_NS + MS
    began = [round_of(made, NOW + n * burst) for n in range(TOKENS + 3)]
    assert began == [True] * TOKENS + [False] * 3
    assert made.due_ns(NOW + (TOKENS + 3) * burst) == pytest.approx(NOW + TOKEN_NS, rel=1e-6)
    assert added(made, now_ns=NOW + TOKEN_NS + burst) == [RULE]


def test_tokens_do_not_pile_up() -> None:
    made = mirror(RULE)
    assert round_of(made, NOW)
    burst, later = CHECK_NS + MS, NOW + HOUR_NS
    assert sum(round_of(made, later + n * burst) for n in range(TOKENS + 5)) == TOKENS


def test_a_rule_that_was_restored_thirty_times_within_an_hour_is_given_up_for_an_hour() -> None:
    made = mirror(RULE)
    times = [NOW + n * 2 * TOKEN_NS for n in range(MANY)]
    assert all(round_of(made, at) for at in times)
    given_up = times[-1]
    assert not round_of(made, given_up + 2 * TOKEN_NS)
    made.close_breakers(given_up + HOUR_NS)
    assert not round_of(made, given_up + HOUR_NS)
    made.close_breakers(given_up + HOUR_NS + 1)
    assert round_of(made, given_up + HOUR_NS + 2 * TOKEN_NS)


def test_what_was_restored_long_ago_counts_no_more() -> None:
    made = mirror(RULE)
    assert all(round_of(made, NOW + n * HOUR_NS // (MANY - 2)) for n in range(3 * MANY))


# Whether anybody wants it.


def test_what_is_undecided_is_neither_put_back_nor_forgotten() -> None:
    made = mirror(RULE)
    kept = made.deleted_by_networkd(RULE, NOW)
    assert kept is not None
    kept.undecided = True
    assert (added(made), made.pending_restore(), made.waiting()) == ([], [], [kept])
    assert made.unwanted(lambda *_: (recorded("it is not wanted"),)) != []
    assert made.find(RULE) is None


@pytest.mark.parametrize(
    ("rule", "known"),
    [
        (RULE, True),
        (replace(RULE, protocol=17), True),
        (replace(RULE, protocol=RTPROT_KERNEL), False),
        (replace(RULE, priority=0), False),
        (replace(RULE, table=99), False),
        (replace(RULE, action="prohibit", table=0), False),
        (replace(RULE, selectors=()), False),
        (PolicyRule(4, 32764, 0, (("fwmark", "0x3e9"),), "lookup", 78, b""), True),
        (PolicyRule(4, 32763, 0, (("fwmark", "0x3e9"),), "lookup", 78, b""), False),
        (PolicyRule(4, 32765, 0, (("fwmark", "0x3e9"),), "lookup", 78, b""), False),
        (PolicyRule(4, 32764, 0, (), "lookup", 78, b""), False),
        (PolicyRule(4, 32765, 0, (), "lookup", 79, b""), True),
        (PolicyRule(4, 32765, 0, (("from", RANGE),), "lookup", 79, b""), False),
    ],
)
def test_a_profile_knows_its_owners_rules_and_no_others(rule: PolicyRule, known: bool) -> None:
    assert (profile_of(rule, (KUBE_ROUTER,)) is not None) is known
    assert profile_of(rule, (replace(KUBE_ROUTER, enabled=False),)) is None


FILE = "/etc/cni/net.d/10-kuberouter.conflist"
MAKER = RuleOwner("kube-router", 9, 1, (), FILE)
WHOLE = Routing(
    rules=(),
    routes=(Route("198.51.100.7/32", "", "tun-0123456789a", table=77),),
    links=(
        Link(2, "tun-0123456789a", True, "ipip", ()),
        Link(3, "kube-bridge", True, "bridge", ("10.244.0.1/24",)),
    ),
    owners=(MAKER,),
    networkd=(Networkd(5, 2_000, "252", (), (), ()),),
    profiles=(KUBE_ROUTER,),
)
TUNNEL, BRIDGE = WHOLE.links  # type: ignore[misc]


def why_not(
    gone_s: float = 0.0, last: RuleOwner | None = None, rule: PolicyRule = RULE, **other: Any
) -> tuple[Reason, ...]:
    owned = OwnedRule(rule, KUBE_ROUTER, KUBE_ROUTER.rules[0])
    found = not_wanted(owned, OwnersSeen(replace(WHOLE, **other), (RANGE,)), gone_s, last)
    assert isinstance(found, tuple)
    return found


def made_with(*arguments: str) -> tuple[RuleOwner, ...]:
    return (replace(MAKER, arguments=arguments),)


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        ({}, None),
        ({"owners": (), "gone_s": GONE_S - 1}, None),
        ({"owners": (), "gone_s": GONE_S}, "kube-router has not been running for 600 s"),
        ({"owners": (), "last": made_with("--run-router=false")[0]}, "kube-router runs with --run-router=false"),
        ({"owners": made_with("--run-router=false")}, "kube-router runs with --run-router=false"),
        ({"owners": made_with("--run-router=false", "--run-router=true")}, None),
        ({"owners": made_with("--run-router", "--run-router=0")}, "kube-router runs with --run-router=false"),
        ({"owners": made_with("--enable-ipv4=false")}, "kube-router runs with --enable-ipv4=false"),
        ({"owners": made_with("--enable-ipv6=false")}, None),
        ({"owners": (replace(MAKER, configuration=""),)}, f"its CNI configuration ({FILE}) is gone"),
        ({"rule": replace(derived("10.9.0.0/24", 77), priority=1)},
         f"10.9.0.0/24 is not a pod range of this node ({RANGE})"),
    ],
)  # fmt: skip
def test_each_reason_why_nobody_wants_a_rule_any_more(situation: dict[str, Any], reason: str | None) -> None:
    assert words(why_not(**situation)) == (reason or "")


def test_a_link_local_prefix_of_the_bridge_is_no_pod_range() -> None:
    bridge = replace(BRIDGE, addresses=("10.244.0.1/24", "fe80::1/64"))
    assert bridge_ranges(replace(WHOLE, links=(bridge,))) == (RANGE,)


# Nobody was seen to delete it.


def speaks_against(
    before: tuple[PolicyRule, ...] = (), there: tuple[PolicyRule, ...] = (), profile: Profile = KUBE_ROUTER,
    rule: PolicyRule = RULE, now_ns: int = 3_000, clock_set: bool = False, blind: bool = False, **other: Any,
) -> object:  # fmt: skip
    owned, seen = OwnedRule(rule, profile, KUBE_ROUTER.rules[0]), OwnersSeen(replace(WHOLE, **other), (RANGE,), blind)
    return missing_evidence(owned, seen, Unwatched(before, there, 1_000, now_ns, clock_set))


def networkd(*links: ManagedLink, **other: Any) -> tuple[Networkd, ...]:
    """One that was started before anybody began to watch."""
    values: dict[str, Any] = {"pid": 5, "started_ns": 500, "version": "252", "settings": ()}
    return (Networkd(network_files=(), links=links, **(values | other)),)


CONFIGURED = ManagedLink(2, "/x.network", "configured", 2_000)
NOT_AT_WORK = "systemd-networkd has neither started nor configured a link since then"
TOLD = NetworkdSetting("ManageForeignRoutingPolicyRules", "no", "/x.conf", 2, 0)
HEALS = PolicyRule(4, 32764, 0, (("fwmark", "0x3e9"),), "lookup", 78, b"")


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        ({}, None),
        # Was it at work?
        ({"networkd": ()}, NOT_AT_WORK),
        ({"networkd": networkd()}, NOT_AT_WORK),
        ({"networkd": networkd(pid=0, started_ns=2_000)}, NOT_AT_WORK),
        ({"networkd": networkd(CONFIGURED)}, None),
        ({"networkd": networkd(replace(CONFIGURED, changed_ns=900))}, NOT_AT_WORK),
        ({"networkd": networkd(replace(CONFIGURED, network_file=""))}, NOT_AT_WORK),
        ({"networkd": networkd(replace(CONFIGURED, state="pending"))}, NOT_AT_WORK),
        ({"networkd": networkd(CONFIGURED), "clock_set": True},
         "systemd-networkd has not started since then, and after a clock step the times of its links prove nothing"),
        ({"networkd": networkd(started_ns=2_000, settings=(TOLD,))},
         "systemd-networkd leaves foreign rules alone, by its configuration or in this version"),
        ({"networkd": networkd(started_ns=2_000, version="245")},
         "systemd-networkd leaves foreign rules alone, by its configuration or in this version"),
        # What has it left?
        ({"before": (OTHER,), "there": (OTHER,)},
         f"systemd-networkd would have deleted these rules as well, but they still exist: {OTHER}"),
        ({"before": (OTHER,)}, None),
        ({"there": (OTHER,)}, None),
        ({"before": (replace(OTHER, protocol=RTPROT_STATIC),), "there": (replace(OTHER, protocol=RTPROT_STATIC),)},
         None),
        ({"before": (replace(OTHER, protocol=RTPROT_KERNEL),), "there": (replace(OTHER, protocol=RTPROT_KERNEL),)},
         None),
        ({"before": (HEALS,), "there": (HEALS,)}, None),
        # Is it wanted, and in use?
        ({"owners": made_with("--run-router=false")}, "kube-router runs with --run-router=false"),
        ({"owners": ()}, "kube-router is not running"),
        ({"owners": (), "blind": True}, None),
        ({"links": (BRIDGE,)},
         "no link that matches tun-[0-9a-f]{11} is up; no route of table 77 is on a link that is up"),
        ({"links": (replace(TUNNEL, up=False), BRIDGE)},
         "no link that matches tun-[0-9a-f]{11} is up; no route of table 77 is on a link that is up"),
        ({"routes": ()}, "table 77 is empty"),
        ({"routes": (Route("198.51.100.7/32", "", "eth9", table=77),)},
         "no route of table 77 is on a link that is up"),
        # Is what was known of it still true?
        ({"profile": replace(KUBE_ROUTER, dynamic=True), "now_ns": 1_000 + DYNAMIC_S * 1_000_000_000}, None),
        ({"profile": replace(KUBE_ROUTER, dynamic=True), "now_ns": 1_001 + DYNAMIC_S * 1_000_000_000},
         f"its record is older than {DYNAMIC_S} s, and kube-router adds and removes such rules as pods come and go"),
    ],
)  # fmt: skip
def test_each_thing_that_speaks_against_networkd(situation: dict[str, Any], reason: str | None) -> None:
    found = speaks_against(**situation)
    assert isinstance(found, tuple)
    assert words(found).replace("\n", "; ") == (reason or "")
