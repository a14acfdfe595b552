"""Processes that use a lease: shims and monitors by their command line, CNI plugins by their environment.

Of a command line only the IDs that were asked about are kept, and of an environment only CNI's own variables: evidence
is meant to be shared, and command lines contain secrets. A pod may also fill the command lines of any number of
processes with megabytes of words that look like IDs, so they are read one at a time and not kept.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import Final

import psutil

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Holder, Overlooked, Process, Unknown
from janitor.host.files import printable, read_bounded, unknown
from janitor.host.kernel.budget import Allowance, Budget, each, read_whole
from janitor.host.kernel.procfs import Proc

# execve(2) takes at most 6 MiB of arguments and environment together (fs/exec.c), so no runtime can pass more.
_LIMIT: Final = 8 << 20
_WORDS: Final = "its command line and environment"
_THREADS_MOST: Final = 64  # of a process whose first thread has ended; most of the others may have ended, too
_ID: Final = re.compile(rb"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
_CNI: Final = re.compile(rb"CNI_(COMMAND|CONTAINERID)=([^\0]{0,128})")


@dataclass(frozen=True, slots=True)
class Asked:
    """The container IDs of interest, and the first characters of the IDs in damaged leases."""

    ids: frozenset[str]
    fragments: tuple[str, ...] = ()

    def named_in(self, words: bytes) -> tuple[str, ...]:
        """The requested IDs among these words, and for each fragment one ID that begins with it."""
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


@dataclass(frozen=True, slots=True)
class Spoken:
    """The processes that name an ID or are a CNI plugin, and those whose words were too many to be read."""

    processes: tuple[Process, ...] | Unknown
    overlooked: tuple[Overlooked, ...] = ()


def spoken(proc: Proc, asked: Asked) -> Spoken:
    """Every process that names a requested ID or is a running CNI plugin.

    Unknown as soon as one of the node's own cannot be read: it could have been the one. A confined process
    (host/kernel/holders.py) may be left out: shims, monitors and the plugins they wait for are the runtime's and run on
    the node as root. What a container says about IDs can only ever keep a lease.
    """
    found: list[Process] = []
    budget = Budget(proc)

    def add(pid: int, seen: Process | str | None) -> None:
        if isinstance(seen, Process):
            found.append(seen)
        elif seen is not None:
            budget.give_up(pid, seen)

    try:
        each(proc.pids(), budget, lambda pid: _read(pid, proc, asked, budget), add)
    except OSError as error:
        return Spoken(unknown(Code.CANNOT_READ_PROCESSES, error), tuple(budget.overlooked.values()))
    return Spoken(tuple(found), tuple(budget.overlooked.values()))


def processes(proc: Proc, asked: Asked) -> tuple[Process, ...] | Unknown:
    """The same, without the overlooked ones."""
    return spoken(proc, asked).processes


def command_line(proc: Proc, pid: int) -> list[str]:
    """The arguments of a process, even if it has overwritten them with a title. OSError if it has ended."""
    # In a tree that is no procfs, psutil would wait forever for a FIFO.
    if not all(stat.S_ISREG(os.stat(f"{proc.path}/{pid}/{name}").st_mode) for name in ("stat", "cmdline")):
        raise OSError(errno.EINVAL, "not a regular file", f"{proc.path}/{pid}")
    with _procfs(proc):
        try:
            return psutil.Process(pid).cmdline()
        except psutil.Error as error:
            raise ProcessLookupError(errno.ESRCH, str(error), f"{proc.path}/{pid}") from None


def _read(pid: int, proc: Proc, asked: Asked, budget: Budget) -> Process | str | None:
    """What it says; a str names what was too long to read; None if it says nothing or has ended."""
    with Allowance(budget, pid) as allowance:
        try:
            if not allowance.left():
                return _WORDS
            place = f"{proc.path}/{pid}"
            words = read_whole(f"{place}/cmdline", _LIMIT, allowance)
            if words == b"" and (other := _another_thread(pid, proc)):
                # The first thread has ended: the process's memory is visible through the others.
                place = other
                words = read_whole(f"{place}/cmdline", _LIMIT, allowance)
            # Read raw: psutil stops at the first empty string, and a plugin may be started with one in its environment.
            variables = read_whole(f"{place}/environ", _LIMIT, allowance)
            if words is None or variables is None:
                return _WORDS
            ids = asked.named_in(words)
            command, container_id = _cni(b"\0" + variables)
            if not ids and not container_id:
                return None
            apart, whose = budget.register.apart(pid), _holder(pid, budget)
            return Process(pid, proc.name(pid), proc.started_ns(pid), ids, command, container_id, apart, whose)
        except (FileNotFoundError, ProcessLookupError):
            return None  # it has ended
        except OSError as error:
            if budget.whose(pid).confined and not isinstance(error, PermissionError):
                return _WORDS
            raise OSError(error.errno, f"process {pid} ({proc.name(pid)}): {error.strerror}") from None


def _holder(pid: int, budget: Budget) -> Holder:
    """Whose it is. Empty if that cannot be determined: what the process says counts all the same."""
    try:
        return budget.register.holder(pid)
    except OSError:
        return Holder()


def _cni(variables: bytes) -> tuple[str, str]:
    command = container_id = ""
    for found in _CNI.finditer(variables):
        if variables[found.start() - 1]:
            continue  # part of another variable
        if found[1] == b"COMMAND":
            command = printable(os.fsdecode(found[2][:16]))
        else:
            container_id = printable(os.fsdecode(found[2]))
    return command, container_id


def _another_thread(pid: int, proc: Proc) -> str:
    """A live thread, if the first one has ended; "" if there is none, as for kernel threads."""
    try:
        # Kernel threads have one thread each, and so has a process that has ended completely.
        if os.stat(f"{proc.path}/{pid}/task").st_nlink <= 3:
            return ""
        with os.scandir(f"{proc.path}/{pid}/task") as threads:
            for number, thread in enumerate(threads):
                place = f"{proc.path}/{pid}/task/{thread.name}"
                if number < _THREADS_MOST and read_bounded(f"{place}/cmdline", 1):
                    return place
    except OSError:
        return ""
    return ""


class _procfs:  # noqa: N801 (reads as the function it stands for)
    """psutil reads the procfs that a module variable names: set it for the duration of a call."""

    def __init__(self, proc: Proc) -> None:
        self.path = proc.path

    def __enter__(self) -> None:
        self.before = psutil.PROCFS_PATH
        psutil.PROCFS_PATH = self.path

    def __exit__(self, *_: object) -> None:
        psutil.PROCFS_PATH = self.before
