"""janitor's passes on the node of schedule_node.py, with things happening on it between any two of their moments.

What a pass sees is made here from the model's truth. CRI may say anything: an old list, a part of it, nothing. The
kernel tells the truth or nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from janitor.core.leases.age import GRACE_FLOOR_S
from janitor.core.leases.confirmation import agreed, observe_again
from janitor.core.leases.judgement import Judgement, judge
from janitor.core.leases.plan import plan
from janitor.core.model import node_mark
from janitor.core.model.action import Action, DiscardEntry, FreeLease, Plan, Policy, ReserveLease
from janitor.core.model.evidence import (
    EVIDENCE_VERSION,
    CacheEntry,
    Clock,
    ContainerRecord,
    Endpoint,
    Evidence,
    LeaseFile,
    Network,
    NetworkNamespace,
    Pod,
    Process,
    Sandbox,
    Unknown,
    known,
)
from janitor.core.model.outcome import Outcome
from janitor.host.changes import state
from janitor.host.changes.apply import ApplyContext, Witness, apply
from janitor.host.changes.undo import undo
from janitor.host.cni.cache import read_cache
from tests.nodes import booted
from tests.property.schedule_node import (
    BOOKKEEPING,
    DATA_DIR,
    FOREIGN,
    MOUNTS,
    NETWORK,
    QUARANTINE,
    RANGES,
    SECOND,
    Node,
    Owner,
    figures,
)
from tests.reasons import not_seen

NO = not_seen("it does not answer")
LOOK = 4
WAITING, SECOND_LOOK, BEFORE, LAST = 2 * LOOK, 2 * LOOK + 1, 3 * LOOK + 2, 3 * LOOK + 3
GAPS = LAST + 2
"""Moments of a pass at which something can happen: four in each look, one between looks, one before the last look at
the kernel, one within that, and one between that and the lock."""


@dataclass(frozen=True, slots=True)
class Lies:
    """How one look differs from the truth."""

    cri: Literal["truth", "part", "old", "empty", "unknown", "not ready", "no addresses"] = "truth"
    records: Literal["truth", "part", "unknown", "none"] = "truth"
    listeners: Literal["truth", "unknown"] = "truth"
    kernel: Literal["truth", "no processes", "no namespaces", "one unread"] = "truth"
    well_known: bool = False
    pick: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: the evidence, what follows from it, and the lease files as the disk has them."""

    evidence: Evidence
    judgement: Judgement
    plan: Plan
    files: dict[str, LeaseFile]
    entries: dict[str, CacheEntry]


def sandboxes(owners: list[Owner], lies: Lies) -> tuple[Sandbox, ...]:
    found = []
    for number, owner in enumerate(owners):
        ready = owner.listed == "READY" and not (lies.cri == "not ready" and (number + lies.pick) % 2)
        if lies.cri == "part" and (number + lies.pick) % 3 == 0:
            continue
        addresses: tuple[str, ...] | Unknown = (owner.address,) if ready else ()
        found.append(
            Sandbox(
                owner.container_id, Pod("default", f"pod-{owner.container_id[-4:]}"), ready, 0, "pod",
                NO if lies.cri == "no addresses" and number % 2 else addresses, () if ready else (owner.address,),
            )
        )  # fmt: skip
    return tuple(found)


def endpoint(node: Node, lies: Lies, listeners: Endpoint) -> Endpoint:
    listed = [owner for owner in node.owners if owner.listed]
    recorded = [owner for owner in node.owners if owner.record]
    if lies.cri == "old":
        listed = [owner for owner in node.stale if owner.listed]
        recorded = list(node.stale)
    records: tuple[ContainerRecord, ...] | Unknown = tuple(
        ContainerRecord("k8s.io", owner.container_id, "container")
        for number, owner in enumerate(recorded)
        if lies.records == "truth" or (lies.records == "part" and (number + lies.pick) % 2)
    )
    return replace(
        listeners,
        sandboxes=NO if lies.cri == "unknown" else () if lies.cri == "empty" else sandboxes(listed, lies),
        records=NO if lies.records == "unknown" else records,
    )


def processes(node: Node) -> tuple[Process, ...]:
    found = [owner.plugin for owner in node.owners if owner.plugin is not None]
    return (
        *found,
        *(Process(o.shim, "containerd-shim", 0, (o.container_id,)) for o in node.owners if o.shim),
    )


def namespaces(node: Node) -> tuple[NetworkNamespace, ...]:
    host = NetworkNamespace(1, "process 1 (systemd)", ("10.9.0.1", "127.0.0.1"), ())
    up = [owner for owner in node.owners if owner.up]
    return (host, *(NetworkNamespace(2 + n, f"/run/netns/cni-{n}", (o.address,), ()) for n, o in enumerate(up)))


