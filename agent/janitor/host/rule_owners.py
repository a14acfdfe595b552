"""Which rules are wanted, and by whom: the owners' processes, configuration, links and routes, as last read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from janitor.core.model.evidence import Clock, Unknown, known
from janitor.core.model.reason import Reason
from janitor.core.model.routing import OwnedRule, Profile, Routing, RuleOwner
from janitor.core.model.rules import PolicyRule
from janitor.core.rules.corroboration import Unwatched, missing_evidence
from janitor.core.rules.profiles import SECOND, OwnersSeen, configured_ranges, not_wanted
from janitor.core.rules.rule_plan import GoneRule, gone_rules
from janitor.host.cni import config as cni
from janitor.host.cni.reader import read_configuration
from janitor.host.kernel.procfs import clock
from janitor.host.node import Node
from janitor.host.routing import find_owners, is_still, read_routing

_STEP_NS: Final = 2 * SECOND
_SEARCH_NS: Final = 50 * SECOND
"""How often all processes are searched for owners of rules while the known owners still run."""

_NAME_NS: Final = 10 * SECOND
_NAME_S: Final = 0.05
"""How often, and how long, they are searched for a log line when a known owner has ended: rules cannot wait."""


@dataclass(slots=True)
class Owners:
    """Call `refresh` first. `blind`: the host's processes cannot be seen, so none counts as missing."""

    node: Node
    profiles: tuple[Profile, ...]
    blind: bool = False
    routing: Routing = field(init=False)
    looked_ns: int = 0  # time of the last refresh, CLOCK_BOOTTIME
    declared: bool = False  # whether systemd-networkd's configuration declares rules of its own, when last seen
    _configured: tuple[str, ...] | Unknown = ()
    _owners: tuple[RuleOwner, ...] = ()
    _searched_ns: int = 0  # time of the last search of all processes, CLOCK_BOOTTIME
    _named: tuple[RuleOwner, ...] = ()  # found by `likely`
    _named_ns: int = 0  # time of that search, CLOCK_BOOTTIME
    _seen: dict[str, int] = field(default_factory=dict)  # when each profile's process was last seen, CLOCK_BOOTTIME
    _last: dict[str, RuleOwner] = field(default_factory=dict)  # the process that was seen then

    def refresh(self) -> None:
        """Read everything again. Takes tens of milliseconds. Never raises, whatever the node's state."""
        self.looked_ns = now = clock().boottime_ns
        whole = self.node.complete()
        networks = cni.read_networks(whole, read_configuration(whole, ()))
        if now - self._searched_ns > _SEARCH_NS:
            self._owners, self._searched_ns = (), now
        self.routing = read_routing(self.node, self.profiles, networks, probe=False, seen=self._owners)
        self._owners = known(self.routing.owners)
        self._configured = configured_ranges(self.routing, networks)
        unseen = isinstance(self.routing.owners, Unknown)
        for profile in self.profiles:
            if unseen or profile.alive.process not in self._seen:
                self._seen[profile.alive.process] = now  # a process that cannot be searched for is not missing
        for owner in reversed(known(self.routing.owners)):  # the longest-running one comes last and is kept
            self._seen[owner.name] = now
            self._last[owner.name] = owner
        if not isinstance(self.routing.networkd, Unknown):
            self.declared = any(file.declares_rules for one in self.routing.networkd for file in one.network_files)

    def likely(self, profile: Profile) -> RuleOwner | None:
        """The running process of the profile's owner; the longest-running one of several.

        Used only in log lines; no decision depends on it. If the known process has ended, another one is searched for.
        """
        now = clock().boottime_ns
        found = self._running(profile)
        if found is None and profile.alive.process and now - self._named_ns > _NAME_NS:
            self._named_ns = now
            self._named = known(find_owners(self.node, self.profiles, longest_s=_NAME_S))
            found = self._running(profile)
        return found

    def _running(self, profile: Profile) -> RuleOwner | None:
        seen = (*known(self.routing.owners), *self._named)
        return next((one for one in seen if one.name == profile.alive.process and is_still(one, self.node)), None)

    @property
    def networkd(self) -> int:
        """The process ID of systemd-networkd; 0 if none was seen."""
        return next((networkd.pid for networkd in known(self.routing.networkd)), 0)

    def gone(self) -> list[GoneRule]:
        """Rules that their owner must have made, and that do not exist."""
        return gone_rules(self._view())

    def why_not(self, owned: OwnedRule) -> tuple[Reason, ...] | Unknown:
        """Why nobody wants the rule any more; empty if somebody does. Unknown if not everything could be seen."""
        profile = owned.profile
        away = 0.0 if self.blind else (clock().boottime_ns - self._seen.get(profile.alive.process, 0)) / SECOND
        last = self._last.get(profile.alive.process)
        return not_wanted(owned, self._view(), away, last)

    def why_not_networkd(
        self, owned: OwnedRule, before: Sequence[PolicyRule], there: Sequence[PolicyRule], since: Clock
    ) -> tuple[Reason, ...] | Unknown:
        """What speaks against networkd as the one that deleted the rule, when nobody saw the deletion."""
        now = clock()
        since_ns = since.boottime_ns + now.realtime_ns - now.boottime_ns  # by the current wall clock
        clock_set = abs(since_ns - since.realtime_ns) > _STEP_NS
        unwatched = Unwatched(tuple(before), tuple(there), since_ns, now.realtime_ns, clock_set)
        return missing_evidence(owned, self._view(), unwatched)

    def _view(self) -> OwnersSeen:
        return OwnersSeen(self.routing, self._configured, self.blind)
