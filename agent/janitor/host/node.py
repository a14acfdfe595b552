"""The node that is looked at: its root directory, its /proc, its boot and its clocks. Standard library only."""

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

    `proc` and `boot_id` are Unknown where /proc is not this node's: a disk at rest, or another machine's. Files are
    then still read, and whatever needs a process or a boot says why it is Unknown.
    """

    root: str
    proc: Proc | Unknown
    boot_id: str | Unknown

    def path(self, path: str) -> str:
        """Where a path of the node is, as seen from here. OSError ELOOP for a circle of links."""
        return inside(self.root, path)

    def clock(self) -> Clock:
        """The clocks of the kernel that runs here, now."""
        return procfs.clock()

    def complete(self) -> "Node":
        """The same node with the whole of its root, where `root` has only parts of it (`procfs.node_root`).

        Only for what is read: writes go below `root`, which has what somebody has given to janitor.
        """
        return replace(self, root=procfs.node_root(self.root))


def find_node(root: str) -> Node:
    """The node at `root`. Never raises."""
    return node_with(root, procfs.find_proc(root))


def node_with(root: str, proc: Proc | Unknown) -> Node:
    """The node at `root` whose processes are in `proc`, which somebody has found before."""
    return Node(root, proc, procfs.boot_id(proc))


def files_only(root: str) -> Node:
    """A directory tree of which nothing but the files counts."""
    return Node(root, NOT_ASKED, NOT_ASKED)
