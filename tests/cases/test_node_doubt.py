"""Where a check of the node's configuration stays silent: what looks like a fault and is meant, or is another's."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.address_plan.check import examine
from janitor.core.model.codes import Code
from janitor.core.model.evidence import Endpoint
from janitor.core.model.evidence_node import CniFile, Condition, EnvironmentFile, Setting, Unit
from janitor.core.model.routing import Link, Route
from janitor.core.model.unknown import unseen
from janitor.core.node.kubelet_unit import mended, overruled
from janitor.core.node.systemd_syntax import environment_file
from janitor.passes.scan import diagnose
from tests.address_plans import by_hand
from tests.cases.test_node_checks import (
    EXTRA,
    KUBELET,
    MACHINE,
    MANAGER,
    NETWORK,
    ROUTES,
    UNINITIALIZED,
    UNIT,
    UNSEEN,
    age,
    argv,
    kube_node,
    node,
    objects,
    ours,
    sets,
    stray,
    workload,
)
from tests.reasons import recorded
from tests.situations import BOOT, NOW, SECOND

FILE = "/etc/default/kubelet"
DAY = 86_400 * SECOND


def cni(name: str, network: str, *plugins: str, **other: Any) -> CniFile:
    return CniFile(f"/etc/cni/net.d/{name}", True, None, network, plugins or ("bridge",), (), **other)


def unit(inline: str, file: str, **other: Any) -> Unit:
    both = (
        sets("KUBELET_EXTRA_ARGS", inline, "/etc/systemd/system/kubelet.service.d/20-x.conf:2", from_file=False),
        sets("KUBELET_EXTRA_ARGS", file, FILE, from_file=True),
    )
    return replace(UNIT, assignments=both, **other)


ALONE: dict[str, Any] = {  # a server of Hetzner whose cluster has no cloud controller
    "components": (replace(KUBELET, argv=("/usr/bin/kubelet", "--node-ip=10.0.0.3")), MANAGER),
    "objects": objects(kube_node(provider_id=""), kube_node("worker-2", provider_id="k3s://worker-2")),
}


@pytest.mark.parametrize(
    ("identifier", "change"),
    [
        ("CNI004", {"objects": objects(workloads=(
            workload("calico-kube-controllers", kind="Deployment", tolerates=(), host_network=False),
            workload("calico-apiserver", kind="Deployment", tolerates=(), host_network=False),
            workload("cilium-operator", kind="Deployment", tolerates=("node-role.kubernetes.io/control-plane",)),
            workload("hcloud-cloud-controller-manager", kind="Deployment")))}),
        ("CIDR016", {"routes": (*ROUTES, Route("10.42.2.0/24", "", "wg0"))}),
        ("CIDR016", {"routes": (*ROUTES, Route("10.42.0.0/17", "10.8.0.1", "tailscale0"))}),
        ("CIDR006", {"routes": (*ROUTES, Route("10.42.0.0/16", "", "wg0"))}),
        ("CIDR006", {"routes": (*ROUTES, Route("10.42.1.0/24", "", "mynet0"))}),  # this node's own pod range
        ("CIDR006", {"routes": (*ROUTES, Route("10.42.7.0/24", "", "mynet0")),
                     "cni_files": (cni("10-x.conf", "x", bridges=("mynet0",)),)}),
        ("CIDR010", {"settings": (Setting("kubelet", "cluster-dns", "169.254.20.10", "config.yaml"),)}),
        ("CIDR010", {"settings": (Setting("kubelet", "cluster-dns", "10.96.0.10", "config.yaml"),),
                     "addresses": ("10.0.0.3", "10.96.0.10")}),  # a cache that has the address on this node
        ("CIDR011", {"settings": (Setting("kubelet", "cluster-dns", "fd00:43:0::A", "a"),
                                  Setting("k3s", "cluster-dns", "fd00:43::a", "b"))}),
        ("KUB004", {"units": (stray("--cloud-provider=external --node-ip=10.0.0.9"),)}),  # the kubelet has both
        ("KUB004", {"units": (replace(UNIT, strays=("/etc/sysconfig/kubelet",)),)}),  # what it says was not collected
        ("NODE001", age(600, provider_id="", taints=(UNINITIALIZED,))),  # the flag arrived: NODE002
        ("NODE001", ALONE),
        ("NODE003", {"machine": (replace(MACHINE, hostname="other"),), "objects": UNSEEN}),  # it may have a providerID
        ("CNI003", {"cni_files": (cni("00-multus.conf", "multus", "multus-shim"), cni("10-x.conf", "x"))}),
        ("NODE003", ALONE | {"machine": (replace(MACHINE, hostname="other"),)}),
        ("NODE004", ALONE | {"machine": (replace(MACHINE, networks=(replace(NETWORK, ip="10.0.0.9"),)),)}),
        ("NODE005", ALONE | {"machine": (replace(MACHINE, networks=()),)}),
        ("CNI003", {"cni_files": (cni("00-multus.conf", "multus-cni-network", "multus"), cni("10-x.conf", "x"))}),
        ("CNI003", {"cni_files": (cni("10-x.conf", "x"), cni("100-crio-bridge.conflist", "crio"),
                                  cni("87-podman-bridge.conflist", "podman"))}),
        ("CNI002", {"cni_files": (cni("10-x.conf", "x"), replace(cni("87-podman.conflist", "podman"), missing=("y",)),
                                  CniFile("/etc/cni/net.d/99.conf", True, recorded("not JSON"), "", (), ()))}),
        ("CNI004", {"objects": objects(workloads=(workload(
            "hcloud-cloud-controller-manager", kind="Deployment", host_network=False, containers=((("c",), ()),)),))}),
        ("MD001", {"machine": unseen(Code.METADATA_FAILED, address="169.254.169.254", error="instance-id: 401"),
                   "vendor": "Amazon EC2"}),
        ("NODE005", {"machine": (replace(MACHINE, networks=()),)}),  # the kubelet's address is a VPN's
        ("NODE005", {"machine": (replace(MACHINE, networks=()),),
                     "components": (replace(KUBELET, argv=("/usr/bin/kubelet", "--cloud-provider=external")),)}),
        ("CNI001", {"cni_files": (replace(cni("10-x.conf", "x"), path="/var/lib/k3s/net.d/10-x.conf"),),
                    "cni_directories": ("/etc/cni/net.d", "/var/lib/k3s/net.d")}),
        ("KUB001", {"units": (replace(UNIT, assignments=(
            EXTRA, sets("KUBELET_EXTRA_ARGS", "", "/etc/b.conf:2", from_file=False))),)}),  # taken back by a drop-in
        ("KUB002", {"units": (unit("--v=2", "--v=4"),)}),  # another value of the same flag
        ("KUB002", {"units": (unit("--x=1", "", argv=("/usr/bin/kubelet", "--x=1")),)}),  # it comes by another variable
        ("KUB002", {"units": (unit("--x=1", "--y=2", environment_files=(
            EnvironmentFile(FILE, True, "read", "/etc/systemd/system/kubelet.service.d/20-x.conf:3"),)),)}),
        ("KUB009", {"components": (argv(KUBELET, "--eviction-soft=a<1", "--eviction-soft=b<1"), MANAGER)}),
        ("CA001", {"objects": objects(kube_node(group="pool", conditions=(Condition("Ready", "False", "x"),)))}),
    ],
)  # fmt: skip
def test_silent(identifier: str, change: dict[str, Any]) -> None:
    assert identifier not in ours(node(**change))


def test_cri_o_is_told_its_network_by_name() -> None:
    two = node(cni_files=(cni("10-x.conf", "x"), cni("20-y.conf", "y")))
    assert "CNI003" in ours(two)
    endpoint = Endpoint("unix:///run/crio/crio.sock", "kubelet", "cri-o", "1.30", (), (), UNSEEN)
    assert "CNI003" not in ours(replace(two, endpoints=(endpoint,)))


@pytest.mark.parametrize(("address", "said"), [("10.42.2.1/24", True), ("10.42.1.0/32", False)])
def test_a_tunnel_with_an_address_of_its_own_in_the_pods_range(address: str, said: bool) -> None:
    what = node(routes=(*ROUTES, Route("10.42.2.0/24", "", "mesh7")))
    links = (Link(9, "mesh7", True, "wireguard", (address,)),)
    assert ("CIDR016" in ours(replace(what, routing=replace(what.routing, links=links)))) == said


def test_a_bridge_that_the_node_itself_lives_in_is_its_network() -> None:
    what = node(routes=(*ROUTES, Route("10.42.0.0/24", "", "br0")), components=(argv(KUBELET, "--node-ip=10.42.0.7"),
                MANAGER), objects=UNSEEN)  # fmt: skip
    links = (Link(9, "br0", True, "bridge", ("10.42.0.7/24",)),)
    assert "CIDR006" in ours(replace(what, routing=replace(what.routing, links=links)))


@pytest.mark.parametrize(
    ("age_ns", "changed_ns", "severity"),
    [
        (30 * DAY, 60 * SECOND, "info"),  # it broke a minute ago: 19 of its 20 minutes are left
        (30 * DAY, 1100 * SECOND, "error"),
        (600 * SECOND, 590 * SECOND, "info"),  # it has never been ready: 15 minutes to start, and then 20
        (1500 * SECOND, 1490 * SECOND, "warning"),
    ],
)
def test_the_clock_of_readiness(age_ns: int, changed_ns: int, severity: str) -> None:
    now = BOOT + NOW
    unready = Condition("Ready", "Unknown", "NodeStatusUnknown", now - changed_ns)
    made = kube_node(created_ns=now - age_ns, group="pool", conditions=(unready,))
    (finding,) = [f for f in diagnose(node(objects=objects(made))).findings if f.id == "CA001"]
    assert finding.severity == severity
    assert "lastTransitionTime" in finding.evidence[1]


def test_public_pod_ranges_and_carrier_nat_are_one_finding() -> None:
    for plan in (by_hand(pods="100.64.0.0/16", network="10.0.0.0/16"), by_hand(pods="100.64.0.0/16")):
        assert len({f.id for f in examine(plan)} & {"CIDR019", "CIDR020"}) == 1


@pytest.mark.parametrize(
    ("text", "works"),
    [
        ("KUBELET_EXTRA_ARGS=\n", True),
        ("# flags\nKUBELET_EXTRA_ARGS=", True),
        ("OTHER=1\nKUBELET_EXTRA_ARGS=\\\n\n", True),
        ("KUBELET_EXTRA_ARGS=\nOTHER=1", True),
        ("", True),
        ("KUBELET_EXTRA_ARGS=\n# the end \\", True),
        ("# the end \\", False),  # whatever is appended belongs to the comment
        ("# a comment goes on \\\nKUBELET_EXTRA_ARGS=\n", True),
        ("KUBELET_EXTRA_ARGS=\r\n", False),
    ],
)
def test_the_patch_does_what_it_says_or_there_is_none(text: str, works: bool, tmp_path: Path) -> None:
    what = unit("--a=1 --node-ip 10.0.0.3", "", written=((FILE, text),), argv=("/usr/bin/kubelet",))
    (one,) = overruled(what)
    assert (mended(text, one) is not None) == works
    fix = ours(node(units=(what,)))["KUB002"].fix.text
    assert fix.startswith("patch ") == works
    if works:
        place = tmp_path / "etc/default/kubelet"
        place.parent.mkdir(parents=True)
        place.write_text(text)
        patch = fix.partition("\n")[2].rpartition("then: ")[0]
        subprocess.run(["patch", "-p1", "-d", str(tmp_path)], input=patch, text=True, check=True, capture_output=True)
        assert dict(environment_file(place.read_text()))["KUBELET_EXTRA_ARGS"] == "--a=1 --node-ip 10.0.0.3"


@pytest.mark.parametrize(("inline", "file"), [('--a="b c"', ""), ("--a=1", '--b="c d"'), ("--t=(not kept)", "")])
def test_no_patch_for_quotes_and_for_what_was_not_kept(inline: str, file: str) -> None:
    what = unit(inline, file, written=((FILE, "KUBELET_EXTRA_ARGS=\n"),))
    assert not ours(node(units=(what,)))["KUB002"].fix.text.startswith("patch")
