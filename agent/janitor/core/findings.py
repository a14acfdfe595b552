"""What a check says: one finding, with what it rests on and what to do; or that it could not be asked here."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from janitor.core.judgement import Judgement


class Severity(StrEnum):
    """How bad it is, in this order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, up to 3 for critical."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of one check.

    `id` never changes its meaning between releases. `status` is `problem`, or `unknown` where the check could
    not be made: that is a finding too. `evidence` holds one plain sentence per thing seen, in the user's own
    values; `fix` is what to do, complete enough to be pasted.
    """

    id: str
    severity: Severity
    subject: str
    summary: str
    evidence: tuple[str, ...]
    explanation: str
    fix: str
    status: Literal["problem", "unknown"] = "problem"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Checks that were not made, and why: the node cannot know, or it is not meant. No finding, and no alarm."""

    ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the evidence means: the verdict on each lease, what the checks found, and which of them were skipped."""

    judgement: Judgement
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
