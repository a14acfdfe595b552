"""Changes that are no moving of files: a policy rule is made, a drop-in for systemd-networkd is written."""

import os

from janitor.core.action import Action
from janitor.core.evidence import Unknown
from janitor.core.outcome import Entry, Outcome
from janitor.core.rules import PolicyRule
from janitor.host import netlink, procfs
from janitor.host.files import inside, read_bounded, said
from janitor.host.journal import sync_directory
from janitor.host.namespaces import in_network

_LIMIT = 1 << 20


class NodeRepairs:
    """Does such changes to the node at `root`, and takes them back."""

    def __init__(self, root: str) -> None:
        self.root = root

    def do(self, action: Action, entry: Entry) -> Outcome:
        """Do it. Never raises."""
        try:
            if action.kind == "restore":
                return self._make_rule(action)
            return self._write(action, entry)
        except OSError as error:
            hint = "; it needs CAP_NET_ADMIN" if action.kind == "restore" and isinstance(error, PermissionError) else ""
            return Outcome(action, "failed", f"{said(error)}{hint}")

    def take_back(self, entry: Entry) -> str:
        """Undo it; "" or why it could not be. Never raises."""
        try:
            if entry.action["kind"] == "restore":
                return self._remove_rule(netlink.decode(bytes.fromhex(entry.action["content"])))
            return self._put_back(entry)
        except OSError as error:
            return said(error)

    # Rules.

    def _namespace(self) -> str:
        proc = procfs.find_proc(self.root)
        if isinstance(proc, Unknown):
            raise OSError(0, proc.reason)
        return f"{proc.path}/1/ns/net"

    def _make_rule(self, action: Action) -> Outcome:
        rule = netlink.decode(bytes.fromhex(action.content))

        def make() -> Outcome:
            socket = netlink.RuleSocket()
            try:
                # The kernel would take a second copy without a word, under another priority.
                if _copies(rule, socket):
                    return Outcome(action, "skipped", "somebody has made it meanwhile")
                made = socket.add(rule)
                if len(_copies(rule, socket)) > 1:
                    socket.remove(made)
                    return Outcome(action, "skipped", "its owner made it in the same moment")
                return Outcome(action, "done", f"with priority {made.priority}")
            finally:
                socket.close()

        return in_network(self._namespace(), make)

    def _remove_rule(self, rule: PolicyRule) -> str:
        def remove() -> str:
            socket = netlink.RuleSocket()
            try:
                copies = _copies(rule, socket)
                if len(copies) > 1:
                    return f"it is there {len(copies)} times, and which one is janitor's cannot be told"
                if copies:
                    socket.remove(copies[0])
                return ""
            finally:
                socket.close()

        return in_network(self._namespace(), remove)

    # Settings.

    def _write(self, action: Action, entry: Entry) -> Outcome:
        """Write the file whole or not at all; what was there before is kept in quarantine."""
        here = inside(self.root, action.directory)
        os.makedirs(here, mode=0o755, exist_ok=True)
        target, fresh = f"{here}/{action.name}", f"{here}/.{action.name}.new"
        try:
            before = read_bounded(target, _LIMIT)
            if before == action.content.encode():
                return Outcome(action, "done", "it was there already")
            _durable(inside(self.root, entry.quarantine), before)
        except FileNotFoundError:
            pass
        try:
            _durable(fresh, action.content.encode())
            os.rename(fresh, target)
        except OSError:
            if os.path.lexists(fresh):
                os.unlink(fresh)
            raise
        sync_directory(here)
        return Outcome(action, "done", "")

    def _put_back(self, entry: Entry) -> str:
        here = inside(self.root, str(entry.action["directory"]))
        target, kept = f"{here}/{entry.action['name']}", inside(self.root, entry.quarantine)
        try:
            if read_bounded(target, _LIMIT) != str(entry.action["content"]).encode():
                return "it has been changed since"
        except FileNotFoundError:
            return "it is gone"
        if os.path.lexists(kept):
            _durable(f"{target}.new", read_bounded(kept, _LIMIT))
            os.rename(f"{target}.new", target)
            os.unlink(kept)
        else:
            os.unlink(target)
        sync_directory(here)
        return ""


def _copies(rule: PolicyRule, socket: netlink.RuleSocket) -> list[PolicyRule]:
    return [one for one in socket.dump() if one.identity == rule.identity]


def _durable(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
