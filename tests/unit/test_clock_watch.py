"""The note that the wall clock was set: when it is written, and what is made of one that is there.

That the kernel tells of a step is shown where a clock can be set: tests/lab/vm_clock.py.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path

import pytest

from janitor.core.leases.diagnosis import Diagnosis
from janitor.core.leases.file_identity import identity_of
from janitor.core.leases.judgement import judge
from janitor.core.leases.plan import plan
from janitor.core.model.action import Policy
from janitor.core.model.evidence import Clock, FileIdentity, Observation, Unknown
from janitor.core.model.fingerprint import Fingerprint
from janitor.daemon.clock_watch import ClockWatch
from janitor.daemon.lease_pass import _looked
from janitor.daemon.loop import Daemon
from janitor.host.changes import state
from janitor.host.changes.state import ClockNote
from janitor.host.kernel.clock_set import ClockSet
from janitor.host.kernel.procfs import clock
from janitor.host.kernel.signals import Signals
from janitor.passes.clean import Look
from janitor.passes.scan import Options, observe
from janitor.report.events import LogEvent
from tests.limits import no_descriptor_left
from tests.log import Log
from tests.nodes import booted, with_processes
from tests.situations import DIRECTORY, NOW, evidence, lease
from tests.unit.test_daemon_loop import settings

SECOND = 1_000_000_000


def begun(root: Path, log: Log) -> ClockWatch:
    watch = ClockWatch(str(root), log)
    assert watch.due_ns is not None
    watch.run(frozenset())
    return watch


def offset_ns() -> int:
    now = clock()
    return now.realtime_ns - now.boottime_ns


def note(root: Path, boot: str = "this-boot") -> ClockNote:
    found = state.read_clock(booted(root, boot))
    assert isinstance(found, ClockNote)
    return found


def test_a_clock_that_nobody_sets_says_nothing() -> None:
    timer = ClockSet()
    assert select.select([timer], [], [], 0)[0] == []
    assert not timer.was_set()
    timer.close()


def test_the_first_daemon_of_a_boot_has_seen_nothing(tmp_path: Path) -> None:
    this, log = with_processes(tmp_path), Log()
    assert state.read_clock(booted(tmp_path, this)) is None
    watch = begun(tmp_path, log)
    assert (note(tmp_path).set_ns, note(tmp_path).stalled_ns) == (0, 0)
    assert watch.due_ns is None
    assert len(watch.descriptors()[0]) == 1
    watch.close(0)
    assert watch.descriptors() == ([], [])
    assert log == []


def test_what_an_earlier_daemon_saw_is_remembered(tmp_path: Path) -> None:
    this, log = with_processes(tmp_path), Log()
    state.write_clock(booted(tmp_path, this), ClockNote(5 * SECOND, offset_ns(), 7 * SECOND))
    begun(tmp_path, log).close(0)
    assert (note(tmp_path).set_ns, note(tmp_path).stalled_ns) == (5 * SECOND, 7 * SECOND)
    assert state.read_clock(booted(tmp_path, "another-boot")) is None
    assert log == []


@pytest.mark.parametrize("day_s", [86_400, -86_400])
def test_a_step_while_no_daemon_ran(tmp_path: Path, day_s: int) -> None:
    this, log = with_processes(tmp_path), Log()
    state.write_clock(booted(tmp_path, this), ClockNote(0, offset_ns() - day_s * SECOND))
    before = clock().boottime_ns
    begun(tmp_path, log).close(0)
    found = note(tmp_path)
    assert found.set_ns >= before
    assert [line["by_s"] for line in log.of(LogEvent.CLOCK_WAS_SET)] == [f"{day_s:+d}"]
    begun(tmp_path, log).close(0)
    assert note(tmp_path).set_ns == found.set_ns
    assert len(log) == 1


def written(set_ns: object = 0, offset_ns: object = 0, stalled_ns: object = 0) -> str:
    return f'{{"boot_id": "this-boot", "set_ns": {set_ns}, "offset_ns": {offset_ns}, "stalled_ns": {stalled_ns}}}'


@pytest.mark.parametrize("text", [
    "{", "[]", '{"boot_id": "this-boot"}', written('"x"'), written(-5), written(stalled_ns=-SECOND),
    written(offset_ns=10**400), written(stalled_ns=10**19), written("NaN"), written("1e400"), written("[" * 9999),
])  # fmt: skip
def test_a_note_that_cannot_be_read_may_have_said_anything(tmp_path: Path, text: str) -> None:
    this = with_processes(tmp_path)
    path = tmp_path / state.CLOCK.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert isinstance(state.read_clock(booted(tmp_path, this)), Unknown)
    assert isinstance(observe(Options(root=str(tmp_path))).clock_set_ns, Unknown)
    begun(tmp_path, Log()).close(0)
    assert note(tmp_path).set_ns == note(tmp_path).stalled_ns > 0


def test_a_note_that_cannot_be_written_is_tried_again_and_complained_of_once(tmp_path: Path) -> None:
    this, log = with_processes(tmp_path), Log()
    in_the_way = tmp_path / f"{state.CLOCK.lstrip('/')}.new"
    in_the_way.mkdir(parents=True)
    watch = begun(tmp_path, log)
    assert len(log.of(LogEvent.NOTES_NOT_WRITTEN)) == 1
    due_ns = watch.due_ns
    assert due_ns is not None
    assert due_ns > clock().boottime_ns
    assert len(watch.descriptors()[0]) == 1  # a step is heard of meanwhile
    watch._again_ns = 1
    watch.run(frozenset())
    assert len(log) == 1
    assert state.read_clock(booted(tmp_path, this)) is None
    in_the_way.rmdir()
    watch._again_ns = 1
    watch.run(frozenset())
    assert note(tmp_path).set_ns == 0
    assert watch.due_ns is None
    watch.close(0)


def test_a_note_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """`stalled_ns` was `stood_ns`: an upgrade in the middle of a boot loses nothing."""
    this = with_processes(tmp_path)
    path = tmp_path / state.CLOCK.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(written(5 * SECOND, 0, 7 * SECOND).replace("stalled_ns", "stood_ns"))
    assert state.read_clock(booted(tmp_path, this)) == ClockNote(5 * SECOND, 0, 7 * SECOND)


@pytest.mark.parametrize("text", ["", "{", '{"boot_id": "this-boot", "set_ns": 0, "offset_ns": 0, "stalled_ns": 0}'])
def test_a_note_that_was_tampered_with_is_written_anew_before_a_pass(tmp_path: Path, text: str) -> None:
    this = with_processes(tmp_path)
    path = tmp_path / state.CLOCK.lstrip("/")
    state.write_clock(booted(tmp_path, this), ClockNote(5 * SECOND, offset_ns(), 7 * SECOND))
    watch = begun(tmp_path, Log())
    path.unlink()
    if text:
        path.write_text(text)
    assert watch.noted() == note(tmp_path)
    assert (note(tmp_path).set_ns, note(tmp_path).stalled_ns) == (5 * SECOND, 7 * SECOND)
    watch.close(0)


def test_a_pass_of_the_daemon_knows_what_that_has_seen_without_the_note(tmp_path: Path) -> None:
    this, log = with_processes(tmp_path), Log()
    state.write_clock(booted(tmp_path, this), ClockNote(5 * SECOND, offset_ns(), 7 * SECOND))
    wanted = settings(tmp_path)
    daemon = Daemon(wanted, lambda: wanted, log)
    assert daemon._order(False, frozenset()).options.clocks is None
    daemon._clock.part = begun(tmp_path, log)
    path = tmp_path / state.CLOCK.lstrip("/")
    path.unlink()
    (path.parent / "clock.json.new").mkdir()
    options = daemon._order(False, frozenset()).options
    assert not path.exists()
    found, without = observe(options), observe(wanted.options)
    assert (found.clock_set_ns, without.clock_set_ns) == (5 * SECOND, 0)
    assert (found.started.asleep_ns - without.started.asleep_ns + SECOND // 2) // SECOND == 7
    (path.parent / "clock.json.new").rmdir()
    state.write_clock(booted(tmp_path, this), ClockNote(9 * SECOND, 0, 3 * SECOND))  # and of the two, the worse
    assert observe(options).clock_set_ns == 9 * SECOND
    daemon._parts.end_all()


def test_without_a_descriptor_it_says_what_is_not_seen(tmp_path: Path) -> None:
    with_processes(tmp_path)
    log = Log()
    before = len(os.listdir("/proc/self/fd"))
    with no_descriptor_left():
        watch = begun(tmp_path, log)
    assert log.of(LogEvent.CLOCK_NOT_WATCHED)[0]["why"] == "timerfd_create: Too many open files"
    assert watch.due_ns is None or log.of(LogEvent.NOTES_NOT_WRITTEN)
    watch.close(0)
    assert len(os.listdir("/proc/self/fd")) == before


def later(now: Clock, seconds: float, asleep_s: float = 0) -> Clock:
    return Clock(
        now.realtime_ns, now.boottime_ns + int((seconds + asleep_s) * SECOND), now.asleep_ns + int(asleep_s * SECOND)
    )


def test_what_stood_still_is_counted_and_told_once_in_a_while(tmp_path: Path) -> None:
    with_processes(tmp_path)
    log = Log()
    watch, now = begun(tmp_path, log), clock()
    watch.turned(now, later(now, 60.1), 60)  # as it should be
    watch.turned(now, later(now, 1, asleep_s=900), 60)  # suspended: another clock says so
    assert (note(tmp_path).stalled_ns, log) == (0, [])
    watch.turned(now, later(now, 120), 4)
    assert note(tmp_path).stalled_ns == 120 * SECOND
    watch.turned(later(now, 120), later(now, 150), 4)
    assert note(tmp_path).stalled_ns == 150 * SECOND
    assert [fields["for_s"] for fields in log.of(LogEvent.DAEMON_STALLED)] == ["120"]
    watch.close(0)


def test_what_stood_still_outside_of_the_waiting_is_noted_before_the_next_wait(tmp_path: Path) -> None:
    """A pass that was begun in that turn must not come to its end before."""
    with_processes(tmp_path)
    wanted, log = settings(tmp_path), Log()
    daemon = Daemon(wanted, lambda: wanted, log)
    daemon._clock.part = begun(tmp_path, log)
    daemon._sole.due_ns = daemon._chores_ns = later(clock(), 30).boottime_ns
    daemon._round = later(clock(), -120)
    noted: list[int] = []

    def end_of_a_pass() -> None:
        noted.append(note(tmp_path).stalled_ns // SECOND)
        os.kill(os.getpid(), signal.SIGTERM)

    with Signals() as signals:
        timer = threading.Timer(0.5, end_of_a_pass)
        timer.start()
        daemon._wait(signals)
        timer.join()
    assert noted == [120]
    daemon._parts.end_all()


@pytest.mark.parametrize(("gap_s", "stood_s"), [(60, 0), (120, 120)])
def test_a_daemon_that_was_ended_before_it_could_say_that_it_stood_still(
    tmp_path: Path, gap_s: int, stood_s: int
) -> None:
    this = with_processes(tmp_path)
    last_ns = clock().boottime_ns - gap_s * SECOND
    file = FileIdentity("/var/lib/cni/networks/n/10.52.0.7", 1, 2, 3, 4, "")
    state.write_clock(booted(tmp_path, this), ClockNote(0, offset_ns()))
    state.write_observations(booted(tmp_path, this), (Observation(file, 3, last_ns - SECOND, last_ns, 2),))
    begun(tmp_path, Log()).close(0)
    assert note(tmp_path).stalled_ns // SECOND == stood_s


def test_a_pass_takes_it_for_sleep(tmp_path: Path) -> None:
    this = with_processes(tmp_path)
    before = observe(Options(root=str(tmp_path)))
    state.write_clock(booted(tmp_path, this), ClockNote(5 * SECOND, 0, 3600 * SECOND))
    found = observe(Options(root=str(tmp_path)))
    assert (before.clock_set_ns, found.clock_set_ns) == (0, 5 * SECOND)
    for now, then in ((found.started, before.started), (found.finished, before.finished)):
        assert (now.asleep_ns - then.asleep_ns) // SECOND in (3599, 3600)
    (tmp_path / state.CLOCK.lstrip("/")).write_text("{")
    unread = observe(Options(root=str(tmp_path)))
    assert isinstance(unread.clock_set_ns, Unknown)
    assert isinstance(unread.observations, Unknown)


def test_a_lease_that_is_not_written_yet_by_a_clock_that_was_set_back_is_as_old_as_it_was_watched() -> None:
    future = lease(mtime_ns=clock().realtime_ns + 86_400 * SECOND)
    this = identity_of(f"{DIRECTORY}/{future.name}", future)
    seen = Observation(this, future.ctime_ns, NOW - 700 * SECOND, NOW - SECOND, 9)
    found = evidence(future, observations=(seen,))
    judgement = judge(found)
    shown = _looked(
        Look(found, Diagnosis(judgement, (), ()), plan(found, judgement, Policy())),
        0,
        settled=False,
        fingerprint=Fingerprint(),
    )
    assert shown.oldest_orphan_s is not None
    assert 700 <= shown.oldest_orphan_s <= 702
