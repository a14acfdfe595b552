"""What must hold at a second look before anything is done (rules 2 and 5), and what is recorded for the next pass."""

from dataclasses import replace

from janitor.core.leases.age import gather
from janitor.core.leases.file_identity import entry_file, identity_of, missing_identity
from janitor.core.leases.judgement import FREEABLE, Judgement, Verdict
from janitor.core.model.action import SETTLE_S, Action, FreeLease, Plan, Refusal, RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, FileIdentity, Observation, Unknown, known
from janitor.core.model.reason import because


def agreed(first: Plan, second: Plan, before: Evidence, after: Evidence) -> Plan:
    """What two looks agree on: the same action on the same file, with the same runtime processes (rule 2)."""
    same_runtimes = _listeners(before) == _listeners(after)
    kept: list[Action] = []
    refusals = list(second.refusals)
    twice = {_essence(action) for action in second.actions}
    for action in first.actions:
        if not same_runtimes:
            refusals.append(Refusal(action.path, (because(Code.RUNTIME_RESTARTED),), SETTLE_S))
        elif _essence(action) not in twice:
            refusals.append(Refusal(action.path, (because(Code.NOT_THE_SAME),), 0))
        else:
            kept.append(action)
    # A chain's actions are done together, so both looks must agree on all of them.
    broken = {a.chain for a in first.actions if a.chain} - {a.chain for a in kept if a.chain}
    broken |= {a.chain for a in first.actions if a.chain and a not in kept}
    return Plan(tuple(a for a in kept if a.chain not in broken), tuple(refusals))


def without_stale_rules(planned: Plan, evidence: Evidence, named: frozenset[str] | Unknown) -> Plan:
    """Refuse to free leases whose address a packet filter rule still names if no CNI DEL can be run to remove it.

    The next pod with that address would get the dead pod's hostPort traffic. `named` are the addresses in the rules.
    Leases of an earlier boot are not checked: no rule outlives a boot.
    """
    ledger = gather(evidence).ledger
    kept: list[Action] = []
    refusals = list(planned.refusals)
    for action in planned.actions:
        if not isinstance(action, FreeLease) or action.chain or action.file in ledger:
            kept.append(action)
        elif isinstance(named, Unknown):
            refusals.append(Refusal(action.path, (named.reason,)))
        elif action.name in named:
            refusals.append(Refusal(action.path, (because(Code.STALE_RULES),)))
        else:
            kept.append(action)
    return Plan(tuple(kept), tuple(refusals))


def _essence(action: Action) -> Action:
    if isinstance(action, RestoreRule | WriteSetting):
        return replace(action, proof=())
    return replace(action, proof=(), pod="")


def _listeners(evidence: Evidence) -> list[tuple[str, int, int]]:
    return [(e.address, p.pid, p.started_ns) for e in known(evidence.endpoints) for p in known(e.listeners)]


def observe_again(evidence: Evidence, judgement: Judgement) -> tuple[Observation, ...]:
    """The observations for the next pass: everything seen without an owner, since when, and how often.

    Anything that had an owner or changed is not included: its watching starts again. If something could not be looked
    at, nothing is included.
    """
    if judgement.unseen:
        return ()
    # The end of the look: the leases were read some time, perhaps minutes, after its beginning.
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
            found.append(replace(old, last_ns=now, passes=old.passes + 1))
        else:
            found.append(Observation(file, ctime_ns, now, now, 1, evidence.finished.asleep_ns))
    return tuple(found)
