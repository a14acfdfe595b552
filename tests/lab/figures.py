"""Figures that tests measure, for the summary of a run. They reach it from every process that runs tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

NAME = "figure"
Figure = Callable[[str], None]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Adds a measured figure to the summary."""
    return lambda text: record_property(NAME, text)


def print_figures(reporter: pytest.TerminalReporter) -> None:
    """One line per figure, in the order of the tests' names."""
    lines = [
        (report.nodeid.rpartition("/")[2], text)
        for outcome in ("passed", "failed")
        for report in reporter.getreports(outcome)
        if report.when == "call"
        for name, text in report.user_properties
        if name == NAME
    ]
    if lines:
        reporter.section("figures")
        for test, text in sorted(lines, key=lambda line: line[0]):
            reporter.write_line(f"{test}: {text}")
