"""Each check of the node's configuration: when it speaks and how loud, and when it does not."""

import json
from dataclasses import replace
from typing import Any

import pytest

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence
from janitor.core.model.evidence_node import (
    Assignment,
    CniFile,
    Component,
    Condition,
    EnvironmentFile,
    KubeNode,
    Machine,
    NodeConfig,
    Objects,
    PrivateNetwork,
    Setting,
    Unit,
    Workload,
)
from janitor.core.model.finding_ids import matching_ids
from janitor.core.model.findings import Finding
from janitor.core.model.reason import because
from janitor.core.model.routing import Route
from janitor.core.model.text import id_ranges
from janitor.core.model.unknown import unseen
from janitor.passes.scan import diagnose, select
from janitor.report.document import make_report
from janitor.report.evidence_json import decode, encode
from janitor.report.table import to_table
from tests.reasons import not_seen, recorded
from tests.situations import BOOT, NOW, SECOND, evidence

UNSEEN = not_seen("not asked")
KUBELET = Component(
    "kubelet",
    ("/usr/bin/kubelet", "--cloud-provider=external", "--node-ip=10.0.0.3", "--config=/var/lib/kubelet/config.yaml"),
    "process 7",
    7,
    True,
    NOW - 600 * SECOND,
)
MANAGER = Component("kube-controller-manager", ("kube-controller-manager", "--cluster-cidr=10.42.0.0/16",
                    "--service-cluster-ip-range=10.43.0.0/16"), "process 8", 8)  # fmt: skip
NETWORK = PrivateNetwork("1", "cluster", "10.0.0.3", (), "10.0.0.0/16", "10.0.0.0/24", "10.0.0.1")
MACHINE = Machine("4711", "worker-1", "eu-central", (NETWORK,))
READY = Condition("Ready", "True", "KubeletReady")
UNIT = Unit("kubelet.service", "/lib/kubelet.service", ("/lib/kubelet.service.d/10-kubeadm.conf",), (), (),
            (EnvironmentFile("/etc/default/kubelet", True, "read", "x:1"),),
            "/usr/bin/kubelet $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS", "/lib/kubelet.service.d/10-kubeadm.conf:9",
            ("/usr/bin/kubelet", "--node-ip=10.0.0.3"))  # fmt: skip
DNS = (Setting("kubelet", "cluster-dns", "10.43.0.10", "/var/lib/kubelet/config.yaml"),)
ROUTES = (Route("0.0.0.0/0", "172.31.1.1", "eth0"), Route("10.0.0.0/16", "10.0.0.1", "enp7s0"))


def kube_node(name: str = "worker-1", **other: Any) -> KubeNode:
    values: dict[str, Any] = {
        "name": name, "created_ns": BOOT + NOW - 600 * SECOND, "pod_cidrs": ("10.42.1.0/24",),
        "internal_ips": ("10.0.0.3",), "provider_id": "hcloud://4711", "taints": (), "conditions": (READY,),
    }  # fmt: skip
    return KubeNode(**(values | other))


OTHER = kube_node("worker-2", pod_cidrs=("10.42.2.0/24",), internal_ips=("10.0.0.4",), provider_id="hcloud://4712")


def objects(*nodes: KubeNode, **other: Any) -> tuple[Objects, ...]:
    values: dict[str, Any] = {
        "source": "nodes.json", "whole": True, "nodes": nodes or (kube_node(), OTHER), "service_ips": UNSEEN,
        "workloads": UNSEEN, "events": UNSEEN, "csi_nodes": UNSEEN,
    }  # fmt: skip
    return (Objects(**(values | other)),)


def node(**other: Any) -> Evidence:
    """A healthy worker of kubeadm at Hetzner of which everything was seen, but for what `other` changes."""
    values: dict[str, Any] = {
        "distribution": "kubeadm", "server": False, "hostname": "worker-1", "vendor": "Hetzner", "settings": DNS,
        "components": (KUBELET, MANAGER), "units": (UNIT,), "routes": ROUTES, "addresses": ("10.0.0.3", "127.0.0.1"),
        "cni_files": (CniFile("/etc/cni/net.d/10-x.conflist", True, None, "x", ("bridge",), ()),),
        "cni_directories": ("/etc/cni/net.d",), "machine": (MACHINE,), "objects": objects(),
        "kubelet_files": (("/etc/kubernetes/kubelet.conf", True), ("/var/lib/kubelet/config.yaml", True)),
    }  # fmt: skip
    return replace(evidence(), node_config=NodeConfig(**(values | other)))


