"""Whose a data directory is: this node's alone, another node's, or not to be told. Pure; standard library only.

Nodes of one machine share its kernel: one in a container (kind, LXC, nspawn, sysbox) may have been given the lease
directories of the machine's own node, or of another container's. Its processes, its runtime and its network namespaces
say nothing of whoever else uses them. So outside of the machine's first PID namespace no lease is proven dead, neither
by the boot stage nor by its age, unless the operator has said that the directories are this node's.

What does not show it: that they lie on this node's own `/`, because that may be another node's as well, and no process
of an inner PID namespace can see by whom else a mount is used; and that they bear this node's mark, because whoever has
the whole disk has the mark and the number on it.

A mark only ever takes away: in a directory that bears another node's, nothing is freed, whatever the operator has said.
"""

from dataclasses import dataclass
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.reason import Reason, because
from janitor.core.model.unknown import Unknown

KEY: Final = "data_dirs_are_ours"
"""The operator's word for it, in janitor.toml."""

MARK: Final = ".janitor-node"
"""The mark's name in a data directory. host-local makes networks' directories beside it and lists none of them."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A node as marks name it.

    `number` is its own, 32 hexadecimal digits, "" while it has none. `machine_id` stands for that of machine-id(5), ""
    where there is none: clones may have the same. `first` is whether it is in the machine's first PID namespace.
    """

    number: str
    machine_id: str
    first: bool


def not_shown(node: tuple[Owner, ...] | Unknown, said_ours: bool) -> Reason | None:
    """Why it is not shown that this node alone uses its lease directories; None where it is."""
    if isinstance(node, Unknown):
        return because(Code.OWNER_UNKNOWN, node.reason)
    if said_ours or all(owner.first for owner in node):
        return None
    return because(Code.OWNERSHIP_NOT_SHOWN, key=KEY)


def another(data_dir: str, marks: tuple[Owner, ...] | Unknown, node: tuple[Owner, ...] | Unknown) -> Reason | None:
    """Why a data directory is to be taken for another node's, by its mark; None where the mark does not say so."""
    if isinstance(marks, Unknown):
        return because(Code.MARK_UNREADABLE, marks.reason)
    if isinstance(node, Unknown):  # what cannot be seen keeps the lease further down
        return None
    for mark in marks:
        if not any(same(mark, owner) for owner in node):
            code = Code.MARK_OF_ANOTHER_NODE if mark.first else Code.MARK_OF_ANOTHER_CONTAINER
            return because(code, number=mark.number, path=f"{data_dir}/{MARK}")
    return None


def same(mark: Owner, node: Owner) -> bool:
    """Whether a mark names this node.

    A machine has one node in its first PID namespace, and the file system is local: there the machine ID suffices, and
    a node that has lost its number knows its directory again. Disks that were cloned have number and mark alike, so
    a clone with a new machine ID knows its own too. A container may be a clone in every other respect, so only its
    number counts.
    """
    if mark.first != node.first:
        return False
    if mark.number == node.number != "":
        return True
    return node.first and mark.machine_id == node.machine_id != ""
