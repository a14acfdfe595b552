"""LEASE004: one address leased twice, one attachment with two leases, or a live address leased to another container."""

from collections import defaultdict
from collections.abc import Iterator

from janitor.core.leases.judgement import JudgedLease, Judgement, Verdict
from janitor.core.leases.scope import ranges_of
from janitor.core.model.addresses import in_ranges
from janitor.core.model.evidence import AddressRange, Evidence, known
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix
from janitor.core.model.lease import canonical_address


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """Foreign leases are left out: their owners manage them."""
    leases = [x for x in judgement.leases if x.verdict not in (Verdict.FOREIGN, Verdict.MISSING)]
    by_address: defaultdict[str, list[JudgedLease]] = defaultdict(list)
    by_attachment: defaultdict[tuple[str, str, str, str], list[JudgedLease]] = defaultdict(list)
    sets = {d.path: ranges_of(d, evidence) for d in known(evidence.lease_directories)}
    for lease in leases:
        by_address[lease.address].append(lease)
        if lease.container_id:
            key = (lease.directory, _range_of(lease, sets.get(lease.directory)))
            by_attachment[(lease.container_id, lease.interface, *key)].append(lease)
    for address, same in by_address.items():
        if len(same) > 1:
            yield _finding(
                f"{address} is leased in {len(same)} networks", address, same,
                "Two networks assign the same addresses: their ranges overlap.",
                Fix.of("give the networks ranges that do not overlap"),
            )  # fmt: skip
    for (container_id, interface, directory, _), same in by_attachment.items():
        if len(same) > 1:
            yield _finding(
                f"container {container_id[:13]} holds {len(same)} addresses of one range ({interface})",
                f"{directory}: {container_id}", same,
                "host-local gives an attachment one address of each range set, and CNI DEL frees all leases that name "
                "it.",
                Fix.of("none is needed: all of them are released with the pod. To release them now, delete the pod"),
            )  # fmt: skip
    for lease in leases:
        sandbox = judgement.sightings.claimed.get(lease.address)
        if sandbox is not None and sandbox.ready and lease.container_id not in ("", sandbox.container_id):
            yield _finding(
                f"{lease.address} is in use by {sandbox.pod} but leased to another container",
                f"{lease.directory}/{lease.address}", [lease],
                "When the container that the lease names is released, host-local can give the address to a second pod "
                "while the first still uses it.",
                Fix.of(
                    "restart the pod: ",
                    Command.of("kubectl", "delete", "pod", "-n", sandbox.pod.namespace, sandbox.pod.name),
                ),
            )  # fmt: skip


def _finding(summary: str, subject: str, leases: list[JudgedLease], explanation: str, fix: Fix) -> Finding:
    evidence = tuple(
        f"{lease.directory}/{lease.address}: {lease.container_id or 'no container named'} "
        f"{lease.interface} ({lease.verdict})"
        for lease in leases
    )
    return Finding.of(FindingId.LEASE004, subject, summary, evidence, explanation, fix)


def _range_of(lease: JudgedLease, sets: object) -> str:
    """The range set that an address belongs to; without known ranges, its family (dual-stack has one set of each)."""
    address = canonical_address(lease.address)
    if address is None:
        return ""
    if isinstance(sets, tuple):
        typed: tuple[tuple[AddressRange, ...], ...] = sets
        for index, parts in enumerate(typed):
            if in_ranges(address, (parts,)):
                return str(index)
    return f"IPv{address.version}"
