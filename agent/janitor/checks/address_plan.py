"""CIDR001 to CIDR028, as far as they concern the plan itself: the ranges of this node's cluster."""

from collections.abc import Iterator
from dataclasses import replace

from janitor.core.address_plan.check import IDS as PLAN_IDS
from janitor.core.address_plan.check import examine
from janitor.core.address_plan.plan import AddressPlan
from janitor.core.leases.judgement import Judgement
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding, Skipped
from janitor.core.model.fix import Command, Fix
from janitor.core.model.reason import because
from janitor.core.node.node_plan import mask_known, node_plan
from janitor.core.node.node_view import kubernetes_missing, node_ips, objects

_IDS = tuple(i for i in PLAN_IDS if i is not FindingId.CIDR008 and not i.plan_only)  # address_routes.py checks CIDR008

_NEW_RANGES = (FindingId.CIDR006, FindingId.CIDR007)
_NEED_MASK = (FindingId.CIDR014, FindingId.CIDR015, FindingId.CIDR022)
_NEED_ROUTES = (FindingId.CIDR014,)
_NEED_ALL_NODES = (FindingId.CIDR013,)
_NEED_NODES = (FindingId.CIDR004, FindingId.CIDR005)
_NEED_NETWORK = (FindingId.CIDR009, FindingId.CIDR028)


def check(evidence: Evidence, judgement: Judgement) -> Iterator[Finding | Skipped]:
    """The findings of the plan's rules, without rules that need what this node cannot know."""
    plan = node_plan(evidence)
    if missing := kubernetes_missing(evidence.node_config):
        yield Skipped(_IDS, missing)
        return
    if isinstance(plan, Unknown):
        yield Skipped(_IDS, plan.reason)
        return
    left_out = tuple(_left_out(plan, evidence))
    yield from left_out
    unasked = {i for part in left_out for i in part.ids}
    for finding in examine(plan):
        if finding.id in _IDS and finding.id not in unasked:
            more = ("; '", Command("janitor cidr"), "' proposes one") if finding.id in _NEW_RANGES else ()
            yield replace(finding, fix=Fix.of(*finding.fix.parts, *more))


def _left_out(plan: AddressPlan, evidence: Evidence) -> Iterator[Skipped]:
    """The rules that are skipped, by what is missing."""
    shown = objects(evidence.node_config)
    for one, values, what in ((FindingId.CIDR010, plan.dns, "the cluster DNS address"),
                              (FindingId.CIDR021, plan.services, "the Service range"),
                              (FindingId.CIDR020, plan.pods, "the pod range")):  # fmt: skip
        if not values:
            yield Skipped((one,), because(Code.NOT_WRITTEN_HERE, what=what))
    if not plan.pods or not plan.services:
        yield Skipped(
            (FindingId.CIDR002, FindingId.CIDR003),
            because(Code.RANGES_NOT_BOTH_WRITTEN),
        )
    if not mask_known(evidence):
        yield Skipped(_NEED_MASK, because(Code.NOT_WRITTEN_HERE, what="the size of a node's pod range"))
    elif plan.hetzner and plan.routes is None:
        yield Skipped(_NEED_ROUTES, because(Code.ROUTES_NOT_KNOWN))
    if shown is None or not shown.whole:
        yield Skipped(_NEED_ALL_NODES, because(Code.NODES_NOT_COUNTED))
    if not node_ips(evidence):
        yield Skipped(_NEED_NODES, because(Code.OWN_ADDRESS_NOT_WRITTEN))
    if plan.network is None:
        yield Skipped(_NEED_NETWORK, because(Code.PRIVATE_NETWORK_NOT_KNOWN))
