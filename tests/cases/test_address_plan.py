"""Each rule about an address plan: when it speaks, how loud, and when it does not. And the plans of an incident."""

import pytest

from janitor.core.address_plan.check import examine
from janitor.core.address_plan.limits import limits, pools
from janitor.core.address_plan.plan import AddressPlan, Layout
from janitor.core.address_plan.proposal import clean, propose
from tests.address_plans import (
    BROKEN,
    DEFAULT,
    DOCUMENTED,
    FIXED,
    M4T7E,
    REPAIRED,
    by_hand,
    by_scheme,
    ids,
    only,
)


def test_the_broken_plan_is_critical() -> None:
    assert ids(BROKEN) == {"CIDR004": "critical", "CIDR005": "critical", "CIDR026": "warning", "CIDR028": "warning"}
    first = next(f for f in examine(BROKEN) if f.id == "CIDR004")
    assert first.subject == "node 0 of agent pool 0"
    assert "10.20.128.101 inside 10.20.128.0/24" in first.summary
    assert "kube-hetzner#1221" in first.explanation


def test_the_incidents_fix_is_not_clean() -> None:
    assert ids(FIXED) == {"CIDR006": "error", "CIDR014": "info"}
    evidence = "\n".join(only(FIXED, "CIDR006").evidence)
    for pool, slot in ((0, 127), (1, 126), (2, 125)):
        assert f"control-plane pool {pool} (10.20.{255 - pool}.0/24) takes slot {slot} of 128" in evidence
    assert "the optional NAT router (10.20.200.0/24) takes slot 72 of 128" in evidence
    assert "66 slots left before the first of them" in evidence  # 72, without those of the plan's six nodes


@pytest.mark.parametrize("plan", [REPAIRED, DOCUMENTED], ids=["repaired", "documented"])
def test_a_good_plan_has_no_finding(plan: AddressPlan) -> None:
    assert examine(plan) == ()


def test_the_default_of_kube_hetzner_has_one_remark() -> None:
    assert ids(DEFAULT) == {"CIDR014": "info"}
    assert pools(Layout(DEFAULT)).startswith("42, before")
    assert (limits(Layout(DEFAULT))[0].nodes, limits(Layout(FIXED))[0].nodes) == (100, 72)


def test_the_threads_first_suggestion_has_the_same_fault() -> None:
    assert "CIDR006" in ids(M4T7E)


@pytest.mark.parametrize(
    ("plan", "changed"),
    [
        (BROKEN, {"network": "10.20.0.0/16"}),
        (FIXED, {"pods": "10.20.128.0/18"}),  # the very plan that facts about the incident call repaired
        (by_hand("10.42.0.0/16", "10.42.128.0/17"), {"services": "10.43.0.0/17"}),
        (by_hand("10.42.0.0/16", "10.43.0.0/16", dns="10.43.0.1"), {"dns": "10.43.0.10"}),
        (by_hand("10.42.1.0/16", "10.43.0.0/16"), {"pods": "10.42.0.0/16"}),
        (by_hand("10.42.0.0/16", "10.43.0.0/16", node_mask=25, max_pods=250), {"node_mask": "/24"}),
    ],
)  # fmt: skip
def test_the_nearest_plan(plan: AddressPlan, changed: dict[str, str]) -> None:
    found = propose(plan)
    assert found is not None
    assert {c.name: c.after for c in found.changes} == changed
    assert clean(found.plan)


def test_a_good_plan_is_left_alone() -> None:
    for plan in (REPAIRED, DEFAULT, DOCUMENTED):
        found = propose(plan)
        assert found is not None
        assert found.changes == ()


def test_where_there_is_no_room_nothing_is_proposed() -> None:
    assert propose(by_hand("10.0.0.0/25", "10.0.0.0/25", network="10.0.0.0/24", subnets="10.0.0.0/24")) is None
    assert propose(by_hand("10.42.0.0/16", "10.43.0.0/16", network="nonsense")) is None
    assert propose(by_hand("10.42.0.0/16", "10.43.0.0/16", subnets="10.1.0.0/33")) is None  # nobody can mend that


CLEAN = {"pods": "10.42.0.0/16", "services": "10.43.0.0/16"}


