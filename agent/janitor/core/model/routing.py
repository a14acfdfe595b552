"""Policy routing as one look saw it: rules, routes, links, who made the rules, and who may delete them.

These values are part of the evidence (core/model/evidence.py). Nothing here decides.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from janitor.core.model.rules import Family, PolicyRule
from janitor.core.model.unknown import Unknown

MAIN: Final = 254
"""The main routing table (rtnetlink(7))."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `destination` is a prefix (`0.0.0.0/0` for the default); `gateway` and `device` are "" if absent."""

    destination: str
    gateway: str
    device: str
    metric: int = 0
    table: int = MAIN
    protocol: int = 0  # rtnetlink(7), rtm_protocol; not in /proc/net
    kind: str = "unicast"  # or blackhole, …

    @property
    def family(self) -> Family:
        """From the destination."""
        return 6 if ":" in self.destination else 4


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface. `addresses` have a prefix length."""

    index: int
    name: str
    up: bool
    kind: str  # bridge, veth, ipip, …; "" for a physical interface
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleOwner:
    """A running process that a profile names as the owner of its rules; `started_ns` is on CLOCK_BOOTTIME."""

    name: str
    pid: int
    started_ns: int
    arguments: tuple[str, ...]
    configuration: str  # the CNI configuration it maintains, as the node sees it; "" if none


@dataclass(frozen=True, slots=True)
class NetworkdSetting:
    """One setting of networkd.conf, resolved as systemd does: the last file that has it wins."""

    name: str
    value: str
    file: str
    line: int
    changed_ns: int  # the file's mtime, since the epoch


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A `.network` file: its [Match] names, and whether networkd may manage its links."""

    path: str
    names: tuple[str, ...]
    unmanaged: bool
    keeps: str  # KeepConfiguration=
    declares_rules: bool = False  # it has a [RoutingPolicyRule] section


@dataclass(frozen=True, slots=True)
class ManagedLink:
    """networkd's state of a link in /run/systemd/netif/links. `changed_ns` is when networkd last wrote it."""

    index: int
    network_file: str
    state: str
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Networkd:
    """systemd-networkd on this node. `pid` is 0 if it does not run."""

    pid: int
    started_ns: int  # since the epoch, by the current wall clock
    version: str  # "252.38-1~deb12u1", or a part of it; "" if unknown
    settings: tuple[NetworkdSetting, ...]
    network_files: tuple[NetworkFile, ...]
    links: tuple[ManagedLink, ...]
    problems: tuple[str, ...] = ()  # lines and files of `network_files` that could not be parsed
    setting_problems: tuple[str, ...] = ()  # the same for `settings`


@dataclass(frozen=True, slots=True)
class Probe:
    """The kernel's route for a pod's packet to another node: `ip route get`."""

    destination: str
    source: str
    device: str
    table: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Breaker:
    """A rule that the daemon has stopped restoring, since when (CLOCK_BOOTTIME), and after how many restorations."""

    rule: PolicyRule
    restored: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Match:
    """One kind of rule. Unset fields match anything."""

    table: tuple[int, ...] = ()
    priority: tuple[int, int] | None = None  # from, to, inclusive
    source: Literal["", "pod-range", "any", "none"] = ""  # pod-range: one of the node's own pod ranges
    fwmark: Literal["", "any", "none"] = ""
    suppress_prefixlength: int | None = None
    self_heals_after: int | None = None  # seconds until its owner adds it again; None for never


@dataclass(frozen=True, slots=True)
class Alive:
    """How to tell that the owner is there and wants its rules. All conditions that are set must hold."""

    process: str = ""  # its name, as in /proc/<pid>/comm
    refused_by: tuple[str, ...] = ()  # arguments that turn off all its rules
    refused_by_family: dict[str, tuple[str, ...]] = field(default_factory=dict)  # these turn off family "4" or "6"
    asked_by_family: dict[str, str] = field(default_factory=dict)  # needed for rules of that family
    configuration: tuple[str, ...] = ()  # one of these files exists
    link: str = ""  # pattern of its links' names
    tables: tuple[int, ...] = ()  # tables that contain its links and routes


@dataclass(frozen=True, slots=True)
class Profile:
    """One owner of rules. `dynamic`: its rules come and go with pods, so an old record of them proves nothing."""

    name: str
    title: str
    enabled: bool = False
    dynamic: bool = False
    protocol: Literal["keep", "kernel"] = "keep"
    rules: tuple[Match, ...] = ()
    alive: Alive = field(default_factory=Alive)


@dataclass(frozen=True, slots=True)
class OwnedRule:
    """A rule, the profile of its owner, and which kind of the profile's rules it is."""

    rule: PolicyRule
    profile: Profile
    match: Match


@dataclass(frozen=True, slots=True)
class Routing:
    """Policy routing at one instant."""

    rules: tuple[PolicyRule, ...] | Unknown
    routes: tuple[Route, ...] | Unknown
    links: tuple[Link, ...] | Unknown
    owners: tuple[RuleOwner, ...] | Unknown
    networkd: tuple[Networkd, ...] | Unknown  # one, or empty if this node has none
    profiles: tuple[Profile, ...] = ()
    probes: tuple[Probe, ...] = ()
    breakers: tuple[Breaker, ...] = ()
