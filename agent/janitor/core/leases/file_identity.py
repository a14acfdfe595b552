"""How a file is recognised in the next pass, and what stands for a file that does not exist."""

from janitor.core.leases.judgement import JudgedLease
from janitor.core.model.evidence import CacheEntry, FileIdentity, LeaseFile
from janitor.core.model.lease import identity


def entry_file(entry: CacheEntry) -> LeaseFile:
    """A damaged cache entry as the age proofs take it. Its content proves nothing and is left out."""
    return LeaseFile(
        entry.path.rpartition("/")[2], "file", entry.device, entry.inode, entry.size, 0, entry.mtime_ns, entry.ctime_ns
    )


def identity_of(path: str, file: LeaseFile) -> FileIdentity:
    """The identity of a file whose content was read; ValueError if it was not."""
    found = identity(path, file)
    if found is None:
        raise ValueError(f"{path} was not read")
    return found


def missing_identity(lease: JudgedLease) -> FileIdentity:
    """A stand-in for the file of a missing lease: its path, and the container it should name."""
    return FileIdentity(f"{lease.directory}/{lease.address}", 0, 0, 0, 0, lease.container_id)
