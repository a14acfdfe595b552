"""What bounds a pass: its journal, its lock, what was refused before, and what strangers' processes may say."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import re
import select
import signal
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from janitor.core.leases.file_identity import identity_of
from janitor.core.leases.plan import plan
from janitor.core.model.action import Action, FreeLease, Policy
from janitor.core.model.evidence import FileIdentity
from janitor.core.model.outcome import Entry, Event, Outcome
from janitor.core.model.reason import Reason
from janitor.core.model.retry import SECOND, Refusals
from janitor.daemon.lease_pass import Order, lease_pass
from janitor.host import worker
from janitor.host.changes import state
from janitor.host.changes.apply import ApplyContext, Witness, apply
from janitor.host.changes.journal import JOURNAL, Journal
from janitor.host.changes.undo import Purged, purge
from janitor.host.cni.leases import read_entry
from janitor.host.cni.locks import (
    DAEMON_LOCK,
    JANITOR_LOCK,
    Busy,
    lost,
    network_lock,
    only_janitor,
    take_daemon_lock,
)
from janitor.host.kernel.mounts import own_mounts
from janitor.host.kernel.processes import Asked, processes
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.programs import Programs
from janitor.host.kernel.trusted import Exposed
from janitor.passes.clean import STOPPED
from janitor.passes.scan import Options, diagnose
from janitor.report.events import LogEvent
from janitor.report.pass_lines import Line, LogLine, Looked
from tests import situations
from tests.nodes import booted, with_processes
from tests.reasons import not_seen, recorded, words

NETWORK = "/var/lib/cni/networks/net"
DEAD = "d" * 64
DAY_S = 86_400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node's disk with one network, whose lock file is there, and three leases of a dead container."""
    directory = tmp_path / NETWORK.lstrip("/")
    directory.mkdir(parents=True)
    (directory / "lock").touch()
    for number in range(3):
        (directory / f"10.0.0.{number}").write_text(f"{DEAD}\r\neth0")
    return tmp_path


def frees(root: Path, chain: str = "") -> tuple[Action, ...]:
    here = root / NETWORK.lstrip("/")
    found = []
    directory = os.open(here, os.O_RDONLY)
    for name in sorted(path.name for path in here.glob("10.*")):
        file = read_entry(name, NETWORK, directory)
        found.append(
            FreeLease(
                NETWORK, name, DEAD, "eth0", "", (recorded("dead"),), chain,
                file=identity_of(f"{NETWORK}/{name}", file), ctime_ns=file.ctime_ns,
            )
        )  # fmt: skip
    os.close(directory)
    return tuple(found)


def done_by(root: Path, actions: tuple[Action, ...], **context: object) -> list[Outcome]:
    made = ApplyContext(
        booted(root, "boot"), "20261120T000000Z-1", Journal(str(root)), own_mounts(),
        lambda: Witness(frozenset(), frozenset()), patience_s=0.1,
    )  # fmt: skip
    return list(apply(actions, replace(made, **context)))  # type: ignore[arg-type]


def written(root: Path) -> list[str]:
    """What there is of janitor's own on the disk."""
    return sorted(path.name for path in (root / "var/lib").rglob("*janitor*"))


# What cannot be done leaves no trace.


def test_without_a_lock_file_nothing_is_journalled(root: Path) -> None:
    (root / NETWORK.lstrip("/") / "lock").unlink()
    outcomes = done_by(root, frees(root))
    assert {(o.event, "has no lock file" in words(o.detail)) for o in outcomes} == {("skipped", True)}
    assert written(root) == []


def test_with_a_plugin_that_is_gone_nothing_is_journalled(root: Path) -> None:
    results = root / "var/lib/cni/results"
    results.mkdir()
    config = {"name": "net", "cniVersion": "0.4.0", "plugins": [{"type": "no-such-plugin"}]}
    cached = {"kind": "cniCacheV1", "config": base64.b64encode(json.dumps(config).encode()).decode()}
    (results / "entry").write_text(json.dumps(cached | {"containerId": DEAD, "ifName": "eth0"}))
    actions, programs = frees(root, chain="/var/lib/cni/results/entry"), Programs(str(root), None, Exposed({}))
    outcomes = done_by(root, actions, programs=lambda: programs)
    assert {o.event for o in outcomes} == {"failed"}
    assert all("no-such-plugin is in none of /opt/cni/bin, " in words(o.detail) for o in outcomes)
    assert written(root) == []
    # Where it cannot be told which programs may be trusted, none is run.
    outcomes = done_by(root, actions, programs=lambda: not_seen("a pod's mounts cannot be read"))
    assert {(o.event, words(o.detail).partition(";")[0]) for o in outcomes} == {
        ("failed", "no CNI plugin was run: a pod's mounts cannot be read")
    }
    assert written(root) == []