def ours(what: Evidence) -> dict[str, Finding]:
    return {f.id: f for f in diagnose(what).findings if not f.id.startswith(("LEASE", "SCAN"))}


def argv(component: Component, *words: str) -> Component:
    return replace(component, argv=(*component.argv, *words))


def sets(name: str, value: str, source: str, *, from_file: bool) -> Assignment:
    return Assignment(name, value, source, from_file)


def controller(*words: str) -> Component:
    return Component("hcloud-cloud-controller-manager", ("hcloud-cloud-controller-manager", *words), "process 9", 9)


def workload(name: str = "kube-flannel", **other: Any) -> Workload:
    values: dict[str, Any] = {
        "kind": "DaemonSet", "namespace": "kube-system", "name": name, "host_network": True, "tolerates": ("*",),
        "containers": (),
    }  # fmt: skip
    return Workload(**(values | other))


def stray(value: str, **other: Any) -> Unit:
    path = "/etc/sysconfig/kubelet"
    unread = (sets("KUBELET_EXTRA_ARGS", value, path, from_file=True),)
    return replace(UNIT, strays=(path,), unread=unread, **other)


EXTRA = sets("KUBELET_EXTRA_ARGS", "--x=1", "/etc/a.conf:2", from_file=False)
TWICE = ("--cluster-cidr=10.42.0.0/16", "--cluster-cidr=10.1.0.0/16")
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
REFUSED = Condition("NetworkUnavailable", "True", "NoRouteCreated")
NOT_READY = (Condition("Ready", "False", "KubeletNotReady", BOOT + NOW - 300 * SECOND),)


def age(seconds: int, **other: Any) -> dict[str, Any]:
    """Our Node, so old; the kubelet and the machine are older."""
    return {"objects": objects(kube_node(created_ns=BOOT + NOW - seconds * SECOND, **other), OTHER)}


def test_a_healthy_node_has_no_finding() -> None:
    services = (("default/kubernetes", "10.43.0.1"), ("kube-system/kube-dns", "10.43.0.10"))
    inside = objects(
        kube_node(), OTHER, service_ips=services, workloads=(workload(),), events=(), csi_nodes=(("worker-1", 1),)
    )
    plan = argv(MANAGER, "--cluster-cidr=10.0.128.0/18")
    what = node(objects=inside, components=(KUBELET, plan))
    assert set(ours(what)) == {"CIDR009", "CIDR023"}  # Services outside the network, and Nodes of another range


