"""SCAN003: something keeps many leases, by addresses or routes that no runtime gave it, or by naming containers."""

from collections import defaultdict
from collections.abc import Hashable, Iterator

from janitor.core.leases.judgement import Judgement
from janitor.core.leases.sightings import decisive, given, pods_of
from janitor.core.model.addresses import in_ranges
from janitor.core.model.evidence import Evidence, NetworkNamespace, Process, Unknown, known
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Command, Fix, Snippet
from janitor.core.model.lease import canonical_address
from janitor.core.model.text import count, listing

_MANY = 4  # a pod that its runtime has forgotten has one or two; with multus a few more
_STRANGERS = "strangers"


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding]:
    """One finding per pod, unless the operator ignores its namespaces, and one for all strangers."""
    sets = [
        (sets,)
        for network in known(evidence.networks)
        if isinstance(network.range_sets, tuple)
        for sets in (tuple(part for parts in network.range_sets for part in parts),)
    ]
    had, answered = given(evidence), _all_answered(evidence)
    # These addresses belong to somebody who is reported for them, so routes to them are not reported too.
    up = {text for namespace in known(evidence.namespaces) for text in known(namespace.addresses)}
    crowds: defaultdict[Hashable, list[tuple[NetworkNamespace, list[str]]]] = defaultdict(list)
    for namespace in known(evidence.namespaces):
        routes = [text for text in known(namespace.host_routes) if text not in up]
        extra = [
            text
            for text in (*known(namespace.addresses), *routes)
            if text not in had
            and (address := canonical_address(text)) is not None
            and any(in_ranges(address, ranges) for ranges in sets)
        ]
        pods = pods_of(namespace.holders, evidence)
        if extra and not (pods and all(pod in evidence.ignored_pods for pod in pods)):
            crowds[_owner(namespace, answered)].append((namespace, extra))
    for crowd in crowds.values():
        extra = list(dict.fromkeys(text for _, some in crowd for text in some))
        if len(extra) >= _MANY:
            pods = pods_of(crowd[0][0].holders, evidence)
            yield _finding([namespace for namespace, _ in crowd], extra, [pod for pod in pods if pod], up)
    yield from _by_their_word(evidence)


def _by_their_word(evidence: Evidence) -> Iterator[Finding]:
    """One finding per pod whose processes name many containers of leases, and one for all users of the node.

    Everybody can read leases and repeat their container IDs. A pod has only one container ID and a user none; other
    processes that name containers (shims, CNI plugins) are root's.
    """
    endpoints = known(evidence.endpoints)
    listed = {sandbox.container_id for endpoint in endpoints for sandbox in known(endpoint.sandboxes)}
    listed |= {record.container_id for endpoint in endpoints for record in known(endpoint.records)}
    named: defaultdict[str, dict[str, Process]] = defaultdict(dict)
    for process in known(evidence.processes):
        whose = process.holder.pod_uid or process.holder.container_id
        if whose or process.apart:
            named[whose].update(dict.fromkeys(set(process.container_ids) - listed, process))
    for whose, ids in named.items():
        if len(ids) < _MANY:
            continue
        one = next(iter(ids.values()))
        (pod,) = pods_of([one.holder], evidence)
        space, _, name = pod.partition("/")
        who = (
            f"the pod {pod}" if pod
            else f"the container or pod {whose}" if whose
            else f"users of the node (for example process {one.pid}, {one.name})"
        )  # fmt: skip
        yield Finding.of(
            id=FindingId.SCAN003,
            subject=f"{who} (its processes)",
            summary=f"processes of {who} name {len(ids)} containers of leases that no runtime knows",
            evidence=(f"in their command lines: {listing(sorted(ids))}",),
            explanation=(
                "janitor keeps the leases of a container that a process names, because the monitor of a pod that its "
                "runtime has forgotten looks the same. But such a monitor names only one container. This many keep "
                "janitor from freeing leases, and the range runs full."
            ),
            fix=Fix.of(
                Command.of("kubectl", "delete", "pod", "-n", space, name)
                if pod
                else "check what these processes do, and stop them"
            ),
        )


def _owner(namespace: NetworkNamespace, answered: bool) -> Hashable:
    """Whose namespace it is. All namespaces of a pod, or of strangers, count together, whatever their number.

    Strangers count together only if every runtime has `answered`: otherwise they may be a runtime's pods.
    """
    owners = frozenset(holder.pod_uid or holder.container_id for holder in namespace.holders)
    if owners == {""} and answered:
        return _STRANGERS
    return owners if owners and "" not in owners else namespace.inode


def _all_answered(evidence: Evidence) -> bool:
    """Whether there is a runtime, and all of them listed their sandboxes."""
    endpoints = decisive(known(evidence.endpoints))
    return bool(endpoints) and not any(isinstance(endpoint.sandboxes, Unknown) for endpoint in endpoints)


def _finding(namespaces: list[NetworkNamespace], extra: list[str], pods: list[str], up: set[str]) -> Finding:
    namespace, *others = namespaces
    number = f"more than {len(extra)}" if any(one.more for one in namespaces) else str(len(extra))
    with_others = f", with {count(len(others), 'more network namespace')}," if others else ""
    whose = f"the pod {pods[0]}" if len(pods) == 1 else f"{namespace.seen_at}{with_others}"
    if len(pods) == 1:
        space, _, name = pods[0].partition("/")
        fix = Fix.of(
            Command.of("kubectl", "delete", "pod", "-n", space, name),
            "; or, so that its network namespace no longer keeps leases, set in /etc/janitor/janitor.toml: ",
            Snippet(f'[scope] ignore_namespaces = ["{pods[0]}"]'),
        )
    else:
        # A mount's path is chosen by the pod, so it must not become part of a command.
        fix = Fix.of(
            "find the processes in it and stop them: ",
            Command.of("lsns", "--type", "net"),
            f" lists it as {listing([str(one.inode) for one in namespaces])}",
        )
    routes = [text for text in extra if text not in up]
    own = [text for text in extra if text in up]
    or_routes = ", or host routes to such," if routes else ""
    where = f"the network namespace of {namespace.seen_at}{f' and {len(others)} more' if others else ''}"
    return Finding.of(
        id=FindingId.SCAN003,
        subject=f"{whose} (network namespace {namespace.inode})",
        summary=f"{whose} has {number} addresses of the pods' ranges{or_routes} that no runtime gave it",
        evidence=(
            *((f"up in {where}: {listing(own)}",) if own else ()),
            *((f"host routes in {where} to addresses that are up nowhere: {listing(routes)}",) if routes else ()),
        ),
        explanation=(
            "janitor keeps the lease of every address that is up or has a host route, whoever has it. A pod that puts "
            "other pods' addresses on its own interface, by mistake or on purpose, keeps janitor from freeing them, "
            "and the range runs full."
        ),
        fix=fix,
    )
