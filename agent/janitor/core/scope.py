"""Rule 1, whether leases are janitor's to judge: only those of a network that CRI uses, or that the operator named."""

from dataclasses import dataclass

from janitor.core.evidence import AddressRange, Evidence, LeaseDirectory, Unknown, known
from janitor.core.sightings import Sightings

# flock(2) on these is local to one client, or emulated: host-local's lock would exclude nobody elsewhere.
SHARED_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs", "9p", "ocfs2", "gfs2"})


@dataclass(frozen=True, slots=True)
class Scope:
    """Whether a directory is janitor's to judge. `refusal` says why not, and "" that it is."""

    refusal: str
    ranges: tuple[tuple[AddressRange, ...], ...] | Unknown | None = None

    @property
    def note(self) -> tuple[str, ...]:
        """What a verdict about an address in it has to add, where the range could not be compared with."""
        if isinstance(self.ranges, Unknown):
            return (f"the network's range is not known ({self.ranges.reason}), so the network's name had to do",)
        return ()


def scope_of(directory: LeaseDirectory, evidence: Evidence, sightings: Sightings) -> Scope:
    """Rule 1: a host-local network that CRI uses, or one the operator has named; never one with disableGC."""
    if directory.mismatch:
        return Scope(directory.mismatch)
    if directory.filesystem in SHARED_FILESYSTEMS:
        return Scope(f"its directory is on {directory.filesystem}: a lock taken on this node does not hold on another")
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