# The lock.


def test_a_lock_that_was_removed_stops_the_pass_before_its_next_batch(root: Path) -> None:
    actions = frees(root)
    with only_janitor(str(root), "janitor run") as still:
        assert still() is None
        work = apply(
            actions,
            ApplyContext(
                booted(root, "boot"), "20261120T000000Z-1", Journal(str(root)), own_mounts(),
                lambda: Witness(frozenset(), frozenset()), batch=1, stop=still,
            ),
        )  # fmt: skip
        assert next(work).event == "done"
        (root / JANITOR_LOCK.lstrip("/")).unlink()
        assert {(o.event, words(o.detail)) for o in work} == {("skipped", f"{JANITOR_LOCK} was removed or replaced")}
    assert len(frees(root)) == 2


def test_a_lock_that_was_replaced_is_lost(tmp_path: Path) -> None:
    held = take_daemon_lock(str(tmp_path))
    try:
        assert lost(str(tmp_path), DAEMON_LOCK, held) is None
        (tmp_path / DAEMON_LOCK.lstrip("/")).rename(tmp_path / "away")
        other = take_daemon_lock(str(tmp_path))
        assert DAEMON_LOCK in words(lost(str(tmp_path), DAEMON_LOCK, held))
        os.close(other)
    finally:
        os.close(held)


def test_a_lease_directory_that_somebody_has_locked_says_who(tmp_path: Path) -> None:
    """Any user may: flock(2) asks for no more than reading, and host-local's directory is open to all."""
    (tmp_path / "lock").touch()
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Busy) as busy, network_lock(str(tmp_path), "/leases", 0.1):
            pass
        said = rf"/leases has been held by process {os.getpid()} \(.+\) for more than 0\.1 s"
        assert re.fullmatch(said, words(busy.value.reason))
    finally:
        os.close(held)


