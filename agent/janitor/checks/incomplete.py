"""SCAN001: what could not be looked at. While there is any, no lease is called dead."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import Evidence
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Fix
from janitor.report.words import hint, text


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding for each part, with status `unknown`."""
    for part in judgement.unseen:
        yield Finding.of(
            id=FindingId.SCAN001,
            subject="scan",
            summary=text(part.reason),
            evidence=(),
            explanation="What janitor cannot see may own a lease, so it keeps every lease without an owner.",
            fix=Fix.of(
                hint(part.reason)
                or "run janitor as root on the node itself; in a container with hostPID and CAP_SYS_PTRACE"
            ),
            status="unknown",
        )
