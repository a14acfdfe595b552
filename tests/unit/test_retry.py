"""Pauses that double, and times at which something is due."""

from __future__ import annotations

from janitor.core.model.retry import Retry, earliest, is_due


def test_the_pause_doubles_up_to_the_longest_and_begins_again_after_a_success() -> None:
    retry = Retry(5, 60)
    assert [retry.failed() for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    retry.succeeded()
    assert retry.failed() == 5
    for _ in range(2000):
        assert retry.failed() <= 60


def test_never_is_not_now() -> None:
    assert (earliest(), earliest(None), earliest(None, 7, 0, 9)) == (None, None, 0)
    assert (is_due(None, 7), is_due(8, 7), is_due(7, 7), is_due(0, 0)) == (False, False, True, True)
