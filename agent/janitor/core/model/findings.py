"""The results of a check: a finding with its evidence and fix, or the statement that the check does not apply here."""

from dataclasses import dataclass
from typing import Literal

from janitor.core.model.finding_ids import FindingId
from janitor.core.model.finding_ids import Severity as Severity
from janitor.core.model.fix import Fix
from janitor.core.model.reason import Reason

Status = Literal["problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of one check.

    `status` is `problem`, or `unknown` if the check could not be made, which is a finding too. `evidence` has one plain
    sentence per thing seen, with the user's own values. `fix` is complete enough to be pasted.
    """

    id: FindingId
    severity: Severity
    subject: str
    summary: str
    evidence: tuple[str, ...]
    explanation: str
    fix: Fix
    status: Status = "problem"

    @classmethod
    def of(
        cls,
        id: FindingId,  # noqa: A002 (what the field is called)
        subject: str,
        summary: str,
        evidence: tuple[str, ...],
        explanation: str,
        fix: Fix,
        *,
        severity: Severity | None = None,
        status: Status = "problem",
    ) -> "Finding":
        """A finding with the default severity of its ID, unless the check names another one of that row."""
        return cls(id, severity or id.severities[0], subject, summary, evidence, explanation, fix, status)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Checks that were skipped, and why: the node cannot know, or they do not apply. Not a finding, and no alarm."""

    ids: tuple[FindingId, ...]
    reason: Reason
