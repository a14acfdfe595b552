"""A finding in a document, with its fix as text, as commands, as patches, and in parts."""

from dataclasses import dataclass
from typing import Literal

from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding, Status
from janitor.core.model.fix import Command, File, Fix, Part, Patch


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part of a fix. A `snippet` goes into a file. `path` is set only for a `file` or a `patch`."""

    kind: Literal["sentence", "command", "snippet", "line break", "file", "patch"]
    text: str
    path: str


@dataclass(frozen=True, slots=True)
class FixRow:
    """`text` is the whole fix: the texts of its `parts`, joined.

    `commands` can be pasted into a shell; words in capitals (NAME, ID) are placeholders. `patches` are for
    `patch -p1 -d /`.
    """

    text: str
    commands: tuple[str, ...]
    patches: tuple[str, ...]
    parts: tuple[PartRow, ...]


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding of one check.

    `status` is `problem`, or `unknown` if the check could not be made. `evidence` has one sentence per observation,
    with the node's own values. `fix` says what to do.
    """

    id: FindingId
    severity: Severity
    subject: str
    summary: str
    evidence: tuple[str, ...]
    explanation: str
    fix: FixRow
    status: Status = "problem"


def finding_row(finding: Finding) -> FindingRow:
    """The finding as a row of a document."""
    return FindingRow(
        finding.id, finding.severity, finding.subject, finding.summary, finding.evidence, finding.explanation,
        fix_row(finding.fix), finding.status,
    )  # fmt: skip


def fix_row(fix: Fix) -> FixRow:
    """The fix as a row of a document."""
    return FixRow(
        fix.text,
        tuple(part.shell for part in fix.parts if isinstance(part, Command)),
        tuple(part.text for part in fix.parts if isinstance(part, Patch)),
        tuple(_part(part) for part in fix.parts),
    )


def _part(part: Part) -> PartRow:
    return PartRow(part.kind, part.text, part.path if isinstance(part, File | Patch) else "")
