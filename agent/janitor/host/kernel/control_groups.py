"""Which control group a process is in, as process 1 of the node sees it, and what that says of whose it is.

The kernel shows a group relative to the cgroup namespace of whoever reads (cgroup_namespaces(7)): to a container its
neighbour is `/../../pod/id`, without a word of Kubernetes. So they are read in process 1's namespace. What a node's own
processes are in is known and is a short list; what pods are in is not: a runtime, a kubelet and an operator may name
their groups as they like. Whatever is not on the list is a container. Standard library only.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, TypeVar

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.host.files import read_bounded
from janitor.host.kernel.namespaces import in_control_groups
from janitor.host.kernel.procfs import Proc

_LIMIT: Final = 1 << 16
_LEAVES: Final = ("init.scope", "init")  # where systemd and k3s put process 1 itself
_CONTAINER: Final = re.compile(r"kubepods|[0-9a-f]{64}|^(docker|libpod|crio|cri-containerd|lxc|machine)\b")
_SESSION: Final = re.compile(r"/user\.slice/user-\d+\.slice/session-[0-9a-z]+\.scope")
_SLICES: Final = ("user.slice", "machine.slice")
_UNIT_HIERARCHIES: Final = ("", "name=systemd")  # those in which systemd keeps its units
_MOUNTS: Final = ("", "unified", "systemd")  # where these are below /sys/fs/cgroup
_MOST_DIRECTORIES: Final = 4096
_UNTOLD: Final = "0" * 64

_T = TypeVar("_T")

Groups = dict[str, str]
"""A process's path in each hierarchy; "" is cgroup v2's, others have their controllers' names."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is. `unit` is the system service it belongs to, "" for none; `why` is None for the node's own."""

    why: Reason | None = None
    unit: str = ""


def seen_from_the_node(proc: Proc, visit: Callable[[], _T]) -> _T:
    """Call `visit`, which reads groups, in process 1's cgroup namespace. OSError where that is barred."""
    path = f"{proc.path}/1/ns/cgroup"
    try:
        os.stat(path)
    except PermissionError:
        # Ours will do, if process 1 is within what it shows: then all paths are relative to one place.
        if any(group.startswith("/..") for group in groups(proc, 1).values()):
            raise
        return visit()
    return in_control_groups(path, visit)


def groups(proc: Proc, pid: int) -> Groups:
    """All of them, each hierarchy (proc(5), `/proc/<pid>/cgroup`). OSError, also for a line of no known shape.

    A pod may make groups within its own until the path is longer than an older kernel says (ENAMETOOLONG).
    The node's own are never that deep, so it is in a container, whose ID is not known.
    """
    found: Groups = {}
    try:
        text = os.fsdecode(read_bounded(f"{proc.path}/{pid}/cgroup", _LIMIT))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or pid == 1:
            raise
        return {"": f"/{_UNTOLD}"}
    for line in text.split("\n"):
        if not line:
            continue
        fields = line.split(":", 2)
        if len(fields) != 3 or not fields[2].startswith("/"):
            raise OSError(errno.EBADMSG, "a line of it cannot be parsed", f"{proc.path}/{pid}/cgroup")
        found[fields[1]] = fields[2]
    return found


def top(first: Groups) -> Groups:
    """The group that holds the whole node, in each hierarchy: process 1's, less the leaf that is its own alone."""
    return {name: _above(path) if path.rpartition("/")[2] in _LEAVES else path for name, path in first.items()}


def place(own: Groups, tops: Groups, openrc: bool = False) -> Place:
    """Whether a process with these groups is the node's, in all hierarchies. `openrc`: this node's services are its."""
    if not own:
        return Place(because(Code.CONTROL_GROUP_UNSEEN))
    unit = ""
    for name, path in own.items():
        if name not in tops:
            return Place(because(Code.OTHER_HIERARCHY, hierarchy=name or "version 2"))
        foreign, named = _place(_below(path, tops[name]), openrc)
        if foreign is not None:
            return Place(because(foreign, path=path))
        if name in _UNIT_HIERARCHIES:
            unit = named or unit
    return Place(unit=unit)


