"""Where files are moved instead of being deleted, and how they come back.

A file is moved by rename(2), so it keeps its contents, times and inode, and is at any time in one of the two places.
The quarantine is never inside a network's directory: host-local's DEL walks that recursively and would delete files
from it. Standard library only.
"""

import errno
import os
from dataclasses import replace
from typing import Final

from janitor.core.leases.file_identity import identity_of
from janitor.core.model.codes import Code
from janitor.core.model.evidence import FileIdentity, LeaseFile
from janitor.core.model.reason import Reason, because
from janitor.host.changes.versions import newer
from janitor.host.cni.leases import read_entry
from janitor.host.files import HIDDEN, STATE, read_bounded, sync_directory
from janitor.host.kernel.mounts import Mounts
from janitor.host.node import Node

QUARANTINE: Final = f"{STATE}/quarantine"
VERSION: Final = 1
"""The version of the quarantine's layout, as in its file `version` (1 without that file)."""


def place_for(node: Node, directory: str, mounts: Mounts) -> str:
    """The quarantine for files of `directory`: the usual one, or the nearest one on the same mount.

    rename(2) does not cross mounts, nor subvolumes of btrfs, which have device numbers of their own. If the leases have
    a mount of their own, files go beside the data directory. If that is another mount, too, they go into the data
    directory, beside the networks.
    """
    data_dir = os.path.dirname(directory)
    wanted = _mount(node, directory, mounts)
    for candidate in (QUARANTINE, f"{os.path.dirname(data_dir).rstrip('/')}/{HIDDEN}", f"{data_dir}/{HIDDEN}"):
        if _mount(node, candidate, mounts) == wanted:
            return candidate
    return f"{data_dir}/{HIDDEN}"


def _mount(node: Node, path: str, mounts: Mounts) -> tuple[str | None, int]:
    here = node.path(path)
    while not os.path.exists(here):
        here = os.path.dirname(here)
    mount = mounts.mount_of(here)
    return mount.number if mount is not None else None, os.stat(here).st_dev


def make_place(path: str) -> None:
    """Make the directory of one pass, with access for root only, and sync its name to the disk. OSError."""
    parent = os.path.dirname(path)
    if (found := _version(parent)) > VERSION:
        raise newer(parent, found, VERSION)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)
        sync_directory(parent)


def _version(quarantine: str) -> int:
    """The version of the quarantine's layout; 1 without a version file. OSError."""
    try:
        return int(read_bounded(f"{quarantine}/version", 64))
    except FileNotFoundError:
        return 1
    except ValueError:
        raise OSError(errno.EINVAL, "it is not a number", f"{quarantine}/version") from None


def unchanged(name: str, path: str, directory: int, expected: FileIdentity, ctime_ns: int) -> Reason | None:
    """What is different if `name` is not the file that was judged; None if it is."""
    try:
        file: LeaseFile = read_entry(name, os.path.dirname(path), directory)
    except FileNotFoundError:
        return because(Code.RELEASED)
    if not isinstance(file.content, bytes):
        return file.content.reason
    if (
        file.kind != "file"
        or file.ctime_ns != ctime_ns
        or identity_of(path, _without_bytes(file, expected)) != expected
    ):
        return because(Code.REPLACED)
    return None


def _without_bytes(file: LeaseFile, expected: FileIdentity) -> LeaseFile:
    """A damaged cache entry is identified without its contents: its digest is that of an empty file."""
    empty = identity_of(expected.path, replace(file, content=b""))
    return replace(file, content=b"") if expected.digest == empty.digest and file.size == expected.size else file


def move(name: str, directory: int, target: str) -> None:
    """Rename `name` of the open directory to `target`, which must not exist. OSError from rename(2)."""
    if os.path.lexists(target):
        raise FileExistsError(17, "the target in the quarantine already exists", target)
    os.rename(name, target, src_dir_fd=directory)


def put_back(source: str, name: str, directory: int) -> None:
    """Give `source` its old name again. FileExistsError if that is taken: link(2) never replaces a file."""
    try:
        os.link(source, name, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        there, kept = os.stat(name, dir_fd=directory, follow_symlinks=False), os.lstat(source)
        if (there.st_dev, there.st_ino) != (kept.st_dev, kept.st_ino):
            raise
        # The file has both names: an earlier attempt was interrupted here.
    os.fsync(directory)
    os.unlink(source)
    sync_directory(os.path.dirname(source))
