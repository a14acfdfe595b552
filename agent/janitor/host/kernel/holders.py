"""Whose a process is: enough to name it, and to know that it is not one of the node's own.

A process counts as confined only if the kernel shows it. What it hides is then its own: see `Standing.confined`.
Nothing here makes a process a trusted kubelet or runtime; host/kernel/whose.py does. Standard library only.
"""

import os
import re
from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.evidence import Holder
from janitor.host.files import read_bounded
from janitor.host.kernel.control_groups import Groups, groups, top
from janitor.host.kernel.procfs import Proc

_LIMIT: Final = 1 << 16
_MOST: Final = 10_000
_ID: Final = re.compile(r"(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?")
_POD: Final = re.compile(
    r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """The pod and container of a process's cgroup, and whether it is certainly not one of the node's own.

    `confined` means one of these: it is in another user namespace than process 1; it is in the cgroup of a container;
    or it has no user ID of root's and not one capability. Such a process can keep a network namespace alive only by a
    descriptor or a mount of its own. Nothing that gives pods their addresses is confined. So a namespace that only such
    processes keep, and in which nothing runs, belongs to no pod. `share` is the name of the budget share that it uses.
    """

    holder: Holder
    confined: bool
    share: str


_UNSEEN: Final = Standing(Holder(), confined=False, share="")


@dataclass(slots=True)
class Register:
    """Answers for one look at a node's processes. Do not keep it longer: process IDs are reused."""

    proc: Proc
    _known: dict[int, Standing] = field(default_factory=dict)
    _tops: Groups | None = None

    def whose(self, pid: int) -> Standing:
        """Never raises: a process that has ended or cannot be read has no holder and is not confined."""
        if pid not in self._known:
            if len(self._known) > _MOST:
                self._known.clear()
            self._known[pid] = self._whose(pid)
        return self._known[pid]

    def apart(self, pid: int) -> bool:
        """Whether it cannot be a CNI plugin of the node: in a container with its own PID namespace, or not root.

        The process that runs the plugins may itself be in a container (RKE1), but then it sees the node's processes.
        Never raises: False if that cannot be determined.
        """
        try:
            if not self.whose(pid).confined:
                return False
            if self.holder(pid).container_id:
                return os.readlink(f"{self.proc.path}/{pid}/ns/pid") != os.readlink(f"{self.proc.path}/1/ns/pid")
            return b"0" not in _status(self.proc, pid)[b"Uid"]
        except (OSError, KeyError):
            return False

    def _whose(self, pid: int) -> Standing:
        try:
            holder = self.holder(pid)
            if holder.container_id:
                # By pod if possible: a pod may have any number of containers.
                return Standing(holder, confined=True, share=holder.pod_uid or holder.container_id)
            # The order matters: the last check is not answered in the middle of an execve(2), the others are.
            stranger = any(ask(self.proc, pid) for ask in (_powerless, _other_map, _other_user_namespace))
        except (OSError, ValueError, IndexError, KeyError):
            return _UNSEEN
        # All processes outside containers have one share: user IDs and user namespaces are available by the thousand.
        return Standing(holder, confined=stranger, share="strangers" if stranger else "")

    def holder(self, pid: int) -> Holder:
        """The pod and container of a process, from its cgroup; empty outside containers. OSError.

        The outermost container counts: a process that may write below its own group can make groups of any name there.
        The node's own place in the tree is removed first, because a node may itself be a container. Seen from another
        cgroup namespace, a path begins with `/../..`; the rest is the same.
        """
        if self._tops is None:
            self._tops = top(groups(self.proc, 1))
        for hierarchy, path in groups(self.proc, pid).items():
            node = self._tops.get(hierarchy, "").rstrip("/")
            below = path.removeprefix(node) if path == node or path.startswith(f"{node}/") else path
            pod = ""
            for part in below.split("/"):
                if found := _POD.search(part):
                    pod = found[1].replace("_", "-")
                if found := _ID.fullmatch(part):
                    return Holder(found[1], pod)
        return Holder()


def _other_user_namespace(proc: Proc, pid: int) -> bool:
    return os.readlink(f"{proc.path}/{pid}/ns/user") != os.readlink(f"{proc.path}/1/ns/user")


def _other_map(proc: Proc, pid: int) -> bool:
    """Whether its user IDs are mapped differently from process 1's: it is then in another user namespace."""
    try:
        own, first = (read_bounded(f"{proc.path}/{number}/uid_map", _LIMIT).split() for number in (pid, 1))
    except OSError:
        return False
    return own != first


def _powerless(proc: Proc, pid: int) -> bool:
    """Whether none of its user IDs is root's and all capability sets but the bounding one are empty."""
    fields = _status(proc, pid)
    capabilities = [int(fields[name][0], 16) for name in (b"CapInh", b"CapPrm", b"CapEff", b"CapAmb")]
    return b"0" not in fields[b"Uid"] and not any(capabilities)


def _status(proc: Proc, pid: int) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for line in read_bounded(f"{proc.path}/{pid}/status", _LIMIT).split(b"\n"):
        name, _, value = line.partition(b":")
        fields.setdefault(name, value.split())  # comm comes first and cannot contain a newline: the kernel escapes it
    return fields
