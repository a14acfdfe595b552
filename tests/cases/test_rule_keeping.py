"""What keeps the rules, on a real kernel: a network namespace of its own, in which nobody else is.

Who has done something is said to the keeper as a value; that a deletion is recognised is tested in tests/system.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.routing import Link, Match, Networkd, Profile, Route, Routing, RuleOwner
from janitor.core.model.rules import PolicyRule, derived
from janitor.core.rules.mirror import COPY_NS, MANY, Mirror
from janitor.core.rules.rule_memory import RuleCounts, RuleMemory
from janitor.daemon.rule_keeper import RuleKeeper
from janitor.host import profiles
from janitor.host.changes.saved_rules import KeptNote, Note, Place
from janitor.host.kernel.attribution import Actor, Attribution
from janitor.host.kernel.namespaces import CLONE_NEWNET, call, in_thread
from janitor.host.kernel.netlink import RuleSocket
from janitor.host.kernel.procfs import Proc, clock
from janitor.host.node import files_only, node_with
from janitor.host.rule_owners import Owners
from janitor.report.events import LogEvent
from janitor.report.page import ActionRecord, action_record
from tests.log import Log
from tests.nodes import booted
from tests.reasons import not_seen

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root: no network namespace of its own")

KUBE_ROUTER: Profile = next(profile for profile in profiles.load() if profile.name == "kube-router")
GENERIC = Profile("generic", "any rule", enabled=True, rules=(Match(),))
RANGE = "10.244.0.0/24"
FILE = "/etc/cni/net.d/10-kuberouter.conflist"
RULE: PolicyRule = replace(derived(RANGE, 77), priority=32765)
OTHER: PolicyRule = derived("10.9.0.0/16", 99)
NETWORKD = Actor("networkd", 5, "systemd-networkd")
SOMEBODY = Actor("process", 7, "ip")
UNSEEN = not_seen("no permission")
WANTED = Routing(
    rules=(),
    routes=(Route("198.51.100.7/32", "", "tun-0123456789a", table=77),),
    links=(
        Link(2, "tun-0123456789a", True, "ipip", ()),
        Link(3, "kube-bridge", True, "bridge", ("10.244.0.1/24",)),
    ),
    owners=(RuleOwner("kube-router", 9, 1, (), FILE),),
    networkd=(Networkd(5, 1 << 62, "252", (), (), ()),),
    profiles=(KUBE_ROUTER,),
)
REFUSED = (RuleOwner("kube-router", 9, 1, ("--run-router=false",), FILE),)
ELSEWHERE = replace(WANTED, networkd=())


@dataclass
class Node:
    """A kernel, what is to be known of the rules' owners, and the parts of a keeper."""

    root: str
    socket: RuleSocket
    operator: RuleSocket
    observe_only: bool = False
    log: Log = field(default_factory=Log)
    keeper: RuleKeeper = field(init=False)

    def __post_init__(self) -> None:
        known = (KUBE_ROUTER, GENERIC)
        memory = RuleMemory(Mirror(known), clock())
        owners = Owners(node_with(self.root, Proc("/proc")), known)
        nobody = Attribution(not_seen("nobody is looked for here"))
        place = Place(files_only(self.root), 0)
        made = self.keeper = RuleKeeper(place, self.socket, nobody, owners, memory, self.log, self.observe_only)
        self.memory, self.mirror, self.owners = memory, memory.mirror, owners
        self.judge, self.restoring = made.unattributed, made.restoring
        self.look(WANTED)

    def look(self, routing: Routing) -> None:
        """This is what a look at the owners has shown, just now."""
        self.owners.routing, self.owners._configured, self.owners.looked_ns = routing, (RANGE,), clock().boottime_ns

    def makes(self, rule: PolicyRule, actor: Actor = SOMEBODY) -> PolicyRule:
        """Somebody makes it, and the keeper hears of it."""
        rule = self.operator.add(rule)
        self.keeper._made(rule, actor, clock().boottime_ns)
        return rule

    def deletes(self, rule: PolicyRule, actor: Actor) -> None:
        self.operator.remove(rule)
        self.keeper._deleted(rule, actor, clock().boottime_ns)

    def there(self, rule: PolicyRule) -> bool:
        return any(one.exact == rule.exact for one in self.operator.dump())


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    def sockets() -> tuple[RuleSocket, RuleSocket]:
        call("unshare", CLONE_NEWNET)
        return RuleSocket(watch=True), RuleSocket()

    made: list[Node] = []

    def one(**other: Any) -> Node:
        made.append(Node(str(tmp_path), *in_thread(sockets), **other))
        return made[-1]

    yield one
    for node in made:
        node.socket.close()
        node.operator.close()


