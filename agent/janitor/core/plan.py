"""What may be done about a judgement: the last safety rail before anything is written.

Pure. Every action carries the proof it rests on and the identity of the file it is about; everything that is not
done is a refusal with its reason, which reaches the report.
"""

from dataclasses import dataclass, replace
from typing import Literal

from janitor.core.age import GRACE_S, SECOND, Records, age, gather, identity
from janitor.core.evidence import CacheEntry, Evidence, FileIdentity, LeaseFile, Observation, Unknown, known
from janitor.core.judgement import FREEABLE, JudgedLease, Judgement, Verdict
from janitor.core.lease import CRI_ID
from janitor.core.sightings import decisive

MAX_PER_PASS = 256
SETTLE_S = 60
MISSING_S = 60

Kind = Literal["free", "discard", "reserve"]


@dataclass(frozen=True, slots=True)
class Action:
    """One change. `proof` is why it is safe, in the words of the judgement.

    `free`     the lease `directory`/`name` goes to quarantine
    `discard`  the libcni cache entry `directory`/`name` goes to quarantine
    `reserve`  the missing lease `directory`/`name` is written for `container_id` and `interface`

    Actions with the same `chain`, a cache entry's path, are one: the CNI DEL of that entry first, then all of them.
    """

    kind: Kind
    directory: str
    name: str
    container_id: str
    interface: str
    pod: str
    proof: tuple[str, ...]
    file: FileIdentity | None = None  # None for `reserve`: there is no file
    ctime_ns: int = 0
    chain: str = ""

    @property
    def path(self) -> str:
        """Where the file is, as the node names it."""
        return f"{self.directory}/{self.name}"

    @property
    def network(self) -> str:
        """The network's name, for a lease."""
        return self.directory.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is left as it is. `wait_s` says when another look could decide otherwise."""

    subject: str
    reason: str
    wait_s: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows. Empty `networks` means all; `findings` None means whatever finding it takes care of."""

    max_per_pass: int = MAX_PER_PASS
    networks: tuple[str, ...] = ()
    grace_s: int = GRACE_S
    findings: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions in the order in which they are to be done, and refusals."""

    actions: tuple[Action, ...]
    refusals: tuple[Refusal, ...]


def plan(evidence: Evidence, judgement: Judgement, policy: Policy | None = None) -> Plan:
    """Decide what to do about one pass. Never raises."""
    policy = policy or Policy()
    records = gather(evidence)
    decisions: list[Action | Refusal | None] = [
        _lease(lease, judgement, records)
        for lease in judgement.leases
        if not policy.networks or lease.network in policy.networks
    ]
    decisions += [
        _cache_entry(entry, judgement, records, policy)
        for entry in known(evidence.cache)
        if not policy.networks or entry.network in policy.networks
    ]
    wanted = [
        decision
        for decision in decisions
        if isinstance(decision, Action) and (policy.findings is None or finding_of(decision) in policy.findings)
    ]
    refusals = [decision for decision in decisions if isinstance(decision, Refusal)]
    allowed, left = _bounded(_with_chains(wanted, evidence, judgement, records), policy.max_per_pass)
    if left:
        refusals.append(
            Refusal("this pass", f"{left} more are left for the next pass (--max {policy.max_per_pass})", 0)
        )
    settling = _settling(evidence)
    if settling and any(action.kind != "reserve" for action in allowed):
        refusals.append(settling)
        allowed = [action for action in allowed if action.kind == "reserve"]
    return Plan(tuple(allowed), tuple(refusals))


def _with_chains(
    wanted: list[Action], evidence: Evidence, judgement: Judgement, records: Records
) -> list[list[Action]]:
    """Group what belongs together: missing leases first, then each attachment whose CNI DEL can still be run.

    A good cache entry holds the configuration with which the attachment was made. Its DEL takes the rules away that
    may still stand (hostPort), and the entry goes along with the leases. After a reboot, which the ledger proves, there
    are no such rules.
    """
    groups: dict[str, list[Action]] = {}
    for action in sorted(wanted, key=lambda a: a.kind != "reserve"):
        entry = _chain(action, judgement) if action.kind == "free" and action.file not in records.ledger else None
        if entry is None:
            groups[f"{action.kind} {action.path}"] = [action]
            continue
        groups.setdefault(entry.path, []).append(replace(action, chain=entry.path))
    for entry in known(evidence.cache):
        if entry.path in groups:
            first = groups[entry.path][0]
            directory, _, name = entry.path.rpartition("/")
            proof = ("its container is gone, and its CNI DEL has been run",)
            groups[entry.path].append(
                Action(
                    "discard", directory, name, entry.container_id, entry.interface, first.pod, proof,
                    identity_of(entry.path, entry_file(entry)), entry.ctime_ns, entry.path,
                )
            )  # fmt: skip
    return list(groups.values())


def _chain(action: Action, judgement: Judgement) -> CacheEntry | None:
    """The good cache entry of the attachment that a lease names, if janitor can run its DEL without host-local's."""
    for entry in judgement.sightings.cache_by_id.get(action.container_id, ()):
        same = (f"{entry.data_dir}/{entry.network}", entry.interface) == (action.directory, action.interface)
        if same and not entry.damage and entry.plugins and entry.ipam == ("host-local",):
            return entry
    return None


