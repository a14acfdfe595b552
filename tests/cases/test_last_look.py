"""The last look, under the lock, and the way back, on a real disk: what has changed since it was judged stays."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.leases.file_identity import identity_of
from janitor.core.model.action import Action, FreeLease, ReserveLease
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.outcome import Entry, Outcome, Restored
from janitor.core.model.reason import because
from janitor.host.changes.apply import BATCH, ApplyContext, Witness, apply
from janitor.host.changes.journal import JOURNAL, Journal
from janitor.host.changes.quarantine import QUARANTINE, move
from janitor.host.changes.undo import recover, undo
from janitor.host.cni.leases import read_entry
from janitor.host.cni.locks import Busy, network_lock
from janitor.host.kernel.mounts import own_mounts
from tests.nodes import booted
from tests.reasons import not_seen, recorded, words

NETWORK = "/var/lib/cni/networks/net"
DEAD, LIVE = "d" * 64, "a" * 64
ORPHAN = f"{DEAD}\r\neth0".encode()
MOVED = "20261120T000000Z-1"
NOBODY = Witness(frozenset(), frozenset())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node's disk with one network and its lock, and one orphan: 10.0.0.1."""
    here = tmp_path / NETWORK[1:]
    here.mkdir(parents=True)
    (here / "lock").touch()
    (here / "10.0.0.1").write_bytes(ORPHAN)
    return tmp_path


def lease(root: Path, name: str = "10.0.0.1") -> Path:
    return root / NETWORK[1:] / name


def frees(root: Path, *names: str) -> tuple[Action, ...]:
    """The actions that free these leases, as they are now."""
    directory = os.open(root / NETWORK[1:], os.O_RDONLY)
    try:
        files = [read_entry(name, NETWORK, directory) for name in names or ("10.0.0.1",)]
    finally:
        os.close(directory)
    return tuple(
        FreeLease(
            NETWORK,
            f.name,
            DEAD,
            "eth0",
            "",
            (recorded("dead"),),
            file=identity_of(f"{NETWORK}/{f.name}", f),
            ctime_ns=f.ctime_ns,
        )
        for f in files
    )


def context(root: Path, **other: Any) -> ApplyContext:
    made = ApplyContext(
        booted(root, "boot"), MOVED, Journal(str(root)), own_mounts(), lambda: NOBODY, patience_s=0.1
    )  # fmt: skip
    return replace(made, **other)


def done(root: Path, actions: tuple[Action, ...], **other: Any) -> list[Outcome]:
    return list(apply(actions, context(root, **other)))


def events(outcomes: list[Outcome]) -> list[str]:
    return [outcome.event for outcome in outcomes]


def intended(root: Path) -> list[Entry]:
    """What a janitor that begins now would read of the journal."""
    journal = Journal(str(root))
    journal.load()
    return list(journal.entries.values())


def reserves(container_id: str = LIVE) -> tuple[Action, ...]:
    return (ReserveLease(NETWORK, "10.0.0.2", container_id, "eth0", "web", (recorded("missing"),)),)


RUNNING = Witness(frozenset({LIVE}), frozenset({"10.0.0.2"}))


# The kernel, once more.


def test_nobody_is_seen_and_it_goes(root: Path) -> None:
    assert events(done(root, frees(root))) == ["done"]
    assert not lease(root).exists()
    assert (root / QUARANTINE[1:] / MOVED / "00000-10.0.0.1").read_bytes() == ORPHAN


def test_a_process_that_names_its_container_by_now(root: Path) -> None:
    """A plugin, a shim: its address need not be up yet, nor ever where the pod is a virtual machine."""
    (outcome,) = done(root, frees(root), witness=lambda: Witness(frozenset({DEAD}), frozenset()))
    assert (outcome.event, words(outcome.detail)) == ("skipped", "a process is now running for it")
    assert lease(root).read_bytes() == ORPHAN


def test_its_address_is_up_by_now(root: Path) -> None:
    (outcome,) = done(root, frees(root), witness=lambda: Witness(frozenset(), frozenset({"10.0.0.1"})))
    assert (outcome.event, words(outcome.detail)) == ("skipped", "its address is now up")
    assert lease(root).read_bytes() == ORPHAN


def test_a_kernel_that_cannot_be_looked_at_any_more(root: Path) -> None:
    assert events(done(root, frees(root), witness=lambda: not_seen("no permission"))) == ["skipped"]
    assert lease(root).exists()


