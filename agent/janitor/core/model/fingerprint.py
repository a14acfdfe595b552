"""What a pass leaves for the next one, so that a fingerprint check tells whether a full pass is needed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What to check: directories and files as they are seen from here, and CRI endpoints.

    `digest` is of their state (host/fingerprint.py); "" if the next pass has to be a full one in any case.
    """

    paths: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    digest: str = ""
