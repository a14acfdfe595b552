"""observe -> diagnose: the only way from a node to a report.

Every command, and every end-to-end test, uses it. Nothing here decides or prints.
"""

import importlib
import pkgutil
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import janitor
from janitor import checks
from janitor.core.leases.diagnosis import Diagnosis
from janitor.core.leases.judgement import Judgement, judge
from janitor.core.leases.sightings import canonical
from janitor.core.model.action import GRACE_S
from janitor.core.model.evidence import (
    EVIDENCE_VERSION,
    CacheEntry,
    Clock,
    Endpoint,
    Evidence,
    LeaseDirectory,
    Network,
    Unknown,
    known,
)
from janitor.core.model.finding_ids import Family, FindingId, matching_ids
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.lease import canonical_address, parse_lease
from janitor.core.model.reason import Reason
from janitor.core.model.routing import Profile
from janitor.host import routing
from janitor.host.changes import saved_rules as mirror_note
from janitor.host.changes import state
from janitor.host.cni import cache as cni_cache
from janitor.host.cni import config as cni
from janitor.host.cni import leases, node_mark
from janitor.host.cni import reader as cni_reader
from janitor.host.kernel import mounts, netns, procfs
from janitor.host.kernel.net_tables import Asked as AskedAddresses
from janitor.host.kernel.processes import Asked, Spoken, spoken
from janitor.host.kernel.whose import Whose
from janitor.host.kubernetes import kubelet, node_config
from janitor.host.node import find_node
from janitor.host.runtime import cri, tasks

UNSEEN = {Family.LEASE: FindingId.SCAN001, Family.RULE: FindingId.SCAN002}
"""The finding that reports what a family could not look at."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where to look. `deadline_s` limits each call to a runtime; `clocks` is what the calling daemon has seen.

    `explained` are addresses to look for in addition to those of leases, caches, runtimes and ranges.
    """

    root: str = "/"
    cri_endpoints: tuple[str, ...] = ()
    configured_endpoints: tuple[str, ...] = ()
    data_dirs: tuple[str, ...] = ()
    program_dirs: tuple[str, ...] = ()
    ignore_namespaces: tuple[str, ...] = ()
    explained: tuple[str, ...] = ()
    deadline_s: float = 5.0
    profiles: tuple[Profile, ...] = ()
    node: node_config.Wanted = node_config.PLAIN
    clocks: state.ClockNote | None = None
    said_ours: bool = False  # core/model/node_mark.py


def observe(options: Options) -> Evidence:
    """One look at the node, in the order that the safety rule requires: leases, then owners, then the kernel.

    The lease of a pod that starts meanwhile was not read; a pod that ends meanwhile is still found by a later look.
    Reads only; never raises, whatever state the node is in.
    """
    root = options.root
    node = find_node(root)
    proc, whole = node.proc, node.complete()
    started = node.clock()
    whose = Whose(proc, whole.root) if isinstance(proc, procfs.Proc) else None
    wanted = kubelet.endpoints(node, options.cri_endpoints, options.configured_endpoints, whose)
    runtimes = [cri.introduce(node, address, origin, options.deadline_s, whose) for address, origin in wanted]
    cni_directories = tuple(d for runtime in runtimes for d in runtime.cni_directories)
    configuration = cni_reader.read_configuration(whole, cni_directories)
    networks = cni.read_networks(whole, configuration)
    cache = cni_cache.read_cache(node)

    paths = tuple(network.directory for network in known(networks))
    directories = leases.lease_directories(node, paths, options.data_dirs, mounts.own_mounts())
    views = (
        tuple(f"{proc.path}/{p.pid}/root" for r in runtimes for p in known(r.listeners))
        if isinstance(proc, procfs.Proc)
        else ()
    )
    directories = leases.compared(directories, node, views)
    endpoints = tuple(cri.ask(runtime, options.deadline_s) for runtime in runtimes)
    task_directories = tasks.task_directories(whole)
    if isinstance(proc, Unknown):
        witnesses, seen = Spoken(proc), netns.Witnessed(proc)
    else:
        witnesses = spoken(proc, _asked(directories, cache, endpoints))
        seen = netns.witnessed(proc, asked_addresses(networks, directories, cache, endpoints, options.explained))
    policy_routing = routing.read_routing(node, options.profiles, networks, mirror_note.open_breakers(node))
    # After everything that leases are judged by, so that the daemon has had time to record clock changes before it.
    clocks = _with(state.read_clock(node), options.clocks)
    stalled_ns = clocks.stalled_ns if isinstance(clocks, state.ClockNote) else 0
    # Last, because the judgement of leases does not need it and it may wait for answers.
    plugin_directories = tuple(dict.fromkeys(d for runtime in runtimes for d in runtime.plugin_directories))
    configured = node_config.read_safely(whole, options.node, configuration, plugin_directories)
    return Evidence(
        version=EVIDENCE_VERSION,
        janitor=janitor.__version__,
        node=(node_config.written_hostname(whole) if root != "/" else "") or socket.gethostname(),
        root=root,
        started=_without(started, stalled_ns),
        finished=_without(node.clock(), stalled_ns),
        boot_id=node.boot_id,
        networks=networks,
        plugin_dirs=plugin_directories,
        allowed_data_dirs=options.data_dirs,
        lease_directories=directories,
        cache=cache,
        endpoints=endpoints,
        namespaces=seen.namespaces,
        processes=witnesses.processes,
        task_directories=task_directories,
        ledger=state.read_ledger(node),
        observations=clocks if isinstance(clocks, Unknown) else state.read_observations(node),
        routing=policy_routing,
        node_config=configured,
        disowned=tuple(whose.disowned) if whose is not None else (),
        this_node=node_mark.this_node(node),
        said_ours=options.said_ours,
        overlooked=tuple(dict.fromkeys((*seen.overlooked, *witnesses.overlooked))),
        ignored_pods=options.ignore_namespaces,
        clock_set_ns=clocks if isinstance(clocks, Unknown) else clocks.set_ns if clocks else 0,
    )