# The file, once more.


def rewrite(path: Path) -> None:
    """Other bytes in the same file, with the same times as far as anybody may set them."""
    before = path.stat()
    path.write_bytes(f"{LIVE}\r\neth0".encode())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    before = path.stat()
    path.rename(path.with_name("10.0.0.9"))
    path.write_bytes(ORPHAN)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def to_a_link(path: Path) -> None:
    path.rename(path.with_name("10.0.0.9"))
    path.symlink_to("10.0.0.9")


@pytest.mark.parametrize("change", [rewrite, replaced, to_a_link, os.unlink, lambda p: os.chmod(p, 0o600)])
def test_a_file_that_has_changed_since_it_was_judged(root: Path, change: Callable[[Path], None]) -> None:
    os.chmod(lease(root), 0o644)
    actions = frees(root)
    change(lease(root))
    there = lease(root).exists()
    assert events(done(root, actions)) == ["skipped"]
    assert lease(root).exists() is there
    assert not list((root / QUARANTINE[1:] / MOVED).iterdir())


def test_other_bytes_by_a_clock_that_stands_still(root: Path) -> None:
    """A time has the grain of the kernel's tick: a file may be written to twice in one."""
    (action,) = frees(root)
    lease(root).write_bytes(f"{LIVE}\r\neth0".encode())
    changed = lease(root).stat()
    assert isinstance(action, FreeLease)
    alike = replace(action, ctime_ns=changed.st_ctime_ns, file=replace(action.file, mtime_ns=changed.st_mtime_ns))
    assert events(done(root, (alike,))) == ["skipped"]
    assert lease(root).exists()


def test_quarantine_loses_nothing_that_lies_there(root: Path) -> None:
    there = root / QUARANTINE[1:] / MOVED / "00000-10.0.0.1"
    there.parent.mkdir(parents=True)
    there.write_text("of an earlier pass")
    (outcome,) = done(root, frees(root))
    assert outcome.event == "failed"
    assert (lease(root).read_bytes(), there.read_text()) == (ORPHAN, "of an earlier pass")
    directory = os.open(lease(root).parent, os.O_RDONLY)
    with pytest.raises(FileExistsError):
        move("10.0.0.1", directory, str(there))
    os.close(directory)


# host-local's lock.


def test_without_a_lock_file_none_is_made(root: Path) -> None:
    lease(root, "lock").unlink()
    assert events(done(root, frees(root))) == ["skipped"]
    assert sorted(path.name for path in lease(root).parent.iterdir()) == ["10.0.0.1"]


@pytest.mark.parametrize("what", ["link", "pipe", "directory"])
def test_a_lock_that_host_local_has_not_made(root: Path, what: str) -> None:
    lock = lease(root, "lock")
    lock.unlink()
    if what == "link":
        (root / "elsewhere").touch()
        lock.symlink_to(root / "elsewhere")
    elif what == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    assert events(done(root, frees(root))) == ["skipped"]
    assert lease(root).exists()


