"""What a pass leaves to the next one, which checks it to decide whether a full pass is needed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What to check: directories and files by their paths in janitor's own view, and CRI endpoints.

    `digest` is a hash of their state (host/fingerprint.py); "" if the next pass has to be a full one.
    """

    paths: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    digest: str = ""