def _bounded(groups: list[list[Action]], most: int) -> tuple[list[Action], int]:
    """Whole groups up to the bound, and how many actions are left over. Leases of live pods do not count."""
    allowed: list[Action] = []
    left = counted = 0
    for group in groups:
        number = sum(action.kind != "reserve" and (action.kind == "free" or not action.chain) for action in group)
        if counted + number > most:
            left += len(group)
            continue
        counted += number
        allowed += group
    return allowed, left


def finding_of(action: Action) -> str:
    """The ID of the finding that an action takes care of."""
    if action.kind == "free":
        return "LEASE001" if action.container_id else "LEASE002"
    return {"discard": "LEASE009", "reserve": "LEASE003"}[action.kind]


def agreed(first: Plan, second: Plan, before: Evidence, after: Evidence) -> Plan:
    """What two looks agree on: the same action on the same file, by the same runtime processes (rule 2)."""
    same_runtimes = _listeners(before) == _listeners(after)
    kept: list[Action] = []
    refusals = list(second.refusals)
    twice = {_essence(action) for action in second.actions}
    for action in first.actions:
        if not same_runtimes:
            refusals.append(Refusal(action.path, "the container runtime was restarted between the two looks", SETTLE_S))
        elif _essence(action) not in twice:
            refusals.append(Refusal(action.path, "it is not the same any more as at the first look", 0))
        else:
            kept.append(action)
    # What is done together is agreed on together.
    broken = {a.chain for a in first.actions if a.chain} - {a.chain for a in kept if a.chain}
    broken |= {a.chain for a in first.actions if a.chain and a not in kept}
    return Plan(tuple(a for a in kept if a.chain not in broken), tuple(refusals))


def without_stale_rules(planned: Plan, evidence: Evidence, named: frozenset[str] | Unknown) -> Plan:
    """Keep the leases whose address a packet filter rule still names, where no CNI DEL can be run to remove it.

    The next pod to get the address would get the dead one's hostPort traffic. `named` is what the rules name. Leases
    of an earlier boot are not asked about: no rule outlives a boot.
    """
    ledger = gather(evidence).ledger
    kept: list[Action] = []
    refusals = list(planned.refusals)
    for action in planned.actions:
        if action.kind != "free" or action.chain or action.file in ledger:
            kept.append(action)
        elif isinstance(named, Unknown):
            refusals.append(Refusal(action.path, named.reason))
        elif action.name in named:
            refusals.append(Refusal(action.path, "packet filter rules still name its address: see iptables-save"))
        else:
            kept.append(action)
    return Plan(tuple(kept), tuple(refusals))


def _essence(action: Action) -> Action:
    return replace(action, proof=(), pod="")


def _listeners(evidence: Evidence) -> list[tuple[str, int, int]]:
    return [(e.address, p.pid, p.started_ns) for e in known(evidence.endpoints) for p in known(e.listeners)]


def _settling(evidence: Evidence) -> Refusal | None:
    """Rule 6: not within a minute of a runtime's start, while it may still be loading what it knows."""
    for endpoint in decisive(known(evidence.endpoints)):
        for process in known(endpoint.listeners):
            running = (evidence.started.boottime_ns - process.started_ns) // SECOND
            if running < SETTLE_S:
                return Refusal(
                    endpoint.address,
                    f"{process.name} was started {running} s ago and may still be loading its sandboxes",
                    SETTLE_S - running,
                )
    return None


