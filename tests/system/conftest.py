"""Fixtures of the tests that need the real thing: root, containerd, host-local."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab import node as lab
from tests.lab import runtimes
from tests.lab.cache import MissingError
from tests.lab.networks import Network


@functools.cache
def _missing() -> str | None:
    return lab.missing()


@pytest.fixture(autouse=True)
def _real_components(request: pytest.FixtureRequest) -> None:
    """A test marked `system` is skipped where there can be no node, and says why."""
    if request.node.get_closest_marker("system") is not None and (reason := _missing()):
        pytest.skip(reason)


@pytest.fixture(params=["1.6", "1.7"])
def containerd_version(request: pytest.FixtureRequest, _real_components: None) -> runtimes.Containerd:
    """Each containerd in turn: Debian 12's, and Debian 13's, which skips CNI DEL for interrupted sandboxes."""
    try:
        return runtimes.of_series(request.param)
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def node(_real_components: None) -> Iterator[lab.NodeFactory]:
    """Makes nodes; all are gone at the end of the test, whatever became of it."""
    with ExitStack() as nodes:

        def make(*networks: Network, containerd: runtimes.Containerd | None = None, boot: bool = True) -> lab.Node:
            made = nodes.enter_context(lab.Node(containerd, networks or None))
            if boot:
                made.boot()
            return made

        yield make
