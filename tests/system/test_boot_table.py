"""One table of cases through every form of the boot stage: Python, and the script under dash, busybox ash and bash.

Each case says what lies on the disk and what must be gone afterwards; all else must be as it was, byte for byte, and
what is gone must be in quarantine. So the forms leave identical directories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.boot_cases import CASES, Case
from tests.lab import boot_stages
from tests.lab.boot_stages import STAGES, EarlyMachine, Stage

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[EarlyMachine]:
    if reason := boot_stages.missing():
        pytest.skip(reason)
    with_power = EarlyMachine()
    try:
        with_power.power_on()
        yield with_power
    finally:
        with_power.close()


@pytest.fixture(params=STAGES, ids=lambda stage: stage.name)
def stage(request: pytest.FixtureRequest) -> Stage:
    found: Stage = request.param
    return found


def ran(machine: EarlyMachine, stage: Stage, gone: frozenset[str], *words: str) -> str:
    """Run it; exactly `gone` must have been moved. What it said, in one line."""
    before = machine.held()
    done = machine.stage(stage, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1), done
    assert machine.held() == {path: content for path, content in before.items() if path not in gone}, done.stderr
    assert machine.quarantined() == sorted(before[path] for path in gone)
    return done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_the_table(machine: EarlyMachine, stage: Stage, case: Case) -> None:
    machine.lay_out(case.files, case.configuration)
    said = ran(machine, stage, case.gone)
    assert "recorded" in said
    assert ("janitor undo" in said) == bool(case.gone)
    ledger = json.loads((machine.root / "run/janitor/ledger.json").read_text())
    assert ledger["boot_id"] == machine.boot_id