@pytest.mark.parametrize(
    ("identifier", "severity", "change"),
    [
        ("KUB001", "error", {"units": (replace(UNIT, argv=(*UNIT.argv, "--x=1")),)}),
        ("KUB001", "error", {"units": (replace(UNIT, assignments=(EXTRA,)),)}),
        ("KUB002", "error", {"units": (replace(UNIT, assignments=(
            EXTRA, sets("KUBELET_EXTRA_ARGS", "--y=2", "/etc/default/kubelet", from_file=True))),)}),
        ("KUB003", "error", {"units": (replace(UNIT, assignments=(EXTRA,), exec_start="/usr/bin/kubelet"),)}),
        ("KUB004", "error", {"units": (stray("--cloud-provider=aws"),), "components": (MANAGER,)}),
        ("KUB004", "warning", {"units": (stray("--v=2"),)}),
        ("KUB004", "info", {"units": (stray("--v=2", exec_start="/usr/bin/kubelet $KUBELET_ARGS"),)}),
        ("KUB004", "info", {"units": (stray("--v=2", assignments=(
            sets("KUBELET_EXTRA_ARGS", "--x", "/etc/default/kubelet", from_file=True),)),)}),
        ("KUB005", "warning", {"units": (replace(UNIT, need_reload=True),)}),
        ("KUB005", "warning", {"units": (replace(UNIT, newer=("/etc/default/kubelet",)),)}),
        ("KUB006", "warning", {"units": (replace(UNIT, shadowed=(("/lib/a.conf", "/etc/a.conf"),)),)}),
        ("KUB007", "error", {"units": (replace(UNIT, complaints=("/etc/a.conf:3: …",)),)}),
        ("KUB008", "error", {"components": (argv(KUBELET, "--cloud-provider=aws"), MANAGER)}),
        ("KUB009", "warning", {"components": (argv(KUBELET, "--max-pods=1", "--max-pods", "2"), MANAGER)}),
        ("KUB010", "error", {"components": (argv(KUBELET, "--bootstrap-kubeconfig=/b", "--kubeconfig=/k"),),
                             "kubelet_files": (("/k", False),)}),
        ("NODE001", "error", age(600, provider_id="")),
        ("NODE002", "error", age(600, taints=(UNINITIALIZED,))),
        ("NODE003", "error", age(60, provider_id="") | {"machine": (replace(MACHINE, hostname="other"),)}),
        ("NODE004", "error", {"machine": (replace(MACHINE, networks=(replace(NETWORK, ip="10.0.0.9"),)),)}),
        ("NODE004", "error", {"addresses": ("127.0.0.1",)}),
        ("NODE005", "error", {"machine": (replace(MACHINE, networks=()),), "addresses": ("127.0.0.1",)}),
        ("NODE005", "error", {"machine": (replace(MACHINE, networks=()),),
                              "components": (KUBELET, controller("--cluster-cidr=10.42.0.0/16"))}),
        ("NODE006", "error", age(600, conditions=(REFUSED,))),
        ("CNI001", "error", {"cni_files": ()}),
        ("CNI001", "error", {"cni_files": (CniFile("/etc/cni/net.d/a.conf.bak", False, None, "", (), ()),)}),
        ("CNI002", "error", {"cni_files": (CniFile("/etc/cni/net.d/a.conf", True, recorded("not JSON"), "", (), ()),)}),
        ("CNI002", "error", {"cni_files": (CniFile("/etc/cni/net.d/a.conf", True, None, "x", ("y",), ("y",)),)}),
        ("CNI002", "warning", {"cni_files": (CniFile("/etc/cni/net.d/a.conf", True, recorded("not JSON"), "", (), ()),
                                             CniFile("/etc/cni/net.d/b.conf", True, None, "y", (), ()))}),
        ("CNI003", "warning", {"cni_files": (CniFile("/etc/cni/net.d/a.conf", True, None, "x", (), ()),
                                             CniFile("/etc/cni/net.d/b.conf", True, None, "y", (), ()))}),
        ("CNI004", "error", {"objects": objects(workloads=(
            workload(tolerates=()), workload("hcloud-cloud-controller-manager", kind="Deployment")))}),
        ("CNI004", "error", {"objects": objects(workloads=(
            workload("hcloud-cloud-controller-manager", kind="Deployment", host_network=False),))}),
        ("CSI001", "warning", {"objects": objects(csi_nodes=(("worker-2", 1),))}),
        ("CA001", "info", age(60, provider_id="", group="pool") | {"machine": UNSEEN}),
        ("MD001", "info", {"machine": unseen(Code.METADATA_FAILED, address="169.254.169.254", error="timed out")}),
        ("HCCM001", "error", {"components": (KUBELET, controller(*TWICE))}),
        ("HCCM001", "error", {"objects": objects(workloads=(workload(
            "hcloud-cloud-controller-manager", containers=((("c", TWICE[0]), TWICE[1:]),)),))}),
        ("HCCM002", "error", {"components": (KUBELET, MANAGER, controller("--cluster-cidr=10.1.0.0/16"))}),
        ("HCCM002", "error", {"components": (KUBELET, controller("--cluster-cidr=10.42.1.0/24"))}),
        ("HCCM003", "error", {"objects": objects(events=(("ClusterCIDRMisconfigured", "route CIDR …"),))}),
        ("HCCM005", "error", {"objects": objects(kube_node(), replace(OTHER, conditions=(REFUSED,)))}),
        ("CIDR004", "critical", {"objects": objects(kube_node(internal_ips=("10.42.1.7",)), OTHER)}),
        ("CIDR005", "critical", {"objects": objects(kube_node(internal_ips=("10.42.2.7",)), OTHER)}),
        ("CIDR006", "error", {"objects": objects(kube_node(internal_ips=("10.42.9.7",)), OTHER)}),
        ("CIDR008", "warning", {}),
        ("CIDR008", "error", {"components": (KUBELET, MANAGER, controller("--cluster-cidr=10.42.0.0/16"))}),
        ("CIDR008", "info", {"routes": (*ROUTES, Route("10.42.0.0/16", "10.0.0.1", "enp7s0"))}),
        ("CIDR011", "error", {"objects": objects(service_ips=(("kube-system/kube-dns", "10.43.0.11"),))}),
        ("CIDR012", "error", {"objects": objects(service_ips=(("default/kubernetes", "10.96.0.1"),))}),
        ("CIDR014", "info", {"objects": objects(workloads=(workload(
            "hcloud-cloud-controller-manager", kind="Deployment", containers=((("c", TWICE[0]), ()),)),))}),
        ("CIDR013", "warning", {"components": (argv(MANAGER, "--cluster-cidr=10.42.0.0/23"),)}),
        ("CIDR016", "warning", {"routes": (*ROUTES, Route("10.42.0.0/24", "", "docker0"))}),
        ("CIDR016", "critical", {"routes": (*ROUTES, Route("10.43.0.0/24", "", "br-1a2b"),
                                            Route("9.0.0.0/8", "10.43.0.7", "br-1a2b"))}),
        ("CIDR023", "error", {"objects": objects(kube_node(pod_cidrs=("10.99.0.0/24",)), OTHER)}),
        ("CIDR023", "error", {"objects": objects(kube_node(pod_cidrs=("10.42.1.0/25",)), OTHER)}),
        ("CIDR024", "error", {"settings": (*DNS, Setting("flannel", "cluster-cidr", "10.244.0.0/16", "a.json"))}),
        ("CIDR025", "error", {"settings": (*DNS, Setting("flannel", "pod-cidr", "10.42.7.0/24", "subnet.env"))}),
        ("CIDR027", "error", {"objects": objects(kube_node(), replace(OTHER, pod_cidrs=("10.42.1.0/24",)))}),
    ],
)  # fmt: skip
def test_finding(identifier: str, severity: str, change: dict[str, Any]) -> None:
    baseline = ours(node())
    assert identifier not in baseline or identifier == "CIDR008"
    finding = ours(node(**change))[identifier]
    assert finding.severity == severity
    assert finding.evidence
    assert len(finding.fix.text) > 8