@pytest.fixture
def node(make: Callable[..., Node]) -> Node:
    return make()


# Who deleted it.


def test_what_networkd_deletes_is_put_back(node: Node) -> None:
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    node.look(WANTED)
    node.restoring.restore()
    assert node.there(rule)
    assert node.log.events() == [LogEvent.RULE_LEARNED, LogEvent.RULE_RESTORED]
    listed = action_record(1, *node.log[-1])
    assert listed == ActionRecord(1, f"rule restored: {rule}", "deleted by systemd-networkd (process 5)")
    assert node.memory.counts == RuleCounts(Counter({"kube-router": 1}), Counter({"systemd-networkd": 1}))


@pytest.mark.parametrize("actor", [SOMEBODY, Actor("kernel"), Actor("gone")])
def test_what_anybody_else_deletes_stays_away(node: Node, actor: Actor) -> None:
    rule = node.makes(RULE)
    before = clock().boottime_ns
    node.deletes(rule, actor)
    node.look(WANTED)
    node.restoring.restore()
    assert not node.there(rule)
    assert node.log[-1][1]["left"] == "it stays deleted"
    # A janitor that ends now must not restore it in its next life.
    assert node.keeper._save_ns is not None
    assert before <= node.keeper._save_ns <= clock().boottime_ns


def test_of_a_closed_socket_the_owner_that_runs_on_is_the_likely_deleter(node: Node) -> None:
    """kube-router opens one for each request."""
    here = os.getpid()
    owner = RuleOwner("kube-router", here, Proc("/proc").started_ns(here), (), FILE)
    node.look(replace(WANTED, owners=(owner,)))
    rule = node.makes(RULE, Actor("gone"))
    node.deletes(rule, Actor("gone"))
    assert [fields["likely"] for _, fields in node.log] == [f"kube-router (process {here})"] * 2
    assert node.log[-1][1]["by"] == "a process whose socket is closed"
    node.restoring.restore()
    assert (node.there(rule), node.mirror.find(rule)) == (False, None)
    assert node.memory.counts == RuleCounts(deleted=Counter({"others": 1}))


@pytest.mark.parametrize("actor", [SOMEBODY, Actor("gone"), NETWORKD], ids=str)
def test_who_has_ended_or_is_not_asked_about_is_not_named(node: Node, actor: Actor) -> None:
    """Process 9 is no kube-router that has run since the machine's first nanosecond."""
    node.deletes(node.makes(OTHER, actor), actor)
    node.deletes(node.makes(RULE, actor), actor)
    assert not any("process 9)" in str(fields.get("likely")) for _, fields in node.log)


def test_what_networkd_has_made_itself_stays_away(node: Node) -> None:
    rule = node.makes(OTHER, NETWORKD)
    node.deletes(rule, NETWORKD)
    node.look(WANTED)
    node.restoring.restore()
    assert not node.there(rule)
    assert node.log[-1][1]["left"] == "systemd-networkd made it itself"


@pytest.mark.parametrize(("routing", "back"), [(WANTED, True), (ELSEWHERE, False)], ids=["networkd", "no networkd"])
def test_what_somebody_out_of_sight_deletes_is_judged(node: Node, routing: Routing, back: bool) -> None:
    rule = node.makes(RULE)
    node.memory.remember((rule,), clock())
    node.deletes(rule, Actor("unseen"))
    assert node.mirror.find(rule) is not None, "nothing is known yet"
    node.look(routing)
    node.judge.compare(node.operator.dump())
    node.restoring.restore()
    assert node.there(rule) is back
    assert (LogEvent.RULE_GONE in node.log.events()) is not back


def test_its_own_work_tells_the_keeper_nothing(node: Node) -> None:
    """A removal of ours is no deletion by others, and what we make is no owner's."""
    rule = node.socket.add(OTHER)
    assert not node.keeper._take()
    node.mirror.learn(rule)
    node.socket.remove(rule)
    assert not node.keeper._take()
    assert node.mirror.find(rule) is not None
    node.operator.add(OTHER)
    assert node.keeper._take()


# Whether anybody wants it.


def test_what_nobody_wants_any_more_is_not_put_back(node: Node) -> None:
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    node.look(replace(WANTED, owners=REFUSED))
    node.restoring.restore()
    assert (node.there(rule), node.mirror.find(rule)) == (False, None)
    assert node.log[-1][1]["why"] == "kube-router runs with --run-router=false"


