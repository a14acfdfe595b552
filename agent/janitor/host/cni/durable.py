"""Syncs what CNI writes to the disk as soon as it is written. Nothing else in that chain does.

host-local, libcni, multus and flannel write and close. A power cut within the next half minute leaves empty files: the
leases that nobody can ever release. Each file closed after writing is synced here, then its directory. The start of a
pod does not wait for it. Run it in a process of its own, since fsync(2) takes as long as the disk does. Standard
library only.
"""

import os
import select
import stat
import time
from collections.abc import Callable
from typing import Final

from janitor.host.cni.directories import CNI_STATE_DIR
from janitor.host.files import HIDDEN, describe_os_error, sync_directory
from janitor.host.kernel.inotify import CREATE, DELETE_SELF, ISDIR, MOVE_SELF, MOVED_TO, OVERFLOW, UNMOUNT, Inotify
from janitor.host.node import Node

YOUNG_S: Final = 60
"""Older files have already been written back (vm.dirty_expire_centisecs is 30 s)."""
_LOOK_AGAIN_S: Final = 5.0
_MOST_DIRECTORIES: Final = 4096
_DEPTH: Final = 4


def keep_durable(node: Node, data_dirs: tuple[str, ...], tell: Callable[[bytes], None]) -> None:
    """Run until killed. Sends `synced FILES MICROSECONDS` and `trouble …` to `tell`. OSError without inotify."""
    watched = Inotify()
    last: tuple[str, int | None] | None = None  # the failure that was reported last: its path and errno
    links: set[str] = set()
    told: set[str] = set()
    tops: dict[str, tuple[int, int]] = {}
    while True:
        files: set[str] = set()
        directories: set[str] = set()
        for path in (CNI_STATE_DIR, *data_dirs):
            top = node.path(path)
            try:
                info = os.stat(top)
            except OSError:
                tops.pop(top, None)  # it appears with the first pod, or with its mount
                continue
            if tops.get(top) != (info.st_dev, info.st_ino):
                tops[top] = (info.st_dev, info.st_ino)
                _add(watched, top, files, directories, links)
        for link in sorted(links - told):
            why = "it is a symbolic link, so files below it are not synced: add its target to data_dirs"
            tell(f"trouble {link}: {why}".encode("utf-8", "backslashreplace"))
        told |= links
        select.select([watched.fileno()], [], [], 0 if files else _LOOK_AGAIN_S)
        began = time.monotonic_ns()
        _collect(watched, tops, files, directories, links)
        failure = _sync(files, directories)
        if files:
            tell(b"synced %d %d" % (len(files), (time.monotonic_ns() - began) // 1000))
        now = None if failure is None else (failure[0], failure[1].errno)
        if failure is not None and now != last:
            tell(f"trouble {failure[0]}: {describe_os_error(failure[1])}".encode("utf-8", "backslashreplace"))
        last = now


def _add(
    watched: Inotify, directory: str, files: set[str], directories: set[str], links: set[str], depth: int = _DEPTH
) -> None:
    """Watch a directory and its subdirectories, and add the files written before the watch existed.

    Symbolic links to directories are not followed but added to `links`.
    """
    if len(watched.directories) >= _MOST_DIRECTORIES:
        return
    try:
        watched.watch(directory)
        with os.scandir(directory) as listing:
            found = list(listing)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                directories.add(directory)
                if depth and entry.name != HIDDEN:  # files in quarantine are synced by whoever moves them
                    _add(watched, entry.path, files, directories, links, depth - 1)
            elif entry.is_file(follow_symlinks=False) and time.time() - entry.stat().st_mtime < YOUNG_S:
                files.add(entry.path)
            elif entry.is_symlink() and entry.is_dir():
                links.add(entry.path)
    except (FileNotFoundError, NotADirectoryError):
        return  # already removed


def _collect(
    watched: Inotify, tops: dict[str, tuple[int, int]], files: set[str], directories: set[str], links: set[str]
) -> None:
    """Turn the queued events into what has to be synced."""
    for event in watched.happened():
        if event.mask & OVERFLOW:  # events were lost: sync all recent files
            for top in tops:
                _add(watched, top, files, directories, links)
        elif event.mask & (DELETE_SELF | MOVE_SELF | UNMOUNT):
            tops.pop(event.directory, None)
        elif event.mask & ISDIR:
            if event.mask & (CREATE | MOVED_TO):
                directories.add(event.directory)
                if event.name != HIDDEN:
                    _add(watched, f"{event.directory}/{event.name}", files, directories, links)
        elif not event.mask & CREATE and event.name and event.directory:
            files.add(f"{event.directory}/{event.name}")


def _sync(files: set[str], directories: set[str]) -> tuple[str, OSError] | None:
    """Sync all files, then each directory once. Returns the last failure and its path, if there was one."""
    failure: tuple[str, OSError] | None = None
    for path in sorted(files):
        name = os.path.basename(path)
        if name == "lock" or name.startswith("last_reserved_ip."):
            continue  # never found damaged, and no loss
        try:
            _sync_file(path)
        except FileNotFoundError:
            continue  # already released
        except OSError as error:
            failure = path, error
            continue
        directories.add(os.path.dirname(path))
    for path in sorted(directories):
        try:
            sync_directory(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = path, error
    return failure


def _sync_file(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.fsync(fd)
    finally:
        os.close(fd)
