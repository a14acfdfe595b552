"""Which control group a process is in, as process 1 of the node sees it, and what that says about whose it is.

The kernel shows a group relative to the reader's cgroup namespace (cgroup_namespaces(7)). A container sees its
neighbour as `/../../pod/id`, with no sign of Kubernetes. So groups are read in process 1's namespace. The groups of a
node's own processes are a short, known list. Those of pods are not: a runtime, a kubelet and an operator may name them
as they like. So any group that is not on the list counts as a container. Standard library only.
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
_UNIT_HIERARCHIES: Final = ("", "name=systemd")  # the hierarchies in which systemd keeps its units
_MOUNTS: Final = ("", "unified", "systemd")  # their mount points below /sys/fs/cgroup
_MOST_DIRECTORIES: Final = 4096
_UNTOLD: Final = "0" * 64

_T = TypeVar("_T")

Groups = dict[str, str]
"""A process's path in each hierarchy. "" is cgroup v2; the others have the names of their controllers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is. `unit` is its system service, "" for none; `why` is None for the node's own processes."""

    why: Reason | None = None
    unit: str = ""


def seen_from_the_node(proc: Proc, visit: Callable[[], _T]) -> _T:
    """Call `visit`, which reads groups, in process 1's cgroup namespace. OSError if not permitted."""
    path = f"{proc.path}/1/ns/cgroup"
    try:
        os.stat(path)
    except PermissionError:
        # Our own namespace works as well if process 1 is within it: all paths are then relative to one group.
        if any(group.startswith("/..") for group in groups(proc, 1).values()):
            raise
        return visit()
    return in_control_groups(path, visit)


def groups(proc: Proc, pid: int) -> Groups:
    """The groups of a process in all hierarchies (proc(5), `/proc/<pid>/cgroup`). OSError, also for an unknown format.

    A pod may nest groups until an older kernel cannot report the path (ENAMETOOLONG). The node's own groups are never
    that deep, so the process is in a container, whose ID is unknown.
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
    """The group that holds the whole node, in each hierarchy: process 1's, without the leaf for process 1 alone."""
    return {name: _above(path) if path.rpartition("/")[2] in _LEAVES else path for name, path in first.items()}


def place(own: Groups, tops: Groups, openrc: bool = False) -> Place:
    """Whether a process with these groups is the node's, in all hierarchies. `openrc`: services are OpenRC's."""
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
    """Whether it is in a group for users' programs (user.slice), whatever they have made below it."""
    paths = [_below(path, tops[name]) for name, path in own.items() if name in tops]
    return any("user.slice" in takewhile(lambda part: part.endswith(".slice"), p.split("/")[1:]) for p in paths)


def _place(path: str, openrc: bool) -> tuple[Code | None, str]:
    """Why a group is not one of the node's own, or the service it belongs to, "" for none."""
    if path in ("/", *(f"/{leaf}" for leaf in _LEAVES)):
        return None, ""
    parts = path.strip("/").split("/")
    if path == "" or any(_CONTAINER.search(part) for part in parts):
        return Code.CONTAINER_CONTROL_GROUP, ""
    if _SESSION.fullmatch(path) or parts[:2] == ["user.slice", "user-0.slice"]:
        return None, ""  # started by hand, by root or through sudo; other processes there have other user IDs
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
    """The path relative to the node's top group; "" if it is not below that."""
    if above == "/":
        return "" if path.startswith("/..") else path
    if path == above:
        return "/"
    return path.removeprefix(above) if path.startswith(f"{above}/") else ""


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"


# A unit's processes.


def unit_processes(proc: Proc, unit: str) -> tuple[int, ...] | None:
    """The processes of a system unit; 0 stands for a process that cannot be seen. None if there is no such unit.

    Reads `cgroup.procs` of its group (cgroups(7)), and nothing that a process says about itself. The group is usually
    in system.slice, but Slice= may have moved it. So the slices are searched, but not services, scopes and pods.
    OSError if the groups cannot be read.
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
            # A container that runs systemd may have the unit in a slice of its own; only visible processes are this
            # node's.
            return tuple(sorted(found if directories == [usual] else found - {0}))
    return None


def groups_of_first(proc: Proc) -> Groups:
    """Process 1's own groups, as process 1 sees them. OSError."""
    return seen_from_the_node(proc, lambda: groups(proc, 1))


def _search(above: str, unit: str) -> Iterator[str]:
    """The unit's directories, in any slice. OSError (E2BIG) if there are more groups than any node has."""
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
