"""The promise, over any evidence whatever: what was not seen, or was seen anywhere, is never called dead."""

from dataclasses import replace

from hypothesis import event, given, settings

from janitor.core.leases.judgement import FREEABLE, JudgedLease, judge
from janitor.core.leases.sightings import decisive
from janitor.core.model.evidence import Evidence, LeaseFile, Unknown, known
from tests.property.strategies import evidences


def freed(evidence: Evidence) -> list[tuple[JudgedLease, LeaseFile]]:
    found = [(lease, lease.file) for lease in judge(evidence).leases if lease.verdict in FREEABLE]
    event("something is freed" if found else "nothing is freed")
    return [(lease, file) for lease, file in found if file is not None]


@given(evidences())
@settings(max_examples=1500, deadline=None)
def test_whatever_was_not_seen_keeps_every_lease(evidence: Evidence) -> None:
    unseen = [
        part
        for part in (
            evidence.boot_id, evidence.networks, evidence.lease_directories, evidence.cache, evidence.endpoints,
            evidence.namespaces, evidence.processes, evidence.task_directories,
            *(p for e in decisive(known(evidence.endpoints)) for p in (e.sandboxes, e.records, e.listeners)),
            *(p for n in known(evidence.namespaces) for p in (n.addresses, n.host_routes)),
        )
        if isinstance(part, Unknown)
    ]  # fmt: skip
    leases = freed(evidence)
    if unseen:
        assert leases == []
    assert all(not isinstance(file.content, Unknown) for _, file in leases)


@given(evidences())
@settings(max_examples=1500, deadline=None)
def test_an_id_or_an_address_seen_anywhere_keeps_its_lease(evidence: Evidence) -> None:
    # Written out again on purpose, without the index the judgement uses.
    ids: set[str] = set()
    addresses: set[str] = set()
    for endpoint in known(evidence.endpoints):
        for sandbox in known(endpoint.sandboxes):
            ids.add(sandbox.container_id)
            if sandbox.network_mode != "node":
                addresses |= set(known(sandbox.addresses))
        ids |= {record.container_id for record in known(endpoint.records)}
    for process in known(evidence.processes):
        ids |= {*process.container_ids, process.cni_container_id}
    ids |= {task.container_id for task in known(evidence.task_directories)}
    for namespace in known(evidence.namespaces):
        addresses |= {*known(namespace.addresses), *known(namespace.host_routes)}
    for lease, file in freed(evidence):
        assert isinstance(file.content, bytes)
        text = file.content.decode("latin-1")
        assert lease.address not in addresses
        assert not any(container_id and container_id in text for container_id in ids if len(container_id) == 64)


@given(evidences())
@settings(max_examples=1000, deadline=None)
def test_only_a_lease_that_existed_before_any_birth_in_progress_is_freed(evidence: Evidence) -> None:
    noted = {this.path.rpartition("/")[2] for this in known(evidence.ledger)}
    noted |= {o.file.path.rpartition("/")[2] for o in known(evidence.observations)}
    offset = evidence.started.realtime_ns - evidence.started.boottime_ns
    for lease, file in freed(evidence):
        starts = [p.started_ns for e in decisive(known(evidence.endpoints)) for p in known(e.listeners)]
        older = bool(starts) and all(max(file.mtime_ns, file.ctime_ns) < offset + start for start in starts)
        assert lease.address in noted or older


@given(evidences())
@settings(max_examples=500, deadline=None)
def test_one_more_sighting_never_frees_anything(evidence: Evidence) -> None:
    before = {(lease.directory, lease.address) for lease, _ in freed(evidence)}
    for namespace in known(evidence.namespaces):
        fewer = tuple(other for other in known(evidence.namespaces) if other is not namespace)
        if fewer and not isinstance(namespace.addresses, Unknown) and not isinstance(namespace.host_routes, Unknown):
            without = freed(replace(evidence, namespaces=fewer))
            assert before <= {(lease.directory, lease.address) for lease, _ in without}