def test_locks_and_notes_are_for_root_alone(tmp_path: Path) -> None:
    """flock(2) takes no more than reading: whoever could read the lock could keep janitor from working."""
    directory = tmp_path / "run/janitor"
    directory.mkdir(parents=True, mode=0o755)
    directory.chmod(0o755)
    (directory / "daemon.lock").touch(0o644)
    os.close(take_daemon_lock(str(tmp_path)))
    with only_janitor(str(tmp_path), "janitor clean"):
        state.write_observations(booted(tmp_path, "boot"), ())
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == {"daemon.lock": 0o600, "lock": 0o600, "observations.json": 0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_taken_lock_still_says_by_whom(tmp_path: Path) -> None:
    held = take_daemon_lock(str(tmp_path))
    with pytest.raises(Busy) as caught:
        take_daemon_lock(str(tmp_path))
    os.close(held)
    assert f"'janitor run' (process {os.getpid()})" in words(caught.value.reason)


# The journal.


def entry(root: Path, pass_id: str, number: int, event: Event, **other: object) -> tuple[Entry, Event, Reason]:
    """An action of yesterday, in an earlier boot. What was done is in quarantine."""
    name = f"10.0.0.{number}"
    file = FileIdentity(f"{NETWORK}/{name}", 1, 2, 3, 4, "5" * 64)
    action = FreeLease(NETWORK, name, DEAD, "eth0", "", (recorded("dead"),), file=file, ctime_ns=6)
    place = f"/var/lib/janitor/quarantine/{pass_id}/{number}"
    values: dict[str, object] = {"at": time.time() - DAY_S, "boot_id": "earlier", "up_s": 5.0}
    made = Entry(pass_id, number, action, place, **(values | other))  # type: ignore[arg-type]
    if event == "done":
        kept = root / place.lstrip("/")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.touch()
    return made, event, recorded("for a reason")


def journal(root: Path, *entries: tuple[Entry, Event, Reason]) -> Journal:
    made = Journal(str(root))
    made.intend([one for one, _, _ in entries])
    made.outcome(list(entries))
    return made


def left(root: Path) -> list[str]:
    """The passes that the journal on the disk still has."""
    read = Journal(str(root))
    read.load()
    return list(dict.fromkeys(one.pass_id for one in read.entries.values()))


def test_what_was_refused_is_dropped_and_what_was_moved_is_not(tmp_path: Path) -> None:
    refused = [entry(tmp_path, "b", number, "skipped") for number in range(300)]
    moved = entry(tmp_path, "c", 0, "done")
    strange: tuple[Entry, Event, Reason] = (moved[0], "failed", recorded("though it is in quarantine"))
    made = journal(tmp_path, entry(tmp_path, "a", 0, "done"), *refused, strange)
    assert purge(booted(tmp_path, "boot"), made, 30) == Purged(0, 0, 300)
    assert left(tmp_path) == ["a", "c"]
    assert purge(booted(tmp_path, "boot"), made, 30) == Purged(0, 0, 0)


@pytest.mark.parametrize(
    ("began", "keep", "kept"),
    [
        (1 / 2, 1 / 4, False),
        (1 / 2, 1, True),
        (None, 1 / 4, True),  # of a janitor that did not note it: the wall clock alone proves nothing
    ],
    ids=["long ago", "not long ago", "not known"],
)
def test_passes_of_this_boot_grow_old_by_the_time_since_the_boot(
    tmp_path: Path, began: float | None, keep: float, kept: bool
) -> None:
    """Whatever the wall clock says: it says two days here. `began` and `keep` are parts of the machine's uptime."""
    uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    up_s = -1.0 if began is None else began * uptime_s
    days = keep * uptime_s / DAY_S
    old = entry(tmp_path, "a", 0, "done", boot_id="boot", up_s=up_s, at=time.time() - 2 * DAY_S)
    made = journal(tmp_path, old, entry(tmp_path, "b", 0, "done", boot_id="boot", up_s=uptime_s))
    assert purge(booted(tmp_path, "boot"), made, days) == (Purged(0, 0, 0) if kept else Purged(1, 1, 0))
    assert left(tmp_path) == (["a", "b"] if kept else ["b"])


def test_a_journal_beyond_its_bound_is_not_used(tmp_path: Path) -> None:
    made = journal(tmp_path, entry(tmp_path, "a", 0, "skipped"))
    path = tmp_path / JOURNAL.lstrip("/")
    os.truncate(path, 64 << 20)  # where nothing more can be intended, an outcome can still be written
    with pytest.raises(OSError, match="limit of 64 MiB") as caught:
        made.intend([entry(tmp_path, "b", 0, "skipped")[0]])
    assert caught.value.errno == errno.EFBIG
    os.truncate(path, (64 << 20) - 4096)
    made.outcome([entry(tmp_path, "a", 0, "skipped")])
    os.truncate(path, (64 << 20) + 1)
    with pytest.raises(OSError, match="limit of 64 MiB"):
        Journal(str(tmp_path)).load()


# A pass of the daemon on a disk without processes: it can prove nothing, and only keeps its house in order.


def said(root: Path, findings: frozenset[str], keep_days: float = 0.5) -> list[LogLine]:
    lines: list[Line] = []
    order = Order(Options(str(root)), Policy(findings=findings), keep_days, tidy=True)
    lease_pass(order, lines.append)
    return [line for line in lines if isinstance(line, LogLine)]


def test_who_only_observes_leaves_quarantine_and_journal_alone(tmp_path: Path) -> None:
    journal(tmp_path, *(entry(tmp_path, name, 0, "done") for name in "ab"))
    for kept in (tmp_path / "var/lib/janitor/quarantine").iterdir():
        os.utime(kept, (0, 0))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "var/lib").rglob("*")}
    assert said(tmp_path, frozenset(), 0.0) == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "var/lib").rglob("*")} == before
    (dropped,) = said(tmp_path, frozenset({"LEASE001"}), 0.0)
    assert (dropped.event, dropped.fields) == (LogEvent.OLD_PASSES_DROPPED, {"passes": "1", "files": "1", "days": "0"})
    assert left(tmp_path) == ["b"]