@pytest.mark.parametrize(
    ("identifier", "change"),
    [
        ("NODE001", age(60, provider_id="")),  # it has only just joined
        ("NODE001", {"vendor": "QEMU", "machine": UNSEEN, "components": (MANAGER,),
                     "objects": objects(kube_node(provider_id=""))}),  # nobody misses it on bare metal
        ("NODE003", {"machine": (replace(MACHINE, hostname="other"),)}),  # it has its providerID, and needs no name
        ("KUB002", {"units": (replace(UNIT, assignments=(
            EXTRA, sets("KUBELET_EXTRA_ARGS", "--y=2 --x=1", "/etc/default/kubelet", from_file=True))),)}),
        ("KUB009", {"components": (argv(KUBELET, "--feature-gates=A=true", "--feature-gates=B=true"), MANAGER)}),
        ("CA001", age(600, provider_id="")),  # no autoscaler made it
        ("CSI001", {"objects": objects(csi_nodes=()), "components": (replace(KUBELET, started_ns=NOW - SECOND),)}),
        ("CNI004", {"objects": objects(workloads=(workload(tolerates=(UNINITIALIZED,)),))}),
        ("CIDR016", {"routes": (*ROUTES, Route("10.42.1.0/24", "", "cni0"),
                                Route("10.42.2.0/24", "10.0.0.4", "enp7s0"))}),
        ("CIDR011", {"settings": (*DNS, Setting("k3s", "cluster-dns", "169.254.20.10", "NodeLocal"))}),
        ("MD001", {"machine": not_seen("this is not a server of Hetzner Cloud")}),
        ("CIDR013", {"components": (argv(MANAGER, "--cluster-cidr=10.42.0.0/23"),),
                     "objects": (replace(objects()[0], whole=False),)}),
    ],
)  # fmt: skip
def test_no_finding(identifier: str, change: dict[str, Any]) -> None:
    assert identifier not in ours(node(**change))


