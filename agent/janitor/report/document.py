"""The report: the output of `-o json`, and the source of every other form. Its JSON Schema is generated from here.

Within one `schema_version`, fields are only added, never renamed or removed.
"""

from dataclasses import dataclass
from typing import Any, Literal, Optional

import msgspec

from janitor.core.leases.diagnosis import Diagnosis
from janitor.core.leases.judgement import JudgedLease, Verdict
from janitor.core.leases.usage import NetworkUsage, usage
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Severity
from janitor.core.model.reason import Fact, Reason
from janitor.report.finding_row import FindingRow, finding_row
from janitor.report.json_bytes import indented
from janitor.report.words import text

SCHEMA_VERSION = 2
Status = Literal["ok", "findings", "unknown"]


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """Why something is as it is: a code whose meaning never changes, the sentence for people, and its facts.

    `cause` is the reason behind it.
    """

    code: Code
    text: str
    facts: dict[str, Fact]
    cause: Optional["ReasonRow"] = None


@dataclass(frozen=True, slots=True)
class RangeRow:
    """One range set of host-local. Each pod gets one of its addresses, but never one of `reserved`."""

    subnets: tuple[str, ...]
    capacity: int
    used: int
    free: int
    freeable: int
    reserved: dict[str, str]


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One lease directory. `capacity` and `free` count pods, and are null if the range is not known.

    `files` counts all files, including those outside the ranges. The sum of `verdicts` without `missing` equals it.
    """

    name: str
    data_dir: str
    in_scope: bool
    ranges: tuple[RangeRow, ...]
    capacity: int | None
    free: int | None
    files: int
    freeable: int
    verdicts: dict[Verdict, int]
    note: ReasonRow | None


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One lease. `reason` is the first of its `reasons` and decided the verdict.

    `unseen` is what could not be looked at. `provable_in_s`: seconds of watching after which it could be proven dead.
    """

    network: str
    directory: str
    address: str
    container_id: str
    interface: str
    verdict: Verdict
    reason: ReasonRow | None
    reasons: tuple[ReasonRow, ...]
    pod: str
    unseen: tuple[ReasonRow, ...]
    provable_in_s: int | None


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """Checks that were skipped, and why: the node cannot know, or they do not apply."""

    ids: tuple[FindingId, ...]
    reason: ReasonRow


@dataclass(frozen=True, slots=True)
class Report:
    """`status` is `unknown` if something needed could not be seen, else `findings` or `ok`, depending on `fail_on`."""

    schema_version: int
    janitor: str
    node: str
    root: str
    status: Status
    fail_on: Severity
    findings: tuple[FindingRow, ...]
    networks: tuple[NetworkRow, ...]
    leases: tuple[LeaseRow, ...]
    skipped: tuple[SkippedRow, ...] = ()


def make_report(
    evidence: Evidence,
    diagnosis: Diagnosis,
    fail_on: Severity = Severity.WARNING,
) -> Report:
    """The report of one pass."""
    judgement, findings = diagnosis.judgement, diagnosis.findings
    status: Status = "ok"
    if any(finding.status == "unknown" for finding in findings):
        status = "unknown"
    elif any(finding.severity.rank >= fail_on.rank for finding in findings):
        status = "findings"
    return Report(
        SCHEMA_VERSION, evidence.janitor, evidence.node, evidence.root, status, fail_on,
        tuple(finding_row(finding) for finding in findings),
        tuple(_network(network) for network in usage(evidence, judgement)),
        tuple(_lease(lease) for lease in judgement.leases),
        tuple(SkippedRow(part.ids, reason_row(part.reason)) for part in diagnosis.skipped),
    )  # fmt: skip


def _network(network: NetworkUsage) -> NetworkRow:
    ranges = tuple(
        RangeRow(r.subnets, r.capacity, r.used, max(0, r.capacity - r.used), r.freeable, r.reserved)
        for r in network.ranges
    )
    return NetworkRow(
        network.name, network.directory.rpartition("/")[0], network.in_scope, ranges,
        # A pod needs one address of every set, so the smallest set limits the number of pods.
        min((r.capacity for r in ranges), default=None), min((r.free for r in ranges), default=None),
        network.files, network.freeable, network.verdicts,
        None if network.note is None else reason_row(network.note),
    )  # fmt: skip


def _lease(lease: JudgedLease) -> LeaseRow:
    reasons = tuple(map(reason_row, lease.reasons))
    return LeaseRow(
        lease.network, lease.directory, lease.address, lease.container_id, lease.interface, lease.verdict,
        reasons[0] if reasons else None, reasons, lease.pod, tuple(reason_row(part.reason) for part in lease.unseen),
        lease.wait_s,
    )  # fmt: skip


def reason_row(reason: Reason) -> ReasonRow:
    """The reason as a row of a report."""
    cause = None if reason.cause is None else reason_row(reason.cause)
    return ReasonRow(reason.code, text(reason), dict(reason.facts), cause)


def to_json(report: Report) -> bytes:
    """The report as indented JSON."""
    return indented(report)


def schema() -> bytes:
    """The JSON Schema of the report, generated from its types. Shipped as schema.json beside this file."""
    return schema_of(Report, "janitor scan")


def schema_of(kind: type, title: str) -> bytes:
    """A JSON Schema (draft 2020-12) of `kind`, the same for every Python: 3.13 unindents docstrings."""
    from inspect import cleandoc

    document: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    document |= msgspec.json.schema(kind)
    for one in document["$defs"].values():
        if "description" in one:
            one["description"] = cleandoc(one["description"])
    return indented(document)


if __name__ == "__main__":
    import sys

    sys.stdout.buffer.write(schema())
