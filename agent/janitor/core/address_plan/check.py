"""Runs every rule about an address plan."""

from janitor.core.address_plan import limits as plan_limits
from janitor.core.address_plan import ranges as plan_rules
from janitor.core.address_plan import values as plan_values
from janitor.core.address_plan.plan import AddressPlan, Layout
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding

IDS = (
    FindingId.CIDR001, FindingId.CIDR002, FindingId.CIDR003, FindingId.CIDR004, FindingId.CIDR005,
    FindingId.CIDR006, FindingId.CIDR007, FindingId.CIDR008, FindingId.CIDR009, FindingId.CIDR010,
    FindingId.CIDR013, FindingId.CIDR014, FindingId.CIDR015, FindingId.CIDR017, FindingId.CIDR018,
    FindingId.CIDR019, FindingId.CIDR020, FindingId.CIDR021, FindingId.CIDR022, FindingId.CIDR026,
    FindingId.CIDR028,
)  # fmt: skip


def examine(plan: AddressPlan) -> tuple[Finding, ...]:
    """The findings about the plan, the worst first."""
    layout = Layout(plan)
    found = [finding for rules in (plan_values, plan_rules, plan_limits) for finding in rules.check(layout)]
    return tuple(sorted(found, key=lambda f: (-f.severity.rank, f.id, f.subject)))
