"""RULE001 to RULE007: when each is made, how bad it is, and when it is not made; and what `clean` would do about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from janitor.core.model.action import RestoreRule
from janitor.core.model.addresses import make_range
from janitor.core.model.evidence import Evidence, Unknown
from janitor.core.model.findings import Finding
from janitor.core.model.routing import (
    Breaker,
    Link,
    ManagedLink,
    Networkd,
    NetworkdSetting,
    NetworkFile,
    Probe,
    Route,
    Routing,
    RuleOwner,
)
from janitor.core.model.rules import PolicyRule, derived
from janitor.core.rules import networkd as networkd_facts
from janitor.core.rules.rule_plan import plan_rules
from janitor.host import profiles
from janitor.passes.scan import diagnose, select
from tests.reasons import not_seen, words
from tests.situations import BOOT, NOW, SECOND, evidence, network

FILE = "/etc/cni/net.d/10-kuberouter.conflist"
RANGE = "10.244.0.0/24"
RULE = replace(derived(RANGE, 77), priority=32765)
KERNEL = (
    PolicyRule(4, 0, 2, (), "lookup", 255, b""),
    PolicyRule(4, 32766, 2, (), "lookup", 254, b""),
    PolicyRule(4, 32767, 2, (), "lookup", 253, b""),
)
ETH0 = "/etc/systemd/network/10-eth0.network"


def networkd(**other: Any) -> Networkd:
    values: dict[str, Any] = {
        "pid": 400, "started_ns": BOOT + 9_000 * SECOND, "version": "252.39-1~deb12u2", "settings": (),
        "network_files": (NetworkFile(ETH0, ("eth0",), False, ""),),
        "links": (ManagedLink(2, ETH0, "configured", BOOT + 9_000 * SECOND),),
    }  # fmt: skip
    return Networkd(**(values | other))


def routing(*rules: PolicyRule, **other: Any) -> Routing:
    values: dict[str, Any] = {
        "rules": (*KERNEL, *rules),
        "routes": (
            Route("198.51.100.7/32", "", "tun-0123456789a", table=77, protocol=3),
            Route("0.0.0.0/0", "192.0.2.1", "eth0", protocol=16),
        ),
        "links": (
            Link(2, "eth0", True, "", ("192.0.2.10/24",)),
            Link(3, "kube-bridge", True, "bridge", ("10.244.0.1/24",)),
            Link(4, "tun-0123456789a", True, "ipip", ()),
        ),
        "owners": (RuleOwner("kube-router", 900, 6_000 * SECOND, ("--run-router=true", "--enable-ipv6=true"), FILE),),
        "networkd": (networkd(),),
        "profiles": tuple(p for p in profiles.load() if p.enabled),
    }  # fmt: skip
    return Routing(**(values | other))


def node(*rules: PolicyRule, **other: Any) -> Evidence:
    sets = (
        (make_range("10.244.0.0/24"),),
        (make_range("10.52.0.0/24"),),
    )  # the second is of earlier
    return evidence(networks=(network(source=FILE, range_sets=sets),), routing=routing(*rules, **other))


def found(what: Evidence) -> dict[str, Finding]:
    return {finding.id: finding for finding in select(diagnose(what), "rules").findings}


def setting(value: str, at: int = BOOT) -> NetworkdSetting:
    return NetworkdSetting("ManageForeignRoutingPolicyRules", value, "/etc/systemd/networkd.conf.d/k8s.conf", 2, at)


def test_a_healthy_node_has_one_remark() -> None:
    assert list(found(node(RULE))) == ["RULE003"]
    assert found(node(RULE))["RULE003"].severity == "info"
    assert found(node(RULE, networkd=())) == {}


def test_the_rule_is_gone() -> None:
    finding = found(node(probes=(Probe("198.51.100.7", "10.244.0.2", "eth0", 254),)))["RULE001"]
    assert finding.severity == "critical"
    assert "leaves through eth0 (table 254), not through tun-0123456789a" in " ".join(finding.evidence)
    assert "ip rule add from 10.244.0.0/24 lookup 77" in finding.fix.text


@pytest.mark.parametrize(
    "other",
    [
        {"owners": not_seen("no /proc")},
        {"owners": (RuleOwner("kube-router", 9, 0, ("--enable-overlay=false",), FILE),)},
        {"owners": (RuleOwner("kube-router", 9, 0, ("--enable-overlay=true", "--enable-overlay=0"), FILE),)},
        {"owners": (RuleOwner("kube-router", 9, 0, (), ""),)},
        {"routes": ()},
        {"routes": not_seen("interrupted")},
        {"rules": not_seen("interrupted")},
        {"profiles": ()},
    ],
)
def test_it_is_not_missed_where_nobody_wants_it_or_it_cannot_be_seen(other: dict[str, Any]) -> None:
    assert "RULE001" not in found(node(**other))
    assert plan_rules(node(**other)).actions == ()


def test_clean_makes_it_if_everything_speaks_for_networkd() -> None:
    (action,) = plan_rules(node()).actions
    assert isinstance(action, RestoreRule)
    assert (action.kind, action.name, bytes.fromhex(action.payload)) == (
        "restore", "from 10.244.0.0/24 lookup 77", derived(RANGE, 77).payload,
    )  # fmt: skip


OTHER = replace(derived("10.9.0.0/16", 99), priority=100)


@pytest.mark.parametrize(
    ("rules", "other", "why"),
    [
        ((), {"networkd": not_seen("no permission")}, "systemd-networkd was active: no permission"),
        ((), {"networkd": ()}, "neither started nor configured a link since kube-router"),
        (
            (),
            {"networkd": (networkd(started_ns=BOOT + 5_000 * SECOND, links=()),)},
            "neither started nor configured a link since kube-router",
        ),
        ((OTHER,), {}, "would have deleted these rules as well, but they still exist: 100: from 10.9.0.0/16 lookup 99"),
        (
            (PolicyRule(4, 32765, 2, (("from", RANGE),), "lookup", 99, b""),),
            {},
            "there is another rule for the same pods",
        ),
        ((), {"links": (Link(3, "kube-bridge", True, "bridge", ("10.244.0.1/24",)),)}, "is up"),
    ],
)
def test_each_piece_of_evidence_that_is_missing_is_said(rules: Any, other: dict[str, Any], why: str) -> None:
    planned = plan_rules(node(*rules, **other))
    assert planned.actions == ()
    assert why in words(planned.refusals[0].reasons)


@pytest.mark.parametrize("clock_set_ns", [9_500 * SECOND, not_seen("the note is cut short")])
def test_by_a_clock_that_was_set_since_only_networkds_start_counts(clock_set_ns: int | Unknown) -> None:
    configured = node(networkd=(networkd(started_ns=BOOT + 5_000 * SECOND),))
    assert plan_rules(configured).actions
    (refusal,) = plan_rules(replace(configured, clock_set_ns=clock_set_ns)).refusals
    assert "has not started since kube-router started" in words(refusal.reasons)
    assert plan_rules(replace(node(), clock_set_ns=clock_set_ns)).actions


def test_what_networkd_keeps_or_others_make_again_does_not_speak_against_it() -> None:
    declared = replace(OTHER, protocol=4)
    heals = PolicyRule(4, 32764, 0, (("fwmark", "0x3e9"),), "lookup", 78, b"")
    assert len(plan_rules(node(declared, heals)).actions) == 1


def test_twice() -> None:
    finding = found(node(RULE, replace(RULE, priority=32764)))["RULE002"]
    assert finding.severity == "warning"
    assert finding.fix.text == "ip rule del priority 32764 from 10.244.0.0/24 lookup 77"
    assert "RULE002" not in found(node(RULE, OTHER, replace(OTHER, priority=99)))


def test_rules_of_the_same_shape_without_their_owner_are_nobodys() -> None:
    declared = replace(RULE, protocol=4)
    for what in (node(RULE, RULE, owners=()), node(declared, replace(declared, priority=99), owners=())):
        assert {"RULE002", "RULE003"} & found(what).keys() == set()


def test_ipv6_only_where_kube_router_was_asked_for_it() -> None:
    ranges = ("fd00:10:244::/64",)
    what = node(RULE, networkd=(networkd(),))
    seen = replace(
        what.routing,
        routes=(*what.routing.routes, Route("2001:db8::7/128", "", "tun-0123456789a", table=77, protocol=3)),  # type: ignore[misc]
        links=(Link(3, "kube-bridge", True, "bridge", ("fd00:10:244::1/64",)), *what.routing.links[1:]),  # type: ignore[index]
        rules=KERNEL,
        owners=(RuleOwner("kube-router", 900, 6_000 * SECOND, ("--run-router=true",), FILE),),
    )
    both = replace(what, networks=(network(source=FILE, range_sets=((make_range(ranges[0]),),)),), routing=seen)
    planned = plan_rules(both)
    assert (planned.actions, "was not started with --enable-ipv6" in words(planned.refusals[0].reasons)) == ((), True)
    off = replace(seen, owners=(RuleOwner("kube-router", 900, 0, ("--enable-ipv6=false",), FILE),))
    assert plan_rules(replace(both, routing=off)).refusals == ()


@pytest.mark.parametrize(
    ("version", "wipes", "opt_out"),
    [
        ("245.4-4ubuntu3", False, False), ("247.3-7+deb11u4", False, False), ("247.4-1", True, False),
        ("247.10-1", True, True), ("247", True, None), ("248-2", True, False), ("248.8-1", True, True),
        ("249.11-0ubuntu3.12", True, True), ("252.39-1~deb12u2", True, True), ("255", True, True), ("", True, None),
    ],
)  # fmt: skip
def test_the_versions(version: str, wipes: bool, opt_out: bool | None) -> None:
    assert (networkd_facts.wipes(version), networkd_facts.has_opt_out(version)) == (wipes, opt_out)
    finding = found(node(RULE, networkd=(networkd(version=version),))).get("RULE003")
    assert (finding is not None) == wipes
    if finding is not None:
        assert ("50-janitor.conf" in finding.fix.text) == (opt_out is True)
        assert ('kube-router = "kernel"' in finding.fix.text) == (opt_out is not True)


def test_the_drop_in_and_the_restart() -> None:
    assert "RULE003" in found(node(RULE, networkd=(networkd(settings=(setting("yes"),)),)))
    before, after = BOOT + 8_000 * SECOND, BOOT + 9_500 * SECOND
    assert set(found(node(RULE, networkd=(networkd(settings=(setting("no", after),)),)))) == {"RULE004"}
    assert found(node(RULE, networkd=(networkd(settings=(setting("no", before),)),))) == {}
    # It does not run: there is nobody to be restarted.
    assert "RULE004" not in found(node(RULE, networkd=(networkd(settings=(setting("no", after),), pid=0),)))


def test_keep_configuration() -> None:
    keeping = (NetworkFile(ETH0, ("eth0",), False, "yes"),)
    assert found(node(RULE, networkd=(networkd(network_files=keeping),))) == {}


def test_foreign_routes() -> None:
    mine = Route("10.244.1.0/24", "192.0.2.2", "eth0", protocol=17)
    what = node(RULE)
    seen = replace(what.routing, routes=(*what.routing.routes, mine))  # type: ignore[misc]
    finding = found(replace(what, routing=seen))["RULE005"]
    assert finding.severity == "info"
    assert finding.evidence == ("10.244.1.0/24 dev eth0 proto 17",)


def test_a_greedy_match() -> None:
    greedy = NetworkFile("/etc/systemd/network/all.network", ("*",), False, "")
    links = (ManagedLink(2, ETH0, "configured", 0), ManagedLink(3, greedy.path, "configured", 0))
    finding = found(node(RULE, networkd=(networkd(network_files=(greedy,), links=links),)))["RULE006"]
    assert finding.evidence == (
        f"kube-bridge is configured by {greedy.path}", f"tun-0123456789a is configured by {greedy.path}",
    )  # fmt: skip
    # Not the first that matches; not managed; all but one.
    for file in (
        NetworkFile("/etc/systemd/network/05-pods.network", ("kube-bridge", "tun-*"), True, ""),
        NetworkFile("/etc/systemd/network/05-not.network", ("!eth0",), True, ""),
    ):
        assert "RULE006" not in found(node(RULE, networkd=(networkd(network_files=(file, greedy)),)))


def test_the_breaker() -> None:
    assert "RULE007" not in found(node(RULE, breakers=(Breaker(RULE, 30, NOW - 60 * SECOND),)))
    finding = found(node(breakers=(Breaker(RULE, 30, NOW - 60 * SECOND),)))["RULE007"]
    assert finding.severity == "error"
    assert finding.evidence == ("restored 30 times within an hour, the last time 61 s ago",)


def test_not_seen_matters_only_where_there_are_such_rules() -> None:
    assert found(node(rules=not_seen("reading the policy rules: no"))).keys() >= {"SCAN002"}
    elsewhere = evidence(routing=routing(rules=not_seen("no")))
    assert "SCAN002" not in found(elsewhere)
