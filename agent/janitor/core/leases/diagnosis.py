"""The diagnosis: the meaning of all the evidence."""

from dataclasses import dataclass

from janitor.core.leases.judgement import Judgement
from janitor.core.model.findings import Finding, Skipped


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The verdict on each lease, the checks' findings, and the checks that were skipped."""

    judgement: Judgement
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
