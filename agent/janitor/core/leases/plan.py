"""What may be done about a judgement: the last safeguard before anything is written.

Pure. Every action carries its proof and the identity of its file. Everything that is not done becomes a refusal with
its reason, which is reported.
"""

from dataclasses import replace

from janitor.core.leases.age import SECOND, Records, age, awake_s, gather
from janitor.core.leases.file_identity import entry_file, identity_of, missing_identity
from janitor.core.leases.judgement import FREEABLE, JudgedLease, Judgement, Verdict
from janitor.core.leases.sightings import canonical, decisive
from janitor.core.model.action import (
    MISSING_S,
    SETTLE_S,
    Action,
    DiscardEntry,
    FreeLease,
    Plan,
    Policy,
    Refusal,
    ReserveLease,
)
from janitor.core.model.codes import Code
from janitor.core.model.evidence import CacheEntry, Evidence, LeaseDirectory, known
from janitor.core.model.lease import CRI_ID
from janitor.core.model.node_mark import another
from janitor.core.model.reason import Reason, because
from janitor.core.rules.rule_plan import plan_rules


def plan(evidence: Evidence, judgement: Judgement, policy: Policy | None = None) -> Plan:
    """Plan one pass. Never raises."""
    policy = policy or Policy()
    rules = plan_rules(evidence) if policy.about("RULE") and not policy.networks else Plan((), ())
    if not policy.about("LEASE"):
        return rules
    records = gather(evidence)
    others = {d.network: why for d in known(evidence.lease_directories) if (why := _another(d, evidence))}
    decisions: list[Action | Refusal | None] = [
        _lease(lease, judgement, records)
        for lease in judgement.leases
        if not policy.networks or lease.network in policy.networks
    ]
    decisions += [
        _cache_entry(entry, judgement, records, policy, others.get(entry.network))
        for entry in known(evidence.cache)
        if not policy.networks or entry.network in policy.networks
    ]
    wanted = [
        decision
        for decision in decisions
        if decision is not None
        and not isinstance(decision, Refusal)
        and (policy.findings is None or finding_of(decision) in policy.findings)
    ]
    refusals = [decision for decision in decisions if isinstance(decision, Refusal)]
    groups = _with_chains(wanted, evidence, judgement, records)
    # Before the limit, so that repeatedly refused actions do not displace others.
    groups = [group for group in groups if not any(action.key in policy.postponed for action in group)]
    allowed, left = _bounded(groups, policy.max_per_pass)
    if left:
        refusals.append(Refusal("this pass", (because(Code.MAX_PER_PASS, left=left, most=policy.max_per_pass),), 0))
    settling = _settling(evidence)
    if settling and not all(isinstance(action, ReserveLease) for action in allowed):
        refusals.append(settling)
        allowed = [action for action in allowed if isinstance(action, ReserveLease)]
    return Plan((*rules.actions, *allowed), (*rules.refusals, *refusals))


def _with_chains(
    wanted: list[Action], evidence: Evidence, judgement: Judgement, records: Records
) -> list[list[Action]]:
    """Group the actions: missing leases first, then one group per attachment whose CNI DEL can still be run.

    A good cache entry has the configuration that created the attachment. Its DEL removes rules that may remain
    (hostPort), and the entry goes together with the leases. After a reboot, which the ledger proves, there are no such
    rules.
    """
    groups: dict[str, list[Action]] = {}
    for action in sorted(wanted, key=lambda a: not isinstance(a, ReserveLease)):
        if isinstance(action, FreeLease) and action.file not in records.ledger:
            entry = _chain(action, judgement)
            if entry is not None:
                groups.setdefault(entry.path, []).append(replace(action, chain=entry.path))
                continue
        groups[f"{action.kind} {action.path}"] = [action]
    for entry in known(evidence.cache):
        if entry.path in groups and not _still_its_own(entry, groups[entry.path], judgement.leases):
            for action in groups.pop(entry.path):
                if isinstance(action, FreeLease):
                    groups[f"{action.kind} {action.path}"] = [replace(action, chain="")]
        if entry.path in groups:
            first = groups[entry.path][0]
            directory, _, name = entry.path.rpartition("/")
            proof = (because(Code.CONTAINER_GONE), because(Code.AFTER_CHAIN_DEL))
            groups[entry.path].append(
                DiscardEntry(
                    directory, name, entry.container_id, entry.interface, first.pod, proof, entry.path,
                    file=identity_of(entry.path, entry_file(entry)), ctime_ns=entry.ctime_ns,
                )
            )  # fmt: skip
    return list(groups.values())


def _still_its_own(entry: CacheEntry, leases: list[Action], judged: tuple[JudgedLease, ...]) -> bool:
    """Whether every address of the attachment is still leased to it, and freeable with it.

    Some plugins (firewall) find the rules to delete by the addresses of the cached result. If somebody removed the
    lease and another pod has got the address since, that pod would lose its rules; so would a pod of another network
    that leases the same address.
    """
    own = {action.name for action in leases}
    wanted = {canonical(address.partition("/")[0]) for address in entry.addresses}
    others = {lease.address for lease in judged if lease.container_id != entry.container_id}
    return bool(wanted) and wanted <= own and not wanted & others


