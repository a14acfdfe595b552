"""A busy node with janitor's DaemonSet: pods come and go, what runs them is killed, the power is cut in the middle.

Nothing of it may take a running pod's address, and nothing may be left when all pods are gone.
"""

from __future__ import annotations

import time

import pytest

from tests.lab.churn import Churn
from tests.lab.cluster import ClusterFactory
from tests.lab.figures import Figure
from tests.lab.installed_daemonset import InstalledDaemonSet
from tests.lab.invariant import Watch
from tests.lab.networks import bridge

pytestmark = pytest.mark.system

MINUTE = 60.0


@pytest.mark.parametrize(
    ("seconds", "cuts"),
    [pytest.param(MINUTE, 1, id="a-minute"), pytest.param(5 * MINUTE, 3, id="five-minutes", marks=pytest.mark.long)],
)
def test_churn(cluster: ClusterFactory, figure: Figure, janitor_image: None, seconds: float, cuts: int) -> None:
    machine = cluster(bridge(cni_version="1.0.0"))
    machine.boot()
    machine.wait_ready()
    daemonset = InstalledDaemonSet(machine)
    daemonset.install()
    churn = Churn(machine, seed=1)
    share = seconds / (cuts + 1)
    began = time.monotonic()
    with Watch(machine) as watch:
        for number in range(cuts + 1):
            end = time.monotonic() + share
            churn.pods(share / 4)
            churn.kill_kubelet()
            churn.pods(share / 4)
            churn.kill_runtime()
            churn.pods(end - time.monotonic())
            if number < cuts:
                churn.cut()
        took = time.monotonic() - began
        left = churn.end()
    log = daemonset.log()
    freed = log.count('event="lease freed"')
    done = ", ".join(f"{what} {count}" for what, count in sorted(churn.done.items()))
    figure(f"{took:.0f} s: {done}; {freed} freed since the last boot; nothing left after {left:.0f} s; {watch}")
    watch.check()
    assert churn.done["cuts"] == cuts
    assert churn.done["runtime killed"] == churn.done["kubelet killed"] == cuts + 1
    assert all(churn.done[what] > 0 for what in ("scaled", "deleted", "forced", "files lost")), churn.done
    assert machine.addresses() == {}
    assert ("event=started" in log, "Traceback" in log) == (True, False)
