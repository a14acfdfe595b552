"""The node that janitor looks at: its root directory, /proc, boot ID and clocks. Standard library only."""

from dataclasses import dataclass, replace
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Clock, Unknown
from janitor.core.model.unknown import unseen
from janitor.host.files import inside
from janitor.host.kernel import procfs
from janitor.host.kernel.procfs import Proc

NOT_ASKED: Final = unseen(Code.ONLY_FILES_READ)


@dataclass(frozen=True, slots=True)
class Node:
    """What every reader of the node takes.

    `proc` and `boot_id` are Unknown if /proc is not this node's: for an unmounted node's disk, or another machine's.
    Files are still read then; anything that needs a process or the boot ID is Unknown with that reason.
    """

    root: str
    proc: Proc | Unknown
    boot_id: str | Unknown

    def path(self, path: str) -> str:
        """The node's `path` as janitor sees it. OSError (ELOOP) for a loop of links."""
        return inside(self.root, path)

    def clock(self) -> Clock:
        """The clocks of the running kernel, now."""
        return procfs.clock()

    def complete(self) -> "Node":
        """The same node with its complete root, if `root` has only parts of it (`procfs.node_root`).

        For reading only. Writes go below `root`, which contains what janitor was given.
        """
        return replace(self, root=procfs.node_root(self.root))


def find_node(root: str) -> Node:
    """The node at `root`. Never raises."""
    return node_with(root, procfs.find_proc(root))


def node_with(root: str, proc: Proc | Unknown) -> Node:
    """The node at `root`, with its already known processes."""
    return Node(root, proc, procfs.boot_id(proc))


def files_only(root: str) -> Node:
    """A directory tree of which only the files are used."""
    return Node(root, NOT_ASKED, NOT_ASKED)
