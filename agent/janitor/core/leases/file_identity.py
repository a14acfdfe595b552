"""How a file is known again in the next pass: its identity, and what stands for one that is not there."""

from janitor.core.leases.judgement import JudgedLease
from janitor.core.model.evidence import CacheEntry, FileIdentity, LeaseFile
from janitor.core.model.lease import identity


def entry_file(entry: CacheEntry) -> LeaseFile:
    """A damaged cache entry as the age proofs want it; its bytes say nothing, so they are not part of it."""
    return LeaseFile(
        entry.path.rpartition("/")[2], "file", entry.device, entry.inode, entry.size, 0, entry.mtime_ns, entry.ctime_ns
    )


def identity_of(path: str, file: LeaseFile) -> FileIdentity:
    """The identity of a file whose bytes were read."""
    found = identity(path, file)
    if found is None:
        raise ValueError(f"{path} was not read")
    return found


def missing_identity(lease: JudgedLease) -> FileIdentity:
    """What stands for a file that is not there: its path, and whose it should be."""
    return FileIdentity(f"{lease.directory}/{lease.address}", 0, 0, 0, 0, lease.container_id)
