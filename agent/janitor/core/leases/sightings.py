"""Which container IDs and addresses were seen where, indexed once per pass.

A sighting only adds a reason to keep a lease. `unseen` is what should have been looked at and could not be; while it is
not empty, nothing is freed (design: rules 2 and 3).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import chain

from janitor.core.model.codes import Code
from janitor.core.model.evidence import (
    CacheEntry,
    Endpoint,
    Evidence,
    Holder,
    NetworkNamespace,
    Sandbox,
    Unknown,
    known,
    unseen,
)
from janitor.core.model.reason import Reason, because


@dataclass(frozen=True, slots=True)
class Sightings:
    """The index. All keys are full 64-digit IDs or canonical addresses; nothing is matched by prefix.

    `alive` and `address_alive` say where an ID or an address was seen. `traces` are what a runtime left behind for an
    ID of which nothing runs. `claimed` names the sandbox, listed in any state, whose status or good libcni entry has
    the address: its DEL is still to come. `former` names the dead sandbox that last had an address; that is no reason
    to keep a lease. `unseen_addresses` is what was not seen and matters only for leases without a container ID, which
    only an address can identify.
    """

    sandboxes: dict[str, Sandbox]
    alive: dict[str, list[Reason]]
    traces: dict[str, list[Reason]]
    address_alive: dict[str, list[Reason]]
    claimed: dict[str, Sandbox]
    former: dict[str, Sandbox]
    cache_by_id: dict[str, list[CacheEntry]]
    unseen: tuple[Unknown, ...]
    unseen_addresses: tuple[Unknown, ...]


def decisive(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """The endpoints that must all answer: the named ones, or, if none is named, all that were found."""
    named = tuple(e for e in endpoints if e.origin != "well-known")
    return named or endpoints


def sightings_of(evidence: Evidence) -> Sightings:
    """Index one pass. Never raises."""
    sandboxes: dict[str, Sandbox] = {}
    listed: list[Sandbox] = []
    alive: defaultdict[str, list[Reason]] = defaultdict(list)
    traces: defaultdict[str, list[Reason]] = defaultdict(list)
    address_alive: defaultdict[str, list[Reason]] = defaultdict(list)
    cache_by_id: defaultdict[str, list[CacheEntry]] = defaultdict(list)

    for endpoint in known(evidence.endpoints):
        for sandbox in known(endpoint.sandboxes):
            listed.append(sandbox)
            # One runtime may answer at two sockets. Of two listings the READY one counts, with the addresses of both.
            if sandbox.ready or sandbox.container_id not in sandboxes:
                sandboxes[sandbox.container_id] = sandbox
            if sandbox.ready:
                alive[sandbox.container_id].append(because(Code.LISTED_READY, runtime=endpoint.runtime_name))
    for endpoint in known(evidence.endpoints):
        for record in known(endpoint.records):
            if record.container_id not in sandboxes:
                alive[record.container_id].append(
                    because(Code.CONTAINERD_RECORD, kind=record.kind, namespace=record.namespace)
                )
    for process in known(evidence.processes):
        if process.cni_container_id:
            command = process.cni_command or "CNI_COMMAND not set"
            at_work = because(Code.PLUGIN_AT_WORK, name=process.name, pid=process.pid, command=command)
            alive[process.cni_container_id].append(at_work)
        for container_id in process.container_ids:
            alive[container_id].append(because(Code.PROCESS_RUNS, pid=process.pid, name=process.name))
    for task in known(evidence.task_directories):
        traces[task.container_id].append(because(Code.TASK_DIRECTORY, path=task.path))
    for namespace in counted(evidence):
        for address in known(namespace.addresses):
            address_alive[address].append(because(Code.ADDRESS_UP, where=namespace.seen_at))
        for address in known(namespace.host_routes):
            address_alive[address].append(because(Code.HOST_ROUTE, where=namespace.seen_at))
    for entry in known(evidence.cache):
        cache_by_id[entry.container_id].append(entry)

    claimed = {
        address: sandbox
        for sandbox in sorted(listed, key=lambda s: s.ready)  # of two claims the READY one wins
        for address in chain(
            map(canonical, known(sandbox.addresses)),
            (
                canonical(a.partition("/")[0])
                for e in cache_by_id[sandbox.container_id]
                if not e.damage
                for a in e.addresses
            ),
        )
        if sandbox.network_mode != "node"  # its addresses are the host's
    }
    return Sightings(
        sandboxes, dict(alive), dict(traces), dict(address_alive), claimed,
        {address: sandbox for sandbox in listed for address in sandbox.former_addresses}, dict(cache_by_id),
        tuple(dict.fromkeys(_unseen(evidence))),
        tuple(dict.fromkeys(s.addresses for s in listed if isinstance(s.addresses, Unknown))),
    )  # fmt: skip


def given(evidence: Evidence) -> frozenset[str]:
    """Every address that a runtime, or an undamaged cache entry of a listed sandbox, gives to a sandbox."""
    sandboxes = [s for e in known(evidence.endpoints) for s in known(e.sandboxes)]
    listed = {sandbox.container_id for sandbox in sandboxes}
    cached = [a for e in known(evidence.cache) if not e.damage and e.container_id in listed for a in e.addresses]
    said = [address for sandbox in sandboxes for address in known(sandbox.addresses)]
    return frozenset(canonical(address.partition("/")[0]) for address in (*said, *cached))


def pods_of(holders: Iterable[Holder], evidence: Evidence) -> tuple[str, ...]:
    """The pods of these holders; "" for holders that are not a listed pod."""
    sandboxes = [s for e in known(evidence.endpoints) for s in known(e.sandboxes)]
    by_id = {sandbox.container_id: str(sandbox.pod) for sandbox in sandboxes}
    by_uid = {sandbox.pod.uid: str(sandbox.pod) for sandbox in sandboxes if sandbox.pod.uid}
    return tuple(dict.fromkeys(by_id.get(h.container_id) or by_uid.get(h.pod_uid) or "" for h in holders))


def _only(table: tuple[str, ...] | Unknown, addresses: frozenset[str]) -> tuple[str, ...] | Unknown:
    """The part of a table that counts. An unreadable table stays Unknown: the setting covers only its contents."""
    return table if isinstance(table, Unknown) else tuple(address for address in table if address in addresses)


def counted(evidence: Evidence) -> Iterator[NetworkNamespace]:
    """The namespaces, as far as they prove addresses alive.

    If only pods that the operator has named run in a namespace, it proves nothing about addresses that no pod was
    given.
    """
    addresses = given(evidence) if evidence.ignored_pods else frozenset()
    for namespace in known(evidence.namespaces):
        pods = pods_of(namespace.holders, evidence) if evidence.ignored_pods else ()
        if pods and all(pod in evidence.ignored_pods for pod in pods):
            yield replace(
                namespace,
                addresses=_only(namespace.addresses, addresses),
                host_routes=_only(namespace.host_routes, addresses),
            )
        else:
            yield namespace


def canonical(address: str) -> str:
    """An address as the kernel and host-local write it; anything else is returned unchanged."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _unseen(evidence: Evidence) -> Iterator[Unknown]:
    """What had to be seen before a lease may be called dead, and was not."""
    for part in (
        evidence.boot_id, evidence.networks, evidence.cache, evidence.endpoints,
        evidence.namespaces, evidence.processes, evidence.task_directories,
    ):  # fmt: skip
        if isinstance(part, Unknown):
            yield part
    # Damaged notes prove nothing; notes of a newer janitor may forbid something that this version does not know.
    for note in (evidence.ledger, evidence.observations):
        if isinstance(note, Unknown) and note.reason.code is Code.NEWER_NOTE:
            yield note
    if not isinstance(evidence.endpoints, Unknown):
        yield from _unseen_owners(evidence.endpoints)
    if evidence.namespaces == ():
        yield unseen(Code.NO_NAMESPACE)
    for namespace in counted(evidence):
        yield from (table for table in (namespace.addresses, namespace.host_routes) if isinstance(table, Unknown))


def _unseen_owners(endpoints: tuple[Endpoint, ...]) -> Iterator[Unknown]:
    if not endpoints:
        yield unseen(Code.NO_RUNTIME)
        return
    needed = decisive(endpoints)
    for endpoint in needed:
        for part in (endpoint.sandboxes, endpoint.records, endpoint.listeners):
            if isinstance(part, Unknown):
                yield part
    if all(e.origin == "well-known" and e.sandboxes == () for e in needed):
        yield unseen(Code.UNUSED_RUNTIME, address=needed[0].address)
