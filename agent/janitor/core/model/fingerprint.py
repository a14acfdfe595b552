"""What a pass leaves for the next one, so that it can tell by a glance whether it has to look at all."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Where to glance: directories and files as they are seen from here, and CRI endpoints.

    `digest` is what a glance gave (host/fingerprint.py); "" where the next pass has to look whatever it gives.
    """

    paths: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    digest: str = ""
