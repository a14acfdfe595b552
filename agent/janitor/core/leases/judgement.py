"""The rule that decides what may be freed. The rest of janitor provides its input or carries out its result.

`judge` takes one pass of evidence and gives every lease a verdict with its reasons. The order of the questions is the
safety rule of the design: is it ours to judge (scope.py), does anybody own it (sightings.py), was everything looked at,
can it belong to a pod that is still being created (age.py). A lease is dead only after all four; anything unknown at
any of them keeps it.
"""

from dataclasses import dataclass
from enum import StrEnum

from janitor.core.leases.age import Records, age, gather
from janitor.core.leases.scope import Scope, scope_of
from janitor.core.leases.sightings import Sightings, sightings_of
from janitor.core.model.action import GRACE_S
from janitor.core.model.addresses import describe, in_ranges
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, LeaseDirectory, LeaseFile, Unknown, known
from janitor.core.model.lease import ParsedLease, canonical_address, parse_lease
from janitor.core.model.reason import Reason, because


class Verdict(StrEnum):
    """The verdict on a lease. Only `orphaned` and `corrupt` leases are ever freed."""

    LIVE = "live"
    HELD = "held"
    PENDING = "pending"
    ORPHANED = "orphaned"
    CORRUPT = "corrupt"
    FOREIGN = "foreign"
    MISSING = "missing"


FREEABLE = frozenset({Verdict.ORPHANED, Verdict.CORRUPT})


@dataclass(frozen=True, slots=True)
class JudgedLease:
    """One lease with its verdict and the reasons.

    `unseen` lists what was needed but could not be looked at; such a lease is `pending`. `wait_s` is the time in
    seconds after which watching could prove a `pending` lease dead.
    """

    network: str
    directory: str
    address: str  # the file's name
    container_id: str
    interface: str
    verdict: Verdict
    reasons: tuple[Reason, ...]
    pod: str = ""
    unseen: tuple[Unknown, ...] = ()
    wait_s: int | None = None
    file: LeaseFile | None = None  # None for a missing lease


@dataclass(frozen=True, slots=True)
class Judgement:
    """All leases of one pass, in the order of their directories, and what could not be seen at all."""

    leases: tuple[JudgedLease, ...]
    unseen: tuple[Unknown, ...]
    sightings: Sightings


def judge(evidence: Evidence, grace_s: int = GRACE_S) -> Judgement:
    """Give every lease its verdict. Pure; never raises, whatever the evidence."""
    sightings, records = sightings_of(evidence), gather(evidence)
    _spread(evidence, sightings)
    leases: list[JudgedLease] = []
    for directory in known(evidence.lease_directories):
        scope = scope_of(directory, evidence, sightings)
        for file in sorted(known(directory.entries), key=_in_order):
            parsed = parse_lease(file)
            if parsed.shape != "bookkeeping":
                leases.append(_judge_file(directory, file, parsed, scope, sightings, records, grace_s))
    leases.extend(_missing(evidence, sightings))
    unseen = list(sightings.unseen)
    if isinstance(evidence.lease_directories, Unknown):
        unseen.append(evidence.lease_directories)
    unseen += [d.entries for d in known(evidence.lease_directories) if isinstance(d.entries, Unknown)]
    return Judgement(tuple(leases), tuple(dict.fromkeys(unseen)), sightings)


def _spread(evidence: Evidence, sightings: Sightings) -> None:
    """An address that is up proves its lease's container alive, and with it that container's other leases."""
    for directory in known(evidence.lease_directories):
        for file in known(directory.entries):
            parsed = parse_lease(file)
            if parsed.container_id and str(parsed.address) in sightings.address_alive:
                seen = sightings.alive.setdefault(parsed.container_id, [])
                seen.append(because(Code.OTHER_ADDRESS_UP, address=str(parsed.address)))


def _in_order(file: LeaseFile) -> tuple[int, int, str]:
    """Addresses by value, IPv4 first; then everything else by name."""
    address = canonical_address(file.name)
    return (9, 0, file.name) if address is None else (address.version, int(address), "")