def of_a_user(own: Groups, tops: Groups) -> bool:
    """Whether it is in one of those that users start their programs in, whatever they have made below it."""
    paths = [_below(path, tops[name]) for name, path in own.items() if name in tops]
    return any("user.slice" in takewhile(lambda part: part.endswith(".slice"), p.split("/")[1:]) for p in paths)


def _place(path: str, openrc: bool) -> tuple[Code | None, str]:
    """Why a group is none of the node's own, or the service it belongs to, "" for none."""
    if path in ("/", *(f"/{leaf}" for leaf in _LEAVES)):
        return None, ""
    parts = path.strip("/").split("/")
    if path == "" or any(_CONTAINER.search(part) for part in parts):
        return Code.CONTAINER_CONTROL_GROUP, ""
    if _SESSION.fullmatch(path) or parts[:2] == ["user.slice", "user-0.slice"]:
        return None, ""  # started by hand, by root or through sudo; who else is in there has another user ID
    if openrc and len(parts) == 1:
        return None, parts[0].removeprefix("openrc.")
    rest = list(parts)
    while rest and rest[0].endswith(".slice"):
        if rest.pop(0) in _SLICES:
            return Code.USER_CONTROL_GROUP, ""
    if rest and rest[0].endswith(".service"):
        return None, rest[0]
    return Code.NO_SERVICE_CONTROL_GROUP, ""


def _below(path: str, above: str) -> str:
    """The path relative to the node's top; "" where it is not below that."""
    if above == "/":
        return "" if path.startswith("/..") else path
    if path == above:
        return "/"
    return path.removeprefix(above) if path.startswith(f"{above}/") else ""


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"


# A unit's processes.


def unit_processes(proc: Proc, unit: str) -> tuple[int, ...] | None:
    """The processes of a system unit; 0 stands for one that is out of sight. None where there is no such unit.

    `cgroup.procs` of its group (cgroups(7)), and nothing that a process says of itself. Usually that group is in
    system.slice; a Slice= may have moved it, so the slices are searched, and not what is within services, scopes and
    pods. OSError where the groups cannot be read.
    """
    own = top(groups_of_first(proc))
    root = f"{proc.path}/1/root/sys/fs/cgroup"
    for mount, hierarchy in zip(_MOUNTS, ("", "", "name=systemd"), strict=True):
        above = f"{root}/{mount}{own.get(hierarchy, '')}".rstrip("/")
        if hierarchy not in own or not os.path.exists(f"{above}/cgroup.procs"):
            continue
        usual = f"{above}/system.slice/{unit}"
        found: set[int] = set()
        directories = [usual] if os.path.exists(f"{usual}/cgroup.procs") else list(_search(above, unit))
        for directory in directories:
            found.update(int(word) for word in read_bounded(f"{directory}/cgroup.procs", _LIMIT).split())
        if directories:
            # Machines in containers may have theirs in slices beside this one's: what is in sight is this one's.
            return tuple(sorted(found if directories == [usual] else found - {0}))
    return None


def groups_of_first(proc: Proc) -> Groups:
    """Process 1's own groups, as it sees them itself. OSError."""
    return seen_from_the_node(proc, lambda: groups(proc, 1))


def _search(above: str, unit: str) -> Iterator[str]:
    """The unit's directory, wherever slices hold it. OSError (E2BIG) where there are more slices than any node has."""
    todo, seen = [above], 0
    while todo:
        directory = todo.pop()
        for entry in os.scandir(directory):
            seen += 1
            if seen > _MOST_DIRECTORIES:
                raise OSError(errno.E2BIG, "too many control groups", above)
            if entry.name == unit:
                yield entry.path
            elif entry.name.endswith(".slice") and entry.name not in _SLICES and "kubepods" not in entry.name:
                todo.append(entry.path)
