"""What a check says: one finding, with what it rests on and what to do; or that it could not be asked here."""

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

    `status` is `problem`, or `unknown` where the check could not be made: that is a finding too. `evidence` holds one
    plain sentence per thing seen, in the user's own values; `fix` is what to do, complete enough to be pasted.
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
        """A finding with the severity that its ID has in the table, unless the check says another one of that row."""
        return cls(id, severity or id.severities[0], subject, summary, evidence, explanation, fix, status)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Checks that were not made, and why: the node cannot know, or it is not meant. No finding, and no alarm."""

    ids: tuple[FindingId, ...]
    reason: Reason
