"""LEASE003: a live pod whose address has no lease, so that host-local will give it to a second pod."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement, Verdict
from janitor.core.model.evidence import Evidence
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix
from janitor.report.words import texts


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding per address, because each is an imminent duplicate."""
    for lease in judgement.leases:
        if lease.verdict == Verdict.MISSING:
            yield Finding.of(
                id=FindingId.LEASE003,
                subject=f"{lease.directory}/{lease.address}",
                summary=f"{lease.address} is in use by {lease.pod} but not reserved: the next pod may get it too",
                evidence=texts(lease.reasons),
                explanation=(
                    "Somebody has removed the lease of a running pod (the popular 'rm -rf /var/lib/cni/networks/…' "
                    "does that to every pod of the node). host-local knows addresses by these files alone and "
                    "will hand this one out again; then two pods answer at it. A pod that is just being stopped "
                    "looks the same for a moment: look twice."
                ),
                fix=Fix.of(
                    Command("janitor clean --only LEASE003"),
                    ": it looks again for a minute, and if it is still so writes the lease back, as the daemon does by "
                    "itself. Or give the pod another address: ",
                    _deleting(lease.pod),
                ),
            )


def _deleting(pod: str) -> Command:
    namespace, _, name = pod.partition("/")
    return Command.of("kubectl", "delete", "pod", "-n", namespace, name)
