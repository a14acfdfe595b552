"""LEASE006: leases of sandboxes that have been NOTREADY for long; the kubelet should have removed them."""

from collections.abc import Iterator

from janitor.core.leases.judgement import JudgedLease, Judgement, Verdict
from janitor.core.model.evidence import Evidence, Sandbox
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix
from janitor.core.model.text import count, duration, listing

_SECOND = 1_000_000_000
_LONG_S = 600  # for a sandbox of an earlier boot: a running kubelet has processed all of them by then
_VERY_LONG_S = 3600  # for a sandbox of this boot: it may have been READY for most of that time


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding per network."""
    late: dict[str, list[tuple[JudgedLease, str]]] = {}
    for lease in judgement.leases:
        sandbox = judgement.sightings.sandboxes.get(lease.container_id)
        if lease.verdict == Verdict.HELD and sandbox is not None:
            since = _late(sandbox, evidence)
            if since:
                late.setdefault(lease.directory, []).append((lease, since))
    for directory, leases in late.items():
        yield Finding.of(
            id=FindingId.LEASE006,
            subject=directory,
            summary=f"{count(len(leases), 'lease')} of {leases[0][0].network} held by sandboxes that are not running",
            evidence=(listing([f"{x.address} ({x.pod}, {since})" for x, since in leases]),),
            explanation=(
                "These sandboxes are dead, but the runtime still lists them. The kubelet has to remove them, which "
                "frees the addresses. If it does not, it is down, cannot reach the API server, or StopPodSandbox "
                "fails (see LEASE009)."
            ),
            fix=Fix.of(
                Command("journalctl -u kubelet | grep -i sandbox"),
                "; or by hand: ",
                Command("crictl stopp ID && crictl rmp ID"),
            ),
        )


def _late(sandbox: Sandbox, evidence: Evidence) -> str:
    """How long it has been NOTREADY, as far as known; "" if that is not long."""
    uptime_s = evidence.started.boottime_ns / _SECOND
    age_s = (evidence.started.realtime_ns - sandbox.created_ns) / _SECOND
    if age_s > uptime_s:
        return f"since the boot {duration(uptime_s)} ago" if uptime_s >= _LONG_S else ""
    return f"created {duration(age_s)} ago" if age_s >= _VERY_LONG_S else ""