@pytest.mark.parametrize(("gone_s", "severity"), [(60, "info"), (460, "warning"), (730, "error"), (1_000, "error")])
def test_the_clock_of_registration(gone_s: int, severity: str) -> None:
    """C2: 15 minutes from the boot, or from the Node where that is older."""
    made = kube_node(created_ns=BOOT + NOW - gone_s * SECOND, provider_id="", group="pool")
    what = node(objects=objects(made, OTHER), machine=UNSEEN)
    clock = replace(what.started, boottime_ns=gone_s * SECOND)
    finding = ours(replace(what, started=clock))["CA001"]
    assert finding.severity == severity
    assert "C2, registration" in finding.subject
    assert any("HCLOUD_SERVER_CREATION_TIMEOUT" in line for line in finding.evidence)
    assert any("not visible from this node; defaults assumed" in line for line in finding.evidence)
    assert ("any moment" in finding.summary) == (gone_s > 900)


def test_the_clocks_are_apart_and_take_the_settings_that_are_given() -> None:
    words = ("--max-node-provision-time=30m", "--scale-down-unready-time=1h5m")
    minutes = (("HCLOUD_SERVER_CREATION_TIMEOUT", "15"),)
    scaler = workload("cluster-autoscaler", kind="Deployment", environment=minutes, containers=((("./ca",), words),))
    made = kube_node(provider_id="", group="pool", conditions=NOT_READY)
    found = [f for f in diagnose(node(objects=objects(made, workloads=(scaler,)))).findings if f.id == "CA001"]
    assert sorted(f.subject.partition(" ")[2] for f in found) == ["C2, registration", "C3, readiness"]
    text = "\n".join(line for f in found for line in f.evidence)
    for part in ("30 min", "--scale-down-unready-time: 65 min", "15 min", "Deployment kube-system/cluster-autoscaler"):
        assert part in text


def test_a_bundle_of_an_older_janitor() -> None:
    """It has no configuration in it: all that is asked of one is skipped, in one line."""
    document = json.loads(encode(evidence()))
    del document["node_config"]
    (part,) = diagnose(decode(json.dumps(document).encode())).skipped
    assert part.reason == because(Code.NOT_COLLECTED)
    assert len(part.ids) > 50
    assert set(part.ids) <= matching_ids("cidr,kubelet,node,cni,csi,autoscaler,metadata,hccm")


def test_every_skipped_check_is_one_line_of_the_table() -> None:
    what = node(objects=UNSEEN, machine=UNSEEN)
    diagnosis = diagnose(what)
    parts = diagnosis.skipped
    text = to_table(make_report(what, diagnosis), width=400, colour=False)
    lines = [line for line in text.splitlines() if line.startswith("skipped ")]
    assert len(lines) == len(parts) > 1
    assert [p.ids for p in select(diagnosis, "NODE003").skipped] == [("NODE003",)]
    assert id_ranges(("CIDR001", "CIDR002", "CIDR003", "KUB009", "KUB011")) == "CIDR001-CIDR003, KUB009, KUB011"


def test_a_kubelet_without_a_config_file_is_no_unfinished_join() -> None:
    """As on AKS: everything is given by flags, beside the kubeconfig that bootstrapping has written."""
    kubelet = argv(KUBELET, "--bootstrap-kubeconfig=/b", "--kubeconfig=/k")
    assert "KUB010" not in ours(node(components=(kubelet,), kubelet_files=(("/k", True),)))
