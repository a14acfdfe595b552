"""The look that all tests on a real Kubernetes rest on: it sees what it must see, and nothing where all is well."""

from __future__ import annotations

import pytest

from tests.lab.cluster import ClusterFactory
from tests.lab.invariant import Violation, Watch, look
from tests.lab.networks import bridge

pytestmark = [pytest.mark.system, pytest.mark.long]


def test_it_sees_a_lease_that_is_taken_from_a_living_pod(cluster: ClusterFactory) -> None:
    machine = cluster(bridge())
    machine.boot()
    machine.wait_ready()
    machine.deploy("web", 3)
    machine.wait_running(3)
    with Watch(machine) as watch:
        machine.wait(lambda: watch.looks >= 3, "three looks", 30)
    assert (watch.violations, watch.races) == (set(), 0)

    pods = {pod["status"]["podIP"]: f"default/{pod['metadata']['name']}" for pod in machine.pods()}
    removed, emptied, stolen = sorted(pods)
    leases = machine.node.leases()
    (leases / removed).unlink()
    (leases / emptied).write_bytes(b"")
    (leases / stolen).write_bytes(b"f" * 64 + b"\r\neth0")
    with Watch(machine) as watch:
        machine.wait(lambda: len(watch.violations) >= 3, "three violations", 30)
    assert watch.violations == {
        Violation(removed, (pods[removed],), ""),
        Violation(emptied, (pods[emptied],), ""),
        Violation(stolen, (pods[stolen],), "f" * 64),
    }

    # What it was given the address for is over: the next pod gets it, and two have it.
    (leases / "last_reserved_ip.0").write_text("10.52.0.1")
    machine.deploy("second", 1)
    machine.wait_running(4)
    twice = [violation for violation in look(machine) if len(violation.users) == 2]
    assert [violation.address for violation in twice] == [removed] * len(twice) != []
