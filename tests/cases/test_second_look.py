"""What the second look and the next pass may count on: each differs in one thing from a situation without doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from janitor.core.leases.confirmation import agreed, observe_again, without_stale_rules
from janitor.core.leases.judgement import judge
from janitor.core.leases.plan import plan
from janitor.core.model.action import Plan
from janitor.core.model.codes import Code
from janitor.core.model.evidence import (
    CacheEntry,
    Clock,
    Evidence,
    LeaseDirectory,
    LeaseFile,
    NetworkNamespace,
    RuntimeProcess,
    TaskDirectory,
    Unknown,
    known,
)
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
    sandbox,
)

SECOND_ADDRESS = "10.52.0.78"
LISTED = sandbox(LIVE, addresses=("10.52.0.2",))
LATER = NOW + 20 * SECOND


def planned(found: Evidence) -> Plan:
    return plan(found, judge(found))


def both(before: Evidence, after: Evidence) -> Plan:
    """What the two looks agree on."""
    return agreed(planned(before), planned(after), before, after)


def freed(found: Plan) -> list[str]:
    return [action.name for action in found.actions if action.kind == "free"]


def later(found: Evidence, **other: Any) -> Evidence:
    clock = Clock(BOOT + LATER, LATER)
    return replace(found, started=clock, finished=clock, **other)


# Agreeing.


def test_two_looks_at_the_same_thing_agree() -> None:
    found = evidence(lease())
    assert freed(both(found, later(found))) == [ADDRESS]


@pytest.mark.parametrize(
    "process",
    [
        RuntimeProcess(701, "containerd", RUNTIME_START, BOOT + RUNTIME_START + SECOND),
        RuntimeProcess(700, "containerd", RUNTIME_START + 10 * SECOND, BOOT + RUNTIME_START + 11 * SECOND),
    ],
    ids=["another process", "its ID was used again"],
)
def test_a_runtime_that_was_restarted_between_the_two_looks(process: RuntimeProcess) -> None:
    """It may have been asked for its sandboxes before it had loaded them: whatever it said the second time."""
    found = evidence(lease())
    again = later(found, endpoints=(endpoint(LISTED, listeners=(process,)),))
    assert freed(planned(again)) == [ADDRESS], "each look by itself would free it"
    answer = both(found, again)
    assert answer.actions == ()
    assert "restarted between the two checks" in words(answer.refusals[0].reasons)


def test_an_owner_that_only_the_second_look_saw() -> None:
    found = evidence(lease())
    up = NetworkNamespace(3, "/run/netns/cni-2", (ADDRESS,), ())
    assert both(found, later(found, namespaces=(*known(found.namespaces), up))).actions == ()
    assert both(found, later(found, processes=not_seen("no permission"))).actions == ()


@pytest.mark.parametrize("change", [{"inode": 7}, {"mtime_ns": BOOT}, {"ctime_ns": BOOT}])
def test_another_file_of_the_same_container(change: dict[str, Any]) -> None:
    """Its ID is the same, and it is not the file that was judged."""
    again = later(evidence(replace(lease(), **change)))
    assert freed(planned(again)) == [ADDRESS]
    assert both(evidence(lease()), again).actions == ()


def attachment(*files: LeaseFile) -> Evidence:
    """A dead container with these leases, and the cache entry with which its CNI DEL can be run."""
    entry = cache_entry(DEAD, addresses=(f"{ADDRESS}/24", f"{SECOND_ADDRESS}/24"))
    return evidence(*files, cache=(cache_entry(LIVE, "10.52.0.2"), entry))


def test_what_one_cni_del_takes_away_is_agreed_on_together() -> None:
    whole = attachment(lease(), lease(SECOND_ADDRESS))
    assert len(both(whole, later(whole)).actions) == 3
    other = attachment(lease(), lease(SECOND_ADDRESS, inode=7))
    assert len(planned(other).actions) == 3
    assert both(whole, later(other)).actions == ()


# Packet filter rules.


def test_a_lease_whose_address_packet_filter_rules_name_stays() -> None:
    found = evidence(lease(), lease(SECOND_ADDRESS))
    answer = without_stale_rules(planned(found), found, frozenset({ADDRESS}))
    assert freed(answer) == [SECOND_ADDRESS]
    assert "packet filter rules still contain its address" in words(answer.refusals[0].reasons)


def test_packet_filter_rules_that_could_not_be_read_keep_every_lease() -> None:
    found = evidence(lease())
    answer = without_stale_rules(planned(found), found, not_seen("iptables-save is missing"))
    assert (answer.actions, words(answer.refusals[0].reasons)) == ((), "iptables-save is missing")


@pytest.mark.parametrize("named", [frozenset({ADDRESS}), not_seen("iptables-save is missing")])
def test_no_packet_filter_rule_outlives_a_boot(named: frozenset[str] | Unknown) -> None:
    found = in_ledger(evidence(lease()), lease())
    assert freed(without_stale_rules(planned(found), found, named)) == [ADDRESS]


# What the next pass may count on.


def damaged() -> CacheEntry:
    return cache_entry(DEAD, damage=because(Code.EMPTY), size=0)


def noted(found: Evidence) -> list[str]:
    return [one.file.path.rpartition("/")[2] for one in observe_again(found, judge(found))]


def test_what_nobody_owns_is_watched_from_the_end_of_the_look() -> None:
    """At its beginning the lease had not been read yet."""
    young = evidence(lease(born=NOW - 5 * SECOND))
    (seen,) = observe_again(young, judge(young))
    assert (seen.file.path, seen.first_ns, seen.passes) == (f"{DIRECTORY}/{ADDRESS}", NOW + SECOND, 1)
    again = later(young, observations=(seen,))
    (twice,) = observe_again(again, judge(again))
    assert (twice.first_ns, twice.last_ns, twice.passes) == (seen.first_ns, LATER, 2)


@pytest.mark.parametrize("part", ["processes", "namespaces", "endpoints", "networks", "task_directories", "boot_id"])
def test_a_pass_that_did_not_see_all_watched_nothing(part: str) -> None:
    """Its owner may have been there: the grace would go on although somebody had the address in between.

    Of a lease this is known by its verdict; a damaged cache entry and a missing lease have none that says so.
    """
    entries = (cache_entry(LIVE, "10.52.0.90"), damaged())
    up = NetworkNamespace(3, "/run/netns/cni-2", ("10.52.0.90",), ())
    found = evidence(lease(), cache=entries)
    found = replace(found, namespaces=(*known(found.namespaces), up))
    assert sorted(noted(found)) == ["10.52.0.77", "10.52.0.90", damaged().path.rpartition("/")[2]]
    unseen: dict[str, Any] = {part: not_seen("no permission")}
    assert noted(replace(found, **unseen)) == []


def test_a_pass_that_could_not_read_one_directory_watched_nothing() -> None:
    """What is in it may be of the same container, whose other leases could be read."""
    unreadable = LeaseDirectory("/var/lib/cni/networks/other", "other", not_seen("input/output error"), "ext4")
    found = evidence(lease())
    assert noted(found) == [ADDRESS]
    assert noted(replace(found, lease_directories=(*known(found.lease_directories), unreadable))) == []


def test_an_owner_ends_the_watch() -> None:
    found = evidence(lease())
    up = NetworkNamespace(3, "/run/netns/cni-2", (ADDRESS,), ())
    assert noted(replace(found, namespaces=(*known(found.namespaces), up))) == []
    assert noted(replace(found, endpoints=(endpoint(LISTED, sandbox(DEAD, ready=False)),))) == []
    task = TaskDirectory(f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{DEAD}", DEAD)
    assert noted(replace(found, task_directories=(task,))) == []


def test_a_file_that_has_changed_is_watched_anew() -> None:
    """Renamed away and back: all that is left of that is the time of its last change."""
    young = evidence(lease(born=NOW - 5 * SECOND))
    first = observe_again(young, judge(young))
    changed = later(evidence(lease(born=NOW - 5 * SECOND, ctime_ns=BOOT + NOW)), observations=first)
    (seen,) = observe_again(changed, judge(changed))
    assert (seen.first_ns, seen.passes) == (LATER, 1)


def test_a_damaged_cache_entry_is_watched_while_nothing_of_its_container_runs() -> None:
    def all_noted(**other: Any) -> list[str]:
        found = evidence(cache=(cache_entry(LIVE, "10.52.0.2"), damaged()), **other)
        return [one.file.path for one in observe_again(found, judge(found))]

    assert all_noted() == [damaged().path]
    assert all_noted(endpoints=(endpoint(LISTED, sandbox(DEAD, ready=False)),)) == [damaged().path]
    assert all_noted(endpoints=(endpoint(LISTED, sandbox(DEAD)),)) == []
    assert all_noted(task_directories=(TaskDirectory("/run/x", DEAD),)) == []
