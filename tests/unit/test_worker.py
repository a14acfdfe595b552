"""A process at work and its supervision: what it says, how it ends, and what happens to one that does not."""

from __future__ import annotations

import select
import signal
import time

from janitor.host.worker import Ended, Tell, Worker
from tests.limits import no_descriptor_left


def finish(worker: Worker) -> tuple[list[bytes], Ended]:
    """What the loop does, until the process has ended."""
    said: list[bytes] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        select.select(*worker.descriptors(), [], 0.01)
        lines, ended = worker.poll()
        said += lines
        if ended is not None:
            return said, ended
    raise AssertionError("it does not end")


def idle(tell: Tell) -> None:
    time.sleep(60)


def talkative(tell: Tell) -> None:
    tell(b"one")
    tell(b"two")


def waiting(tell: Tell) -> None:
    tell(b"last words")
    time.sleep(60)


def stubborn(tell: Tell) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(b"deaf")
    time.sleep(60)


def test_what_it_says_arrives_and_how_it_ended_comes_last() -> None:
    worker = Worker(signal.SIGKILL)
    assert (worker.busy, worker.due_ns, worker.descriptors(), worker.poll()) == (False, None, ([], []), ([], None))
    for _ in range(2):  # one after the other
        worker.start(talkative)
        assert (worker.busy, worker.due_ns) == (True, None)
        said, ended = finish(worker)
        assert (said, ended.status, ended.late, worker.busy) == ([b"one", b"two"], 0, False, False)


def test_one_that_exceeds_its_limit_is_told_to_end() -> None:
    worker = Worker(signal.SIGKILL, limit_s=0.05, grace_s=30)
    worker.start(idle)
    assert worker.due_ns is not None
    _, ended = finish(worker)
    assert (ended.status, ended.late) == (-signal.SIGTERM, True)


def test_one_that_does_not_end_then_is_killed() -> None:
    worker = Worker(signal.SIGKILL, limit_s=60, grace_s=0.05)
    worker.start(stubborn)
    select.select(*worker.descriptors(), [], 20)  # it ignores the signal from now on
    worker.stop()
    worker.stop()
    said, ended = finish(worker)
    assert (said, ended.status, ended.late) == ([b"deaf"], -signal.SIGKILL, False)


def test_without_a_grace_it_is_killed_at_once_and_never_signalled_again() -> None:
    worker = Worker(signal.SIGKILL, limit_s=0.01)
    worker.start(stubborn)
    while not worker.late:
        assert worker.poll()[1] is None
    assert worker.due_ns is None
    _, ended = finish(worker)
    assert (ended.status, ended.late) == (-signal.SIGKILL, True)


def test_the_limit_of_one_process_is_none_of_the_next_ones() -> None:
    worker = Worker(signal.SIGKILL, limit_s=0.01)
    worker.start(idle)
    assert finish(worker)[1].late
    worker.limit_s = None
    worker.start(lambda tell: None)
    assert not finish(worker)[1].late


def test_one_that_cannot_be_started_leaves_none() -> None:
    worker = Worker(signal.SIGKILL)
    with no_descriptor_left():
        try:
            worker.start(idle)
        except OSError:
            pass
    assert (worker.busy, worker.end(1)) == (False, ([], None))


def test_the_last_words_of_one_that_is_ended_are_heard() -> None:
    worker = Worker(signal.SIGKILL)
    worker.start(waiting)
    select.select(*worker.descriptors(), [], 20)
    said, ended = worker.end(5)
    assert (said, worker.busy) == ([b"last words"], False)
    assert ended is not None
    assert ended.status == -signal.SIGTERM
