"""All of the node's policy routing in one look: rules, routes, links, owners, networkd, and route lookups.

Reads only.
"""

import errno
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Network, Unknown, known
from janitor.core.model.routing import MAIN, Breaker, Link, Profile, Route, Routing, RuleOwner
from janitor.core.model.rules import PolicyRule
from janitor.core.model.unknown import unseen
from janitor.core.rules.profiles import bridge_ranges, configured_ranges
from janitor.host.cni.directories import SHARED
from janitor.host.files import printable, read_bounded, unknown
from janitor.host.kernel import iproute, netlink, patience
from janitor.host.kernel.holders import Register
from janitor.host.kernel.namespaces import in_network
from janitor.host.kernel.procfs import Proc
from janitor.host.kernel.whose import Whose
from janitor.host.node import Node
from janitor.host.systemd.networkd import read_networkd

_KUBE_ROUTER_FILE: Final = b"KUBE_ROUTER_CNI_CONF_FILE="
_PROBES: Final = 3
_LONGEST_S: Final = 5
_MOST_OF_ONE: Final = 16
_LIMIT = 1 << 20


def read_routing(
    node: Node,
    profiles: Sequence[Profile],
    networks: tuple[Network, ...] | Unknown,
    breakers: tuple[Breaker, ...] = (),
    *,
    probe: bool = True,
    seen: tuple[RuleOwner, ...] = (),
) -> Routing:
    """Read it once, in the node's network namespace. Reads only; never raises, whatever the node's state.

    `seen` are owners that were found recently. If each profile still has one of them, no search is made.
    """
    enabled = tuple(profile for profile in profiles if profile.enabled)
    proc = node.proc
    owners = find_owners(node, enabled, seen)
    networkd = read_networkd(node.complete())
    if isinstance(proc, Unknown):
        return Routing(proc, proc, proc, owners, networkd, enabled, (), breakers)
    try:
        rules, routes, links = in_network(f"{proc.path}/1/ns/net", lambda: _kernel(profiles))
    except OSError as error:
        nothing = unknown(Code.CANNOT_ENTER_NODE_NETWORK, error, path=f"{proc.path}/1/ns/net")
        return Routing(nothing, nothing, nothing, owners, networkd, enabled, (), breakers)
    routing = Routing(rules, routes, links, owners, networkd, enabled, (), breakers)
    questions = _questions(routing, configured_ranges(routing, networks)) if probe else []
    try:
        probes = in_network(f"{proc.path}/1/ns/net", lambda: tuple(iproute.route_get(*q) for q in questions))
    except OSError:
        probes = ()  # they are only an illustration
    return replace(routing, probes=probes)


def _kernel(
    profiles: Sequence[Profile],
) -> tuple[tuple[PolicyRule, ...] | Unknown, tuple[Route, ...] | Unknown, tuple[Link, ...] | Unknown]:
    rules: tuple[PolicyRule, ...] | Unknown
    routes: tuple[Route, ...] | Unknown
    links: tuple[Link, ...] | Unknown
    try:
        socket = netlink.RuleSocket()
        try:
            rules = socket.dump()
        finally:
            socket.close()
    except OSError as error:
        rules = unknown(Code.CANNOT_READ_RULES, error)
    tables = {table for profile in profiles for match in profile.rules for table in match.table}
    tables |= {rule.table for rule in known(rules)} | {MAIN}
    try:
        links = iproute.links()
        routes = iproute.routes(frozenset(tables) - {iproute.LOCAL}, known(links))
    except OSError as error:
        links = routes = unknown(Code.CANNOT_READ_LINKS, error)
    return rules, routes, links


