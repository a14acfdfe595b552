"""Every rule about an address plan, asked at once."""

from janitor.core import plan_limits, plan_rules, plan_values
from janitor.core.address_plan import AddressPlan, Layout
from janitor.core.findings import Finding

IDS = (
    "CIDR001", "CIDR002", "CIDR003", "CIDR004", "CIDR005", "CIDR006", "CIDR007", "CIDR008", "CIDR009", "CIDR010",
    "CIDR013", "CIDR014", "CIDR015", "CIDR017", "CIDR018", "CIDR019", "CIDR020", "CIDR021", "CIDR022", "CIDR026",
    "CIDR028",
)  # fmt: skip


def examine(plan: AddressPlan) -> tuple[Finding, ...]:
    """What is wrong with it, the worst first."""
    layout = Layout(plan)
    found = [finding for rules in (plan_values, plan_rules, plan_limits) for finding in rules.check(layout)]
    return tuple(sorted(found, key=lambda f: (-f.severity.rank, f.id, f.subject)))
