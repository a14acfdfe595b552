"""Any configuration whatever: no check ever fails, what is skipped says why, and all of it goes through JSON."""

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from janitor.core.model.evidence import Unknown
from janitor.core.model.evidence_node import (
    Assignment,
    CniFile,
    Component,
    KubeNode,
    Machine,
    NodeConfig,
    Objects,
    PrivateNetwork,
    Setting,
    Unit,
    Workload,
)
from janitor.core.model.routing import Route
from janitor.passes.scan import diagnose
from janitor.report.document import make_report, to_json
from janitor.report.evidence_json import decode, encode
from janitor.report.table import to_table
from janitor.report.words import text
from tests.property.strategies import UNKNOWN, some
from tests.situations import evidence

WORDS = st.sampled_from([
    "", "10.42.0.0/16", "10.42.1.0/24", "10.42.1.7", "10.0.0.3", "10.0.0.0/8", "fd00:42::/56", "fd00::3", "::",
    "0.0.0.0/0", "10.42.0.1/16", "x", "/", "10.0.0.0/33", "::/0", "26", "0", "200", "-1", "external", "true",
    "10.42.0.0/16,fd00:42::/56",
])  # fmt: skip
NAMES = st.sampled_from([
    "worker-1", "worker-2", "kube-controller-manager", "kubelet", "kubelet.service", "docker0", "cni0", "eth0",
    "hcloud-cloud-controller-manager", "flannel", "cluster-autoscaler", "",
])  # fmt: skip
KEYS = st.sampled_from(
    ["cluster-cidr", "service-cidr", "cluster-dns", "pod-cidr", "node-ip", "node-cidr-mask-size", "max-pods"]
)
FLAGS = st.builds(
    lambda name, sign, value: f"--{name}{sign}{value}",
    st.sampled_from(["cluster-cidr", "service-cluster-ip-range", "node-ip", "cluster-dns", "max-pods",
                     "cloud-provider", "config", "node-cidr-mask-size", "bootstrap-kubeconfig", "kubeconfig",
                     "hostname-override"]),
    st.sampled_from(["=", "", " "]), WORDS,
)  # fmt: skip
for kind, strategy in {
    Unknown: UNKNOWN,
    Setting: st.builds(Setting, NAMES, KEYS, WORDS, NAMES),
    Component: st.builds(Component, NAMES, some(FLAGS, 4), NAMES, st.just(3), st.booleans(), st.integers(0, 10**13)),
    Route: st.builds(Route, WORDS, WORDS, NAMES),
    PrivateNetwork: st.builds(PrivateNetwork, NAMES, NAMES, WORDS, some(WORDS, 1), WORDS, WORDS, WORDS),
    KubeNode: st.builds(
        KubeNode, NAMES, st.integers(0, 2 * 10**18), some(WORDS, 2), some(WORDS, 2), WORDS, group=NAMES
    ),
    Assignment: st.builds(Assignment, NAMES, FLAGS, NAMES, st.booleans()),
}.items():
    st.register_type_strategy(kind, strategy)
CONFIGS: Any = st.builds(
    NodeConfig,
    distribution=st.sampled_from(["kubeadm", "k3s", "k0s", ""]),
    server=st.none() | st.booleans(),
    hostname=NAMES,
    vendor=st.sampled_from(["Hetzner", ""]),
    settings=some(st.from_type(Setting), 5),
    components=some(st.from_type(Component), 4),
    units=some(st.builds(Unit, name=st.just("kubelet.service")), 1),
    routes=some(st.from_type(Route), 4),
    addresses=some(WORDS, 2),
    cni_files=some(st.from_type(CniFile), 2),
    machine=some(st.from_type(Machine), 1),
    objects=some(st.builds(Objects, workloads=some(st.builds(Workload, name=NAMES), 2)), 1),
)


@given(CONFIGS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_node(config: NodeConfig) -> None:
    what = replace(evidence(), node_config=config)
    assert decode(encode(what)) == what
    diagnosis = diagnose(what)
    parts = diagnosis.skipped
    assert all(text(part.reason) and part.ids for part in parts)
    assert len({part.reason for part in parts}) == len(parts)
    report = make_report(what, diagnosis)
    assert to_json(report)
    assert to_table(report, width=80, colour=False, details=True)
    assert report.status != "unknown"
