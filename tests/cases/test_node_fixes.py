"""What a finding about the node tells people to do: it works when it is pasted, or it is a sentence."""

from dataclasses import replace
from typing import Any

import pytest

from janitor.core.model.codes import Code
from janitor.core.model.evidence_node import EnvironmentFile, Unit
from janitor.core.model.finding_ids import FindingId
from janitor.core.model.findings import Finding
from janitor.core.model.fix import Fix
from janitor.core.model.routing import Route
from janitor.core.node.node_view import HCCM
from janitor.passes.scan import diagnose
from janitor.report.document import make_report
from janitor.report.finding_row import finding_row
from janitor.report.npd import to_line
from tests.cases.test_node_checks import (
    KUBELET,
    MACHINE,
    OTHER,
    ROUTES,
    UNIT,
    UNSEEN,
    age,
    kube_node,
    node,
    objects,
    ours,
    sets,
    stray,
    workload,
)
from tests.situations import BOOT, NOW, SECOND

FILE = "/etc/default/kubelet"
SET = sets("KUBELET_EXTRA_ARGS", "--cloud-provider=external", FILE, from_file=True)


def unit_of(name: str) -> tuple[Unit, ...]:
    return (replace(UNIT, name=f"{name}.service"),)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"assignments": (SET,), "written": ((FILE, f"KUBELET_EXTRA_ARGS={SET.value}\n"),)},
         '+KUBELET_EXTRA_ARGS="--cloud-provider=external --v=2"'),
        ({"written": ((FILE, "# nothing\n"),)}, "+KUBELET_EXTRA_ARGS=--v=2"),
        ({"environment_files": (EnvironmentFile(FILE, True, "missing", "x:1"),)}, f"create {FILE} with the line"),
        ({"environment_files": ()}, "EnvironmentFile=-/etc/sysconfig/kubelet"),
        ({"assignments": (sets("KUBELET_EXTRA_ARGS", "--x", "/etc/a.conf:2", from_file=False),)},
         "add them to KUBELET_EXTRA_ARGS in /etc/a.conf: --v=2"),
        ({"exec_start": "/usr/bin/kubelet $NODEADM_KUBELET_ARGS"}, "where this kubelet gets its flags from"),
    ],
)  # fmt: skip
def test_flags_in_a_file_that_nothing_reads_never_go_over_another_file(change: dict[str, Any], part: str) -> None:
    fix = ours(node(units=(stray("--v=2", **change),)))["KUB004"].fix.text
    assert part in fix
    assert "mv " not in fix


@pytest.mark.parametrize(
    ("change", "unit"),
    [
        ({}, "systemctl restart kubelet"),
        ({"distribution": "k3s", "units": unit_of("k3s-agent")}, "systemctl restart k3s-agent"),
        ({"distribution": "rke2", "units": unit_of("rke2-agent")}, "systemctl restart rke2-agent"),
        ({"distribution": "k0s", "server": False, "units": ()}, "systemctl restart k0sworker"),
    ],
)
def test_a_node_joins_anew_by_the_service_that_it_has(change: dict[str, Any], unit: str) -> None:
    fix = ours(node(**age(600, provider_id=""), **change))["NODE001"].fix.text
    assert fix.endswith(unit)
    assert "kubectl delete node worker-1" in fix


@pytest.mark.parametrize("server", [True, None])
@pytest.mark.parametrize("kind", ["k3s", "rke2"])
def test_a_server_that_may_hold_an_etcd_member_is_not_deleted(kind: str, server: bool | None) -> None:
    units = unit_of("k3s" if kind == "k3s" else "rke2-server") if server else ()
    fix = ours(node(distribution=kind, server=server, units=units, **age(600, provider_id="")))["NODE001"].fix.text
    assert "kubectl delete" not in fix
    assert "rancher/rke2#1874" in fix
    assert "etcd-snapshot" in fix


def test_the_autoscaler_is_named_only_to_nodes_that_it_made() -> None:
    """And a kubelet that has the flag is not told to get it."""
    finding = ours(node(**age(600, provider_id="")))["NODE001"]
    assert "autoscaler" not in finding.explanation
    assert finding.fix.text.startswith("the kubelet has the flag now")
    assert "autoscaler" in ours(node(**age(600, provider_id="", group="pool")))["NODE001"].explanation
    without = replace(KUBELET, argv=("/usr/bin/kubelet",))
    made_late = node(components=(without,), **age(600, provider_id="", group="pool"))
    assert ours(made_late)["NODE001"].fix.text.startswith("give the kubelet the flag")


@pytest.mark.parametrize(
    ("kind", "part"), [("kubeadm", "kubeadm reset"), ("k3s", "node-name in /etc/rancher/k3s/config.yaml")]
)
def test_another_name_takes_a_new_join(kind: str, part: str) -> None:
    what = node(distribution=kind, machine=(replace(MACHINE, hostname="other"),), **age(60, provider_id=""))
    fix = ours(what)["NODE003"].fix.text
    assert part in fix
    assert "kubectl delete" not in fix


def test_of_two_nodes_with_one_range_people_choose() -> None:
    """By names alone the older of them would have been the one to go."""
    young = kube_node(pod_cidrs=("10.42.2.0/24",), created_ns=BOOT + NOW - 60 * SECOND)
    fix = ours(node(objects=objects(young, OTHER)))["CIDR027"].fix.text
    assert "worker-1 is the younger" in fix
    assert "worker-2" in fix
    assert "kubectl delete" not in fix


@pytest.mark.parametrize(("change", "said"), [
    ({}, True),
    ({"objects": objects(workloads=(workload(HCCM, containers=((("c",), ()),)),))}, False),
    ({"vendor": "QEMU", "machine": UNSEEN}, False),
])  # fmt: skip
def test_whether_routes_are_made_is_not_guessed(change: dict[str, Any], said: bool) -> None:
    codes = {part.reason.code for part in diagnose(node(**change)).skipped if "CIDR014" in part.ids}
    assert (Code.ROUTES_NOT_KNOWN in codes) == said


def test_every_route_in_the_way_is_in_the_fix() -> None:
    routes = (Route("10.42.0.0/24", "", "docker0"), Route("10.42.3.0/24", "", "virbr0"))
    fix = ours(node(routes=(*ROUTES, *routes)))["CIDR016"].fix.text
    assert "docker0" in fix
    assert "virbr0" in fix


def test_what_was_not_seen_does_not_hide_the_rest_from_one_line() -> None:
    what = node(machine=(replace(MACHINE, networks=()),), addresses=("127.0.0.1",))
    findings = tuple(f for f in diagnose(what).findings if f.id.startswith("NODE"))
    unseen = Finding.of(FindingId.SCAN001, "x", "nobody answers", (), "", Fix(()), status="unknown")
    report = replace(
        make_report(what, diagnose(what)), findings=tuple(map(finding_row, (*findings, unseen))), status="unknown"
    )
    assert to_line(report) == f"SCAN001 nobody answers (+{len(findings)})"
    assert findings


def test_a_node_that_joined_anew_has_its_own_clock() -> None:
    """A Node that was made anew on a machine that is up for days: the machine's boot says nothing of C2."""
    what = node(**age(60, provider_id="", group="pool"), machine=UNSEEN)
    clock = replace(what.started, boottime_ns=3 * 86_400 * SECOND)
    finding = ours(replace(what, started=clock))["CA001"]
    assert finding.severity == "info"
    assert any("younger than the machine" in line for line in finding.evidence)
