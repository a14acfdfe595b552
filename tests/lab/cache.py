"""Where the lab caches what is expensive to make, and the error for what this machine cannot have."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


class MissingError(Exception):
    """A component of the lab is missing; the message says which, and how to get it."""


def cache() -> Path:
    """A directory of this clone, or the one that JANITOR_LAB_CACHE names."""
    place = Path(os.environ.get("JANITOR_LAB_CACHE") or REPOSITORY / ".cache/lab").absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(
            f"making the lab's cache {place}: {error.strerror}; JANITOR_LAB_CACHE may name another"
        ) from None
    return place
