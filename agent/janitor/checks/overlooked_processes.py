"""SCAN004: a pod's or stranger's process had more than janitor reads, or did not answer."""

from collections.abc import Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.model.evidence import Evidence, Holder, known
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding per process; all other processes were looked at."""
    for one in evidence.overlooked:
        whose = _whose(one.holder, evidence)
        yield Finding.of(
            id=FindingId.SCAN004,
            subject=f"process {one.pid}",
            summary=f"could not read all of {one.what}: process {one.pid} ({one.name}){whose}",
            evidence=(),
            explanation=(
                "There was more than janitor reads in a pass, or the process did not respond. No lease is kept "
                "because of this: a process that is not part of the node cannot hide another pod's network, only one "
                "that it made itself, in which nothing runs."
            ),
            fix=Fix.of(
                "check what it does: ",
                Command.of("ls", f"/proc/{one.pid}/fd").into(Command("wc -l")),
                "; ",
                Command.of("wc", "-l", f"/proc/{one.pid}/mountinfo"),
                "; then stop it",
            ),
        )


def _whose(holder: Holder, evidence: Evidence) -> str:
    if not holder.container_id:
        return ", in no container"
    for sandbox in (s for e in known(evidence.endpoints) for s in known(e.sandboxes)):
        if sandbox.container_id == holder.container_id or (holder.pod_uid and sandbox.pod.uid == holder.pod_uid):
            return f" of the pod {sandbox.pod}"
    pod = f" of the pod with the UID {holder.pod_uid}" if holder.pod_uid else ""
    return f" in the container {holder.container_id[:13]}{pod}"