def _chain(action: FreeLease, judgement: Judgement) -> CacheEntry | None:
    """The good cache entry of a lease's attachment, if janitor can run its DEL without host-local's part."""
    for entry in judgement.sightings.cache_by_id.get(action.container_id, ()):
        same = (f"{entry.data_dir}/{entry.network}", entry.interface) == (action.directory, action.interface)
        if same and not entry.damage and entry.plugins and entry.ipam == ("host-local",):
            return entry
    return None


def _bounded(groups: list[list[Action]], most: int) -> tuple[list[Action], int]:
    """Whole groups up to the limit, and how many actions are left over. Leases of live pods do not count."""
    allowed: list[Action] = []
    left = counted = 0
    for group in groups:
        number = sum(_counts(action) for action in group)
        if counted + number > most:
            left += len(group)
            continue
        counted += number
        allowed += group
    return allowed, left


def _counts(action: Action) -> bool:
    return isinstance(action, FreeLease) or (isinstance(action, DiscardEntry) and not action.chain)


def finding_of(action: Action) -> str:
    """The ID of the finding that an action fixes."""
    if isinstance(action, FreeLease):
        return "LEASE001" if action.container_id else "LEASE002"
    return {"discard": "LEASE009", "reserve": "LEASE003", "restore": "RULE001", "configure": "RULE003"}[action.kind]


def _settling(evidence: Evidence) -> Refusal | None:
    """Rule 6: nothing within a minute of a runtime's start, because it may still be loading its state."""
    for endpoint in decisive(known(evidence.endpoints)):
        for process in known(endpoint.listeners):
            running = (evidence.started.boottime_ns - process.started_ns) // SECOND
            if running < SETTLE_S:
                return Refusal(
                    endpoint.address,
                    (because(Code.RUNTIME_SETTLING, name=process.name, seconds=running),),
                    SETTLE_S - running,
                )
    return None


def _lease(lease: JudgedLease, judgement: Judgement, records: Records) -> Action | Refusal | None:
    path = f"{lease.directory}/{lease.address}"
    if lease.verdict in FREEABLE and lease.file is not None and isinstance(lease.file.content, bytes):
        return FreeLease(
            lease.directory, lease.address, lease.container_id, lease.interface, lease.pod, lease.reasons,
            file=identity_of(path, lease.file), ctime_ns=lease.file.ctime_ns,
        )  # fmt: skip
    if lease.verdict is Verdict.PENDING:
        return Refusal(path, lease.reasons, lease.wait_s, lease.pod)
    if lease.verdict is Verdict.MISSING:
        seen = records.observations.get(missing_identity(lease))
        watched = 0 if seen is None else awake_s(seen, records)
        if judgement.unseen:
            return Refusal(path, (because(Code.MISSING_NOT_ALL_SEEN),))
        if watched < MISSING_S:
            return Refusal(path, (because(Code.MISSING_SEEN_ONCE),), MISSING_S - watched)
        return ReserveLease(
            lease.directory, lease.address, lease.container_id, lease.interface, lease.pod,
            (*lease.reasons, because(Code.MISSING_FOR, seconds=watched)),
        )  # fmt: skip
    return None


def _another(directory: LeaseDirectory, evidence: Evidence) -> Reason | None:
    return another(directory.path.rpartition("/")[0], directory.marks, evidence.this_node)


def _cache_entry(
    entry: CacheEntry, judgement: Judgement, records: Records, policy: Policy, others: Reason | None
) -> Action | Refusal | None:
    """A damaged entry of a sandbox that is not live: while it exists, the runtime cannot stop that sandbox.

    `others`: why the network's leases, and so probably its cache, are another node's; None if they are not.
    """
    if not entry.damage or not entry.regular or not CRI_ID.fullmatch(entry.container_id):
        return None
    sightings = judgement.sightings
    if entry.container_id in sightings.alive or entry.container_id in sightings.traces:
        return None
    if others:
        return Refusal(entry.path, (entry.damage, others))
    if judgement.unseen:
        return Refusal(entry.path, (because(Code.DAMAGED_NOT_ALL_SEEN, entry.damage),))
    file = entry_file(entry)
    proof = age(entry.path, file, records, anonymous=False, grace_s=policy.grace_s)
    if proof.proof is None:
        return Refusal(entry.path, tuple(filter(None, (entry.damage, proof.missing))), proof.wait_s)
    directory, _, name = entry.path.rpartition("/")
    sandbox = sightings.sandboxes.get(entry.container_id)
    whose = (
        because(Code.SANDBOX_NOT_RUNNING, pod=str(sandbox.pod))
        if sandbox is not None
        else because(Code.CONTAINER_UNKNOWN)
    )
    return DiscardEntry(
        directory, name, entry.container_id, entry.interface, str(sandbox.pod) if sandbox else "",
        (entry.damage, whose, proof.proof), file=identity_of(entry.path, file), ctime_ns=entry.ctime_ns,
    )  # fmt: skip
