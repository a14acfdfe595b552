"""Policy rules (`ip rule`) as values: their identity and their order.

A rule's identity is what it does to a packet: family, selectors, action, table, suppressors. Priority and protocol are
not part of it: kube-router lets the kernel choose the priority, and the kernel treats rules that differ only in one of
these as different (net/core/fib_rules.c, rule_exists).
"""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal

from janitor.core.model.fix import Command

RTPROT_UNSPEC, RTPROT_KERNEL, RTPROT_STATIC = 0, 2, 4
"""rtnetlink(7), rtm_protocol. systemd-networkd treats every rule as foreign except those of the kernel."""

Family = Literal[4, 6]
Identity = tuple[Family, tuple[tuple[str, str], ...], str, int]
Exact = tuple[Identity, int, int]


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One rule of one family.

    `selectors` are what it matches and suppresses, in the words of ip-rule(8), in a fixed order; an attribute that
    janitor does not know is included with its bytes in hex. `payload` is the rule as the kernel sends it (struct
    fib_rule_hdr and its attributes); sent back, it makes exactly the same rule again.
    """

    family: Family
    priority: int
    protocol: int
    selectors: tuple[tuple[str, str], ...]
    action: str
    table: int
    payload: bytes

    @property
    def identity(self) -> Identity:
        """What it does to a packet, regardless of priority and protocol."""
        return (self.family, self.selectors, self.action, self.table)

    @property
    def exact(self) -> Exact:
        """What the kernel tells rules apart by: it never holds two that are equal in this."""
        return (self.identity, self.priority, self.protocol)

    @property
    def foreign(self) -> bool:
        """Whether networkd treats it as foreign. It leaves the kernel's own rules alone."""
        return self.protocol != RTPROT_KERNEL

    def value(self, selector: str) -> str:
        """The value of a selector, "" if the rule does not have it."""
        return next((value for name, value in self.selectors if name == selector), "")

    def __str__(self) -> str:
        return f"{self.priority}: {self.words}"

    @property
    def words(self) -> str:
        """The rule without its priority, in the words of `ip rule`."""
        return " ".join(self._words())

    @property
    def adding(self) -> Command:
        """The command that adds it."""
        return self._command("add")

    @property
    def removing(self) -> Command:
        """The command that deletes it."""
        return self._command("del")

    def _words(self) -> list[str]:
        selectors = list(self.selectors)
        if not self.value("from"):
            selectors.insert(int(selectors[:1] == [("not", "")]), ("from", "all"))
        words = [word for selector in selectors for word in selector if word]
        return [*words, "lookup", str(self.table)] if self.action == "lookup" else [*words, self.action]

    def _command(self, verb: str) -> Command:
        family = ("-6",) if self.family == 6 else ()
        priority = ("priority", str(self.priority)) if self.priority else ()
        return Command.of("ip", *family, "rule", verb, *priority, *self._words())


@dataclass(frozen=True, slots=True)
class Step:
    """One message to the kernel."""

    do: Literal["add", "remove"]
    rule: PolicyRule


def replay(wanted: Sequence[PolicyRule], there: Sequence[PolicyRule], ours: frozenset[PolicyRule]) -> list[Step]:
    """The steps that turn `there` into `wanted`, in this order. Only rules in `ours` are removed, to be added again.

    The kernel puts a new rule after those of equal priority. So a rule that has to come before one of them is added
    first, and the other is removed and added again. A rule that somebody has added again under another priority counts
    as present: there must not be two copies where there was one.
    """
    present = Counter(rule.identity for rule in there)
    intended = Counter(rule.identity for rule in wanted)
    exact = {rule.exact for rule in there}
    steps: list[Step] = []
    late: set[tuple[Family, int]] = set()  # where a rule was missing: what follows has to move behind it
    for rule in wanted:
        place = (rule.family, rule.priority)
        if rule.exact not in exact:
            if present[rule.identity] < intended[rule.identity]:
                present[rule.identity] += 1
                late.add(place)
                steps.append(Step("add", rule))
        elif place in late and rule in ours:
            steps += [Step("remove", rule), Step("add", rule)]
    return steps


def duplicates(rules: Sequence[PolicyRule]) -> list[list[PolicyRule]]:
    """Groups of rules that do the same. Rules that exist once are left out."""
    groups: dict[Identity, list[PolicyRule]] = {}
    for rule in rules:
        groups.setdefault(rule.identity, []).append(rule)
    return [group for group in groups.values() if len(group) > 1]


def derived(source: str, table: int, protocol: int = RTPROT_UNSPEC) -> PolicyRule:
    """The rule `from source lookup table` as iproute2 and kube-router add it: without a priority (0 here).

    The kernel then chooses the priority. The payload is struct fib_rule_hdr (linux/fib_rules.h) with its attributes.
    """
    network = ip_network(source)
    address = network.network_address.packed
    family: Family = 4 if network.version == 4 else 6
    header = struct.pack("=8BI", 2 if family == 4 else 10, 0, network.prefixlen, 0, 0, 0, 0, 1, 0)
    attributes = struct.pack("=HH", 4 + len(address), 2) + address + struct.pack("=HHI", 8, 15, table)
    if protocol != RTPROT_UNSPEC:
        attributes += struct.pack("=HHB3x", 5, 21, protocol)
    return PolicyRule(family, 0, protocol, (("from", str(network)),), "lookup", table, header + attributes)
