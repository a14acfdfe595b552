"""What may be done about a judgement: bounds, the minute after a runtime's start, and what goes together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from janitor.core.leases.confirmation import observe_again
from janitor.core.leases.file_identity import entry_file, identity_of
from janitor.core.leases.judgement import judge
from janitor.core.leases.plan import plan
from janitor.core.model.action import Action, Policy
from janitor.core.model.codes import Code
from janitor.core.model.evidence import (
    CacheEntry,
    Evidence,
    LeaseDirectory,
    LeaseFile,
    Observation,
    RuntimeProcess,
    TaskDirectory,
    known,
)
from janitor.core.model.lease import identity
from janitor.core.model.reason import because
from tests.reasons import not_seen, words
from tests.situations import (
    ADDRESS,
    BOOT,
    DEAD,
    DIRECTORY,
    LIVE,
    NOW,
    RUNTIME_START,
    SECOND,
    cache_entry,
    endpoint,
    evidence,
    in_ledger,
    lease,
    network,
    sandbox,
)

LISTED = sandbox(LIVE, addresses=("10.52.0.2",))
OLD = BOOT + 1_000 * SECOND


def actions(found: Evidence, policy: Policy | None = None) -> tuple[Action, ...]:
    return plan(found, judge(found), policy).actions


def kinds(found: Evidence, policy: Policy | None = None) -> list[str]:
    return [action.kind for action in actions(found, policy)]


def damaged(**other: Any) -> CacheEntry:
    """The entry of a container that nobody knows, cut short long ago."""
    values: dict[str, Any] = {"damage": "it is empty", "size": 0, "mtime_ns": OLD, "ctime_ns": OLD}
    return cache_entry(DEAD, **(values | other))


def with_entry(entry: CacheEntry, *files: LeaseFile, **other: Any) -> Evidence:
    return evidence(*files, cache=(cache_entry(LIVE, "10.52.0.2"), entry), **other)


def missing(found: Evidence) -> Evidence:
    """The same, where the live pod has lost its lease, as it had a minute ago."""
    (directory,) = known(found.lease_directories)
    gone = replace(directory, entries=tuple(f for f in known(directory.entries) if f.name != "10.52.0.2"))
    found = replace(found, lease_directories=(gone,))
    seen = tuple(replace(one, first_ns=NOW - 60 * SECOND) for one in observe_again(found, judge(found)))
    return replace(found, observations=seen)


# The minute after a runtime's start.


def started(seconds: int, name: str = "containerd") -> RuntimeProcess:
    start = NOW - seconds * SECOND
    return RuntimeProcess(700, name, start, BOOT + start + SECOND)


@pytest.mark.parametrize(("seconds", "settled"), [(0, False), (59, False), (60, True)])
def test_nothing_is_freed_within_a_minute_of_a_runtimes_start(seconds: int, settled: bool) -> None:
    """It may still be loading what it knows, and its list of sandboxes is not whole."""
    fresh = endpoint(LISTED, listeners=(started(seconds),))
    found = with_entry(damaged(), lease("10.52.0.78", b""), endpoints=(fresh,))
    result = plan(found, judge(found))
    assert [action.kind for action in result.actions] == (["free", "discard"] if settled else [])
    assert settled or (result.refusals[-1].wait_s, result.refusals[-1].subject) == (60 - seconds, fresh.address)


def test_the_minute_is_that_of_every_runtime() -> None:
    crio = endpoint(address="unix:///run/crio/crio.sock", runtime_name="cri-o", listeners=(started(5, "crio"),))
    found = evidence(lease(), endpoints=(endpoint(LISTED), crio))
    assert kinds(found) == []
    assert kinds(replace(found, endpoints=(endpoint(LISTED), replace(crio, listeners=(started(500, "crio"),))))) == [
        "free"
    ]


def test_a_lease_that_a_live_pod_needs_does_not_wait_for_the_minute() -> None:
    found = missing(evidence(lease(), endpoints=(endpoint(LISTED, listeners=(started(5),)),)))
    assert kinds(found) == ["reserve"]


# Bounds.


def test_a_pass_frees_no_more_than_its_bound_and_says_what_is_left() -> None:
    files = [lease(f"10.52.0.{number}") for number in range(100, 105)]
    found = evidence(*files)
    result = plan(found, judge(found), Policy(3))
    assert len(result.actions) == 3
    assert result.refusals[-1].reasons == (because(Code.MAX_PER_PASS, left=2, most=3),)


def test_unless_the_operator_says_otherwise_the_bound_is_256() -> None:
    files = [lease(f"10.52.{number // 250}.{1 + number % 250}") for number in range(10, 300)]
    everywhere = network(range_sets=())
    (directory,) = known(evidence(*files).lease_directories)
    found = evidence(networks=(everywhere,), lease_directories=(directory,))
    assert len(actions(found)) == 256


def test_what_goes_together_is_within_the_bound_together() -> None:
    entry = cache_entry(DEAD, addresses=(f"{ADDRESS}/24", "10.52.0.78/24"))
    found = with_entry(entry, lease(), lease("10.52.0.78"))
    assert kinds(found, Policy(2)) == ["free", "free", "discard"]
    assert kinds(found, Policy(1)) == []


def test_only_what_the_operator_asked_for() -> None:
    other = LeaseDirectory("/var/lib/cni/networks/other", "other", (lease("10.52.0.90"),), "ext4")
    found = with_entry(damaged(), lease("10.52.0.78", b""))
    found = replace(found, networks=(network(), network(name="other")),
                    lease_directories=(*known(found.lease_directories), other))  # fmt: skip
    assert [a.name for a in actions(found, Policy(networks=("other",)))] == ["10.52.0.90"]
    assert kinds(found, Policy(findings=frozenset({"LEASE009"}))) == ["discard"]
    assert [a.name for a in actions(found, Policy(findings=frozenset({"LEASE002"})))] == ["10.52.0.78"]


# Missing leases.


def test_a_missing_lease_is_written_when_it_was_seen_twice_a_minute_apart() -> None:
    found = missing(evidence())
    assert kinds(found) == ["reserve"]
    seen = tuple(replace(one, first_ns=NOW - 59 * SECOND) for one in known(found.observations))
    for early in (replace(found, observations=seen), replace(found, observations=())):
        result = plan(early, judge(early))
        assert result.actions == ()
        assert "still missing a minute later" in words(result.refusals[0].reasons)


def test_a_missing_lease_is_not_written_where_something_was_not_seen() -> None:
    """Somebody who cannot be seen may have the address by now."""
    found = replace(missing(evidence()), processes=not_seen("no permission"))
    result = plan(found, judge(found))
    assert result.actions == ()
    assert "janitor could not see everything" in words(result.refusals[0].reasons)


# Damaged cache entries.


def test_a_damaged_cache_entry_of_a_dead_container_goes() -> None:
    assert kinds(with_entry(damaged())) == ["discard"]
    stopped = with_entry(damaged(), endpoints=(endpoint(LISTED, sandbox(DEAD, ready=False)),))
    assert kinds(stopped) == ["discard"], "until it is gone the runtime cannot stop that sandbox"


@pytest.mark.parametrize(
    "why",
    [
        {"endpoints": (endpoint(LISTED, sandbox(DEAD)),)},
        {"task_directories": (TaskDirectory(f"/run/task/{DEAD}", DEAD),)},
        {"namespaces": not_seen("no permission")},
    ],
    ids=["its sandbox is ready", "a runtime keeps its task directory", "not all was seen"],
)
def test_a_damaged_cache_entry_stays(why: dict[str, Any]) -> None:
    assert kinds(with_entry(damaged(), **why)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"ctime_ns": BOOT + NOW - SECOND},
        {"regular": False},
        {"container_id": "a-name-of-somebody-else"},
        {"damage": ""},
    ],
    ids=["it may be being written", "no regular file", "not a sandbox's", "undamaged"],
)
def test_another_cache_entry_stays(change: dict[str, Any]) -> None:
    assert kinds(with_entry(replace(damaged(), **change))) == []


def test_a_damaged_cache_entry_that_was_watched_for_the_grace_goes() -> None:
    young = damaged(ctime_ns=BOOT + RUNTIME_START + 60 * SECOND)
    seen = Observation(identity_of(young.path, entry_file(young)), young.ctime_ns, NOW - 600 * SECOND, NOW, 2)
    assert kinds(with_entry(young)) == []
    assert kinds(with_entry(young, observations=(seen,))) == ["discard"]


# Chains.


@pytest.mark.parametrize(
    ("change", "chained"),
    [
        ({}, True),
        ({"interface": "net1"}, False),
        ({"ipam": ("host-local", "dhcp")}, False),
        ({"ipam": ("dhcp",)}, False),
        ({"plugins": ()}, False),
        ({"damage": "it is empty"}, False),
        ({"network": "another"}, False),
    ],
)
def test_a_chain_is_run_by_the_good_entry_of_that_very_attachment(change: dict[str, Any], chained: bool) -> None:
    found = with_entry(replace(cache_entry(DEAD, ADDRESS), **change), lease())
    freeing = next(action for action in actions(found) if action.kind == "free")
    assert bool(freeing.chain) is chained


def test_a_lease_of_an_earlier_boot_goes_without_its_chain() -> None:
    """After a reboot there is nothing left for it to take away."""
    found = in_ledger(with_entry(cache_entry(DEAD, ADDRESS), lease()), lease())
    assert identity(f"{DIRECTORY}/{ADDRESS}", lease()) in known(found.ledger)
    (action,) = actions(found)
    assert (action.kind, action.chain) == ("free", "")
