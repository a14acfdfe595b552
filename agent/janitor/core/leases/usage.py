"""How full each network is, and with what. Derived from a judgement; nothing is decided here."""

from collections import Counter
from dataclasses import dataclass

from janitor.core.leases.judgement import FREEABLE, JudgedLease, Judgement, Verdict
from janitor.core.leases.scope import ranges_of, scope_of
from janitor.core.model.addresses import capacity, in_ranges, reserved
from janitor.core.model.codes import Code
from janitor.core.model.evidence import AddressRange, Evidence, LeaseDirectory, Unknown, known
from janitor.core.model.lease import canonical_address
from janitor.core.model.reason import Reason, because


@dataclass(frozen=True, slots=True)
class RangeUsage:
    """One range set of a network: `used` addresses of `capacity`, of which `freeable` would be freed."""

    subnets: tuple[str, ...]
    capacity: int
    used: int
    freeable: int
    reserved: dict[str, str]  # addresses of the subnets that no pod can get, and what they are

    @property
    def percent(self) -> float:
        """The share in use, 0 to 100."""
        return 100 * self.used / self.capacity if self.capacity else 100.0


@dataclass(frozen=True, slots=True)
class NetworkUsage:
    """One lease directory. `ranges` is empty if the ranges are unknown; `note` then says why."""

    name: str
    directory: str
    in_scope: bool
    ranges: tuple[RangeUsage, ...]
    verdicts: dict[Verdict, int]
    note: Reason | None = None

    @property
    def files(self) -> int:
        """The number of files, inside the ranges or not, whoever owns them."""
        return sum(count for verdict, count in self.verdicts.items() if verdict != Verdict.MISSING)

    @property
    def freeable(self) -> int:
        """The number of files that `janitor clean` would free."""
        return sum(self.verdicts.get(verdict, 0) for verdict in FREEABLE)


def usage(evidence: Evidence, judgement: Judgement) -> tuple[NetworkUsage, ...]:
    """Every lease directory, those that CRI uses first."""
    by_directory: dict[str, list[JudgedLease]] = {}
    for lease in judgement.leases:
        by_directory.setdefault(lease.directory, []).append(lease)
    found = [
        _network(directory, by_directory.get(directory.path, []), evidence, judgement)
        for directory in known(evidence.lease_directories)
    ]
    return tuple(sorted(found, key=lambda n: (not n.in_scope, n.directory)))


def _network(
    directory: LeaseDirectory, leases: list[JudgedLease], evidence: Evidence, judgement: Judgement
) -> NetworkUsage:
    scope = scope_of(directory, evidence, judgement.sightings)
    ranges = ranges_of(directory, evidence)
    note = directory.entries.reason if isinstance(directory.entries, Unknown) else scope.refusal
    if isinstance(ranges, Unknown):
        note = note or because(Code.RANGES_UNKNOWN, ranges.reason)
    sets = ranges if isinstance(ranges, tuple) else ()
    verdicts = Counter(lease.verdict for lease in leases)
    if isinstance(directory.entries, Unknown):
        sets = ()
    return NetworkUsage(
        directory.network, directory.path, not scope.refusal, tuple(_range(s, leases) for s in sets),
        {verdict: verdicts[verdict] for verdict in Verdict if verdicts[verdict]}, note,
    )  # fmt: skip


def _range(range_set: tuple[AddressRange, ...], leases: list[JudgedLease]) -> RangeUsage:
    inside = []
    for lease in leases:
        address = canonical_address(lease.address) if lease.file is not None else None
        if address is not None and in_ranges(address, (range_set,)):
            inside.append(lease)
    return RangeUsage(
        tuple(dict.fromkeys(part.subnet for part in range_set)),
        capacity(range_set),
        len(inside),
        sum(lease.verdict in FREEABLE for lease in inside),
        reserved(range_set),
    )
