"""Rule 1, whether leases are janitor's to judge: only in networks that CRI uses or that the operator named."""

from dataclasses import dataclass

from janitor.core.leases.sightings import Sightings
from janitor.core.model.codes import Code
from janitor.core.model.evidence import AddressRange, Evidence, LeaseDirectory, Unknown, known
from janitor.core.model.node_mark import another
from janitor.core.model.reason import Reason, because

LOCAL_FILESYSTEMS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "jfs", "nilfs2", "reiserfs", "ubifs", "zfs", "tmpfs",
     "ramfs", "overlay"}
)  # fmt: skip
"""File systems, as mountinfo names them, that only one kernel writes to.

This is an allowlist: on any other file system (NFS, 9p, virtiofs, FUSE, a cluster file system) the leases may be
another machine's. Its pods are not visible here, and its lock is not this machine's.
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whether a directory is janitor's to judge. `refusal` says why not; None if it is."""

    refusal: Reason | None
    ranges: tuple[tuple[AddressRange, ...], ...] | Unknown | None = None

    @property
    def note(self) -> tuple[Reason, ...]:
        """What a verdict in this directory has to add if the range could not be checked."""
        if isinstance(self.ranges, Unknown):
            return (because(Code.RANGE_UNKNOWN, self.ranges.reason),)
        return ()


def shared(directory: LeaseDirectory) -> Reason | None:
    """Why the directory's file system may hold other machines' leases; None if it cannot."""
    if directory.filesystem in LOCAL_FILESYSTEMS:
        return None
    if not directory.filesystem:
        return because(Code.FILESYSTEM_UNKNOWN)
    return because(Code.FILESYSTEM_SHARED, filesystem=directory.filesystem)


def scope_of(directory: LeaseDirectory, evidence: Evidence, sightings: Sightings) -> Scope:
    """Rule 1: a host-local network that CRI uses, or one that the operator named; never one with disableGC."""
    if directory.mismatch:
        return Scope(directory.mismatch)
    if other := shared(directory):
        return Scope(other)
    if other := another(directory.path.rpartition("/")[0], directory.marks, evidence.this_node):
        return Scope(other)
    networks = [n for n in known(evidence.networks) if n.directory == directory.path]
    if any(n.disable_gc for n in networks):
        return Scope(because(Code.GC_DISABLED))
    used = any(n.used_by_cri for n in networks) or _used_by_listed_sandbox(directory, sightings)
    if not used and networks:
        return Scope(because(Code.NETWORK_NOT_USED, network=directory.network, source=networks[0].source))
    allowed = directory.path.rpartition("/")[0] in evidence.allowed_data_dirs
    # Without a configuration nobody can say who owns it: it is not refused here, but question 3 of `judge` keeps it.
    if used or allowed or isinstance(evidence.networks, Unknown):
        return Scope(None, ranges_of(directory, evidence))
    return Scope(because(Code.NO_NETWORK_THERE, path=directory.path))


def ranges_of(directory: LeaseDirectory, evidence: Evidence) -> tuple[tuple[AddressRange, ...], ...] | Unknown | None:
    """The ranges of the network that keeps its leases there; None if no configuration names it.

    If several networks do, the ranges of all of them; Unknown as soon as one network's are.
    """
    networks = [n for n in known(evidence.networks) if n.directory == directory.path]
    sets: list[tuple[AddressRange, ...]] = []
    for network in [n for n in networks if n.used_by_cri] or networks:
        if isinstance(network.range_sets, Unknown):
            return network.range_sets
        sets.extend(network.range_sets)
    return tuple(sets) or None


def _used_by_listed_sandbox(directory: LeaseDirectory, sightings: Sightings) -> bool:
    """A network outside the configuration (multus) that the cached configuration of a listed sandbox names."""
    return any(
        f"{entry.data_dir}/{entry.network}" == directory.path
        for container_id in sightings.sandboxes
        for entry in sightings.cache_by_id.get(container_id, ())
        if not entry.damage and "host-local" in entry.ipam
    )
