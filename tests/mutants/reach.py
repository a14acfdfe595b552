"""A pytest plugin: notes which functions of janitor each test calls, or runs the tests that are named to it.

JANITOR_REACH_TO: the directory for what each process of the run has noted. JANITOR_TESTS: a file with the tests to be
run, in this order, one a line. Either way every run is the same: Hypothesis draws from a fixed seed, and does not
look for the smallest example.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType

import pytest
from hypothesis import HealthCheck, Phase, settings

TO = "JANITOR_REACH_TO"
TESTS = "JANITOR_TESTS"
_ENOUGH = 1_000_000  # calls without a function that was not called before: no more are looked at
_SOURCES = f"{os.sep}agent{os.sep}janitor{os.sep}"


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
    )  # fmt: skip
    settings.load_profile("mutants")
    if TO in os.environ:
        config.pluginmanager.register(Recorder(Path(os.environ[TO])))
    if TESTS in os.environ:
        config.pluginmanager.register(Selection(Path(os.environ[TESTS]).read_text().splitlines()))


class Selection:
    """Exactly these tests, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self._place = {test: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )


class Recorder:
    """Writes {test: [seconds, [file:function, …]]}; file below agent/janitor, function as its qualified name.

    A test that fails is left out: it says nothing about a mutant. What a test's children do, and what was remembered
    by an earlier test (lru_cache), is not seen.
    """

    def __init__(self, to: Path) -> None:
        self._to = to
        self._reached: dict[str, tuple[float, list[str]]] = {}
        self._failed: list[str] = []
        self._pid = os.getpid()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        seen: dict[int, CodeType] = {}
        nothing_new = 0

        def note(frame: FrameType, event: str, _: object) -> None:
            nonlocal nothing_new
            if event == "call":
                code = frame.f_code
                nothing_new = nothing_new + 1 if id(code) in seen else 0
                seen[id(code)] = code
                if nothing_new > _ENOUGH:
                    sys.setprofile(None)

        began = time.monotonic()
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            called = {
                f"{code.co_filename.partition(_SOURCES)[2]}:{code.co_qualname}"
                for code in seen.values()
                if _SOURCES in code.co_filename
            }
            self._reached[item.nodeid] = (time.monotonic() - began, sorted(called))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self._failed[-1:] != [report.nodeid]:
            self._failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        for test in self._failed:
            self._reached.pop(test, None)
        if os.getpid() == self._pid and self._reached:  # not in a child that a test has forked
            (self._to / f"{self._pid}.json").write_text(json.dumps(self._reached))
