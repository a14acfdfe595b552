"""`janitor cidr`: where its values come from, what it prints, and how it refuses."""

import importlib.resources
import json
import re
from pathlib import Path

import jsonschema
import pytest

from janitor.core.address_plan.plan import Layout, listed
from janitor.core.address_plan.settings import plan_from
from janitor.host.kubernetes import plan_files, terraform
from janitor.report.cidr_document import make_report
from janitor.report.cidr_html import to_html
from janitor.report.cidr_picture import LEGEND, draw
from janitor.report.cidr_table import to_table
from tests.address_plans import BROKEN, DEFAULT, FIXED, by_hand, ids
from tests.unit.test_commands import janitor

BROKEN_FLAGS = ("--network", "10.20.128.0/17", "--pods", "10.20.128.0/20", "--services", "10.20.144.0/20",
                "--scheme", "kube-hetzner")  # fmt: skip

KUBE_TF = """
# A comment with network_ipv4_cidr = "1.2.3.0/24" in it
module "kube-hetzner" {
  providers = { hcloud = hcloud }
  hcloud_token = var.hcloud_token != "" ? var.hcloud_token : local.hcloud_token
  /* network_ipv4_cidr = "9.9.9.0/24" */
  network_ipv4_cidr = "10.20.0.0/16"
  cluster_ipv4_cidr = "10.20.128.0/17" // the pods
  service_ipv4_cidr = "10.20.64.0/19"
  cluster_dns_ipv4  = "10.20.64.10"
  extra = <<-EOT
    cluster_ipv4_cidr = "8.8.8.0/24"
  EOT
  control_plane_nodepools = [
    { name = "cp-fsn1", server_type = "cx22", location = "fsn1", labels = [], taints = [], count = 1 },
    { name = "cp-nbg1", server_type = "cx22", location = "nbg1", labels = [], taints = [], count = 1 },
    { name = "cp-hel1", server_type = "cx22", location = "hel1", labels = [], taints = [], count = 1 }
  ]
  agent_nodepools = [
    {
      name  = "agent-small",
      labels = ["a=b", ],
      count = 3
    },
    { name = "agent-named", nodes = { "1" : { location = "fsn1" }, "2" : {} } },
  ]
  autoscaler_nodepools = [{ name = "scaled", min_nodes = 0, max_nodes = 15 }]
}
"""


