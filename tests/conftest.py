"""JANITOR_REQUIRE_REAL=1: where the real components must be present, a skipped system test counts as failed.

Otherwise a machine that lost containerd would go on passing, without testing anything important.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.lab.figures import figure as figure  # a fixture of all tests
from tests.lab.figures import print_figures
from tests.lab.programs import ELSEWHERE

SYSTEM = ("tests/system/", "tests/kubernetes/", "tests/cases/test_rule_keeping.py")


def _required() -> bool:
    return os.environ.get("JANITOR_REQUIRE_REAL", "") not in ("", "0")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    longrepr = report.longrepr
    skipped = str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
    return f"JANITOR_REQUIRE_REAL is set, and this was skipped: {skipped.removeprefix('Skipped: ')}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip of a `system` test, or of a test beside those, becomes a failure, whether a fixture, a mark or the test
    skipped."""
    report = yield
    system = item.get_closest_marker("system") is not None or item.nodeid.startswith(SYSTEM)
    # Components that no registry has are required only if a directory with them is named.
    system = system and (item.get_closest_marker("elsewhere") is None or bool(os.environ.get(ELSEWHERE)))
    # An expected failure is also reported as skipped; that one is intended.
    if report.skipped and not hasattr(report, "wasxfail") and system and _required():
        report.longrepr = _reason(report)
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file of system tests that skips itself as a whole, before there is a test to mark."""
    report = yield
    if report.skipped and collector.nodeid.startswith(SYSTEM) and _required():
        report.longrepr = _reason(report)
        report.outcome = "failed"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures that tests measured."""
    print_figures(terminalreporter)
