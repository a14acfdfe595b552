"""The daemon's parts: what one raises stays with it, what it counted outlives it, and a reload ends what it must."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.action import Policy
from janitor.core.retry import SECOND
from janitor.daemon import Daemon
from janitor.host.procfs import clock
from janitor.keeping import Keeping
from janitor.parts import Parts, carry_over
from janitor.passing import Passing
from janitor.pipeline import Options
from janitor.report.events import LogEvent
from janitor.textfile import Textfile
from tests.log import Log
from tests.unit.test_daemon_loop import order, settings


@dataclass
class Counting:
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


def test_one_that_fails_rests_and_the_others_go_on() -> None:
    log = Log()
    parts, broken, whole = Parts(log), Counting(fails=("run", "close")), Counting()
    parts.begin("broken", lambda: broken)
    parts.begin("whole", lambda: whole)
    for _ in range(3):
        parts.run(frozenset())
    assert (whole.runs, broken.closed, list(parts.there)) == (3, True, ["whole"])
    assert [fields["why"] for fields in log.of(LogEvent.COMPONENT_FAILED)] == [
        "ValueError: cannot run",
        "OSError: cannot close",
    ]
    parts.begin("broken", lambda: pytest.fail("it has just failed"))
    assert not parts.rested()
    assert clock().boottime_ns < max(parts.dues_ns()) <= clock().boottime_ns + 30 * SECOND
    parts._resting["broken"] = clock().boottime_ns
    assert parts.rested()
    parts.begin("broken", Counting)
    assert sorted(parts.there) == ["broken", "whole"]


def test_one_that_cannot_be_made_or_waited_for_rests_as_well() -> None:
    log = Log()
    parts, whole = Parts(log), Counting(runs=7)
    parts.begin("unmade", lambda: Counting(no="such"))  # type: ignore[call-arg]
    parts.begin("broken", lambda: Counting(fails=("descriptors",)))
    parts.begin("whole", lambda: whole)
    assert parts.descriptors() == ([7], [])
    assert [fields["part"] for fields in log.of(LogEvent.COMPONENT_FAILED)] == ["unmade", "broken"]
    parts._resting.clear()
    parts.begin("broken", lambda: Counting(fails=("descriptors",)))
    parts.run(frozenset())
    assert (whole.runs, list(parts.there)) == (8, ["whole"])


def test_what_is_not_wanted_is_ended_and_forgotten() -> None:
    parts, part = Parts(Log()), Counting()
    parts.begin("part", lambda: part)
    parts.begin("part", lambda: pytest.fail("it is there"))
    parts.end("part")
    assert (part.closed, parts.there, parts.known) == (True, {}, {"part": part})
    parts.begin("part", None)
    assert parts.known == {}


def test_a_part_that_is_begun_anew_knows_what_it_knew() -> None:
    before, fresh = Passing(order, 60, Log()), Passing(order, 60, Log())
    before.ended_ns, before.complete_at = 5, 6.0
    before.done[LogEvent.LEASE_FREED] = 3
    carry_over(before, fresh)
    assert (fresh.ended_ns, fresh.complete_at, fresh.done) == (5, 6.0, Counter({LogEvent.LEASE_FREED: 3}))
    keeping = Keeping(lambda: pytest.fail(), Log(), lambda _: None)
    carry_over(Keeping(keeping.make, Log(), keeping.watching, None, Counter({"restored x": 2})), keeping)
    assert keeping.counts == {"restored x": 2}


def test_a_part_that_raised_leaves_its_figures(tmp_path: Path) -> None:
    log = Log()
    daemon = Daemon(settings(tmp_path), lambda: pytest.fail(), log)
    broken = Passing(order, 60, Log(), ended_ns=clock().boottime_ns)
    broken.done[LogEvent.LEASE_FREED] = 3
    daemon._parts.there["leases"] = broken
    daemon._run_parts(frozenset())  # `order` raises
    assert [line["part"] for line in log.of(LogEvent.COMPONENT_FAILED)] == ["leases"]
    assert not daemon._parts.there
    assert daemon.figures().done == {LogEvent.LEASE_FREED: 3}
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
    before = dict(daemon._parts.there)
    assert before.keys() == ALL
    daemon._reload()
    after = dict(daemon._parts.there)
    assert after.keys() == there
    assert {name for name in after if after[name] is not before[name]} == anew
    leases, textfile = daemon._parts.one(Passing), daemon._parts.one(Textfile)
    assert leases is not None
    assert textfile is not None
    assert (leases.interval_s, textfile.path) == (new.interval_s, new.textfile)
    assert len(log.of(LogEvent.CONFIGURATION_READ)) == 1
    daemon._close()
