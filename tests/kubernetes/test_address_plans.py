"""`janitor cidr` against those who decide: twenty plans, put to the real API server and controller-manager as well.

What janitor does not know yet is listed below, by the number of its plan; one that is mended must leave the list.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import control_plane
from tests.lab.address_plan_judges import judge, plans
from tests.lab.cluster import missing
from tests.lab.control_plane import ControlPlane
from tests.lab.figures import Figure
from tests.lab.machine import Machine

pytestmark = [pytest.mark.system, pytest.mark.long]

ADDRESS = "192.0.2.10"
PLANS = plans(20, seed=1)
WRONG_YET = {
    3: "false all-clear",
    4: "error though it runs",
    10: "error though it runs",
    12: "false all-clear",
    15: "false all-clear",
    19: "error though it runs",
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    if reason := missing():
        pytest.skip(reason)
    machine = Machine(kubernetes=True)
    try:
        made = ControlPlane(machine, control_plane.current(), ADDRESS)
        machine.power_on()
        machine.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
        made.start_api_server()
        made.wait()
        yield made
    finally:
        machine.close()


@pytest.mark.parametrize("number", range(len(PLANS)))
def test_plan(plane: ControlPlane, figure: Figure, number: int) -> None:
    judgement = judge(plane, PLANS[number])
    figure(f"{PLANS[number]}: {judgement}")
    assert judgement.verdict == WRONG_YET.get(number, "right"), f"{PLANS[number]}: {judgement}"
