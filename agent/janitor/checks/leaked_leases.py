"""LEASE001 and LEASE002: addresses that nothing on this node can own any more."""

from collections.abc import Iterator

from janitor.core.leases.judgement import JudgedLease, Judgement, Verdict
from janitor.core.model.evidence import Evidence
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix
from janitor.core.model.text import count, listing
from janitor.report.words import text


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding per network and kind. The severity is constant; LEASE005 reports a range that fills up."""
    for verdict, identifier, summary, explanation in _KINDS:
        networks = dict.fromkeys(lease.directory for lease in judgement.leases if lease.verdict == verdict)
        for directory in networks:
            leases = [x for x in judgement.leases if x.verdict == verdict and x.directory == directory]
            yield Finding.of(
                id=identifier,
                subject=directory,
                summary=summary.format(count(len(leases), "lease"), network=leases[0].network),
                evidence=_evidence(leases),
                explanation=explanation,
                fix=Fix.of(Command("janitor clean --only leases")),
            )


def _evidence(leases: list[JudgedLease]) -> tuple[str, ...]:
    first, more = leases[0], len(leases) > 1
    reasons = tuple(f"{first.address}{', for example' * more}: {text(reason)}" for reason in first.reasons)
    return (listing([lease.address for lease in leases]), *reasons) if more else reasons


_KINDS = (
    (
        Verdict.ORPHANED,
        FindingId.LEASE001,
        "{network}: {} left by containers that are gone",
        (
            "host-local frees an address only when a CNI DEL names its container. These containers are gone without "
            "one (containerd killed in the middle of an ADD, its metadata lost, a plugin that failed), so their "
            "addresses stay taken until the files are removed. host-local has no garbage collection."
        ),
    ),
    (
        Verdict.CORRUPT,
        FindingId.LEASE002,
        "{network}: {}, empty or damaged, can never be released",
        (
            "A power cut loses what was written in the last 30 seconds: host-local does not sync its files, so their "
            "names survive, but their content does not. Such a file still takes its address. It names no container, "
            "so no CNI DEL ever matches it; DEL even reports success (containernetworking/plugins#498)."
        ),
    ),
)