def find_owners(
    node: Node,
    profiles: Sequence[Profile],
    seen: tuple[RuleOwner, ...] = (),
    longest_s: float = _LONGEST_S,
) -> tuple[RuleOwner, ...] | Unknown:
    """The running processes that profiles name, longest-running first. Unknown without a /proc.

    Any process may use a name, so only those count that can make rules in the node's network (whose.py). If one of a
    name is in a system service, only those in system services count: a pod of that name must not speak for the real
    owner. `seen` as for `read_routing`: pods decide how many processes there are, and rules cannot wait.
    """
    proc = node.proc
    if isinstance(proc, Unknown):
        return proc
    wanted = {profile.alive.process: profile for profile in profiles if profile.alive.process}
    whose, register = Whose(proc), Register(proc)
    found: list[tuple[bool, RuleOwner]] = []
    pids = [owner.pid for owner in seen if is_still(owner, node)]
    if {owner.name for owner in seen if owner.pid in pids} != set(wanted):
        try:
            pids = proc.pids()
        except OSError as error:
            return unknown(Code.CANNOT_LIST_PROCESSES, error, path=proc.path)
    asked: Counter[str] = Counter()
    until = time.monotonic() + longest_s
    for pid in pids:
        if time.monotonic() > until:
            return unseen(Code.TOO_MANY_PROCESSES_FOR_RULES, seconds=f"{longest_s:g}")
        try:
            profile = wanted.get(proc.comm(pid))
            if profile is None or _too_many(pid, register, asked):
                continue
            one = patience.ask(pid, partial(_owner, node, proc, pid, profile, whose))
            found += [one] if one is not None else []
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except ValueError as error:
            return unseen(Code.CANNOT_READ_PROCESS, pid=pid, name=proc.name(pid), error=str(error))
        except OSError as error:
            if not os.path.exists(f"{proc.path}/{pid}"):
                continue  # the kernel returns EACCES for a process that ends while it is read
            # Any pod may use the name and block being read (ETIMEDOUT). A real owner answers.
            if error.errno != errno.ETIMEDOUT or not register.whose(pid).confined:
                return unknown(Code.CANNOT_READ_PROCESS, error, pid=pid, name=proc.name(pid))
    in_units = {owner.name for served, owner in found if served}
    owners = [owner for served, owner in found if served or owner.name not in in_units]
    return tuple(sorted(owners, key=lambda owner: owner.started_ns))


def _too_many(pid: int, register: Register, asked: Counter[str]) -> bool:
    """Whether more processes of its pod were read than any owner of rules runs: a pod may have any number."""
    owner = register.whose(pid)
    asked[owner.share] += 1
    return owner.confined and asked[owner.share] > _MOST_OF_ONE


def _owner(node: Node, proc: Proc, pid: int, profile: Profile, whose: Whose) -> tuple[bool, RuleOwner] | None:
    """What it says, and whether it is in a system service; None if it cannot make rules. OSError or ValueError."""
    if not whose.makes_rules(pid):
        return None
    words = read_bounded(f"{proc.path}/{pid}/cmdline", _LIMIT).split(b"\0")
    arguments = tuple(printable(os.fsdecode(word)) for word in words[1:] if word.startswith(b"--"))
    served = whose.in_system_unit(pid)
    configuration = _configuration(node, proc, pid, profile, contained=not served and whose.contained(pid))
    return served, RuleOwner(profile.alive.process, pid, proc.started_ns(pid), arguments, configuration)


def is_still(owner: RuleOwner, node: Node) -> bool:
    """Whether this very process still runs."""
    proc = node.proc
    if isinstance(proc, Unknown):
        return False
    try:
        return patience.ask(owner.pid, lambda: proc.started_ns(owner.pid)) == owner.started_ns
    except OSError:
        return False


def _configuration(node: Node, proc: Proc, pid: int, profile: Profile, *, contained: bool) -> str:
    """The path of the process's CNI configuration: from its environment, or the first usual one that exists.

    From a pod's environment, only the name of a file in the node's own directory is accepted. "" if there is none;
    OSError if that cannot be determined.
    """
    environment = read_bounded(f"{proc.path}/{pid}/environ", _LIMIT).split(b"\0")
    named = [os.fsdecode(w.removeprefix(_KUBE_ROUTER_FILE)) for w in environment if w.startswith(_KUBE_ROUTER_FILE)]
    named = [path for path in named if not contained or os.path.split(path)[0] == SHARED]
    candidates, whole = (*named, *profile.alive.configuration), node.complete()
    return next((printable(path) for path in candidates if _is_there(whole.path(path))), "")


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _questions(routing: Routing, configured: tuple[str, ...] | Unknown) -> list[tuple[str, str, str]]:
    """(destination, source, interface) to look up: the nodes in table 77, from a pod's address."""
    if not any(link.name == "kube-bridge" for link in known(routing.links)):
        return []
    questions, both = [], set(known(configured)).intersection(bridge_ranges(routing))
    for family in (4, 6):
        sources = [ip_network(r) for r in sorted(both) if ip_network(r).version == family]
        nodes = [r.destination.partition("/")[0] for r in known(routing.routes) if (r.table, r.family) == (77, family)]
        questions += [(node, str(source[2]), "kube-bridge") for source in sources[:1] for node in nodes[:_PROBES]]
    return [q for q in questions if ip_address(q[0]).version == ip_address(q[1]).version]
