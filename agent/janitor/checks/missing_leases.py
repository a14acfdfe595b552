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
                    "The lease of a running pod was removed (the popular 'rm -rf /var/lib/cni/networks/…' does that "
                    "to every pod of the node). host-local knows addresses only by these files and will assign this "
                    "one again; then two pods have it. A pod that is just being stopped looks the same for a moment: "
                    "scan again."
                ),
                fix=Fix.of(
                    Command("janitor clean --only LEASE003"),
                    ": it waits a minute, and writes the lease back if it is still missing, as the daemon does. Or "
                    "give the pod another address: ",
                    _deleting(lease.pod),
                ),
            )


def _deleting(pod: str) -> Command:
    namespace, _, name = pod.partition("/")
    return Command.of("kubectl", "delete", "pod", "-n", namespace, name)