@pytest.mark.parametrize("findings", [frozenset({"LEASE001"}), frozenset()], ids=["repairing", "observing"])
def test_actions_that_a_killed_daemon_did_not_log_are_in_the_next_log(tmp_path: Path, findings: frozenset[str]) -> None:
    journal(tmp_path, *(entry(tmp_path, "a", number, "done") for number in range(3)), entry(tmp_path, "a", 3, "failed"))
    state.write_log_cursor(booted(tmp_path, with_processes(tmp_path)), "a", 1)
    told = [line for line in said(tmp_path, findings) if line.event.action is not None]
    assert [(line.event, line.fields["address"]) for line in told] == [
        (LogEvent.LEASE_FREED, "10.0.0.1"), (LogEvent.LEASE_FREED, "10.0.0.2"),
    ]  # fmt: skip
    assert all(
        line.fields["detail"] == "by an earlier pass that was interrupted before it could log this" for line in told
    )
    state.drop_log_cursor(booted(tmp_path, "this-boot"))
    assert [line for line in said(tmp_path, findings) if line.event.action is not None] == []


def test_who_only_observes_tells_them_and_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    """What was cut short in the middle is found out by whoever may write that down."""
    journal(tmp_path, entry(tmp_path, "a", 0, "done"), entry(tmp_path, "a", 1, "intend"))
    state.write_log_cursor(booted(tmp_path, with_processes(tmp_path)), "a", 0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "var/lib").rglob("*")}
    assert [line.event for line in said(tmp_path, frozenset())] == [LogEvent.LEASE_FREED]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "var/lib").rglob("*")} == before
    state.drop_log_cursor(booted(tmp_path, "this-boot"))  # as the daemon does then
    assert [line.event for line in said(tmp_path, frozenset({"LEASE001"}))][:1] == [LogEvent.EARLIER_PASS_CUT_SHORT]


def test_a_journal_that_cannot_be_read_is_said_and_what_is_to_be_told_is_kept(tmp_path: Path) -> None:
    journal(tmp_path, entry(tmp_path, "a", 0, "done"))
    os.truncate(tmp_path / JOURNAL.lstrip("/"), (64 << 20) + 1)
    state.write_log_cursor(booted(tmp_path, with_processes(tmp_path)), "a", 0)
    lines: list[Line] = []
    lease_pass(Order(Options(str(tmp_path)), Policy(findings=frozenset()), 1, tidy=False), lines.append)
    assert isinstance(lines[0], LogLine)
    assert (lines[0].event, "limit of 64 MiB" in lines[0].fields["why"]) == (LogEvent.JOURNAL_NOT_READ, True)
    assert isinstance(lines[-1], Looked)
    assert not lines[-1].settled


# What was refused is tried again after a while.


def test_a_refusal_is_news_once() -> None:
    refusals = Refusals()
    assert refusals.refused("a", recorded("no lock"), 0)
    assert refusals.postponed(4 * SECOND) == {"a"}
    assert refusals.postponed(5 * SECOND) == frozenset()
    assert not refusals.refused("a", recorded("no lock"), 5 * SECOND)
    assert refusals.postponed(14 * SECOND) == {"a"}
    assert refusals.refused("a", recorded("another reason"), 15 * SECOND)
    refusals.try_all(16 * SECOND)
    assert refusals.postponed(16 * SECOND) == frozenset()
    assert not refusals.refused("a", recorded("another reason"), 16 * SECOND)
    for _ in range(40):
        refusals.refused("a", recorded("another reason"), 16 * SECOND)
    assert refusals.postponed((16 + 3600) * SECOND - 1) == {"a"}
    assert refusals.postponed((16 + 3600) * SECOND) == frozenset()
    assert refusals.refused("b", recorded("x"), 0)
    refusals.done("b")
    assert refusals.refused("b", recorded("x"), 0)


def test_what_is_postponed_takes_no_place_in_a_pass() -> None:
    files = [situations.lease(f"10.52.0.{number}") for number in range(10, 14)]
    evidence = situations.evidence(*files)
    judgement = diagnose(evidence).judgement
    first = plan(evidence, judgement, Policy(2)).actions
    assert [action.name for action in first] == ["10.52.0.10", "10.52.0.11"]
    later = plan(evidence, judgement, Policy(2, postponed=frozenset(action.key for action in first))).actions
    assert [action.name for action in later] == ["10.52.0.12", "10.52.0.13"]