def test_a_look_from_before_the_deletion_makes_nobody_forget(node: Node) -> None:
    """Its owner may have been started anew since, with other arguments."""
    rule = node.makes(RULE)
    node.look(replace(WANTED, owners=REFUSED))
    node.deletes(rule, NETWORKD)
    node.restoring.restore()
    assert (node.there(rule), node.mirror.waiting() != []) == (False, True)
    node.look(WANTED)
    node.restoring.restore()
    assert node.there(rule)


@pytest.mark.parametrize("part", ["owners", "links"])
def test_where_it_cannot_be_told_the_rule_waits(node: Node, part: str) -> None:
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    unseen: dict[str, Any] = {part: UNSEEN}
    node.look(replace(WANTED, **unseen))
    if part == "links":
        node.owners._configured = UNSEEN
    node.restoring.restore()
    assert (node.there(rule), len(node.mirror.waiting()), node.mirror.pending_restore()) == (False, 1, [])
    assert node.log[-1][0] == LogEvent.RULES_UNCERTAIN
    node.look(WANTED)
    node.restoring.restore()
    assert node.there(rule)


def test_who_only_observes_puts_nothing_back(make: Callable[..., Node]) -> None:
    node = make(observe_only=True)
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    node.look(WANTED)
    node.restoring.restore()
    assert not node.there(rule)
    assert node.log[-1][1]["why"] == "only observing"


@pytest.mark.parametrize("whose", ["ours", "its owner's", "ours of long ago"])
def test_only_what_was_put_back_a_moment_ago_is_taken_away_again(node: Node, whose: str) -> None:
    rule = node.makes(RULE)
    if whose != "its owner's":
        node.deletes(rule, NETWORKD)
        node.look(WANTED)
        node.restoring.restore()
    node.look(replace(WANTED, owners=REFUSED))
    node.restoring.withdraw(clock().boottime_ns + COPY_NS * (whose == "ours of long ago"))
    assert node.there(rule) is (whose != "ours")
    assert node.mirror.find(rule) is None


# Side by side with its owner.


def test_what_its_owner_made_at_the_same_moment_counts_as_made(node: Node) -> None:
    """The kernel says that it is there already: nothing went wrong."""
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    node.look(WANTED)
    dump = node.socket.dump()
    node.operator.add(rule)
    steps = node.mirror.due(dump, clock().boottime_ns)
    assert [node.restoring._carry_out(step) for step in steps] == [True]
    assert node.log.events() == [LogEvent.RULE_LEARNED]


def test_what_the_kernel_refuses_is_not_restored(node: Node) -> None:
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    broken = node.mirror.find(rule)
    assert broken is not None
    broken.rule = replace(rule, payload=bytes([99]) + rule.payload[1:])  # of no family that there is
    node.look(WANTED)
    node.restoring.restore()
    assert (len(node.mirror.pending_restore()), node.memory.counts.restored["kube-router"]) == (1, 0)
    assert node.log[-1][0] == LogEvent.RULE_NOT_RESTORED


# Nobody was seen to delete it.


def gone(node: Node, routing: Routing) -> PolicyRule:
    """A rule that is gone, though nobody was heard to delete it, and what is seen then."""
    rule = node.makes(RULE)
    node.memory.remember(node.operator.dump(), clock())
    node.operator.remove(rule)
    node.look(routing)
    node.judge.compare(node.operator.dump())
    return rule


def test_what_cannot_be_told_is_neither_owed_nor_forgotten(node: Node) -> None:
    rule = gone(node, replace(WANTED, networkd=UNSEEN))
    kept = node.mirror.find(rule)
    assert kept is not None
    assert not kept.pending_since_ns
    node.look(WANTED)
    node.judge.compare(node.operator.dump())
    assert [one.rule for one in node.mirror.pending_restore()] == [rule]


def test_what_there_was_before_is_known_until_all_is_decided(node: Node) -> None:
    """A rule that is made while something is undecided was not spared by networkd."""
    rule = gone(node, replace(WANTED, networkd=UNSEEN))
    node.operator.add(OTHER)
    node.judge.compare(node.operator.dump())
    node.look(WANTED)
    node.judge.compare(node.operator.dump())
    assert [one.rule for one in node.mirror.pending_restore()] == [rule]


