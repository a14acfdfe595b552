"""host-local's lease directories, as they are on the disk.

Reads only names, stat(2) and contents; core/model/lease.py interprets them. Takes no lock: a scan must not delay the
start of a pod. Standard library only.
"""

import os
import stat
from dataclasses import replace
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import FileKind, LeaseDirectory, LeaseFile, Unknown, unseen
from janitor.core.model.lease import LONGEST_LEASE
from janitor.core.model.reason import Reason, because
from janitor.host.cni.directories import DATA_DIR
from janitor.host.cni.node_mark import read_marks
from janitor.host.files import entries, failed, inside, names, open_quietly, printable, read_bounded, unknown
from janitor.host.kernel.mounts import Mounts
from janitor.host.node import Node

_KINDS: Final[dict[int, FileKind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def lease_directories(
    node: Node, wanted: tuple[str, ...], data_dirs: tuple[str, ...], mounts: Mounts
) -> tuple[LeaseDirectory, ...] | Unknown:
    """Every directory in `wanted`, in `data_dirs` and in the default data directory, sorted by path.

    Paths are as the node names them. A configured directory that does not exist yet has no entries.
    """
    there: set[str] = set()
    for data_dir in (DATA_DIR, *data_dirs):
        try:
            there |= {f"{data_dir}/{name}" for name in names(node.path(data_dir)) if not name.startswith(".")}
        except OSError as error:
            return unknown(Code.CANNOT_LIST_NETWORKS, error, path=data_dir)
    found = [read_directory(node, path, mounts) for path in _named_once(node, there.union(wanted), wanted, data_dirs)]
    marks = {data_dir: read_marks(node, data_dir) for data_dir in {os.path.dirname(d.path) for d in found if d}}
    return tuple(replace(d, marks=marks[os.path.dirname(d.path)]) for d in found if d is not None)


def _named_once(node: Node, paths: set[str], wanted: tuple[str, ...], data_dirs: tuple[str, ...]) -> list[str]:
    """`paths`, sorted, without second names of a directory (links, bind mounts): its leases would seem leased twice.

    The configured name is kept. Otherwise a name in the operator's `data_dirs` goes before one in the default
    directory.
    """
    kept: list[str] = []
    known: set[tuple[int, int]] = set()
    for path in sorted(paths, key=lambda path: (path not in wanted, path.rpartition("/")[0] not in data_dirs, path)):
        try:
            inode = _inode(node.path(path))
        except OSError:
            inode = None  # reading it will report the error
        if path in wanted or inode is None or inode not in known:
            kept.append(path)
        if inode is not None:
            known.add(inode)
    return sorted(kept)


def compared(
    directories: tuple[LeaseDirectory, ...] | Unknown, node: Node, views: tuple[str, ...]
) -> tuple[LeaseDirectory, ...] | Unknown:
    """The same directories, each with `mismatch` set if a runtime sees another directory at its path.

    `views` are the root directories of the runtimes' processes, `/proc/<pid>/root`. host-local runs in them, so a
    directory that differs from theirs holds the leases of another node, or old ones.
    """
    if isinstance(directories, Unknown):
        return directories
    return tuple(replace(d, mismatch=_mismatch(d.path, node, views)) for d in directories)


def _mismatch(path: str, node: Node, views: tuple[str, ...]) -> Reason | None:
    for view in views:
        try:
            here = _inode(node.path(path))
            there = _inode(inside(view, path))
        except OSError as error:
            return failed(Code.RUNTIME_VIEW_UNSEEN, error, path=path)
        if here != there:
            return because(Code.RUNTIME_SEES_ANOTHER, path=path)
    return None


def _inode(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_dev, info.st_ino


def read_directory(node: Node, path: str, mounts: Mounts) -> LeaseDirectory | None:
    """The directory of one network, without entries if it does not exist; None if it is no directory."""
    network = printable(os.path.basename(path))
    here = node.path(path)
    try:
        if not stat.S_ISDIR(os.stat(here).st_mode):
            return None
        files = sorted(_read_entries(here, path), key=lambda f: f.name)
        return LeaseDirectory(printable(path), network, tuple(files), mounts.filesystem_of(here))
    except FileNotFoundError:
        return LeaseDirectory(printable(path), network, (), mounts.filesystem_of(_nearest(here)))
    except OSError as error:
        return LeaseDirectory(printable(path), network, unknown(Code.CANNOT_READ_LEASES, error, path=path))


def _nearest(path: str) -> str:
    """The nearest existing directory at or above the path: a new directory will be on its file system."""
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _read_entries(here: str, path: str) -> list[LeaseFile]:
    files: list[LeaseFile] = []
    fd = open_quietly(here, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for entry in entries(here):
            try:
                files.append(read_entry(entry.name, path, fd))
            except FileNotFoundError:
                continue  # released between the listing and the stat
    finally:
        os.close(fd)
    return files


def read_entry(name: str, path: str, dir_fd: int) -> LeaseFile:
    """One entry of the open directory `dir_fd`, called `path` in messages. FileNotFoundError if it is gone."""
    content: bytes | Unknown = b""
    info = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISREG(info.st_mode):
        try:
            content = read_bounded(name, LONGEST_LEASE, dir_fd=dir_fd, follow=False)
        except FileNotFoundError:
            raise
        except OSError as error:
            content = unknown(Code.CANNOT_READ_LEASE, error, path=f"{path}/{printable(name)}")
        # host-local may have replaced or written the file meanwhile: stat and contents must be of the same state.
        again = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if (again.st_ino, again.st_ctime_ns, again.st_size) != (info.st_ino, info.st_ctime_ns, info.st_size):
            content = unseen(Code.LEASE_BEING_WRITTEN, path=f"{path}/{printable(name)}")
    return LeaseFile(
        printable(name), _KINDS.get(stat.S_IFMT(info.st_mode), "device"), info.st_dev, info.st_ino, info.st_size,
        stat.S_IMODE(info.st_mode), info.st_mtime_ns, info.st_ctime_ns, content,
    )  # fmt: skip