def look(node: Node, lies: Lies, policy: Policy, gap: Callable[[], None]) -> Seen:
    """As pipeline.observe: the clock and the runtime first, then leases, CRI, processes, and namespaces last."""
    started = Clock(node.wall_ns, node.boot_ns)
    origin: Literal["well-known", "kubelet"] = "well-known" if lies.well_known else "kubelet"
    introduced = Endpoint(
        "unix:///run/containerd/containerd.sock", origin, "containerd", "1.7.24", NO, NO,
        NO if lies.listeners == "unknown" else (node.runtime,),
    )  # fmt: skip
    cache = read_cache(booted(node.root, node.boot_id))
    assert isinstance(cache, tuple)
    cache_seen = tuple(stamped_entry(node, entry) for entry in cache)
    gap()
    real, directory = node.read_leases()
    gap()
    asked = endpoint(node, lies, introduced)
    gap()
    seen_processes = processes(node)
    gap()
    seen_namespaces = namespaces(node)
    if lies.kernel == "one unread":
        last = len(seen_namespaces) - 1
        seen_namespaces = (*seen_namespaces[:last], replace(seen_namespaces[last], addresses=NO))
    evidence = Evidence(
        version=EVIDENCE_VERSION, janitor="0", node="node", root=node.root, started=started,
        finished=Clock(node.wall_ns, node.boot_ns), boot_id=node.boot_id,
        networks=(
            Network(NETWORK, DATA_DIR, "10.conflist", ("host-local",), "0.3.1", RANGES, used_by_cri=True),
        ),
        plugin_dirs=("/usr/lib/cni",), allowed_data_dirs=(),
        lease_directories=() if directory is None else (directory,), cache=cache_seen, endpoints=(asked,),
        namespaces=NO if lies.kernel == "no namespaces" else seen_namespaces,
        processes=NO if lies.kernel == "no processes" else seen_processes,
        task_directories=(), ledger=state.read_ledger(booted(node.root, node.boot_id)),
        observations=state.read_observations(booted(node.root, node.boot_id)),
        this_node=(node_mark.Owner("", "", first=True),),
    )  # fmt: skip
    judgement = judge(evidence, policy.grace_s)
    state.write_observations(booted(node.root, node.boot_id), observe_again(evidence, judgement))
    node.stale = tuple(replace(owner) for owner in node.owners)
    files = {file.name: file for file in known(real.entries)} if real is not None else {}
    return Seen(evidence, judgement, plan(evidence, judgement, policy), files, {entry.path: entry for entry in cache})


def stamped_entry(node: Node, entry: CacheEntry) -> CacheEntry:
    """With the model's times. Without a chain that can be run, as one in which there is none."""
    keys = (entry.inode, "m", entry.mtime_ns), (entry.inode, "c", entry.ctime_ns)
    mtime, ctime = (node.times.setdefault(key, node.wall_ns) for key in keys)
    return replace(entry, mtime_ns=mtime, ctime_ns=ctime, plugins=entry.plugins if node.chain else ())


def as_on_disk(action: Action, seen: Seen) -> Action:
    """The action with the times of the disk instead of the model's, for the comparison under the lock."""
    if not isinstance(action, FreeLease | DiscardEntry):
        return action
    real: LeaseFile | CacheEntry = (
        seen.files[action.name] if isinstance(action, FreeLease) else seen.entries[action.path]
    )
    return replace(action, file=replace(action.file, mtime_ns=real.mtime_ns), ctime_ns=real.ctime_ns)


def janitor_pass(
    node: Node, lies: tuple[Lies, Lies], grace_s: int, wait: bool, gap: Callable[[int], None], witness: str
) -> None:
    """As `janitor clean`: look, perhaps wait and look again, plan, look once more, do what both looks agree on."""
    policy = Policy(grace_s=grace_s)

    def pauses(first: int, number: int) -> Callable[[], None]:
        moments = iter(range(first, first + number))

        def pause() -> None:
            node.boot_ns += 5_000_003
            gap(next(moments))

        return pause

    first = look(node, lies[0], policy, pauses(0, LOOK))
    waits = [refusal.wait_s or 0 for refusal in first.plan.refusals]
    if wait and any(waits):
        node.boot_ns += (max(waits) + 1) * SECOND
        first = look(node, lies[0], policy, pauses(LOOK, LOOK))
    pauses(WAITING, 1)()
    second = look(node, lies[1], policy, pauses(SECOND_LOOK, LOOK))
    both = agreed(first.plan, second.plan, first.evidence, second.evidence)
    figures["passes"] += 1
    if not both.actions:
        return
    for action in both.actions:
        not_what_was_seen(action, first, second)
    pauses(BEFORE, 1)()

    def kernel() -> Witness | Unknown:
        if witness == "unknown":
            return NO
        # While janitor itself holds the lock, whoever else wants it waits: nothing can happen between these two.
        pause = None if node.janitor_has_the_lock() else pauses(LAST, 2)
        ids = {i for p in processes(node) for i in (*p.container_ids, p.cni_container_id) if i}
        if pause:
            pause()
        addresses = frozenset(a for n in namespaces(node) for a in known(n.addresses))
        if pause:
            pause()
        return Witness(frozenset(ids), addresses)

    context = ApplyContext(
        booted(node.root, node.boot_id), f"pass-{node.number():06d}", node.journal, MOUNTS, kernel,
        plugin_dirs=("/usr/lib/cni",), patience_s=0.03,
    )  # fmt: skip
    for outcome in apply(tuple(as_on_disk(action, first) for action in both.actions), context):
        happened(node, outcome, grace_s)
    node.sync(by_janitor=True)