def _with(noted: state.ClockNote | Unknown | None, seen: state.ClockNote | None) -> state.ClockNote | Unknown | None:
    """The note, merged with what the daemon saw itself: its note may have been removed or not written."""
    if seen is None or isinstance(noted, Unknown):
        return noted
    if noted is None:
        return seen
    return replace(noted, set_ns=max(noted.set_ns, seen.set_ns), stalled_ns=max(noted.stalled_ns, seen.stalled_ns))


def _without(now: Clock, stalled_ns: int) -> Clock:
    """Count time in which nothing ran as sleep."""
    return replace(now, asleep_ns=now.asleep_ns + stalled_ns)


def _asked(
    directories: tuple[LeaseDirectory, ...] | Unknown,
    cache: tuple[CacheEntry, ...] | Unknown,
    endpoints: tuple[Endpoint, ...],
) -> Asked:
    """The IDs to look for in processes: those of leases, cache entries and the runtimes' lists."""
    leased = [parse_lease(file) for directory in known(directories) for file in known(directory.entries)]
    ids = {lease.container_id for lease in leased}
    ids.update(entry.container_id for entry in known(cache))
    for endpoint in endpoints:
        ids.update(sandbox.container_id for sandbox in known(endpoint.sandboxes))
        ids.update(record.container_id for record in known(endpoint.records))
    fragments = {lease.fragment for lease in leased} - {""}
    return Asked(frozenset(ids - {""}), tuple(sorted(fragments)))


def asked_addresses(
    networks: tuple[Network, ...] | Unknown,
    directories: tuple[LeaseDirectory, ...] | Unknown,
    cache: tuple[CacheEntry, ...] | Unknown,
    endpoints: tuple[Endpoint, ...],
    explained: tuple[str, ...] = (),
) -> AskedAddresses:
    """The addresses to look for in namespaces: of leases, cache entries, runtimes, and the networks' subnets."""
    named = {*explained}
    named.update(file.name for directory in known(directories) for file in known(directory.entries))
    named.update(address.partition("/")[0] for entry in known(cache) for address in entry.addresses)
    for endpoint in endpoints:
        for sandbox in known(endpoint.sandboxes):
            named.update((*known(sandbox.addresses), *sandbox.former_addresses))
    addresses = {str(address) for name in named if (address := canonical_address(canonical(name))) is not None}
    subnets = {part.subnet for network in known(networks) for parts in known(network.range_sets) for part in parts}
    return AskedAddresses(frozenset(addresses), tuple(sorted(subnets)))


def diagnose(evidence: Evidence, grace_s: int = GRACE_S) -> Diagnosis:
    """Judge every lease and run every check. The worst findings come first; skipped checks are grouped by reason."""
    judgement = judge(evidence, grace_s)
    findings: list[Finding] = []
    by_reason: dict[Reason, set[FindingId]] = {}
    for check in load_checks():
        for answer in check(evidence, judgement):
            if isinstance(answer, Skipped):
                by_reason.setdefault(answer.reason, set()).update(answer.ids)
            else:
                findings.append(answer)
    findings.sort(key=lambda f: (-f.severity.rank, f.id, f.subject))
    skipped = (Skipped(tuple(sorted(ids)), reason) for reason, ids in by_reason.items())
    return Diagnosis(judgement, tuple(findings), tuple(skipped))


def select(diagnosis: Diagnosis, only: str | None) -> Diagnosis:
    """The part that `only` names by comma-separated IDs or families (`leases`), and what could not be seen of it.

    ValueError for an unknown name.
    """
    if only is None:
        return diagnosis
    wanted = matching_ids(only)
    unseen = {unseen for family, unseen in UNSEEN.items() if any(one.family is family for one in wanted)}
    parts = ((tuple(i for i in part.ids if i in wanted), part.reason) for part in diagnosis.skipped)
    return Diagnosis(
        diagnosis.judgement,
        tuple(f for f in diagnosis.findings if f.id in wanted | unseen),
        tuple(Skipped(ids, reason) for ids, reason in parts if ids),
    )


def about_leases(only: str | None) -> bool:
    """Whether `only` includes leases."""
    if only is None:
        return True
    wanted = matching_ids(only)
    return UNSEEN[Family.LEASE] in wanted or any(one.family is Family.LEASE for one in wanted)


@cache
def load_checks() -> list[Callable[[Evidence, Judgement], Iterable[Finding | Skipped]]]:
    """Every check. Each module of janitor.checks has one; there is no other registration.

    Loads them the first time. The daemon does so before it starts its passes, or each of their processes would.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))
    return [importlib.import_module(f"janitor.checks.{name}").check for name in names]
