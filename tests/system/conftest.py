"""Fixtures of the tests that need the real thing: root, containerd, host-local."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab import node as lab
from tests.lab import runtimes
from tests.lab.cache import MissingError
from tests.lab.machine import Machine
from tests.lab.networks import Network


@functools.cache
def _missing() -> str | None:
    return lab.missing()


@pytest.fixture(autouse=True)
def _real_components(request: pytest.FixtureRequest) -> None:
    """A test marked `system` is skipped where there can be no node, and says why."""
    if request.node.get_closest_marker("system") is not None and (reason := _missing()):
        pytest.skip(reason)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine that is switched on, without a container runtime."""
    made = Machine()
    try:
        made.power_on()
        yield made
    finally:
        made.close()


def of_series(series: str) -> runtimes.Containerd:
    """A containerd of the series; the test is skipped where it cannot be had, and says why."""
    if reason := _missing():
        pytest.skip(reason)
    try:
        return runtimes.of_series(series)
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["1.6", "1.7", "2.4"])
def containerd_version(request: pytest.FixtureRequest) -> runtimes.Containerd:
    """Each in turn: Debian 12's, Debian 13's, which skips CNI DEL for interrupted sandboxes, and today's."""
    return of_series(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A file that has a tuple CONTAINERDS runs its tests on nodes with each of these series."""
    if "default_containerd" in metafunc.fixturenames and (series := getattr(metafunc.module, "CONTAINERDS", ())):
        metafunc.parametrize("default_containerd", series, indirect=True, scope="module")


@pytest.fixture(scope="module")
def default_containerd(request: pytest.FixtureRequest) -> runtimes.Containerd | None:
    """What a node runs whose test does not say; None is the installed one."""
    return of_series(request.param) if hasattr(request, "param") else None


@pytest.fixture
def node(_real_components: None, default_containerd: runtimes.Containerd | None) -> Iterator[lab.NodeFactory]:
    """Makes nodes; all are gone at the end of the test, whatever became of it."""
    with ExitStack() as nodes:

        def make(
            *networks: Network, containerd: runtimes.Containerd | None = None, boot: bool = True, ours: bool = True
        ) -> lab.Node:
            made = nodes.enter_context(lab.Node(containerd or default_containerd, networks or None, ours=ours))
            if boot:
                made.boot()
            return made

        yield make
