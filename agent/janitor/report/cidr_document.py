"""The report of `janitor cidr` on an address plan: `-o json`, and the source of the table and the HTML page."""

from dataclasses import dataclass
from typing import Literal

import janitor
from janitor.core.address_plan.check import examine
from janitor.core.address_plan.limits import Limit, limits, pools
from janitor.core.address_plan.plan import AddressPlan, Layout
from janitor.core.address_plan.proposal import Change, propose
from janitor.core.model.findings import Severity
from janitor.report.cidr_picture import Picture, draw
from janitor.report.document import schema_of
from janitor.report.finding_row import FindingRow, finding_row
from janitor.report.json_bytes import indented

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the plan, and its source."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The nearest plan without a finding of warning or above, except findings that no range can fix (CIDR014)."""

    changes: tuple[Change, ...]
    values: tuple[Value, ...]
    picture: Picture


@dataclass(frozen=True, slots=True)
class PlanReport:
    """One plan and its findings. `proposal` is null if the plan is clean, or if no clean plan was found."""

    schema_version: int
    janitor: str
    status: Literal["ok", "findings"]
    fail_on: Severity
    clean: bool
    values: tuple[Value, ...]
    findings: tuple[FindingRow, ...]
    picture: Picture
    limits: tuple[Limit, ...]
    pools: str
    proposal: Suggestion | None


def make_report(plan: AddressPlan, fail_on: Severity = Severity.WARNING) -> PlanReport:
    """Check `plan`, draw it, and look for a better one."""
    layout = Layout(plan)
    findings = examine(plan)
    is_clean = all(f.severity.rank < Severity.WARNING.rank for f in findings)
    better = None if is_clean else propose(plan)
    if better is not None and not better.changes:
        better = None
    return PlanReport(
        SCHEMA_VERSION, janitor.__version__,
        "findings" if any(f.severity.rank >= fail_on.rank for f in findings) else "ok", fail_on, is_clean,
        _values(plan), tuple(finding_row(finding) for finding in findings), draw(layout), limits(layout), pools(layout),
        Suggestion(better.changes, _values(better.plan), draw(Layout(better.plan))) if better else None,
    )  # fmt: skip


def _values(plan: AddressPlan) -> tuple[Value, ...]:
    found = [Value("network", plan.network.value, plan.network.source)] if plan.network else []
    for name, stated in (("pods", plan.pods), ("services", plan.services), ("dns", plan.dns)):
        found += [Value(name, one.value, one.source) for one in stated]
    families = {part.net.version for part in Layout(plan).pods}
    found += [
        Value(name, f"/{mask}", "")
        for name, family, mask in (("node_mask", 4, plan.node_mask), ("node_mask_v6", 6, plan.node_mask_v6))
        if family in families
    ]
    return tuple(found)


def schema() -> bytes:
    """The JSON Schema of the report, generated from its types. Shipped as cidr.schema.json beside this file."""
    return schema_of(PlanReport, "janitor cidr")


def to_json(report: PlanReport) -> bytes:
    """The report as indented JSON."""
    return indented(report)


if __name__ == "__main__":
    import sys

    sys.stdout.buffer.write(schema())
