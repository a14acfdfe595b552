"""Processes that speak for a lease: shims and monitors by their command line, CNI plugins by their environment.

Of a command line only the IDs that somebody asks about are kept, and of an environment only CNI's own variables:
evidence is made to be handed on, and command lines hold secrets. And any pod may fill its command lines with megabytes
of words that look like IDs, in as many processes as it likes: they are read one at a time, and nothing of them stays.
"""

import os
import re
import stat
from dataclasses import dataclass
from typing import Final

import psutil

from janitor.core.evidence import Process, Unknown
from janitor.host.files import printable, read_bounded, unknown
from janitor.host.procfs import Proc

# execve(2) takes at most 6 MiB of words and environment together (fs/exec.c): no runtime can have said more.
_LIMIT = 8 << 20
_ID: Final = re.compile(rb"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
_CNI: Final = re.compile(rb"CNI_(COMMAND|CONTAINERID)=([^\0]{0,128})")


@dataclass(frozen=True, slots=True)
class Asked:
    """The container IDs that a process's word can matter for; and of damaged leases, what their IDs begin with."""

    ids: frozenset[str]
    fragments: tuple[str, ...] = ()

    def named_in(self, words: bytes) -> tuple[str, ...]:
        """Those of the IDs that are among these words, and one that begins with each fragment."""
        found: dict[str, None] = {}
        fragments = self.fragments
        for match in _ID.finditer(words):
            name = match[0].decode("ascii")
            if name in self.ids:
                found[name] = None
            elif fragments and name.startswith(fragments):
                found[name] = None
                fragments = tuple(fragment for fragment in fragments if not name.startswith(fragment))
        return tuple(found)


def processes(proc: Proc, asked: Asked) -> tuple[Process, ...] | Unknown:
    """Every process that names an ID that is asked about, or is a CNI plugin at work, by process ID.

    Unknown as soon as one process cannot be read: it could have been the one.
    """
    found: list[Process] = []
    try:
        pids = proc.pids()
    except OSError as error:
        return unknown(f"listing the processes in {proc.path}", error)
    for pid in pids:
        try:
            process = _read(pid, proc, asked)
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


def _read(pid: int, proc: Proc, asked: Asked) -> Process | None:
    # Read raw: psutil ends an environment at the first empty string in it, and a plugin may be started with one.
    ids = asked.named_in(read_bounded(f"{proc.path}/{pid}/cmdline", _LIMIT))
    command = container_id = ""
    variables = b"\0" + read_bounded(f"{proc.path}/{pid}/environ", _LIMIT)
    for found in _CNI.finditer(variables):
        if variables[found.start() - 1]:
            continue  # within another variable
        if found[1] == b"COMMAND":
            command = printable(os.fsdecode(found[2][:16]))
        else:
            container_id = printable(os.fsdecode(found[2]))
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