def written(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_kube_tf(tmp_path: Path) -> None:
    plan = plan_from(plan_files.settings(str(written(tmp_path, "kube.tf", KUBE_TF))))
    assert plan.network is not None
    assert [str(v.value) for v in (plan.network, *plan.pods, *plan.services, *plan.dns)] == [
        "10.20.0.0/16", "10.20.128.0/17", "10.20.64.0/19", "10.20.64.10",
    ]  # fmt: skip
    assert plan.pools == ((1, 1, 1), (3, 2))
    assert plan.node_count == 3 + 5 + 15
    assert ids(plan) == {"CIDR006": "error", "CIDR014": "info"}


def test_kube_tf_leaves_things_to_the_defaults(tmp_path: Path) -> None:
    plan = plan_from(plan_files.settings(str(written(tmp_path, "kube.tf", 'module "kube-hetzner" {\n}\n'))))
    assert plan.pods[0].source == "kube-hetzner's default"
    assert ids(plan) == {"CIDR014": "info"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("cluster_ipv4_cidr = var.pods", "line 1: cluster_ipv4_cidr is an expression; give its value with --pods"),
        ('service_ipv4_cidr = cidrsubnet("10.0.0.0/8", 8, 3)', "give its value with --services"),
        ('network_ipv4_cidr = "${local.net}/8"', "give its value with --network"),
        ("cluster_ipv4_cidr = 7", "is not a string"),
    ],
)
def test_expressions_are_not_guessed(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        terraform.settings(line, "kube.tf")


@pytest.mark.parametrize("text", ["", "{", "[" * 500, '"', "a = [", "a = {", "= = =", "x = <<EOT\n", "a={b=[{c=", "\0"])
def test_a_file_without_the_module_has_no_plan(text: str) -> None:
    with pytest.raises(ValueError, match=r"it has no kube-hetzner module|is not closed"):
        terraform.settings(text, "kube.tf")


def module(lines: str, name: str = "kube-hetzner") -> str:
    return f'module "{name}" {{\n  source = "kube-hetzner/kube-hetzner/hcloud"\n{lines}\n}}\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (module("") + module("", "second"), "it has 2 kube-hetzner modules (kube-hetzner, second)"),
        (module("subnet_amount = 100"), "subnet_amount is not a power of two"),
        (module("subnet_count = var.x"), "subnet_count is not a power of two"),
        (module('network_subnet_mode = "shared"'), "give the subnets that there are with --node-subnet"),
        (module('agent_nodepools = [{ subnet_ip_range = "10.9.0.0/24" }]'), "a pool has a subnet_ip_range of its own"),
        ("a = " + "[" * 100_000, "it is nested too deeply"),
        ('module "vpc" {\n  source = "x"\n}\ncluster_name = "y"\n', "it has no kube-hetzner module"),
    ],
)
def test_modules_that_cannot_be_understood(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        terraform.settings(text, "kube.tf")


def test_flags_stand_for_expressions_and_other_modules_are_not_read(tmp_path: Path) -> None:
    other = 'module "vpc" {\n  source = "x"\n  network_zone = "eu"\n}\n'
    file = written(tmp_path, "kube.tf", other + module("cluster_ipv4_cidr = var.pods\nsubnet_amount = 128"))
    assert janitor("cidr", str(file)).returncode == 2
    done = janitor("cidr", str(file), "--pods", "10.42.0.0/16", "-o", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["values"][1]["source"]) == (0, "--pods")
    assert any(row["cidr"] == "10.254.0.0/15" for row in report["picture"]["rows"])
    given = frozenset({"node-subnet", "cluster-cidr"})
    assert terraform.settings(module('network_subnet_mode = "shared"\ncluster_ipv4_cidr = var.p'), "x", given)


@pytest.mark.parametrize("wrap", [False, True])
def test_k0s(tmp_path: Path, wrap: bool) -> None:
    config = {"apiVersion": "k0s.k0sproject.io/v1beta1", "kind": "ClusterConfig", "spec": {"network": {
        "podCIDR": "10.50.0.0/16", "dualStack": {"enabled": True, "IPv6podCIDR": "fd00:42::/56",
                                                 "IPv6serviceCIDR": "fd00:43::/112"}}}}  # fmt: skip
    whole = {"apiVersion": "k0sctl.k0sproject.io/v1beta1", "kind": "Cluster", "spec": {"k0s": {"config": config}}}
    plan = plan_from(plan_files.settings(str(written(tmp_path, "k0s.yaml", json.dumps(whole if wrap else config)))))
    assert [v.value for v in plan.pods] == ["10.50.0.0/16", "fd00:42::/56"]
    assert [v.value for v in plan.services] == ["10.96.0.0/12", "fd00:43::/112"]


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (("--pods", "10.42.0.0/16", "--node-mask", "28"), ("node_mask", "/28", "/25")),
        (("--pods", "10.42.0.0/20", "--node-mask", "16"), ("node_mask", "/16", "/24")),
        (("--pods", "10.42.0.0/16", "--max-pods", "300"), ("node_mask", "/24", "/23")),
        (("--pods", "10.42.0.0/20", "--nodes", "300"), ("pods", "10.42.0.0/20", "10.40.0.0/15")),
    ],
)
def test_the_nearest_plan_changes_one_value(words: tuple[str, ...], change: tuple[str, str, str]) -> None:
    report = json.loads(janitor("cidr", *words, "--services", "10.43.0.0/16", "-o", "json").stdout)
    assert [tuple(c.values()) for c in report["proposal"]["changes"]] == [change]


def test_pods_without_number() -> None:
    done = janitor("cidr", "--pods", "10.42.0.0/16", "--services", "10.43.0.0/16", "--max-pods", "2147483646")
    assert (done.returncode, done.stderr) == (1, b"")


def test_config_yaml_with_drop_ins(tmp_path: Path) -> None:
    file = written(
        tmp_path, "config.yaml", "cluster-cidr: 10.42.0.0/16\nkubelet-arg: [max-pods=200]\nservice-cidr: x\n"
    )
    written(tmp_path, "config.yaml.d/10-a.yaml", "service-cidr: 10.43.0.0/16\nkubelet-arg+: max-pods=300\n")
    written(tmp_path, "config.yaml.d/20-b.yml", "kube-controller-manager-arg:\n- node-cidr-mask-size=25\n")
    written(tmp_path, "config.yaml.d/30.txt", "service-cidr: 1.2.3.4/5\n")
    plan = plan_from(plan_files.settings(str(file)))
    assert (plan.max_pods, plan.node_mask, plan.services[0].value) == (300, 25, "10.43.0.0/16")
    assert plan.services[0].source == f"{file}.d/10-a.yaml"
    assert "CIDR015" in ids(plan)


@pytest.mark.parametrize(
    "extra",
    ["extraArgs:\n    node-cidr-mask-size: '26'\n", "extraArgs:\n  - name: node-cidr-mask-size\n    value: '26'\n"],
)
def test_cluster_configuration(tmp_path: Path, extra: str) -> None:
    text = (
        "kind: InitConfiguration\n---\nkind: ClusterConfiguration\nnetworking:\n  podSubnet: 10.244.0.0/16\n"
        f"controllerManager:\n  {extra}---\nkind: KubeletConfiguration\nmaxPods: 70\nclusterDNS: [10.96.0.10]\n"
    )
    plan = plan_from(plan_files.settings(str(written(tmp_path, "kubeadm.yaml", text))))
    assert (plan.node_mask, plan.max_pods, plan.dns[0].value) == (26, 70, "10.96.0.10")
    assert plan.services[0].source == "kubeadm's default"
    assert ids(plan) == {"CIDR015": "warning"}


