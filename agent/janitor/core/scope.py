"""Rule 1, whether leases are janitor's to judge: only those of a network that CRI uses, or that the operator named."""

from dataclasses import dataclass

from janitor.core.evidence import AddressRange, Evidence, LeaseDirectory, Unknown, known
from janitor.core.node_mark import another
from janitor.core.sightings import Sightings

LOCAL_FILESYSTEMS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "jfs", "nilfs2", "reiserfs", "ubifs", "zfs", "tmpfs",
     "ramfs", "overlay"}
)  # fmt: skip
"""File systems, as mountinfo calls them, that one kernel alone writes to.

A list of what is allowed, not of what is forbidden: on any other (NFS, 9p, virtiofs, FUSE, a cluster's) the leases may
be another machine's, of whose pods nothing is seen here, and whose lock is not this one's.
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whether a directory is janitor's to judge. `refusal` says why not, and "" that it is."""

    refusal: str
    ranges: tuple[tuple[AddressRange, ...], ...] | Unknown | None = None
    marked: bool = False  # a mark in the data directory is the reason

    @property
    def note(self) -> tuple[str, ...]:
        """What a verdict about an address in it has to add, where the range could not be compared with."""
        if isinstance(self.ranges, Unknown):
            return (f"the network's range is not known ({self.ranges.reason}), so the network's name had to do",)
        return ()


def shared(directory: LeaseDirectory) -> str:
    """Words for a file system on which leases of other machines may be; "" where there can be none."""
    if directory.filesystem in LOCAL_FILESYSTEMS:
        return ""
    if not directory.filesystem:
        return "a file system whose type could not be found out: other machines may have their leases there"
    return f"{directory.filesystem}: other machines may have their leases there, and a lock does not hold for them"


def scope_of(directory: LeaseDirectory, evidence: Evidence, sightings: Sightings) -> Scope:
    """Rule 1: a host-local network that CRI uses, or one the operator has named; never one with disableGC."""
    if directory.mismatch:
        return Scope(directory.mismatch)
    if other := shared(directory):
        return Scope(f"its directory is on {other}")
    if other := another(directory.path.rpartition("/")[0], directory.marks, evidence.this_node):
        return Scope(other, marked=True)
    networks = [n for n in known(evidence.networks) if n.directory == directory.path]
    if any(n.disable_gc for n in networks):
        return Scope("the network's configuration says disableGC: its leases are to be left alone")
    used = any(n.used_by_cri for n in networks) or _used_by_listed_sandbox(directory, sightings)
    if not used and networks:
        return Scope(f"CRI does not use its network {directory.network} (configured in {networks[0].source})")
    allowed = directory.path.rpartition("/")[0] in evidence.allowed_data_dirs
    # Without a configuration nobody can say whose it is: then it is not refused here, and kept further down.
    if used or allowed or isinstance(evidence.networks, Unknown):
        return Scope("", ranges_of(directory, evidence))
    return Scope(f"no network of the CNI configuration that CRI uses keeps its leases in {directory.path}")


def ranges_of(directory: LeaseDirectory, evidence: Evidence) -> tuple[tuple[AddressRange, ...], ...] | Unknown | None:
    """The ranges of the network that keeps its leases there, None where no configuration names it.

    Where several do, all of theirs; Unknown as soon as those of one of them are.
    """
    networks = [n for n in known(evidence.networks) if n.directory == directory.path]
    sets: list[tuple[AddressRange, ...]] = []
    for network in [n for n in networks if n.used_by_cri] or networks:
        if isinstance(network.range_sets, Unknown):
            return network.range_sets
        sets.extend(network.range_sets)
    return tuple(sets) or None


def _used_by_listed_sandbox(directory: LeaseDirectory, sightings: Sightings) -> bool:
    """A network that is not in the configuration (multus) but in the cached one of a sandbox CRI lists."""
    return any(
        f"{entry.data_dir}/{entry.network}" == directory.path
        for container_id in sightings.sandboxes
        for entry in sightings.cache_by_id.get(container_id, ())
        if not entry.damage and "host-local" in entry.ipam
    )
