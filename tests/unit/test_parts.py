"""The daemon's parts: what one raises stays with it, what it counted outlives it, and a reload ends what it must."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.action import Policy
from janitor.core.model.retry import SECOND
from janitor.core.rules.rule_memory import RuleCounts
from janitor.daemon.component import Part
from janitor.daemon.fsync_worker import Syncing
from janitor.daemon.lease_worker import Passing
from janitor.daemon.loop import Daemon
from janitor.daemon.pass_record import PassRecord
from janitor.daemon.rule_worker import Keeping
from janitor.daemon.supervisor import Parts, Slot
from janitor.daemon.textfile import Textfile, Written
from janitor.host.kernel.procfs import clock
from janitor.passes.scan import Options
from janitor.report.events import LogEvent
from janitor.report.metrics import text
from tests.log import Log
from tests.unit.test_daemon_loop import order, settings


@dataclass
class Counting(Part):
    """A part that counts how often it was run, and fails when it is told to."""

    runs: int = 0
    closed: bool = False
    fails: tuple[str, ...] = ()

    def descriptors(self) -> tuple[list[int], list[int]]:
        if "descriptors" in self.fails:
            raise OSError("cannot say")
        return [self.runs], []

    @property
    def due_ns(self) -> int | None:
        return 1

    def run(self, ready: frozenset[int]) -> None:
        if "run" in self.fails:
            raise ValueError("cannot run")
        self.runs += 1

    def close(self, patience_s: float) -> None:
        self.closed = True
        if "close" in self.fails:
            raise OSError("cannot close")


def running(parts: Parts) -> list[str]:
    return [slot.name for slot in parts.slots if slot.part is not None]


def test_one_that_fails_rests_and_the_others_go_on() -> None:
    log = Log()
    broken, whole = Counting(fails=("run", "close")), Counting()
    slot = Slot("broken", lambda: broken)
    parts = Parts(log, (slot, Slot("whole", lambda: whole)))
    parts.begin()
    for _ in range(3):
        parts.run(frozenset())
    assert (whole.runs, broken.closed, running(parts)) == (3, True, ["whole"])
    why = [fields["why"] for fields in log.of(LogEvent.COMPONENT_FAILED)]
    assert why == ["ValueError: cannot run", "OSError: cannot close"]
    slot.make = lambda: pytest.fail("it has just failed")
    parts.begin()
    assert not parts.rested()
    assert clock().boottime_ns < max(parts.dues_ns()) <= clock().boottime_ns + 30 * SECOND
    slot.resting_ns = clock().boottime_ns
    assert parts.rested()
    slot.make = Counting
    parts.begin()
    assert running(parts) == ["broken", "whole"]


def test_one_that_cannot_be_made_or_waited_for_rests_as_well() -> None:
    log = Log()
    whole = Counting(runs=7)
    unmade: Slot[Counting] = Slot("unmade", lambda: Counting(no="such"))  # type: ignore[call-arg]
    broken = Slot("broken", lambda: Counting(fails=("descriptors",)))
    parts = Parts(log, (unmade, broken, Slot("whole", lambda: whole)))
    parts.begin()
    assert parts.descriptors() == ([7], [])
    assert [fields["part"] for fields in log.of(LogEvent.COMPONENT_FAILED)] == ["unmade", "broken"]
    broken.resting_ns = None
    parts.begin()
    parts.run(frozenset())
    assert (whole.runs, running(parts)) == (8, ["whole"])


def test_what_is_not_wanted_is_ended_and_forgotten() -> None:
    part, wanted = Counting(), [True]
    slot = Slot("part", lambda: part, lambda: wanted == [True])
    parts = Parts(Log(), (slot,))
    parts.begin()
    slot.make = lambda: pytest.fail("it is there")
    parts.begin()
    slot.end(Log())
    assert (part.closed, running(parts), slot.known()) == (True, [], part)
    wanted.clear()
    parts.begin()
    assert slot.known() is None


def test_a_part_that_does_not_run_yet_tells_of_itself(tmp_path: Path) -> None:
    """The alerts ask for passes that never come to an end, and for rules that nobody watches."""
    daemon = Daemon(settings(tmp_path, rules=True), lambda: pytest.fail(), Log())
    metrics = {family.name: family.samples for family in daemon.metrics()}
    assert metrics["janitor_last_complete_pass_timestamp_seconds"] == (((), 0.0),)
    assert metrics["janitor_rules_watching"] == (((), 0.0),)
    assert daemon.health().unready == "the policy rules are not watched; no pass has finished yet"
    assert "janitor_passes" not in {
        family.name for family in Daemon(settings(tmp_path, leases=False), lambda: pytest.fail(), Log()).metrics()
    }


def test_each_metric_comes_from_one_part(tmp_path: Path) -> None:
    """And the counter of each action from some part."""
    daemon = Daemon(settings(tmp_path, rules=True, durable=True), lambda: pytest.fail(), Log())
    names = Counter(family.name for family in daemon.metrics())
    assert max(names.values()) == 1
    assert {event.action.metric for event in LogEvent if event.action is not None} <= set(names)


def test_a_part_that_is_begun_anew_knows_what_it_knew() -> None:
    made: list[Passing] = []

    def make() -> Passing:
        made.append(Passing(order, 60, Log()))
        return made[-1]

    slot = Slot("leases", make)
    slot.begin(Log())
    before = made[-1].record
    before.ended_ns, before.complete_at = 5, 6.0
    before.done[LogEvent.LEASE_FREED] = 3
    slot.end(Log())
    slot.begin(Log())
    assert len(made) == 2
    assert slot.part is made[1]
    assert made[1].record == PassRecord(ended_ns=5, complete_at=6.0, done=Counter({LogEvent.LEASE_FREED: 3}))
    keeping = Keeping(lambda: pytest.fail(), Log(), lambda _: None)
    keeping.take_over(Keeping(keeping.make, Log(), keeping.watching, None, RuleCounts(Counter({"x": 2}))))
    assert keeping.counts == RuleCounts(Counter({"x": 2}))
    syncing = Syncing("/", (), Log())
    syncing.take_over(Syncing("/", (), Log(), 7, 0.5))
    assert (syncing.files, syncing.seconds) == (7, 0.5)
    textfile, ours = Textfile("/x", tuple, Log()), Written("/x", 1, 2)
    textfile.take_over(Textfile("/x", tuple, Log(), written=ours))
    assert textfile.written is ours


def test_a_part_that_raised_leaves_its_figures(tmp_path: Path) -> None:
    log = Log()
    daemon = Daemon(settings(tmp_path), lambda: pytest.fail(), log)
    daemon._leases.part = broken = Passing(order, 60, Log(), PassRecord(ended_ns=clock().boottime_ns))
    broken.record.done[LogEvent.LEASE_FREED] = 3
    daemon._run_parts(frozenset())  # `order` raises
    assert [line["part"] for line in log.of(LogEvent.COMPONENT_FAILED)] == ["leases"]
    assert running(daemon._parts) == []
    assert "janitor_leases_freed_total 3.0" in text(daemon.metrics(), process=False).decode()
    assert daemon.health().ill == daemon.health().unready == ""


ALL = {"clock", "rules", "leases", "durable", "http", "textfile"}


@pytest.mark.parametrize(
    ("change", "anew", "there"),
    [
        ({}, set(), ALL),
        ({"interval_s": 5, "keep_days": 1, "textfile": "/x.prom", "policy": Policy(1)}, set(), ALL),
        ({"repair_rules": True}, {"rules"}, ALL),
        ({"listen": ("127.0.0.1", 9743)}, {"http"}, ALL),
        ({"hosts": ("janitor.example.com",)}, {"http"}, ALL),
        ({"listen": None}, set(), ALL - {"http"}),
        ({"durable": False}, set(), ALL - {"durable"}),
        ({"options": Options(data_dirs=("/data",))}, {"rules", "durable"}, ALL),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_what_a_reload_begins_anew(tmp_path: Path, change: dict[str, Any], anew: set[str], there: set[str]) -> None:
    old = settings(tmp_path, rules=True, durable=True, listen=("127.0.0.1", 9742))
    new = replace(old, **change)
    if "options" in change:
        new = replace(new, options=replace(new.options, root=str(tmp_path)))
    log = Log()
    daemon = Daemon(old, lambda: new, log)
    assert daemon._sole.take()
    daemon._begin()
    before = {slot.name: slot.part for slot in daemon._parts.slots if slot.part is not None}
    assert before.keys() == ALL
    daemon._reload()
    after = {slot.name: slot.part for slot in daemon._parts.slots if slot.part is not None}
    assert after.keys() == there
    assert {name for name in after if after[name] is not before[name]} == anew
    leases, textfile = daemon._leases.part, daemon._textfile.part
    assert leases is not None
    assert textfile is not None
    assert (leases.interval_s, textfile.path) == (new.interval_s, new.textfile)
    assert len(log.of(LogEvent.CONFIGURATION_READ)) == 1
    daemon._close()
