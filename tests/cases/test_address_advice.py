"""What the rules of an address plan tell people: proposals that help, reasons that are true, fixes that last."""

from dataclasses import replace

import pytest

from janitor.core.address_plan.check import examine
from janitor.core.address_plan.limits import limits
from janitor.core.address_plan.plan import AddressPlan, Layout
from janitor.core.address_plan.proposal import propose
from janitor.core.model.finding_ids import FindingId
from janitor.report.cidr_document import make_report
from janitor.report.cidr_table import to_table
from tests.address_plans import DEFAULT, by_hand, by_scheme


def text(plan: AddressPlan) -> str:
    return " ".join(to_table(make_report(plan), width=400, colour=False).split())


def fix(plan: AddressPlan, identifier: str) -> str:
    return next(f.fix.text for f in examine(plan) if f.id == identifier)


@pytest.mark.parametrize("nodes", [79, 80, 100, 150])
def test_what_no_range_mends_stops_no_proposal(nodes: int) -> None:
    plan = by_scheme("10.0.0.0/8", "10.42.0.0/16", "10.42.128.0/17", node_count=nodes)
    found = propose(plan)
    assert found is not None
    assert [c.name for c in found.changes] == ["services"]
    assert ("except CIDR014, which no range solves" in text(plan)) == (nodes >= 80)


def test_the_reason_for_no_proposal_is_the_true_one() -> None:
    assert "No other range solves CIDR014" in text(by_scheme("10.0.0.0/8", "10.42.0.0/16", "10.43.0.0/16",
                                                                           node_count=90))  # fmt: skip
    assert "until the invalid values are corrected" in text(by_hand("10.42.0.0/16", "10.43.0.0/16", network="nonsense"))
    full = by_hand("10.0.0.0/25", "10.0.0.0/25", network="10.0.0.0/24", subnets="10.0.0.0/24")
    assert "larger --network" in text(full)


def test_a_network_takes_a_hundred_servers_with_an_overlay_too() -> None:
    overlay = by_scheme("10.0.0.0/8", "10.42.0.0/16", "10.43.0.0/16", routes=False)
    assert min(limit.nodes for limit in limits(Layout(overlay))) <= 100
    assert any("with an overlay too" in limit.reason for limit in limits(Layout(overlay)))
    assert any("with an overlay too" in limit.reason for limit in limits(Layout(DEFAULT)))


@pytest.mark.parametrize(("nodes", "early"), [(3, True), (8, False)])
def test_that_it_works_at_first_is_said_only_where_it_does(nodes: int, early: bool) -> None:
    found = {f.id: f for f in examine(by_hand("10.42.0.0/16", "10.43.0.0/16", subnets="10.42.7.0/24",
                                              node_count=nodes))}  # fmt: skip
    assert ("It works at first" in found[FindingId.CIDR006].explanation) == early


def test_fixes_that_last() -> None:
    outside = by_hand("10.42.0.0/16", "10.43.0.0/16", network="10.0.0.0/16")
    assert "does not survive a reboot" in fix(outside, "CIDR008")
    assert "config.yaml" in fix(by_hand("10.42.0.0/16", "10.43.0.0/16", dns="10.44.0.10"), "CIDR010")
    assert "a running cluster" in fix(by_hand("10.42.0.0/16", "10.43.0.0/16", nodes="10.43.1.7"), "CIDR007")


@pytest.mark.parametrize(
    ("pods", "mask", "part"),
    [
        ("10.42.0.0/16", 15, "/24: that makes 256 slots"),
        ("10.42.0.0/16", 33, "/24: that makes 256 slots"),
        ("10.42.0.0/26", 24, "a larger pod range"),
        ("fd00:42::/40", 64, "use a node mask of /56"),
    ],
)
def test_a_node_mask_that_can_be_used(pods: str, mask: int, part: str) -> None:
    services = "fd00:43::/112" if ":" in pods else "10.43.0.0/16"
    plan = by_hand(pods, services)
    plan = replace(plan, node_mask_v6=mask) if ":" in pods else replace(plan, node_mask=mask)
    assert part in fix(plan, "CIDR022")


def test_a_proposal_keeps_both_families_and_leaves_docker_its_own() -> None:
    swapped = propose(by_hand("10.42.0.0/16,fd00:42::/56", "fd00:43::/112,10.43.0.0/16"))
    assert swapped is not None
    assert {c.name: c.after for c in swapped.changes} == {"services": "10.43.0.0/16,fd00:43::/112"}
    near = propose(by_hand("172.16.0.0/16", "172.16.0.0/16"))
    assert near is not None
    assert all("172.17." not in c.after for c in near.changes)
