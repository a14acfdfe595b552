"""Whose a data directory is: what the boot stage and the age proofs make of a node in a container, and of marks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from janitor.core.leases.boot import Configured, plan_at_boot
from janitor.core.leases.confirmation import observe_again
from janitor.core.leases.judgement import Verdict, judge
from janitor.core.leases.plan import plan
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence
from janitor.core.model.node_mark import KEY, MARK, Owner, another, not_shown, same
from janitor.core.model.reason import because
from tests.reasons import not_seen, words
from tests.situations import (
    ADDRESS,
    DEAD,
    NODE,
    cache_entry,
    endpoint,
    evidence,
    in_ledger,
    lease,
    network,
    sandbox,
    verdict_of,
)

DATA_DIR = "/var/lib/cni/networks"
NESTED = Owner("a" * 32, NODE.machine_id, first=False)
NUMBER = "b" * 32


def nested(found: Evidence, *, said: bool = False) -> Evidence:
    return replace(found, this_node=(NESTED,), said_ours=said)


def marked(found: Evidence, *marks: Owner) -> Evidence:
    (directory,) = found.lease_directories  # type: ignore[misc]
    return replace(found, lease_directories=(replace(directory, marks=marks),))


@pytest.mark.parametrize("how", ["older than the runtime", "boot ledger", "watched"])
def test_in_a_container_no_age_proves_a_lease_dead_without_the_operators_word(how: str) -> None:
    file = lease(born=1 if how == "older than the runtime" else 6_000_000_000_000)
    found = evidence(file)
    if how == "boot ledger":
        found = in_ledger(found, file)
    if how == "watched":
        observed = observe_again(evidence(file), judge(evidence(file)))
        found = replace(found, observations=tuple(replace(o, first_ns=0, passes=9) for o in observed))
    assert verdict_of(found).verdict is Verdict.ORPHANED
    alone = verdict_of(nested(found))
    assert (alone.verdict, alone.wait_s) == (Verdict.PENDING, None)
    assert KEY in words(alone.reasons)
    assert verdict_of(nested(found, said=True)).verdict is Verdict.ORPHANED
    # Nothing is noted for later passes either: the time in which nothing was said is no watching.
    assert observe_again(nested(found), judge(nested(found))) == ()


def test_where_the_pid_namespace_cannot_be_told_nothing_is_proven() -> None:
    found = replace(evidence(lease()), this_node=not_seen("no /proc"), said_ours=True)
    assert verdict_of(found).verdict is Verdict.PENDING


def test_a_damaged_cache_entry_is_kept_there_too() -> None:
    dead = sandbox(DEAD, ready=False)
    found = evidence(cache=(cache_entry(DEAD, damage=because(Code.EMPTY)),), endpoints=(endpoint(dead),))
    assert [action.kind for action in plan(found, judge(found)).actions] == ["discard"]
    for other in (nested(found), marked(found, replace(NODE, number=NUMBER, machine_id=""))):
        kept = plan(other, judge(other))
        assert kept.actions == ()
        assert len(kept.refusals) == 1


OTHERS = [
    pytest.param(NODE, replace(NODE, number=NUMBER, machine_id="6" * 32), id="another machine's"),
    pytest.param(NODE, replace(NODE, first=False), id="a container's, with the number and the machine ID of this node"),
    pytest.param(NESTED, replace(NESTED, first=True), id="the machine's, of which this is a clone in a container"),
    pytest.param(NESTED, replace(NESTED, number=NUMBER), id="another container's, with the same machine ID"),
    pytest.param(replace(NESTED, number=""), NESTED, id="a container's that has no number"),
    pytest.param(replace(NODE, number=""), replace(NODE, machine_id="6" * 32), id="of before a reinstallation"),
    pytest.param(replace(NODE, machine_id=""), Owner(NUMBER, "", first=True), id="of nobody knows which machine"),
]


@pytest.mark.parametrize(("node", "mark"), OTHERS)
def test_a_mark_of_another_node_keeps_all_whatever_else_is_proven(node: Owner, mark: Owner) -> None:
    file = lease()
    found = marked(replace(in_ledger(evidence(file), file), this_node=(node,), said_ours=True), mark)
    judged = verdict_of(found)
    assert judged.verdict is Verdict.FOREIGN
    assert f"{DATA_DIR}/{MARK}" in words(judged.reasons[0])
    assert "remove that file" in words(judged.reasons[0])
    directory = found.lease_directories[0]  # type: ignore[index]
    at_boot = plan_at_boot(Configured((network(),)), (directory,), (), (node,))
    assert at_boot.actions == ()
    assert "another node's" in words(at_boot.refusals[0].reasons)


OWN = [
    pytest.param(NODE, NODE, id="its own"),
    pytest.param(replace(NODE, number=""), NODE, id="its own, and its number is lost"),
    pytest.param(replace(NODE, number=NUMBER), NODE, id="its own, of before its number was lost"),
    pytest.param(NODE, replace(NODE, machine_id="6" * 32), id="of before a clone got its own machine ID"),
    pytest.param(NESTED, NESTED, id="a container's own"),
    pytest.param(replace(NESTED, machine_id="6" * 32), NESTED, id="a container's own, with a new machine ID"),
]


@pytest.mark.parametrize(("node", "mark"), OWN)
def test_its_own_mark_takes_nothing_away(node: Owner, mark: Owner) -> None:
    assert same(mark, node)
    assert another(DATA_DIR, (mark,), (node,)) is None
    found = marked(replace(evidence(lease()), this_node=(node,), said_ours=True), mark)
    assert verdict_of(found).verdict is Verdict.ORPHANED


def test_its_own_mark_is_no_operators_word() -> None:
    """Whoever has the whole disk has the mark, and the number, as well."""
    assert verdict_of(marked(nested(evidence(lease())), NESTED)).verdict is Verdict.PENDING
    assert KEY in words(not_shown((NESTED,), said_ours=False))


def test_a_mark_that_cannot_be_understood_keeps_all() -> None:
    (directory,) = evidence(lease()).lease_directories  # type: ignore[misc]
    strange = replace(directory, marks=not_seen(f"{DATA_DIR}/{MARK} is not a mark file of janitor"))
    judged = verdict_of(evidence(lease_directories=(replace(strange, entries=(lease(),)),)))
    assert (judged.verdict, "remove that file" in words(judged.reasons[0])) == (Verdict.FOREIGN, True)
    assert judged.address == ADDRESS