@pytest.mark.parametrize("whose", ["ours", "somebody's"])
def test_what_was_put_back_a_moment_ago_was_not_spared(node: Node, whose: str) -> None:
    """What somebody else has made would have been deleted as well; what we have just made says nothing."""
    other = node.makes(OTHER)
    if whose == "ours":
        node.deletes(other, NETWORKD)
        node.restoring.restore()
    rule = gone(node, WANTED)
    assert [one.rule for one in node.mirror.pending_restore()] == ([rule] if whose == "ours" else [])


# What survives a janitor.


def note(*kept: KeptNote, foreign: tuple[PolicyRule, ...] = ()) -> Note:
    return Note(1, clock(), foreign, kept, RuleCounts(Counter({"kube-router": 3})))


def test_the_next_janitor_owes_what_this_one_owed(node: Node) -> None:
    """Without asking who deleted it: that was known."""
    node.look(ELSEWHERE)
    node.judge.go_on_from(note(KeptNote(RULE, False, True, (), 0)), node.operator.dump())
    assert [one.rule for one in node.mirror.pending_restore()] == [RULE]
    assert node.memory.counts.restored["kube-router"] == 3


@pytest.mark.parametrize(
    ("routing", "pending_restore"), [(WANTED, [RULE]), (ELSEWHERE, [])], ids=["networkd", "no networkd"]
)
def test_the_next_janitor_judges_what_is_gone_since(
    node: Node, routing: Routing, pending_restore: list[PolicyRule]
) -> None:
    node.look(routing)
    node.judge.go_on_from(note(KeptNote(RULE, True, False, (), 0)), node.operator.dump())
    assert [one.rule for one in node.mirror.pending_restore()] == pending_restore


def test_what_was_given_up_stays_given_up_in_the_next_janitor(node: Node) -> None:
    now = clock().boottime_ns
    given_up = KeptNote(RULE, True, True, tuple([now] * MANY), now)
    node.judge.go_on_from(note(given_up), node.operator.dump())
    kept = node.mirror.find(RULE)
    assert kept is not None
    assert (kept.broken_ns, len(kept.times), kept.ours, node.mirror.pending_restore()) == (now, MANY, True, [])


def test_what_was_written_down_is_of_that_boot_and_that_network_namespace(node: Node) -> None:
    """In another one those rules were never there."""
    keeper = node.keeper
    keeper.place = Place(booted(node.root, "this-boot"), 1)
    rule = node.makes(RULE)
    counted = node.memory.counts = RuleCounts(Counter({"kube-router": 3}), Counter({"others": 2}))
    keeper._save()
    found = keeper._note()
    assert found is not None
    assert [one.rule for one in found.kept] == [rule]
    assert found.counts == counted
    keeper.place = Place(booted(node.root, "this-boot"), 2)
    assert keeper._note() is None
    keeper.place = Place(booted(node.root, "the-next-boot"), 1)
    assert keeper._note() is None


def test_a_keeper_that_is_ended_puts_nothing_back(node: Node) -> None:
    """Who begins the next one, on a reload, may have been told not to; at janitor's end it is asked for."""
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    node.look(WANTED)
    node.keeper.close()
    assert not node.there(rule)


def test_at_its_end_janitor_puts_back_what_it_owes(node: Node) -> None:
    rule = node.makes(RULE)
    node.keeper.last_round()
    node.deletes(rule, NETWORKD)
    node.look(WANTED)
    node.keeper.last_round()
    assert node.there(rule)


# Who makes and deletes rules as fast as he can.


def test_a_rule_that_comes_and_goes_does_not_fill_the_log(node: Node) -> None:
    for _ in range(300):
        node.deletes(node.makes(OTHER), SOMEBODY)
    lines = node.log.events()
    assert (lines.count(LogEvent.RULE_LEARNED), lines.count(LogEvent.RULE_DELETED)) == (250, 250)
    rule = node.makes(RULE)
    node.deletes(rule, NETWORKD)
    assert node.log.events()[-1] == LogEvent.RULE_LEARNED, "another rule has its own lines"
    node.keeper._rule_log.log_untold()
    assert node.log[-1] == (LogEvent.RULES_COME_AND_GO, {"not_told": 100, "then": node.log[-1][1]["then"]})
    node.makes(OTHER)
    assert node.log.events()[-1] == LogEvent.RULE_LEARNED


def test_what_is_told_of_rules_without_end_is_read_for_a_while_only(node: Node) -> None:
    """Somebody makes and deletes one for as long as it is listened to."""
    node.operator.add(OTHER)
    events = 0
    for event in node.socket.events():
        events += 1
        (node.operator.remove if event.made else node.operator.add)(event.rule)
        assert events < 10**6
    assert events