def not_what_was_seen(action: Action, *looks: Seen) -> None:
    """Whatever CRI listed, in whatever state, is not janitor's to free (rule 2)."""
    if not isinstance(action, FreeLease) or not action.container_id:
        return
    for seen in looks:
        for one in known(seen.evidence.endpoints):
            assert action.container_id not in {s.container_id for s in known(one.sandboxes)}, action
            assert action.container_id not in {r.container_id for r in known(one.records)}, action


def happened(node: Node, outcome: Outcome, grace_s: int) -> None:
    action = outcome.action
    figures[f"{action.kind}: {outcome.event}"] += 1
    if outcome.event == "failed":
        assert action.chain, f"nothing here can fail: {outcome}"
    if outcome.event != "done":
        return
    if isinstance(action, ReserveLease):
        (owner,) = [o for o in node.owners if o.container_id == action.container_id]
        assert owner.address == action.name
        owner.unleased = False
        inode, _, _ = node.scan()[action.name]
        node.stored[inode] = (action.name, (node.path / action.name).read_bytes())
        node.born_at[inode] = (node.boot, node.boot_ns)
    elif isinstance(action, FreeLease):
        figures["freed with CNI DEL"] += bool(action.chain)
        figures["freed: names nobody"] += not action.container_id
        figures["freed in the boot of its birth"] += node.born_at[action.file.inode][0] == node.boot
        old_enough(node, action, action.file.inode, grace_s)


def old_enough(node: Node, action: Action, inode: int, grace_s: int) -> None:
    """Rule 4 by the truth: from before this boot, or before the running runtime, or there for the grace."""
    boot, born_ns = node.born_at[inode]
    age_ns = node.boot_ns - born_ns
    assert boot < node.boot or born_ns < node.runtime.started_ns or age_ns >= max(grace_s, GRACE_FLOOR_S) * SECOND, (
        f"{action.path} is {age_ns / SECOND:.1f} s old and was freed: {action.proof}"
    )


def undo_pass(node: Node, pick: int, gap: Callable[[int], None]) -> None:
    """As `janitor undo`, of any pass there was."""
    passes = sorted({e.pass_id for e in node.journal.entries.values() if e.state == "done"})
    if not passes:
        return

    def kernel() -> Witness:
        gap(0)
        seen = frozenset(a for n in namespaces(node) for a in known(n.addresses))
        gap(1)
        return Witness(frozenset(), seen)

    context = ApplyContext(booted(node.root, node.boot_id), "", node.journal, MOUNTS, kernel, patience_s=0.03)
    for restored in undo(passes[pick % len(passes)], context):
        figures["undo: back" if restored.ok else "undo: refused"] += 1
    node.sync(by_janitor=True)


# --- what must hold at every moment ------------------------------------------------------------------------


def nobody_lost_a_lease(node: Node) -> None:
    leases = node.leases()
    for owner in node.owners:
        if not owner.alive or owner.unleased:
            continue
        found = leases.get(owner.address)
        wanted = b"" if owner.slow_fd >= 0 else f"{owner.container_id}\r\neth0".encode()
        assert found == wanted, f"{owner} lost its lease: {found!r}"


def nobody_shares_an_address(node: Node) -> None:
    given: dict[str, Owner] = {}
    for owner in node.owners:
        if owner.alive and not owner.unleased:
            assert owner.address not in given, f"{owner.address} belongs to {given[owner.address]} and to {owner}"
            given[owner.address] = owner


def every_file_is_somewhere(node: Node) -> None:
    """What no owner released is in its place or in quarantine, once, with its bytes."""
    found: dict[int, tuple[str, bytes]] = {}
    for name, (inode, _, _) in node.scan().items():
        if name not in BOOKKEEPING:
            found[inode] = (name, (node.path / name).read_bytes())
    quarantine = Path(f"{node.root}{QUARANTINE}")
    for path in quarantine.glob("*/*"):
        name = path.name.partition("-")[2]
        if path.suffix == ".cache" or name.startswith(f"{NETWORK}-"):
            continue
        inode = path.stat().st_ino
        assert inode not in found, f"{path} is also in its place"
        found[inode] = (name, path.read_bytes())
    assert found == node.stored
    for entry in node.journal.entries.values():
        if entry.state == "done" and entry.action.kind != "reserve":
            assert Path(f"{node.root}{entry.quarantine}").exists(), entry
        else:
            assert not Path(f"{node.root}{entry.quarantine}").exists(), entry


def bookkeeping_is_untouched(node: Node) -> None:
    assert node.read_books() == node.books
    for name, content in FOREIGN.items():
        assert (node.path / name).read_bytes() == content
    strangers = [name for name in node.scan() if name not in (*FOREIGN, *BOOKKEEPING) and not name.startswith("10.9.0")]
    assert strangers == []


INVARIANTS = (nobody_lost_a_lease, nobody_shares_an_address, every_file_is_somewhere, bookkeeping_is_untouched)
