"""A pass that changes something: look, plan, look again, apply. The commands and the daemon use it.

Nothing here prints or asks; waiting and asking belong to the commands.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from janitor.core.leases.confirmation import agreed, observe_again, without_stale_rules
from janitor.core.leases.diagnosis import Diagnosis
from janitor.core.leases.judgement import Judgement
from janitor.core.leases.plan import plan
from janitor.core.model.action import Action, FreeLease, Plan, Policy, RestoreRule, WriteSetting
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown, known, unseen
from janitor.core.model.node_mark import not_shown
from janitor.core.model.outcome import Outcome
from janitor.core.model.reason import Reason, because
from janitor.core.rules.profiles import rules_unseen
from janitor.host.changes import state
from janitor.host.changes.apply import ApplyContext, Witness, apply
from janitor.host.changes.journal import Journal, new_pass_id
from janitor.host.changes.repairs import NodeRepairs
from janitor.host.cni import node_mark
from janitor.host.kernel import netns
from janitor.host.kernel.firewall import named_addresses
from janitor.host.kernel.mounts import own_mounts
from janitor.host.kernel.net_tables import Asked as AskedAddresses
from janitor.host.kernel.processes import Asked, processes
from janitor.host.kernel.programs import Recent
from janitor.host.node import Node, find_node
from janitor.passes.scan import Options, asked_addresses, diagnose, observe

STOPPED: Final = because(Code.STOPPED)


@dataclass(frozen=True, slots=True)
class Look:
    """One look: the evidence, its diagnosis, and the plan."""

    evidence: Evidence
    diagnosis: Diagnosis
    plan: Plan

    @property
    def judgement(self) -> Judgement:
        """The verdict on each lease."""
        return self.diagnosis.judgement

    @property
    def wait_s(self) -> int:
        """Seconds until no refusal can change any more by watching; 0 if none can."""
        return max((refusal.wait_s or 0 for refusal in self.plan.refusals), default=0)

    def unseen(self, policy: Policy) -> tuple[Unknown, ...]:
        """What could not be looked at, as far as the policy needs it."""
        of_rules = rules_unseen(self.evidence.routing, self.evidence.networks) if policy.about("RULE") else ()
        of_leases = self.judgement.unseen if policy.about("LEASE") else ()
        return (*of_leases, *of_rules)


def look(options: Options, policy: Policy, *, note: bool = True) -> Look:
    """Observe, judge and plan. `note`: record what had no owner for the next pass; OSError if that fails."""
    evidence = observe(options)
    diagnosis = diagnose(evidence, policy.grace_s)
    if note and not isinstance(evidence.boot_id, Unknown):
        state.write_observations(find_node(options.root), observe_again(evidence, diagnosis.judgement))
    return Look(evidence, diagnosis, plan(evidence, diagnosis.judgement, policy))


def leave_mark(evidence: Evidence) -> Reason | None:
    """Write this node's mark into its data directories, before any change. Returns what went wrong, or None."""
    if not_shown(evidence.this_node, evidence.said_ours):
        return None
    return node_mark.leave_marks(find_node(evidence.root), known(evidence.lease_directories), evidence.this_node)


def carry_out(
    first: Look, options: Options, policy: Policy, journal: Journal, stop: Callable[[], Reason | None]
) -> tuple[ApplyContext, Plan, Iterator[Outcome]]:
    """Look once more, and do what both looks agree on. The work is done as the iterator is consumed."""
    second = look(options, policy)
    both = agreed(first.plan, second.plan, first.evidence, second.evidence)
    without_chain = [action.name for action in both.actions if isinstance(action, FreeLease) and not action.chain]
    if without_chain:
        both = without_stale_rules(both, second.evidence, named_addresses(options.root, without_chain))
    node = find_node(options.root)
    context = ApplyContext(
        node=node,
        pass_id=new_pass_id(),
        journal=journal,
        mounts=own_mounts(),
        witness=lambda: witness(
            find_node(options.root),  # each time, because /proc or a mount may have changed since
            Asked(frozenset(a.container_id for a in both.actions if not isinstance(a, RestoreRule | WriteSetting))),
            asked_addresses(
                second.evidence.networks,
                second.evidence.lease_directories,
                second.evidence.cache,
                known(second.evidence.endpoints),
            ),
        ),
        plugin_dirs=second.evidence.plugin_dirs,
        programs=Recent(options.root, options.program_dirs),
        repairs=NodeRepairs(node, options.profiles),
        stop=stop,
    )
    return context, both, apply(both.actions, context)


def change(action: Action, options: Options, journal: Journal) -> tuple[str, Outcome]:
    """One change that needs no second look. Returns the ID of the pass, and the outcome."""
    node = find_node(options.root)
    context = ApplyContext(
        node, new_pass_id(), journal, own_mounts(), lambda: unseen(Code.NOT_ASKED),
        repairs=NodeRepairs(node, options.profiles),
    )  # fmt: skip
    return context.pass_id, next(apply((action,), context))


def witness(node: Node, asked: Asked, addresses_asked: AskedAddresses) -> Witness | Unknown:
    """What the kernel shows now: which of these IDs processes name, and which addresses are up or routed to."""
    proc = node.proc
    if isinstance(proc, Unknown):
        return proc
    running, namespaces = processes(proc, asked), netns.witnessed(proc, addresses_asked).namespaces
    for part in (running, namespaces):
        if isinstance(part, Unknown):
            return part
    addresses: set[str] = set()
    for namespace in known(namespaces):
        for table in (namespace.addresses, namespace.host_routes):
            if isinstance(table, Unknown):
                return table
            addresses.update(table)
    ids = {i for process in known(running) for i in (*process.container_ids, process.cni_container_id) if i}
    return Witness(frozenset(ids), frozenset(addresses))
