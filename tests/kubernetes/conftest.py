"""Fixtures of the tests on a real Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import container_image, programs
from tests.lab.cache import MissingError
from tests.lab.cluster import Cluster, ClusterFactory, missing


@pytest.fixture(scope="session")
def _real_kubernetes() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def cluster(_real_kubernetes: None) -> Iterator[ClusterFactory]:
    """Makes clusters; all are gone at the end of the test, whatever became of it."""
    with ExitStack() as clusters:
        yield lambda *arguments, **options: clusters.enter_context(Cluster(*arguments, **options))


@pytest.fixture(scope="session")
def janitor_image() -> None:
    """janitor's own image is built; the test is skipped where it cannot be."""
    if reason := container_image.missing():
        pytest.skip(reason)
    try:
        container_image.archive()  # here, because it takes minutes, and tests wait for seconds
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def elsewhere() -> programs.Elsewhere:
    """Programs from the directory JANITOR_REAL, by their names; the test is skipped where one is not there."""

    def find(*names: str) -> list[Path]:
        try:
            return programs.elsewhere(*names)
        except MissingError as error:
            pytest.skip(str(error))

    return find