def _lease(lease: JudgedLease, judgement: Judgement, records: Records) -> Action | Refusal | None:
    path = f"{lease.directory}/{lease.address}"
    if lease.verdict in FREEABLE and lease.file is not None and isinstance(lease.file.content, bytes):
        this = identity_of(path, lease.file)
        return Action(
            "free", lease.directory, lease.address, lease.container_id, lease.interface, lease.pod, lease.reasons,
            this, lease.file.ctime_ns,
        )  # fmt: skip
    if lease.verdict is Verdict.PENDING:
        return Refusal(path, "; ".join(lease.reasons), lease.wait_s)
    if lease.verdict is Verdict.MISSING:
        seen = records.observations.get(missing_identity(lease))
        watched = 0 if seen is None else max(0, (records.now_ns - seen.first_ns) // SECOND)
        if judgement.unseen:
            return Refusal(path, "it is missing, but not everything could be looked at")
        if watched < MISSING_S:
            return Refusal(path, "its lease is missing, which must be seen twice, a minute apart", MISSING_S - watched)
        return Action(
            "reserve", lease.directory, lease.address, lease.container_id, lease.interface, lease.pod,
            (*lease.reasons, f"it has been so for {watched} s"),
        )  # fmt: skip
    return None


def _cache_entry(entry: CacheEntry, judgement: Judgement, records: Records, policy: Policy) -> Action | Refusal | None:
    """A damaged entry of a sandbox that is not live: until it is gone the runtime cannot stop that sandbox."""
    if not entry.damage or not entry.regular or not CRI_ID.fullmatch(entry.container_id):
        return None
    sightings = judgement.sightings
    if entry.container_id in sightings.alive or entry.container_id in sightings.traces:
        return None
    if judgement.unseen:
        return Refusal(entry.path, f"{entry.damage}, but not everything could be looked at")
    file = entry_file(entry)
    proof = age(entry.path, file, records, anonymous=False, grace_s=policy.grace_s)
    if not proof.proof:
        return Refusal(entry.path, f"{entry.damage}; {proof.missing}", proof.wait_s)
    directory, _, name = entry.path.rpartition("/")
    sandbox = sightings.sandboxes.get(entry.container_id)
    whose = f"its sandbox {sandbox.pod} is not running" if sandbox is not None else "no runtime knows its container"
    return Action(
        "discard", directory, name, entry.container_id, entry.interface, str(sandbox.pod) if sandbox else "",
        (entry.damage, whose, proof.proof), identity_of(entry.path, file), entry.ctime_ns,
    )  # fmt: skip


def entry_file(entry: CacheEntry) -> LeaseFile:
    """A damaged cache entry as the age proofs want it; its bytes say nothing, so they are not part of it."""
    return LeaseFile(
        entry.path.rpartition("/")[2], "file", entry.device, entry.inode, entry.size, 0, entry.mtime_ns, entry.ctime_ns
    )


def identity_of(path: str, file: LeaseFile) -> FileIdentity:
    """The identity of a file whose bytes were read."""
    found = identity(path, file)
    if found is None:
        raise ValueError(f"{path} was not read")
    return found


def missing_identity(lease: JudgedLease) -> FileIdentity:
    """What stands for a file that is not there: its path, and whose it should be."""
    return FileIdentity(f"{lease.directory}/{lease.address}", 0, 0, 0, 0, lease.container_id)


def observe_again(evidence: Evidence, judgement: Judgement) -> tuple[Observation, ...]:
    """What the next pass may count on: everything seen without an owner in this one, since when, how often.

    What was seen with an owner, or changed, is not among them: it starts anew. Nothing is, in a pass in which
    something could not be looked at.
    """
    if judgement.unseen:
        return ()
    # The end of the look: at its beginning the leases had not been read yet, and minutes may lie between.
    now = evidence.finished.boottime_ns
    before = {observation.file: observation for observation in known(evidence.observations)}
    seen: list[tuple[FileIdentity, int]] = []
    for lease in judgement.leases:
        if lease.verdict is Verdict.MISSING:
            seen.append((missing_identity(lease), 0))
        elif lease.file is not None and not isinstance(lease.file.content, Unknown):
            ownerless = lease.verdict in FREEABLE or (lease.verdict is Verdict.PENDING and lease.wait_s is not None)
            if ownerless:
                seen.append((identity_of(f"{lease.directory}/{lease.address}", lease.file), lease.file.ctime_ns))
    sightings = judgement.sightings
    seen += [
        (identity_of(entry.path, entry_file(entry)), entry.ctime_ns)
        for entry in known(evidence.cache)
        if entry.damage
        and entry.regular
        and entry.container_id not in sightings.alive
        and entry.container_id not in sightings.traces
    ]
    found: list[Observation] = []
    for file, ctime_ns in seen:
        old = before.get(file)
        if old is not None and old.ctime_ns == ctime_ns:
            found.append(Observation(file, ctime_ns, old.first_ns, now, old.passes + 1))
        else:
            found.append(Observation(file, ctime_ns, now, now, 1))
    return tuple(found)
