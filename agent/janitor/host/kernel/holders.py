"""Whose a process is, as far as it takes to name it, and to know that it is none of the node's own.

A process is called confined only where the kernel says so, and then what it hides is its own: see `Standing.confined`.
Nothing here makes a process a kubelet, a runtime or anybody else who is believed. Standard library only.
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
    """A process's place: the pod and container of its cgroup, and whether it is sure to be none of the node's own.

    `confined` says that one of these holds: it is in a user namespace other than the first process's; it is in the
    cgroup of a container; it has no user ID of root's and not one capability. Such a process can keep a network
    namespace alive by a descriptor or by a mount of its own, and that is all: whoever gives pods their addresses is
    none of these, so a namespace that it alone keeps, and in which nothing runs, is nobody's pod. `share` is with whom
    it shares its budget.
    """

    holder: Holder
    confined: bool
    share: str


_UNSEEN: Final = Standing(Holder(), confined=False, share="")


@dataclass(slots=True)
class Register:
    """Answers for one look at one node's processes. Nothing of it is kept longer: process IDs are used again."""

    proc: Proc
    _known: dict[int, Standing] = field(default_factory=dict)
    _tops: Groups | None = None

    def whose(self, pid: int) -> Standing:
        """Never raises: of a process that has ended, or cannot be read, nothing is known, and it is not confined."""
        if pid not in self._known:
            if len(self._known) > _MOST:
                self._known.clear()
            self._known[pid] = self._whose(pid)
        return self._known[pid]

    def apart(self, pid: int) -> bool:
        """Whether it cannot be a CNI plugin of the node's: in a container and a PID namespace of its own, or no root.

        Whoever runs the plugins may itself be a container (RKE1), but then it sees the node's processes. Never raises:
        False where that cannot be told.
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
                # A pod may have as many containers as it likes.
                return Standing(holder, confined=True, share=holder.pod_uid or holder.container_id)
            # In this order: what the last one asks is not answered in the middle of an execve(2), the others are.
            stranger = any(ask(self.proc, pid) for ask in (_powerless, _other_map, _other_user_namespace))
        except (OSError, ValueError, IndexError, KeyError):
            return _UNSEEN
        # Of what is in no container all have one share: user IDs and user namespaces can be had by the thousand.
        return Standing(holder, confined=stranger, share="strangers" if stranger else "")

    def holder(self, pid: int) -> Holder:
        """The pod and the container of a process, from its cgroup; empty for what is in none. OSError.

        The outermost container counts: below its own, whoever may write there makes groups of any name. The node's own
        place in the tree is taken off, because a node may itself be a container. As seen from another cgroup namespace,
        a path begins with `/../..`, and the rest is the same.
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
    """Its user IDs are mapped otherwise than the first process's, so its user namespace is another one."""
    try:
        own, first = (read_bounded(f"{proc.path}/{number}/uid_map", _LIMIT).split() for number in (pid, 1))
    except OSError:
        return False
    return own != first


def _powerless(proc: Proc, pid: int) -> bool:
    """No user ID of it is root's, and no capability is in any of its sets but the bounding one."""
    fields = _status(proc, pid)
    capabilities = [int(fields[name][0], 16) for name in (b"CapInh", b"CapPrm", b"CapEff", b"CapAmb")]
    return b"0" not in fields[b"Uid"] and not any(capabilities)


def _status(proc: Proc, pid: int) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for line in read_bounded(f"{proc.path}/{pid}/status", _LIMIT).split(b"\n"):
        name, _, value = line.partition(b":")
        fields.setdefault(name, value.split())  # comm comes first, and cannot hold a newline: the kernel escapes it
    return fields
