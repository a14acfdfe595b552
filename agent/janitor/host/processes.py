"""Processes that speak for a lease: shims and monitors by their command line, CNI plugins by their environment.

Of a command line only 64-digit IDs are kept, and of an environment only CNI's own variables: evidence is made
to be handed on, and command lines hold secrets.
"""

import os
import re
import stat
from typing import Final

import psutil

from janitor.core.evidence import Process, Unknown
from janitor.host.files import printable, read_bounded, unknown
from janitor.host.procfs import Proc

_LIMIT = 8 << 20
_ID: Final = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")


def processes(proc: Proc) -> tuple[Process, ...] | Unknown:
    """Every process that names a container ID or is a CNI plugin at work, by process ID.

    Unknown as soon as one process cannot be read: it could have been the one.
    """
    found: list[Process] = []
    try:
        pids = proc.pids()
    except OSError as error:
        return unknown(f"listing the processes in {proc.path}", error)
    for pid in pids:
        try:
            process = _read(pid, proc)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except OSError as error:
            return unknown(f"reading the command line and the environment of process {pid} ({proc.name(pid)})", error)
        if process is not None:
            found.append(process)
    return tuple(found)


def command_lines(proc: Proc, name: str) -> list[list[str]]:
    """The command lines of all processes called `name`; those that cannot be read are left out."""
    found: list[list[str]] = []
    with _procfs(proc):
        for pid in _pids(proc):
            if proc.name(pid) == name and _readable(proc, pid):
                try:
                    found.append(psutil.Process(pid).cmdline())
                except (psutil.Error, OSError):
                    continue
    return found


def _readable(proc: Proc, pid: int) -> bool:
    """psutil would wait for ever for a FIFO, in a tree that is no procfs."""
    try:
        return all(stat.S_ISREG(os.stat(f"{proc.path}/{pid}/{name}").st_mode) for name in ("stat", "cmdline"))
    except OSError:
        return False


def _pids(proc: Proc) -> list[int]:
    try:
        return proc.pids()
    except OSError:
        return []


def _read(pid: int, proc: Proc) -> Process | None:
    # Read raw: psutil ends an environment at the first empty string in it, and a plugin may be started with one.
    words = read_bounded(f"{proc.path}/{pid}/cmdline", _LIMIT).decode("latin-1")
    ids = tuple(dict.fromkeys(_ID.findall(words)))
    command = container_id = ""
    for variable in read_bounded(f"{proc.path}/{pid}/environ", _LIMIT).split(b"\0"):
        name, _, value = variable.partition(b"=")
        if name == b"CNI_COMMAND":
            command = printable(os.fsdecode(value[:16]))
        elif name == b"CNI_CONTAINERID":
            container_id = printable(os.fsdecode(value[:128]))
    if not ids and not container_id:
        return None
    return Process(pid, proc.name(pid), proc.started_ns(pid), ids, command, container_id)


class _procfs:  # noqa: N801 (reads as the function it stands for)
    """psutil reads the procfs that a module variable names; set it for as long as it is used."""

    def __init__(self, proc: Proc) -> None:
        self.path = proc.path

    def __enter__(self) -> None:
        self.before = psutil.PROCFS_PATH
        psutil.PROCFS_PATH = self.path

    def __exit__(self, *_: object) -> None:
        psutil.PROCFS_PATH = self.before
