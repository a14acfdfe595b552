"""Whether a data directory belongs to this node alone, to another node, or cannot be told. Pure; standard library only.

Nodes on one machine share its kernel. A node in a container (kind, LXC, nspawn, sysbox) may have been given the lease
directories of the machine's own node, or of another container. Its processes, its runtime and its network namespaces
say nothing about other users of these directories. So outside the machine's first PID namespace, neither the boot stage
nor age proves a lease dead, unless the operator has declared that the directories are this node's.

Two things do not prove ownership. A directory on this node's own `/` may be another node's as well, because no process
of an inner PID namespace can see who else uses a mount. This node's mark in the directory proves nothing either,
because whoever has a copy of the whole disk has the mark and the number on it.

A mark only ever forbids: in a directory with another node's mark nothing is freed, whatever the operator has declared.
"""

from dataclasses import dataclass
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.core.model.unknown import Unknown

KEY: Final = "data_dirs_are_ours"
"""The setting in janitor.toml by which the operator declares it."""

MARK: Final = ".janitor-node"
"""The mark's file name in a data directory. host-local creates network directories beside it and lists none of them."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A node as marks name it.

    `number` is its own, 32 hexadecimal digits, "" while it has none. `machine_id` stands for that of machine-id(5), ""
    if there is none; clones may share it. `first`: it is in the machine's first PID namespace.
    """

    number: str
    machine_id: str
    first: bool


def not_shown(node: tuple[Owner, ...] | Unknown, said_ours: bool) -> Reason | None:
    """Why it is not shown that this node alone uses its lease directories; None if it is shown."""
    if isinstance(node, Unknown):
        return because(Code.OWNER_UNKNOWN, node.reason)
    if said_ours or all(owner.first for owner in node):
        return None
    return because(Code.OWNERSHIP_NOT_SHOWN, key=KEY)


def another(data_dir: str, marks: tuple[Owner, ...] | Unknown, node: tuple[Owner, ...] | Unknown) -> Reason | None:
    """Why a data directory counts as another node's, by its mark; None if the mark does not say so."""
    if isinstance(marks, Unknown):
        return because(Code.MARK_UNREADABLE, marks.reason)
    if isinstance(node, Unknown):  # an unknown owner keeps the lease later, in `not_shown`
        return None
    for mark in marks:
        if not any(same(mark, owner) for owner in node):
            code = Code.MARK_OF_ANOTHER_NODE if mark.first else Code.MARK_OF_ANOTHER_CONTAINER
            return because(code, number=mark.number, path=f"{data_dir}/{MARK}")
    return None


def same(mark: Owner, node: Owner) -> bool:
    """Whether a mark names this node.

    A machine has one node in its first PID namespace, and the file system is local, so there the machine ID suffices: a
    node that has lost its number still recognises its directory. Cloned disks have equal numbers and marks, so a clone
    with a new machine ID recognises its own directory too. A container may be a clone in every other respect, so only
    its number counts.
    """
    if mark.first != node.first:
        return False
    if mark.number == node.number != "":
        return True
    return node.first and mark.machine_id == node.machine_id != ""
