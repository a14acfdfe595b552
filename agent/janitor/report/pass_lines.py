"""What a lease pass reports to the daemon: lines of JSON, encoded from these types and decoded into them."""

import msgspec

from janitor.core.leases.judgement import Verdict
from janitor.core.model.findings import Severity
from janitor.core.model.fingerprint import Fingerprint
from janitor.core.model.reason import Reason
from janitor.report.events import LogEvent
from janitor.report.json_bytes import to_bytes


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A line for the log. `key` names the action it is about (Action.key); `reason` says why that was refused."""

    event: LogEvent
    fields: dict[str, str]
    key: str = ""
    reason: Reason | None = None

    def __post_init__(self) -> None:
        """ValueError for a field that the event does not declare."""
        if strange := self.fields.keys() - set(self.event.fields):
            raise ValueError(f"{self.event.value} has no field {min(strange)}")


class NetworkFigures(msgspec.Struct, frozen=True):
    """One lease directory. `capacity` and `free` count pods; None if the range is not known."""

    name: str
    data_dir: str
    capacity: int | None
    free: int | None
    freeable: int
    verdicts: dict[Verdict, int]


class FindingFigures(msgspec.Struct, frozen=True):
    """The number of findings with one ID and severity."""

    id: str
    severity: Severity
    number: int


class Looked(msgspec.Struct, frozen=True, tag=True):
    """The end of a full pass: the state of the node after it, and its page, ready to be shown."""

    at: float  # since the epoch
    took_s: float
    unseen: tuple[str, ...]  # what could not be looked at; empty for a complete pass
    networks: tuple[NetworkFigures, ...]
    findings: tuple[FindingFigures, ...]
    oldest_orphan_s: float | None
    soonest_s: int | None  # the earliest time at which something left alone could be decided
    page: str
    settled: bool = False  # the journal was tidied, and what earlier passes did was logged
    fingerprint: Fingerprint = Fingerprint()


class Unchanged(msgspec.Struct, frozen=True, tag=True):
    """The end of a pass after a fingerprint check: the node is as the last full pass left it."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The pass failed."""

    why: str


Line = LogLine | Looked | Unchanged | Failed


def encode(line: Line) -> bytes:
    """One line of JSON."""
    return to_bytes(line)


def decode(data: bytes) -> Line:
    """The decoded line. ValueError for a truncated line, or for an event or field that is not declared."""
    try:
        line: Line = msgspec.json.decode(data, type=Line)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    return line
