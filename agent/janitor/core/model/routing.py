"""What one look saw of policy routing: rules, routes, links, who made them, and who may wipe them.

All of it as values, and part of the evidence (core/model/evidence.py). Nothing here decides.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from janitor.core.model.rules import Family, PolicyRule
from janitor.core.model.unknown import Unknown

MAIN: Final = 254
"""The main routing table (rtnetlink(7))."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `destination` is a prefix (`0.0.0.0/0` for the default); `gateway` and `device` are "" for none."""

    destination: str
    gateway: str
    device: str
    metric: int = 0
    table: int = MAIN
    protocol: int = 0  # rtnetlink(7), rtm_protocol; /proc/net does not say it
    kind: str = "unicast"  # or blackhole, …

    @property
    def family(self) -> Family:
        """By its destination."""
        return 6 if ":" in self.destination else 4


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface. `addresses` are with prefix length."""

    index: int
    name: str
    up: bool
    kind: str  # bridge, veth, ipip, …; "" for a physical one
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleOwner:
    """A running process that a profile names as the owner of its rules; `started_ns` is on CLOCK_BOOTTIME."""

    name: str
    pid: int
    started_ns: int
    arguments: tuple[str, ...]
    configuration: str  # the CNI configuration it keeps, as the node names it; "" where it has none


@dataclass(frozen=True, slots=True)
class NetworkdSetting:
    """One setting of networkd.conf, as systemd reads its directories: the last file that has it wins."""

    name: str
    value: str
    file: str
    line: int
    changed_ns: int  # the file's mtime, since the epoch


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A `.network` file: its [Match] names, and whether it lets its links be managed."""

    path: str
    names: tuple[str, ...]
    unmanaged: bool
    keeps: str  # KeepConfiguration=
    declares_rules: bool = False  # it has a [RoutingPolicyRule]


@dataclass(frozen=True, slots=True)
class ManagedLink:
    """What networkd says of a link in /run/systemd/netif/links: `changed_ns` is when it last said so."""

    index: int
    network_file: str
    state: str
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Networkd:
    """systemd-networkd on this node. `pid` 0: it does not run."""

    pid: int
    started_ns: int  # since the epoch, by today's wall clock
    version: str  # "252.38-1~deb12u1", or what of it could be had; "" unknown
    settings: tuple[NetworkdSetting, ...]
    network_files: tuple[NetworkFile, ...]
    links: tuple[ManagedLink, ...]
    problems: tuple[str, ...] = ()  # lines and files of `network_files` that could not be understood
    setting_problems: tuple[str, ...] = ()  # likewise of `settings`


@dataclass(frozen=True, slots=True)
class Probe:
    """What the kernel says it would do with a pod's packet to another node: `ip route get`."""

    destination: str
    source: str
    device: str
    table: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Breaker:
    """A rule that the daemon has stopped to restore, since when (CLOCK_BOOTTIME), and after how often."""

    rule: PolicyRule
    restored: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Match:
    """One kind of rule. What is not named matches anything."""

    table: tuple[int, ...] = ()
    priority: tuple[int, int] | None = None  # from, to, inclusive
    source: Literal["", "pod-range", "any", "none"] = ""  # pod-range: one of the node's own
    fwmark: Literal["", "any", "none"] = ""
    suppress_prefixlength: int | None = None
    self_heals_after: int | None = None  # seconds until its owner makes it anew; None for never


@dataclass(frozen=True, slots=True)
class Alive:
    """How one knows that the owner is there and wants its rules. All that is named must hold."""

    process: str = ""  # its name, as in /proc/<pid>/comm
    refused_by: tuple[str, ...] = ()  # arguments with which it wants none of them
    refused_by_family: dict[str, tuple[str, ...]] = field(default_factory=dict)  # none of family "4" or "6"
    asked_by_family: dict[str, str] = field(default_factory=dict)  # without which it makes none of that family
    configuration: tuple[str, ...] = ()  # one of these files is there
    link: str = ""  # a pattern of the names of its links
    tables: tuple[int, ...] = ()  # the tables that its links and routes are in


@dataclass(frozen=True, slots=True)
class Profile:
    """One owner of rules. `dynamic`: they come and go with pods, so an old note of them is worth nothing."""

    name: str
    title: str
    enabled: bool = False
    dynamic: bool = False
    protocol: Literal["keep", "kernel"] = "keep"
    rules: tuple[Match, ...] = ()
    alive: Alive = field(default_factory=Alive)


@dataclass(frozen=True, slots=True)
class OwnedRule:
    """A rule, the profile of its owner, and which of the profile's kinds it is."""

    rule: PolicyRule
    profile: Profile
    match: Match


@dataclass(frozen=True, slots=True)
class Routing:
    """Policy routing, at one instant."""

    rules: tuple[PolicyRule, ...] | Unknown
    routes: tuple[Route, ...] | Unknown
    links: tuple[Link, ...] | Unknown
    owners: tuple[RuleOwner, ...] | Unknown
    networkd: tuple[Networkd, ...] | Unknown  # one, or none where this node has none
    profiles: tuple[Profile, ...] = ()
    probes: tuple[Probe, ...] = ()
    breakers: tuple[Breaker, ...] = ()
