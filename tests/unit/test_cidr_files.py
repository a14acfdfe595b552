"""Plans in files and flags of which only a part is understood: what is refused, and what is not called faultless."""

import re
from pathlib import Path

import pytest

from janitor.core.address_plan.settings import plan_from
from janitor.host.kubernetes import plan_files, terraform
from janitor.report.cidr_document import make_report
from janitor.report.cidr_table import to_table
from tests.address_plans import by_hand
from tests.unit.test_cidr import written
from tests.unit.test_commands import janitor

POOL = 'module "kube-hetzner" {\n  %s\n}\n'


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('agent_nodepools = [for i in range(60) : { name = "a${i}", count = 2 }]', "line 2: agent_nodepools is an"),
        ("agent_nodepools = concat([{ count = 2 }], local.more)", "give --agent-pools"),
        ("control_plane_nodepools = local.cps", "give --control-plane-pools"),
        ("agent_nodepools = [local.pool]", "give --agent-pools"),
        ("agent_nodepools = [{ count = var.n }]", "give --agent-pools and --nodes"),
        ("agent_nodepools = [{ nodes = { for k in local.n : k => {} } }]", "give --agent-pools and --nodes"),
        ("autoscaler_nodepools = [{ max_nodes = var.max }]", "max_nodes of a pool in autoscaler_nodepools is an"),
        ("autoscaler_nodepools = local.more", "give --nodes"),
        ("agent_nodepools = [{ count = 2 }", "not closed"),
    ],
)
def test_pools_that_only_terraform_knows_are_not_guessed(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        terraform.settings(POOL % line, "kube.tf")


def test_flags_stand_for_pools_that_are_expressions() -> None:
    text = POOL % "agent_nodepools = local.a\n  autoscaler_nodepools = [{ max_nodes = 5 }]"
    with pytest.raises(ValueError, match="give --nodes as well"):
        terraform.settings(text, "kube.tf", frozenset({"agent-pools"}))
    assert terraform.settings(text, "kube.tf", frozenset({"agent-pools", "nodes"}))
    with pytest.raises(ValueError, match="not closed"):
        terraform.settings(text.removesuffix("}\n"), "kube.tf")


@pytest.mark.parametrize(
    ("version", "dns"),
    [("2.11.0", True), ("= 2.14.5", True), ("~> 2.11", False), ("2.18.4", False), ("2.9.0", False)],
)
def test_the_cluster_dns_of_an_old_kube_hetzner(version: str, dns: bool) -> None:
    text = POOL % f'version = "{version}"\n  service_ipv4_cidr = "10.44.0.0/16"'
    report = make_report(plan_from(terraform.settings(text, "kube.tf")))
    assert [f.id for f in report.findings if f.id == "CIDR010"] == ["CIDR010"] * dns


KUBEADM = """kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.0.0.2}
---
kind: ClusterConfiguration
controlPlaneEndpoint: 10.96.0.9:6443
networking: {podSubnet: "10.0.0.0/16,fd00:42::/56", serviceSubnet: "10.96.0.0/16,fd00:43::/112"}
"""
K0S = """apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
spec: {api: {address: 10.0.0.3}, network: {podCIDR: 10.0.0.0/16}}
"""


@pytest.mark.parametrize(("text", "found"), [(KUBEADM, {"CIDR004", "CIDR007"}), (K0S, {"CIDR004"})])
def test_endpoints_are_addresses_of_nodes(tmp_path: Path, text: str, found: set[str]) -> None:
    """And not all of them: a second family is not missed."""
    report = make_report(plan_from(plan_files.settings(str(written(tmp_path, "a.yaml", text)))))
    assert {f.id for f in report.findings} >= found
    assert "CIDR002" not in {f.id for f in report.findings}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("clusterCidr: 10.42.0.0/16\n", "do not read clusterCidr: did you mean cluster-cidr?"),
        ("service_cidr: 10.42.0.0/16\n", "did you mean service-cidr?"),
        ("kind: ClusterConfiguration\nnetworking: {podSubnets: 10.42.0.0/16}\n", "did you mean podSubnet?"),
        (K0S.replace("podCIDR", "podCidr"), "did you mean podCIDR?"),
    ],
)
def test_keys_that_look_like_the_real_ones(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan_files.settings(str(written(tmp_path, "a.yaml", text)))


def test_half_a_plan_is_not_called_faultless() -> None:
    text = to_table(make_report(by_hand("", "10.43.0.0/16")), width=120, colour=False)
    assert text.startswith("no errors or warnings, but the check is incomplete: no range of pods was given")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--pods", ""), "--pods is empty"),
        (("--pods", "10.42.0.0/16", "--node-mask", "33"), "but no pod range is IPv6"),
    ],
)
def test_words_that_say_nothing(words: tuple[str, ...], sentence: str) -> None:
    done = janitor("cidr", *words)
    assert done.returncode == 64
    assert sentence in done.stderr.decode()


def test_values_and_changes_have_one_name() -> None:
    report = make_report(by_hand("10.42.0.0/16", "10.43.0.0/16", node_mask=28))
    assert report.proposal is not None
    assert {change.name for change in report.proposal.changes} <= {value.name for value in report.values}
    assert (
        "two ranges of one family"
        in make_report(by_hand("10.1.0.0/16,10.2.0.0/16", "10.43.0.0/16")).findings[0].summary
    )
