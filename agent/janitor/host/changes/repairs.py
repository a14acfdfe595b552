"""Changes that move no files: adding a policy rule, writing a drop-in for systemd-networkd."""

import errno
import os
import time
from dataclasses import replace
from typing import Final

from janitor.core.model.action import RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Unknown
from janitor.core.model.outcome import Entry, Outcome
from janitor.core.model.reason import Reason, because
from janitor.core.model.routing import Profile
from janitor.core.model.rules import PolicyRule
from janitor.core.rules.profiles import profile_of
from janitor.host.files import failed, read_bounded, sync_directory
from janitor.host.kernel import netlink, procfs
from janitor.host.kernel.namespaces import in_network
from janitor.host.node import Node
from janitor.host.routing import find_owners
from janitor.report.words import text

_LIMIT = 1 << 20
_BACKING_OFF: Final = (0.05, 0.15, 0.4)  # seconds; irregular, to get out of step with others


class NodeRepairs:
    """Makes and takes back such changes on the node."""

    def __init__(self, node: Node, profiles: tuple[Profile, ...]) -> None:
        self.node = node
        self.profiles = profiles

    def do(self, action: RestoreRule | WriteSetting, entry: Entry) -> Outcome:
        """Make the change. Never raises."""
        try:
            if isinstance(action, RestoreRule):
                return self._make_rule(action)
            return self._write(action, entry)
        except OSError as error:
            barred = isinstance(action, RestoreRule) and isinstance(error, PermissionError)
            return Outcome(
                action, "failed", failed(Code.REPAIR_NEEDS_NET_ADMIN if barred else Code.REPAIR_FAILED, error)
            )

    def take_back(self, action: RestoreRule | WriteSetting, entry: Entry) -> Reason | None:
        """Undo it. None, or why that was not possible. Never raises."""
        try:
            if isinstance(action, RestoreRule):
                rule = netlink.decode(bytes.fromhex(action.payload))
                return self._owner_since(rule, entry.at) or self._remove_rule(rule)
            return self._put_back(action, entry)
        except OSError as error:
            return failed(Code.UNDO_FAILED, error)

    # Rules.

    def _owner_since(self, rule: PolicyRule, at: float) -> Reason | None:
        """Why the rule now belongs to its owner, which has started since we added it and assumes it is its own."""
        found = profile_of(replace(rule, priority=1), self.profiles)  # the kernel chose a priority
        owners = find_owners(self.node, self.profiles)
        if found is None or isinstance(owners, Unknown):
            return None
        now = procfs.clock()
        boot = (now.realtime_ns - now.boottime_ns) / 1e9
        owner = found[0].alive.process
        started = [one for one in owners if one.name == owner and boot + one.started_ns / 1e9 > at]
        return because(Code.OWNER_STARTED, process=owner) if started else None

    def _namespace(self) -> str:
        if isinstance(self.node.proc, Unknown):
            raise OSError(errno.ENOENT, text(self.node.proc.reason))
        return f"{self.node.proc.path}/1/ns/net"

    def _make_rule(self, action: RestoreRule) -> Outcome:
        rule = netlink.decode(bytes.fromhex(action.payload))

        def make() -> Outcome:
            socket = netlink.RuleSocket()
            try:
                for wait_s in _BACKING_OFF:
                    # The kernel would silently accept a second copy under another priority.
                    if _copies(rule, socket):
                        return Outcome(action, "skipped", because(Code.RULE_MADE_MEANWHILE))
                    made = socket.add(rule)
                    if len(_copies(rule, socket)) == 1:
                        return Outcome(action, "done", because(Code.RULE_MADE, priority=made.priority))
                    socket.remove(made)
                    # The process that added the other copy may be backing off as well: see whether its copy stays.
                    time.sleep(wait_s)
                return Outcome(action, "skipped", because(Code.RULE_CONTENDED))
            finally:
                socket.close()

        return in_network(self._namespace(), make)

    def _remove_rule(self, rule: PolicyRule) -> Reason | None:
        def remove() -> Reason | None:
            socket = netlink.RuleSocket()
            try:
                copies = _copies(rule, socket)
                if len(copies) > 1:
                    return because(Code.RULE_TWICE, count=len(copies))
                if copies:
                    socket.remove(copies[0])
                return None
            finally:
                socket.close()

        return in_network(self._namespace(), remove)

    # Settings.

    def _write(self, action: WriteSetting, entry: Entry) -> Outcome:
        """Write the whole file or nothing. The previous file is kept in quarantine."""
        here = self.node.path(action.directory)
        os.makedirs(here, mode=0o755, exist_ok=True)
        target, fresh = f"{here}/{action.name}", f"{here}/.{action.name}.new"
        try:
            before = read_bounded(target, _LIMIT)
            if before == action.content.encode():
                return Outcome(action, "skipped", because(Code.SETTING_THERE))
            if os.path.islink(target):
                return Outcome(action, "failed", because(Code.SETTING_IS_LINK))
            os.link(target, self.node.path(entry.quarantine))
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
        return Outcome(action, "done")

    def _put_back(self, action: WriteSetting, entry: Entry) -> Reason | None:
        here = self.node.path(action.directory)
        target, kept = f"{here}/{action.name}", self.node.path(entry.quarantine)
        try:
            if read_bounded(target, _LIMIT) != action.content.encode():
                return because(Code.SETTING_CHANGED)
        except FileNotFoundError:
            return because(Code.SETTING_GONE)
        if os.path.lexists(kept):
            os.rename(kept, target)
        else:
            os.unlink(target)
        sync_directory(here)
        return None


def _copies(rule: PolicyRule, socket: netlink.RuleSocket) -> list[PolicyRule]:
    return [one for one in socket.dump() if one.identity == rule.identity]


def _durable(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