def _judge_file(
    directory: LeaseDirectory,
    file: LeaseFile,
    parsed: ParsedLease,
    scope: Scope,
    sightings: Sightings,
    records: Records,
    grace_s: int,
) -> JudgedLease:
    def verdict(
        verdict: Verdict, *reasons: Reason | None, unseen: tuple[Unknown, ...] = (), wait_s: int | None = None
    ) -> JudgedLease:
        noted = (*reasons, parsed.note) if parsed.shape == "lease" else reasons
        said = tuple(dict.fromkeys(reason for reason in noted if reason is not None))
        return JudgedLease(
            directory.network, directory.path, file.name, parsed.container_id, parsed.interface,
            verdict, said, _pod(parsed, str(parsed.address), sightings), unseen, wait_s, file,
        )  # fmt: skip

    # 1. Is it ours to judge? Nothing below can make a candidate of somebody else's lease.
    if scope.refusal:
        return verdict(Verdict.FOREIGN, scope.refusal)
    if parsed.address is None or parsed.shape == "foreign":
        return verdict(Verdict.FOREIGN, parsed.note)

    # 2. Does anybody own it? One sighting, of the ID or of the address, is enough.
    alive = sightings.alive.get(parsed.container_id, []) if parsed.container_id else []
    if parsed.fragment:
        owners = [
            i for i in (*sightings.alive, *sightings.sandboxes, *sightings.traces) if i.startswith(parsed.fragment)
        ]
        alive = [because(Code.BEGINNING_OF_ID, id=owner) for owner in owners]
    address_alive = sightings.address_alive.get(str(parsed.address), [])
    if alive or address_alive:
        return verdict(Verdict.LIVE, *alive, *address_alive)
    sandbox = sightings.sandboxes.get(parsed.container_id)
    if sandbox is not None:
        return verdict(Verdict.HELD, because(Code.LISTED_NOTREADY, pod=str(sandbox.pod)))
    claimant = sightings.claimed.get(str(parsed.address))
    if claimant is not None:
        state = "READY" if claimant.ready else "NOTREADY"
        return verdict(
            Verdict.LIVE if claimant.ready else Verdict.HELD,
            because(Code.CLAIMED, pod=str(claimant.pod), state=state),
        )
    if isinstance(scope.ranges, tuple) and not in_ranges(parsed.address, scope.ranges):
        return verdict(Verdict.FOREIGN, because(Code.OUTSIDE_RANGES, ranges=describe(scope.ranges)))

    # 3. Was everything looked at?
    unseen = sightings.unseen if parsed.container_id else (*sightings.unseen, *sightings.unseen_addresses)
    if isinstance(file.content, Unknown):
        unseen = (file.content, *unseen)
    if unseen:
        return verdict(Verdict.PENDING, because(Code.NOT_ALL_SEEN), unseen=unseen)
    traces = sightings.traces.get(parsed.container_id, [])
    if traces:
        return verdict(Verdict.PENDING, *traces)

    # 4. Can it belong to a pod that is still being created?
    proof = age(f"{directory.path}/{file.name}", file, records, anonymous=not parsed.container_id, grace_s=grace_s)
    nobody = because(Code.NO_OWNER if parsed.container_id else Code.NO_OWNER_OF_ADDRESS)
    former = sightings.former.get(str(parsed.address)) if not parsed.container_id else None
    whose = (because(Code.FORMER_ADDRESS, pod=str(former.pod)),) if former is not None else ()
    if not proof.proof:
        shape = (parsed.note,) if parsed.shape == "corrupt" else ()
        return verdict(Verdict.PENDING, *shape, *whose, nobody, proof.missing, wait_s=proof.wait_s)
    if parsed.shape == "corrupt":
        return verdict(
            Verdict.CORRUPT,
            because(Code.NEVER_RELEASED, parsed.note),
            *whose,
            nobody,
            proof.proof,
            *scope.note,
        )
    return verdict(Verdict.ORPHANED, nobody, proof.proof, *scope.note)


def _missing(evidence: Evidence, sightings: Sightings) -> list[JudgedLease]:
    """Live addresses without a lease: host-local will give each of them to a second pod.

    Reported only if libcni's cache shows that host-local allocated the address, the directory could be read, and the
    address is up: when a sandbox is stopped, its lease goes first.
    """
    leased = {file.name for d in known(evidence.lease_directories) for file in known(d.entries)}
    readable = {d.path: d for d in known(evidence.lease_directories) if not isinstance(d.entries, Unknown)}
    found: list[JudgedLease] = []
    for sandbox in sightings.sandboxes.values():
        if not sandbox.ready or sandbox.network_mode != "pod":
            continue
        for entry in sightings.cache_by_id.get(sandbox.container_id, ()):
            directory = readable.get(f"{entry.data_dir}/{entry.network}")
            if entry.damage or "host-local" not in entry.ipam or directory is None:
                continue
            if scope_of(directory, evidence, sightings).refusal:
                continue
            for cidr in entry.addresses:
                address = canonical_address(cidr.partition("/")[0])
                up = sightings.address_alive.get(str(address))
                if address is None or str(address) in leased or not up:
                    continue
                found.append(
                    JudgedLease(
                        entry.network, directory.path, str(address), sandbox.container_id, entry.interface,
                        Verdict.MISSING,
                        (because(Code.READY_WITHOUT_LEASE, pod=str(sandbox.pod)), *up,
                         because(Code.NO_LEASE_THERE, path=directory.path)),
                        str(sandbox.pod),
                    )
                )  # fmt: skip
    return found


def _pod(parsed: ParsedLease, address: str, sightings: Sightings) -> str:
    """The pod's name, from the runtime or libcni's cache; for a lease without a container ID, from its address."""
    if parsed.container_id:
        sandbox = sightings.sandboxes.get(parsed.container_id)
        if sandbox is not None:
            return str(sandbox.pod)
        for entry in sightings.cache_by_id.get(parsed.container_id, ()):
            if entry.pod is not None:
                return str(entry.pod)
    elif address in sightings.claimed:
        return str(sightings.claimed[address].pod)
    elif address in sightings.former:
        return str(sightings.former[address].pod)
    return ""
