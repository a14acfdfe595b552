"""LEASE007 and LEASE008: leases outside every configured range, and files that belong to somebody else."""

from collections.abc import Iterator

from janitor.core.leases.judgement import JudgedLease, Judgement, Verdict
from janitor.core.leases.scope import ranges_of
from janitor.core.model.addresses import describe, in_ranges
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, known
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix
from janitor.core.model.lease import canonical_address
from janitor.core.model.node_mark import MARK
from janitor.core.model.reason import Reason
from janitor.core.model.text import count, listing
from janitor.report.words import text

_MARKS = frozenset({Code.MARK_UNREADABLE, Code.MARK_OF_ANOTHER_NODE, Code.MARK_OF_ANOTHER_CONTAINER})
_OTHERS = (
    "nerdctl, buildkit, podman and administrators keep leases in the same place. Only their owners know whether they "
    "are still needed."
)
_MARKED = (
    "janitor's mark file names the node that uses a directory. If it names another node or cannot be read, nothing is "
    "freed there, and the range is not counted on this node."
)


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """LEASE007 by network; LEASE008 by directory and reason."""
    for directory in known(evidence.lease_directories):
        ranges = ranges_of(directory, evidence)
        leases = [x for x in judgement.leases if x.directory == directory.path and x.verdict != Verdict.MISSING]
        outside: dict[str, JudgedLease] = {}
        if isinstance(ranges, tuple):
            for lease in leases:
                address = canonical_address(lease.address)
                if address is not None and not in_ranges(address, ranges):
                    outside[lease.address] = lease
            if outside:
                yield Finding.of(
                    id=FindingId.LEASE007,
                    subject=directory.path,
                    summary=f"{count(len(outside), 'lease')} of {directory.network} outside its ranges",
                    evidence=(
                        listing([f"{x.address} ({x.verdict})" for x in outside.values()]),
                        f"ranges: {describe(ranges)}",
                    ),
                    explanation=(
                        "The node's pod range was changed, or the network's data directory is shared. Pods of the old "
                        "range may still be running; their leases take no addresses from the new range."
                    ),
                    fix=Fix.of(
                        "none is needed: leases of pods are released with their pods, and the others take no "
                        "addresses from the ranges"
                    ),
                )
        by_reason: dict[Reason, list[str]] = {}
        for lease in leases:
            if lease.verdict == Verdict.FOREIGN and lease.address not in outside:
                by_reason.setdefault(lease.reasons[0], []).append(lease.address)
        data_dir = directory.path.rpartition("/")[0]
        for reason, names in by_reason.items():
            marked = reason.code in _MARKS
            yield Finding.of(
                id=FindingId.LEASE008,
                subject=directory.path,
                summary=f"{count(len(names), 'file')} in {directory.path} that janitor leaves alone",
                evidence=(listing(names), text(reason)),
                explanation=_MARKED if marked else _OTHERS,
                fix=(
                    Fix.of("only if no other node uses the directory: ", Command.of("rm", f"{data_dir}/{MARK}"))
                    if marked
                    else Fix.of("ask the owner; janitor never frees these files")
                ),
            )