@pytest.mark.parametrize("what", ["lock", "."], ids=["since v0.7", "up to v0.6"])
def test_a_lock_that_host_local_holds(root: Path, what: str) -> None:
    held = os.open(lease(root, what), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    (outcome,) = done(root, frees(root))
    os.close(held)
    assert (outcome.event, f"has been held by process {os.getpid()} (" in words(outcome.detail)) == ("skipped", True)
    assert lease(root).exists()


def times_open(path: Path) -> int:
    """How many descriptors of this process it is open under."""
    times = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            times += os.readlink(f"/proc/self/fd/{fd}") == str(path)
        except FileNotFoundError:
            continue  # closed meanwhile
    return times


@pytest.mark.parametrize("what", ["lock", "."], ids=["the lock", "the directory"])
def test_a_lock_that_was_replaced_while_it_was_waited_for(root: Path, what: str) -> None:
    """Then it excludes nobody: host-local takes the one that is there now."""
    here = lease(root).parent
    held = os.open(here / what, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    def replace_it() -> None:
        while times_open(here / what) < 2:  # ours, and that of who waits
            time.sleep(0.01)
        (here / what).rename(root / "away")
        if what == "lock":
            (here / "lock").touch()
        else:
            here.mkdir()
        os.close(held)

    thread = threading.Thread(target=replace_it)
    thread.start()
    with pytest.raises(Busy) as caught, network_lock(str(here), NETWORK, 30.0):
        pass
    thread.join()
    assert caught.value.reason.code is Code.DIRECTORY_REPLACED


def test_a_batch_is_no_larger_than_a_pod_can_wait_for(root: Path) -> None:
    """Between two batches the lock is free."""
    names = [f"10.0.1.{number}" for number in range(BATCH + 1)]
    for name in names:
        lease(root, name).write_bytes(ORPHAN)
    looks: list[int] = []

    def witness() -> Witness:
        looks.append(sum(lease(root, name).exists() for name in names))
        return NOBODY

    assert set(events(done(root, frees(root, *names), witness=witness))) == {"done"}
    assert looks == [BATCH + 1, 1]


def test_a_pass_that_is_told_to_stop_does_no_further_batch(root: Path) -> None:
    names = ["10.0.1.1", "10.0.1.2", "10.0.1.3"]
    for name in names:
        lease(root, name).write_bytes(ORPHAN)
    answers = iter([None, because(Code.STOPPED), None])
    outcomes = done(root, frees(root, *names), batch=1, stop=lambda: next(answers))
    assert events(outcomes) == ["done", "skipped", "skipped"]


# The disk, in this order.


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What is asked of the disk, in order: (fsync, path) and (rename, name)."""
    made: list[tuple[str, str]] = []
    fsync, rename, link, unlink = os.fsync, os.rename, os.link, os.unlink

    def noted(kind: str, real: Callable[..., None], which: Callable[..., str]) -> Callable[..., None]:
        def call(*arguments: Any, **named: Any) -> None:
            made.append((kind, which(*arguments)))
            real(*arguments, **named)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", fsync, lambda fd: os.readlink(f"/proc/self/fd/{fd}")))
    monkeypatch.setattr(os, "rename", noted("rename", rename, lambda source, target: str(source)))
    monkeypatch.setattr(os, "link", noted("link", link, lambda source, target: str(target)))
    monkeypatch.setattr(os, "unlink", noted("unlink", unlink, lambda path: str(path)))
    yield made
    monkeypatch.undo()


def test_the_intention_is_on_the_disk_before_anything_is_moved(root: Path, calls: list[tuple[str, str]]) -> None:
    """And the move is before the lock is released, in both directories."""
    before: list[Entry] = []

    def witness() -> Witness:
        before.extend(intended(root))
        return NOBODY

    assert events(done(root, frees(root), witness=witness)) == ["done"]
    assert [(e.state, e.action.name, e.quarantine) for e in before] == [
        ("intend", "10.0.0.1", f"{QUARANTINE}/{MOVED}/00000-10.0.0.1")
    ]
    moved = calls.index(("rename", "10.0.0.1"))
    synced = [path for kind, path in calls[:moved] if kind == "fsync"]
    assert f"{root}{JOURNAL}" in synced
    assert calls[moved + 1 : moved + 3] == [
        ("fsync", f"{root}{NETWORK}"), ("fsync", f"{root}{QUARANTINE}/{MOVED}"),
    ]  # fmt: skip


def test_a_journal_that_cannot_be_written_keeps_everything_where_it_is(root: Path) -> None:
    (root / JOURNAL[1:]).mkdir(parents=True)
    (outcome,) = done(root, frees(root))
    assert (outcome.event, "so nothing more is changed" in words(outcome.detail)) == ("failed", True)
    assert lease(root).exists()


def test_a_move_that_the_disk_may_not_have_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def failing(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == f"{root}{NETWORK}":
            raise OSError(5, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing)
    (outcome,) = done(root, frees(root))
    assert (outcome.event, words(outcome.detail)) == ("done", "not synced to disk: Input/output error")


# A missing lease.


def test_a_missing_lease_is_whole_before_it_has_its_name(root: Path, calls: list[tuple[str, str]]) -> None:
    assert events(done(root, reserves(), witness=lambda: RUNNING)) == ["done"]
    assert lease(root, "10.0.0.2").read_bytes() == f"{LIVE}\r\neth0".encode()
    named = calls.index(("link", "10.0.0.2"))
    assert ("fsync", f"{root}{QUARANTINE}/{MOVED}/00000-10.0.0.2") in calls[:named]
    assert ("fsync", f"{root}{NETWORK}") in calls[named:]
    assert not list((root / QUARANTINE[1:] / MOVED).iterdir())


@pytest.mark.parametrize(
    "witness",
    [Witness(frozenset({LIVE}), frozenset()), Witness(frozenset(), frozenset({"10.0.0.2"}))],
    ids=["its address is gone", "its processes are gone"],
)
def test_no_lease_is_written_for_a_pod_that_has_ended(root: Path, witness: Witness) -> None:
    assert events(done(root, reserves(), witness=lambda: witness)) == ["skipped"]
    assert not lease(root, "10.0.0.2").exists()


@pytest.mark.parametrize("last", [NOBODY, not_seen("no permission")])
def test_no_lease_is_written_for_a_pod_that_has_ended_while_the_lock_was_waited_for(
    root: Path, last: Witness | Unknown
) -> None:
    looks = iter([RUNNING, last])
    assert events(done(root, reserves(), witness=lambda: next(looks))) == ["skipped"]
    assert not lease(root, "10.0.0.2").exists()


def test_a_lease_that_is_there_by_now_is_not_written_over(root: Path) -> None:
    lease(root, "10.0.0.2").write_bytes(ORPHAN)
    (outcome,) = done(root, reserves(), witness=lambda: RUNNING)
    assert (outcome.event, words(outcome.detail)) == ("skipped", "the address has been leased in the meantime")
    assert lease(root, "10.0.0.2").read_bytes() == ORPHAN


# The way back.


def freed(root: Path) -> Journal:
    """The journal of a pass that has freed the orphan."""
    made = context(root)
    assert events(list(apply(frees(root), made))) == ["done"]
    return made.journal


def put_back(root: Path, journal: Journal, witness: Witness | Unknown = NOBODY) -> Restored:
    (restored,) = undo(MOVED, context(root, journal=journal, witness=lambda: witness))
    return restored


def test_undo_puts_back_the_very_file(root: Path, calls: list[tuple[str, str]]) -> None:
    """Its old name is on the disk before it loses the one in quarantine."""
    inode = lease(root).stat().st_ino
    journal = freed(root)
    calls.clear()
    assert put_back(root, journal).ok
    assert (lease(root).read_bytes(), lease(root).stat().st_ino) == (ORPHAN, inode)
    kept = f"{root}{QUARANTINE}/{MOVED}/00000-10.0.0.1"
    order = [("link", "10.0.0.1"), ("fsync", f"{root}{NETWORK}"), ("unlink", kept)]
    assert [call for call in calls if call in order] == order
    assert not Path(kept).exists()


def test_undo_replaces_no_lease(root: Path) -> None:
    journal = freed(root)
    lease(root).write_bytes(f"{LIVE}\r\neth0".encode())
    restored = put_back(root, journal)
    assert (restored.ok, words(restored.detail)) == (False, "its address has been leased again")
    assert lease(root).read_bytes() == f"{LIVE}\r\neth0".encode()
    assert (root / QUARANTINE[1:] / MOVED / "00000-10.0.0.1").read_bytes() == ORPHAN


@pytest.mark.parametrize("witness", [Witness(frozenset(), frozenset({"10.0.0.1"})), not_seen("no permission")])
def test_undo_gives_no_address_back_that_may_be_up(root: Path, witness: Witness | Unknown) -> None:
    journal = freed(root)
    assert not put_back(root, journal, witness).ok
    assert not lease(root).exists()


def test_undo_waits_for_host_locals_lock(root: Path) -> None:
    journal = freed(root)
    held = os.open(lease(root, "lock"), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    restored = put_back(root, journal)
    os.close(held)
    assert (restored.ok, f"has been held by process {os.getpid()} (" in words(restored.detail)) == (False, True)
    assert not lease(root).exists()


@pytest.mark.parametrize("when", ["before the rename", "after the rename", "its owner was quicker"])
def test_what_was_cut_short_is_found_out(root: Path, when: str) -> None:
    """The journal has an intention, and nothing about what became of it."""
    entries: list[Entry] = []

    def cut() -> Witness:
        entries.extend(intended(root))
        return NOBODY

    assert events(done(root, frees(root), witness=cut)) == ["done"]
    kept = root / QUARANTINE[1:] / MOVED / "00000-10.0.0.1"
    if when == "before the rename":
        kept.rename(lease(root))
    elif when == "its owner was quicker":
        kept.unlink()
    (root / JOURNAL[1:]).unlink()
    journal = Journal(str(root))
    journal.intend(entries)
    (entry,) = recover(booted(root, "boot"), journal)
    assert entry.state == ("done" if when == "after the rename" else "skipped")
    assert lease(root).exists() is (when == "before the rename")
