"""Schedules: the real host-local, a model of the rest of the node, and janitor's passes, interleaved at random."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.lab import programs
from tests.property.schedule_node import (
    DATA_DIR,
    DIRECTORY,
    EVENTS,
    INSTALLED,
    PLUGIN,
    Node,
    figures,
    host_local,
    new_root,
)
from tests.property.schedule_parallel import Registry
from tests.property.schedule_pass import BEFORE, GAPS, INVARIANTS, Lies, janitor_pass, undo_pass

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not os.access(INSTALLED, os.X_OK), reason=f"{INSTALLED} is not installed"),
]

STEPS = int(os.environ.get("JANITOR_STEPS", "1500"))
STEPS_OF_ONE = 50
PARALLEL_S = 8.0

in_parallel: Counter[str] = Counter()

picks = st.integers(0, 59)
happenings = st.tuples(st.sampled_from(EVENTS), picks)
moments = st.one_of(st.integers(0, GAPS - 1), st.integers(BEFORE, GAPS - 1))
in_between = st.lists(st.tuples(moments, happenings), max_size=5)
mostly_true = st.builds(
    Lies,
    cri=st.sampled_from(("truth",) * 5 + ("part", "part", "old", "empty", "unknown", "not ready", "no addresses")),
    records=st.sampled_from(("truth",) * 4 + ("part", "none", "none", "unknown")),
    listeners=st.sampled_from(("truth",) * 9 + ("unknown",)),
    kernel=st.sampled_from(("truth",) * 9 + ("no processes", "no namespaces", "one unread")),
    well_known=st.sampled_from((False,) * 9 + (True,)),
    pick=picks,
)


class Schedule(RuleBasedStateMachine):
    """One node, from its making to its end."""

    node: Node | None = None

    @initialize(chain=st.booleans())
    def make(self, chain: bool) -> None:
        chain = chain and os.geteuid() == 0  # a chain is run in a chroot
        self.node = Node(new_root(chain), chain)

    @property
    def here(self) -> Node:
        assert self.node is not None
        return self.node

    def gap(self, happening: list[tuple[int, tuple[str, int]]]) -> Callable[[int], None]:
        def fill(number: int) -> None:
            for when, (event, pick) in happening:
                if when == number:
                    getattr(self.here, event)(pick)
                    figures["events within a pass"] += 1

        return fill

    @rule(events=st.lists(happenings, min_size=1, max_size=6))
    def happens(self, events: list[tuple[str, int]]) -> None:
        figures["steps"] += 1
        for event, pick in events:
            getattr(self.here, event)(pick)
            figures["events"] += 1
            self.check()

    @rule(number=st.integers(1, 4), pick=picks)
    def pods_start(self, number: int, pick: int) -> None:
        figures["steps"] += 1
        for _ in range(number):
            self.here.add_and_run(pick)

    @rule(lies=st.tuples(mostly_true, mostly_true), grace=st.sampled_from((60, 600)), wait=st.booleans(),
          between=in_between, witness=st.sampled_from(("truth",) * 9 + ("unknown",)))  # fmt: skip
    def clean(
        self, lies: tuple[Lies, Lies], grace: int, wait: bool, between: list[tuple[int, tuple[str, int]]], witness: str
    ) -> None:
        figures["steps"] += 1
        janitor_pass(self.here, lies, grace, wait, self.gap(between), witness)

    @rule(grace=st.sampled_from((60, 600)), between=in_between)
    def clean_that_sees_all(self, grace: int, between: list[tuple[int, tuple[str, int]]]) -> None:
        figures["steps"] += 1
        janitor_pass(self.here, (Lies(), Lies()), grace, True, self.gap(between), "truth")

    @rule(what=st.sampled_from(("power cut", "boot stage", "undo")), pick=picks, between=in_between)
    def seldom(self, what: str, pick: int, between: list[tuple[int, tuple[str, int]]]) -> None:
        figures["steps"] += 1
        if what == "undo":
            undo_pass(self.here, pick, self.gap(between))
        else:
            self.here.reboot(pick, ledger=what == "boot stage")

    @invariant()
    def check(self) -> None:
        if self.node is not None:
            for holds in INVARIANTS:
                holds(self.node)

    def teardown(self) -> None:
        if self.node is not None:
            self.node.close()


class Summary:
    """Says at the end of the run how much happened: schedules in which nothing is freed would show nothing."""

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        for name, counted in (("schedules", figures), ("processes", in_parallel)):
            terminalreporter.write_line(f"{name}: " + ", ".join(f"{n} {what}" for what, n in sorted(counted.items())))


@pytest.fixture(scope="module", autouse=True)
def _summary(request: pytest.FixtureRequest) -> Iterator[None]:
    request.config.pluginmanager.register(Summary())
    yield


@pytest.fixture(params=["installed", "built"], autouse=True)
def _plugin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12's host-local, and today's."""
    if request.param == "built":
        if reason := programs.missing(programs.PLUGINS):
            pytest.skip(reason)
        monkeypatch.setenv(PLUGIN, str(programs.program(programs.PLUGINS, "host-local")))


def test_no_schedule_takes_a_lease_from_the_living() -> None:
    freed = figures["free: done"]
    steps = figures["steps"]
    began = time.monotonic()
    run_state_machine_as_test(
        Schedule,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_OF_ONE), stateful_step_count=STEPS_OF_ONE, deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking runs the real plugin for minutes
        ),
    )  # fmt: skip
    figures["seconds"] += round(time.monotonic() - began)
    assert figures["free: done"] - freed > (figures["steps"] - steps) / 50


def test_processes_in_parallel(tmp_path: Path) -> None:
    """Four processes run host-local for pods, two run janitor, and nothing but flock(2) keeps them apart."""
    root = tmp_path / "root"
    (root / DATA_DIR[1:]).mkdir(parents=True)
    Registry(root).make()
    host_local(f"{root}{DATA_DIR}", "ADD", "f" * 64)  # makes the directory and the lock; its owner is dead at once
    parts = [("worker", n) for n in range(4)] + [("janitor", n) for n in range(2)]
    running: list[subprocess.Popen[str]] = []
    try:
        for role, number in parts:
            argv = [sys.executable, "-m", "tests.property.schedule_parallel", role, str(root), str(number)]
            argv.append(str(PARALLEL_S))
            here = Path(__file__).parents[2]
            running.append(subprocess.Popen(argv, cwd=here, stderr=subprocess.PIPE, text=True))
        for process in running:
            _, errors = process.communicate(timeout=PARALLEL_S + 60)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()
    reports = [json.loads((root / "done" / f"{role}-{number}").read_text()) for role, number in parts]
    for report in reports:
        in_parallel.update(report["did"])
    assert [wrong for report in reports for wrong in report["wrong"]] == []
    alive = {container_id: address for report in reports for container_id, address in report["alive"].items()}
    assert len(set(alive.values())) == len(alive)
    for container_id, address in alive.items():
        assert (root / DIRECTORY[1:] / address).read_bytes() == f"{container_id}\r\neth0".encode()
    assert in_parallel["free: done"] > 20
    assert in_parallel["died without DEL"] > 0
