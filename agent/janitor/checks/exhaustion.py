"""LEASE005: a range that is used up, or nearly so, and how much of it is owned by nobody."""

from collections.abc import Iterator

from janitor.core.leases.judgement import JudgedLease, Judgement, Verdict
from janitor.core.leases.usage import NetworkUsage, RangeUsage, usage
from janitor.core.model.evidence import Evidence
from janitor.core.model.finding_ids import FindingId, Severity
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix
from janitor.core.model.text import count

_LEVELS = ((100, Severity.CRITICAL), (95, Severity.ERROR), (80, Severity.WARNING))


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding for each range set that is at least 80, 95 or 100 percent full."""
    for network in usage(evidence, judgement):
        for part in network.ranges if network.in_scope else ():
            severity = next((level for percent, level in _LEVELS if part.percent >= percent), None)
            if severity is not None:
                pending = [
                    lease
                    for lease in judgement.leases
                    if lease.directory == network.directory and lease.verdict is Verdict.PENDING
                ]
                yield _finding(network, part, severity, pending)


def _finding(network: NetworkUsage, part: RangeUsage, severity: Severity, pending: list[JudgedLease]) -> Finding:
    subnets = ", ".join(part.subnets)
    left = part.capacity - part.used
    state = f"{count(left, 'address', 'addresses')} left" if left > 0 else "no address is left"
    files = {verdict: number for verdict, number in network.verdicts.items() if verdict is not Verdict.MISSING}
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in files.items())
    return Finding.of(
        id=FindingId.LEASE005,
        subject=f"{network.directory} {subnets}",
        summary=f"{network.name} {subnets}: {part.used} of {part.capacity} used, {state}",
        evidence=(
            f"{count(network.files, 'file')} in {network.directory}: {verdicts}",
            f"'janitor clean' would free {part.freeable}",
        ),
        explanation=(
            "host-local gives each pod one address of this range. When none is left, no pod can start on this node: "
            "FailedCreatePodSandBox, 'no IP addresses available in range set'."
        ),
        fix=_fix(network, part, pending),
        severity=severity,
    )


def _fix(network: NetworkUsage, part: RangeUsage, pending: list[JudgedLease]) -> Fix:
    clean = Command("janitor clean --only leases")
    if part.freeable:
        return Fix.of(clean)
    if pending and all(lease.wait_s is None for lease in pending):
        explain = Command.of("janitor", "explain", pending[0].address)
        return Fix.of("'", explain, "' shows why the pending leases are kept: waiting does not free them")
    if pending:
        return Fix.of(clean, ": it watches the pending leases until they are proven dead")
    if network.verdicts.get(Verdict.HELD):
        return Fix.of(
            "the kubelet still has to remove dead sandboxes, see LEASE006: ",
            Command("journalctl -u kubelet | grep -i sandbox"),
        )
    return Fix.of(
        "all addresses are in use: run fewer pods here, or give the node a larger pod range (--node-cidr-mask-size of "
        "kube-controller-manager, for nodes that join later)"
    )
