"""What cannot be seen of a rule's owner says nothing: not that the rule is wanted, and not that nobody wants it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Network, Unknown
from janitor.core.model.reason import Reason, because
from janitor.core.model.routing import Link, ManagedLink, Networkd, OwnedRule, Profile, Route, Routing, RuleOwner
from janitor.core.model.rules import PolicyRule, derived
from janitor.core.rules.corroboration import Unwatched, missing_evidence
from janitor.core.rules.mirror import Mirror
from janitor.core.rules.profiles import OwnersSeen, configured_ranges, not_in_use, not_wanted
from janitor.host import profiles
from janitor.host.kernel.procfs import Proc, clock
from janitor.host.node import node_with
from janitor.host.rule_owners import Owners
from tests.limits import no_descriptor_left
from tests.reasons import not_seen

FILE = "/etc/cni/net.d/10-kuberouter.conflist"
UNSEEN = not_seen("no descriptor was left")
KUBE_ROUTER: Profile = next(profile for profile in profiles.load() if profile.name == "kube-router")
MATCH = KUBE_ROUTER.rules[0]
RULE: PolicyRule = replace(derived("10.244.0.0/24", 77), priority=32765)
NETWORKD = Networkd(5, 2_000, "252", (), (), ())
OWNED = OwnedRule(RULE, KUBE_ROUTER, MATCH)
UNWATCHED = Unwatched((), (), 1_000, 3_000)
WHOLE = Routing(
    rules=(),
    routes=(Route("198.51.100.7/32", "", "tun-0123456789a", table=77),),
    links=(
        Link(2, "tun-0123456789a", True, "ipip", ()),
        Link(3, "kube-bridge", True, "bridge", ("10.244.0.1/24",)),
    ),
    owners=(RuleOwner("kube-router", 9, 1, (), FILE),),
    networkd=(NETWORKD,),
    profiles=(KUBE_ROUTER,),
)


def unseen(part: str) -> Routing:
    parts: dict[str, Any] = {part: UNSEEN}
    return replace(WHOLE, **parts)


def judged(
    routing: Routing, configured: tuple[str, ...] | Unknown, gone_s: float = 0.0
) -> tuple[Reason, ...] | Unknown:
    return not_wanted(OWNED, OwnersSeen(routing, configured), gone_s)


def test_with_all_of_it_seen_there_is_an_answer() -> None:
    assert judged(WHOLE, ("10.244.0.0/24",)) == ()
    elsewhere = replace(WHOLE, links=WHOLE.links[:1] if isinstance(WHOLE.links, tuple) else ())
    assert judged(elsewhere, ("10.9.0.0/24",)) == (
        because(Code.NOT_A_POD_RANGE, range="10.244.0.0/24", ranges=("10.9.0.0/24",)),
    )


@pytest.mark.parametrize("gone_s", [0.0, 700.0])
def test_processes_that_cannot_be_read_are_not_gone(gone_s: float) -> None:
    assert judged(replace(WHOLE, owners=UNSEEN), ("10.244.0.0/24",), gone_s) == UNSEEN


@pytest.mark.parametrize("part", ["links", "configured"])
def test_a_range_is_foreign_only_where_all_ranges_are_known(part: str) -> None:
    routing = replace(WHOLE, links=UNSEEN if part == "links" else ())
    assert judged(routing, UNSEEN if part == "configured" else ("10.9.0.0/24",)) == UNSEEN


def test_a_range_that_one_source_names_needs_no_other() -> None:
    assert judged(WHOLE, UNSEEN) == ()
    assert judged(replace(WHOLE, links=UNSEEN), ("10.244.0.0/24",)) == ()


def test_ranges_of_a_configuration_that_cannot_be_read() -> None:
    network = Network("k", "/d", FILE, (), "", UNSEEN, used_by_cri=True)
    assert configured_ranges(WHOLE, UNSEEN) == UNSEEN
    assert configured_ranges(replace(WHOLE, owners=UNSEEN), ()) == UNSEEN
    assert configured_ranges(WHOLE, (network,)) == UNSEEN
    assert configured_ranges(WHOLE, ()) == Unknown(because(Code.NO_POD_RANGE_READ, source=FILE))


@pytest.mark.parametrize("part", ["links", "routes", "owners", "networkd"])
def test_nothing_is_held_against_networkd_that_was_not_seen(part: str) -> None:
    routing = unseen(part)
    assert missing_evidence(OWNED, OwnersSeen(routing, ("10.244.0.0/24",)), UNWATCHED) == UNSEEN
    assert part == "networkd" or not_in_use(KUBE_ROUTER, routing) == UNSEEN
    assert missing_evidence(OWNED, OwnersSeen(WHOLE, ("10.244.0.0/24",)), UNWATCHED) == ()


def test_what_networkd_wrote_of_a_link_by_another_clock_says_nothing() -> None:
    """Its start is known in CLOCK_BOOTTIME, and so by any clock."""
    configured = ManagedLink(2, "/x.network", "configured", 9_000)
    old = replace(NETWORKD, started_ns=500, links=(configured,))
    for networkd, clock_set, guilty in ((old, False, True), (old, True, False), (NETWORKD, True, True)):
        seen = OwnersSeen(replace(WHOLE, networkd=(networkd,)), ("10.244.0.0/24",))
        reasons = missing_evidence(OWNED, seen, replace(UNWATCHED, clock_set=clock_set))
        assert (reasons == ()) is guilty, reasons


def test_the_mirror_does_nothing_about_what_is_undecided() -> None:
    mirror = Mirror((KUBE_ROUTER,))
    mirror.learn(RULE)
    assert mirror.unwanted(lambda *_: UNSEEN) == []
    kept = mirror.deleted_by_networkd(RULE, 10**12)
    assert kept is not None
    kept.undecided = True
    assert (mirror.pending_restore(), mirror.waiting(), mirror.due((), 10**12), mirror.due_ns(10**12)) == (
        [],
        [kept],
        [],
        None,
    )
    kept.undecided = False
    assert [step.rule for step in mirror.due((), 10**12)] == [RULE]


def several(*arguments: tuple[str, ...], files: tuple[str, ...] = (FILE, FILE)) -> Routing:
    owners = (RuleOwner("kube-router", 9 + i, 1 + i, words, files[i]) for i, words in enumerate(arguments))
    return replace(WHOLE, owners=tuple(owners))


def test_of_several_owners_one_that_wants_the_rule_is_enough() -> None:
    """One may be an impostor, and has run for longer."""
    off, other = ("--run-router=false",), ("--enable-overlay=false",)
    assert judged(several(off, ()), ("10.244.0.0/24",)) == ()
    assert judged(several((), off), ("10.244.0.0/24",)) == ()
    assert judged(several(off, other), ("10.244.0.0/24",)) == (
        because(Code.OWNER_REFUSES, process="kube-router", flag="--run-router=false"),
    )
    assert judged(several((), (), files=("", FILE)), ("10.244.0.0/24",)) == ()
    assert judged(several((), (), files=("", "")), ("10.244.0.0/24",))


def test_without_a_descriptor_nobody_is_missed() -> None:
    """The real readers, on this machine."""
    owners = Owners(node_with("/", Proc("/proc")), (KUBE_ROUTER,))
    with no_descriptor_left():
        owners.refresh()
        assert isinstance(owners.why_not(OWNED), Unknown)
        assert isinstance(owners.why_not_networkd(OWNED, (), (), clock()), Unknown)
        assert owners.gone() == []


def test_a_link_state_that_cannot_be_read_is_not_an_old_one(tmp_path: Path) -> None:
    from janitor.host.systemd.networkd import read_networkd

    links = tmp_path / "run/systemd/netif/links"
    links.mkdir(parents=True)
    (links / "2").mkdir()
    assert isinstance(read_networkd(node_with(str(tmp_path), Proc("/proc"))), Unknown)
    (links / "2").rmdir()
    assert not isinstance(read_networkd(node_with(str(tmp_path), Proc("/proc"))), Unknown)