def test_what_goes_together_is_postponed_together() -> None:
    file = situations.lease()
    evidence = situations.evidence(
        file,
        cache=(
            situations.cache_entry(situations.LIVE, "10.52.0.2"),
            situations.cache_entry(situations.DEAD, situations.ADDRESS),
        ),
    )
    judgement = diagnose(evidence).judgement
    whole = plan(evidence, judgement, Policy()).actions
    assert [action.kind for action in whole] == ["free", "discard"]
    assert "its CNI DEL has been run" not in words(whole[1].proof), "nobody knows yet whether it will be"
    for one in whole:
        assert plan(evidence, judgement, Policy(postponed=frozenset({one.key}))).actions == ()


# Strangers' processes.


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Proc]:
    """Forty processes that share 1.6 MB of words like IDs, and an environment as large; a shim; a plugin."""
    words, variables = tmp_path / "words", tmp_path / "variables"
    words.write_bytes(b"\0".join(os.urandom(32).hex().encode() for _ in range(25_000)))
    variables.write_bytes(b"A=\0" * 500_000 + b"NOT_CNI_CONTAINERID=x\0")
    for pid in range(10, 52):
        here = tmp_path / "proc" / str(pid)
        here.mkdir(parents=True)
        (here / "comm").write_text("stranger\n")
        (here / "stat").write_text(f"{pid} (stranger) S {'0 ' * 18}100 0\n")
        if pid < 50:
            (here / "cmdline").symlink_to(words)
            (here / "environ").symlink_to(variables)
    (tmp_path / "proc/50/cmdline").write_bytes(b"shim\0-id\0" + DEAD.encode() + b"\0" + b"e" * 64)
    (tmp_path / "proc/50/environ").write_bytes(b"")
    (tmp_path / "proc/51/cmdline").write_bytes(b"bridge\0")
    (tmp_path / "proc/51/environ").write_bytes(b"X=1\0CNI_COMMAND=ADD\0CNI_CONTAINERID=abc\0\0PATH=/")
    yield Proc(str(tmp_path / "proc"))


def test_words_of_strangers_cost_no_more_than_one_of_them(crowd: Proc) -> None:
    tracemalloc.start()
    try:
        found = processes(crowd, Asked(frozenset({DEAD, "f" * 64}), ("e" * 20,)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, tuple)
    assert [(p.pid, p.container_ids, p.cni_command, p.cni_container_id) for p in found] == [
        (50, (DEAD, "e" * 64), "", ""), (51, (), "ADD", "abc"),
    ]  # fmt: skip
    assert peak < 16 << 20


def test_a_fragment_is_kept_by_one_name_of_each_process(tmp_path: Path) -> None:
    names = ["ab" + os.urandom(31).hex() for _ in range(100)]
    assert Asked(frozenset(), ("a", "ab")).named_in("\0".join(names).encode()) == (names[0],)


def test_a_signal_to_a_child_that_has_just_begun_does_not_reach_its_parent() -> None:
    """It would end the daemon: until the child has handlers of its own, it has the daemon's, and its wakeup pipe."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        for _ in range(30):
            one = worker.start(lambda tell: time.sleep(60), signal.SIGTERM)
            one.signal(signal.SIGTERM)
            one.end(5)
            assert one.status == -signal.SIGTERM
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        os.close(reader)
        os.close(writer)


def test_a_child_that_can_be_made_again_goes_first() -> None:
    def work(tell: worker.Tell) -> None:
        worker.offer_to_the_oom_killer()
        tell(Path("/proc/self/oom_score_adj").read_bytes().strip())

    one = worker.start(work, signal.SIGTERM)
    select.select([one.fileno()], [], [], 10)
    assert one.read() == [b"500"]
    one.end(5)


def test_being_asked_to_stop_is_no_refusal(root: Path) -> None:
    outcomes = done_by(root, frees(root), stop=lambda: STOPPED)
    assert {(o.event, o.detail) for o in outcomes} == {("skipped", STOPPED)}
    assert written(root) == []