@pytest.mark.parametrize(
    ("identifier", "severity", "change"),
    [
        ("CIDR001", "error", {"pods": "10.42.0.1/16"}),
        ("CIDR001", "error", {"services": "10.43.0.0"}),
        ("CIDR001", "error", {"dns": "10.43.0.0/16"}),
        ("CIDR001", "error", {"subnets": "10.1.0.0/33"}),
        ("CIDR001", "error", {"network": "fd00::/48", "hetzner": True}),
        ("CIDR001", "info", {"services": "10.43.0.0/255.255.0.0"}),
        ("CIDR002", "error", {"pods": "10.42.0.0/16,fd00:42::/56"}),
        ("CIDR002", "error", {"pods": "fd00:42::/56,10.42.0.0/16", "services": "10.43.0.0/16,fd00:43::/112"}),
        ("CIDR002", "error", {"nodes": "fd00::1"}),
        ("CIDR002", "error", {"pods": "10.42.0.0/16,10.44.0.0/16", "services": "10.43.0.0/16,10.45.0.0/16"}),
        ("CIDR003", "error", {"services": "10.42.128.0/17"}),
        ("CIDR003", "warning", {"services": "10.42.128.0/17", "skips_services": True}),
        ("CIDR003", "error", {"services": "10.0.0.0/8", "skips_services": True}),
        ("CIDR004", "critical", {"nodes": "10.42.0.5"}),
        ("CIDR004", "critical", {"nodes": "10.42.7.5=10.42.7.0/24"}),
        ("CIDR005", "critical", {"nodes": "10.42.7.5=10.42.8.0/24,10.1.0.1=10.42.7.0/24"}),
        ("CIDR006", "error", {"nodes": "10.42.7.5=10.42.8.0/24"}),
        ("CIDR006", "error", {"nodes": "10.42.7.5"}),
        ("CIDR006", "error", {"subnets": "10.42.200.0/24"}),
        ("CIDR007", "error", {"subnets": "10.43.1.0/24"}),
        ("CIDR007", "critical", {"nodes": "10.43.1.7"}),
        ("CIDR008", "warning", {"network": "10.0.0.0/16"}),
        ("CIDR008", "info", {"network": "10.0.0.0/16", "routes": False}),
        ("CIDR009", "info", {"network": "10.42.0.0/15", "services": "10.80.0.0/16"}),
        ("CIDR010", "error", {"dns": "10.44.0.10"}),
        ("CIDR010", "error", {"dns": "10.43.0.0"}),
        ("CIDR010", "error", {"dns": "10.43.0.1"}),
        ("CIDR010", "error", {"dns": "10.43.255.255"}),
        ("CIDR013", "error", {"pods": "10.42.0.0/22", "node_count": 5}),
        ("CIDR013", "warning", {"pods": "10.42.0.0/22", "node_count": 4}),
        ("CIDR014", "info", {"hetzner": True, "routes": True}),
        ("CIDR014", "warning", {"hetzner": True, "routes": True, "node_count": 80}),
        ("CIDR014", "warning", {"hetzner": True, "routes": False, "node_count": 101}),
        ("CIDR015", "warning", {"node_mask": 25, "max_pods": 126}),
        ("CIDR017", "error", {"pods": "169.254.0.0/17"}),
        ("CIDR017", "error", {"services": "fe80::/112"}),
        ("CIDR018", "error", {"pods": "172.31.0.0/16", "hetzner": True}),
        ("CIDR019", "warning", {"services": "100.64.0.0/16"}),
        ("CIDR020", "warning", {"pods": "11.0.0.0/16"}),
        ("CIDR020", "error", {"pods": "11.0.0.0/16", "hetzner": True, "routes": True}),
        ("CIDR021", "error", {"services": "172.16.0.0/11"}),
        ("CIDR021", "error", {"pods": "fd00:42::/56", "services": "fd00:43::/96"}),
        ("CIDR022", "error", {"node_mask": 15}),
        ("CIDR022", "error", {"pods": "fd00:42::/40", "services": "fd00:43::/112"}),
        ("CIDR026", "warning", {"network": "10.40.0.0/17", "scheme": "kube-hetzner"}),
        ("CIDR028", "warning", {"network": "10.42.0.0/15", "hetzner": True}),
    ],
)  # fmt: skip
def test_rule(identifier: str, severity: str, change: dict[str, object]) -> None:
    assert examine(by_hand(**CLEAN)) == ()
    assert ids(by_hand(**(CLEAN | change))).get(identifier) == severity  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "plan",
    [
        by_hand("10.42.0.0/16,fd00:42::/56", "10.43.0.0/16,fd00:43::/112", nodes="10.0.0.1,fd00::1"),
        by_hand("fd00:42::/56", "fd00:43::/112"),
        by_hand("10.42.0.0/16", "10.43.0.0/16", dns="10.43.0.10", nodes="10.1.0.1=10.42.0.0/24,10.1.0.2=10.42.1.0/24"),
        by_hand("10.42.0.0/22", "10.43.0.0/16", node_count=3),
        by_hand("172.30.0.0/16", "10.43.0.0/16", hetzner=True),
        by_hand("10.48.0.0/16", "10.32.0.0/12", node_mask=25, max_pods=125),
        by_hand(),
    ],
)
def test_no_finding(plan: AddressPlan) -> None:
    assert examine(plan) == ()


def test_a_network_too_small_for_the_scheme_is_no_crash() -> None:
    assert "CIDR026" in ids(by_scheme("10.0.0.0/24", "10.42.0.0/16", "10.43.0.0/16"))
