"""What the evidence means, all of it together."""

from dataclasses import dataclass

from janitor.core.leases.judgement import Judgement
from janitor.core.model.findings import Finding, Skipped


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the evidence means: the verdict on each lease, what the checks found, and which of them were skipped."""

    judgement: Judgement
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