def test_the_command_on_the_incidents_plans() -> None:
    done = janitor("cidr", *BROKEN_FLAGS, "-o", "json")
    report = json.loads(done.stdout)
    schema = json.loads(importlib.resources.files("janitor.report").joinpath("cidr.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(report)
    assert (done.returncode, report["status"], report["findings"][0]["id"]) == (1, "findings", "CIDR004")
    assert report["proposal"]["changes"] == [{"name": "network", "before": "10.20.128.0/17", "after": "10.20.0.0/16"}]
    again = janitor("cidr", *(f for v in report["proposal"]["values"] for f in _flag(v)), "--scheme", "kube-hetzner")
    assert (again.returncode, again.stdout.startswith(b"no errors or warnings; room for ")) == (0, True)
    assert janitor("cidr", "--pods", "10.42.0.0/16", "--services", "10.43.0.0/16").returncode == 0
    two = janitor("cidr", "--pods", "10.42.0.0/16", "--node-ip", "10.42.1.1=10.42.0.0/24", "--node-ip",
                  "10.9.9.9=10.42.1.0/24")  # fmt: skip
    assert b"CIDR005" in two.stdout


def _flag(value: dict[str, str]) -> list[str]:
    return [f"--{value['name'].replace('_', '-')}", value["value"]]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 64, "no address plan given: name a file"),
        (["--node-mask", "x", "--pods", "10.0.0.0/8"], 64, "--node-mask x: must be a prefix length"),
        (["--nodes", "0", "--pods", "10.0.0.0/8"], 64, "--nodes 0: must be 1 or more"),
        (["--agent-pools", "999", "--pods", "10.0.0.0/8"], 64, "must be 1 to 200"),
        (["--scheme", "kube-hetzner", "--pods", "10.0.0.0/8"], 64, "add --network"),
        (["/nowhere.tf"], 2, "reading the address plan /nowhere.tf: No such file"),
        (["/"], 2, "reading the address plan /: not a regular file"),
    ],
)
def test_bad_words(words: list[str], code: int, sentence: str) -> None:
    done = janitor("cidr", *words)
    assert (done.returncode, done.stdout) == (code, b"")
    assert sentence in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: [", "line 1: it is not YAML"),
        ("kind: Pod\n", "it contains Pod, but no ClusterConfiguration"),
        ("server: https://x:6443\ntoken: t\n", "it is an agent's configuration"),
        ("just words", "it is not a kube.tf and not a configuration"),
        ("", "it is not a kube.tf and not a configuration"),
        ("a: " + "[" * 3000, "it is "),
        ("\x00\x01", "it is not YAML"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, sentence: str) -> None:
    done = janitor("cidr", str(written(tmp_path, "config.yaml", content)))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert sentence in done.stderr.decode()


def test_what_is_wrong_in_a_value_is_a_finding() -> None:
    done = janitor("cidr", "--pods", "10.42.0.1/16", "--services", "nonsense")
    assert done.returncode == 1
    assert done.stdout.count(b"CIDR001 error") == 2


def test_the_picture_says_who_lies_over_whom() -> None:
    picture = draw(Layout(BROKEN))
    whole, slots = picture.strips
    assert whole.cells.startswith("!PPPPPPPSSSSSSSS.")
    assert slots.cells == "!!" + "P" * 14
    assert "colliding: 0-1" in slots.title
    assert {row.name for row in picture.rows if row.overlaps} == {"pods", *(f"agent pool {i}" for i in range(3))}
    fixed = draw(Layout(FIXED)).strips[1]
    assert (fixed.each, fixed.title) == ("2 slots of /24", "pods 10.20.128.0/17: 128 slots, colliding: 72-73, 125-127")
    assert not any(row.overlaps for row in draw(Layout(DEFAULT)).rows)
    dual = draw(Layout(by_hand("10.42.0.0/16,fd00:42::/56", "10.43.0.0/16,fd00:43::/112")))
    assert len(dual.strips) == 4


@pytest.mark.parametrize("plan", [BROKEN, FIXED, DEFAULT, by_hand(), by_hand("x", "y", network="z")])
@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_table_holds_its_width_and_needs_no_colour(plan: object, width: int) -> None:
    text = to_table(make_report(plan), width=width, colour=False)  # type: ignore[arg-type]
    assert "\x1b" not in text
    commands = [line for line in text.splitlines() if line.strip().startswith(("ip route", "systemctl"))]
    assert all(len(line) <= width for line in text.splitlines() if line not in commands)
    assert set("".join(s.cells for s in make_report(plan).picture.strips)) <= set(LEGEND)  # type: ignore[arg-type]


def test_the_page_needs_nothing_beside_itself() -> None:
    page = to_html(make_report(by_hand("<script>alert(1)</script>", "10.43.0.0/16", dns="10.0.0.1")))
    assert "<script" not in page
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", page)
    assert "CIDR010 error" in to_html(make_report(by_hand("10.42.0.0/16", "10.43.0.0/16", dns="10.0.0.1")))
    assert ">!<" in to_html(make_report(BROKEN))


def test_of_a_list_without_end_the_first_are_enough() -> None:
    assert len(listed(",".join(["10.0.0.0/24"] * 10_000))) == 64
