"""Names made for those who paste a fix: whatever a command names, a shell runs that command and nothing else."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from janitor.core.model.codes import Code
from janitor.core.model.evidence import Evidence, Holder, LeaseDirectory, NetworkNamespace, Pod
from janitor.core.model.reason import because
from janitor.core.model.routing import Breaker, Route
from janitor.core.model.rules import PolicyRule
from janitor.passes.scan import diagnose
from janitor.report.finding_row import fix_row
from tests.cases import test_node_checks as nodes
from tests.cases import test_rule_findings as rules
from tests.situations import (
    BOOT,
    DEAD,
    LIVE,
    NODE,
    NOW,
    SECOND,
    cache_entry,
    endpoint,
    evidence,
    lease,
    network,
    sandbox,
)

NAME = "a b;touch pwned;$(touch pwned)`touch pwned`'\"&touch pwned|touch pwned>pwned\ntouch pwned"
PROGRAMS = (
    "apt-get", "curl", "hcloud", "ip", "janitor", "journalctl", "kubectl", "ls", "nsenter", "reboot", "rm", "systemctl",
    "touch", "wc",
)  # fmt: skip


def with_pod(name: str) -> Evidence:
    """A live pod without a lease, whose address is leased to another container too."""
    ours = endpoint(sandbox(LIVE, addresses=("10.52.0.2",), pod=Pod(name, name, "uid-1")))
    return evidence(endpoints=(ours,), lease_directories=(LeaseDirectory(PODS, "k8s-pod-network", (), "ext4"),))


PODS = "/var/lib/cni/networks/k8s-pod-network"


def leased_to_another(name: str) -> Evidence:
    other = lease("10.52.0.2", f"{DEAD}\r\neth0".encode())
    return replace(
        with_pod(name), lease_directories=(LeaseDirectory(PODS, "k8s-pod-network", (other,), "ext4"),)
    )  # fmt: skip


def crowded(name: str, seen_at: str, holder: Holder) -> Evidence:
    many = tuple(f"10.52.0.{number}" for number in range(77, 82))
    ours = endpoint(sandbox(LIVE, addresses=("10.52.0.2",), pod=Pod(name, name, "uid-1")))
    return evidence(endpoints=(ours,), namespaces=(NetworkNamespace(3, seen_at, many, (), (holder,)),))


def in_data_dir(directory: str, **other: Any) -> Evidence:
    found = LeaseDirectory(f"{directory}/k8s-pod-network", "k8s-pod-network", (lease(),), "ext4", **other)
    return evidence(networks=(network(data_dir=directory),), lease_directories=(found,))


def workload() -> Evidence:
    asked = nodes.workload("hcloud-cloud-controller-manager", namespace=NAME, kind=NAME, host_network=False)
    return nodes.node(objects=nodes.objects(workloads=(asked,)))


def dying() -> Evidence:
    made = nodes.kube_node(NAME, group="pool", conditions=nodes.NOT_READY)
    return nodes.node(hostname=NAME, objects=nodes.objects(made, nodes.OTHER))


FROM = PolicyRule(4, 32765, 0, (("from", "10.244.0.0/24"), ("iif", NAME)), "lookup", 77, b"x")
STUCK = cache_entry(DEAD, damage=because(Code.EMPTY), path=f"/var/lib/cni/results/{NAME}")
SITUATIONS: dict[str, tuple[str, Evidence]] = {
    "a pod without a lease": ("LEASE003", with_pod(NAME)),
    "a pod whose address is another's": ("LEASE004", leased_to_another(NAME)),
    "a crowded pod": ("SCAN003", crowded(NAME, "/run/netns/cni-1", Holder(LIVE))),
    "a cache entry": ("LEASE009", evidence(cache=(STUCK,), endpoints=(endpoint(sandbox(DEAD, ready=False)),))),
    "a data directory": ("LEASE010", in_data_dir(f"/srv/{NAME}")),
    "a mark": ("LEASE008", replace(
        in_data_dir(f"/srv/{NAME}", marks=(replace(NODE, number="6" * 32),)),
        this_node=(replace(NODE, machine_id="4" * 32),))),
    "a bridge of Docker's": ("CIDR016", nodes.node(
        routes=(*nodes.ROUTES, Route("10.42.0.0/24", "", f"docker{NAME}")))),
    "a bridge of libvirt's": ("CIDR016", nodes.node(
        routes=(*nodes.ROUTES, Route("10.42.0.0/24", "", f"virbr{NAME}")))),
    "a node to be removed": ("CA001", dying()),
    "a node without CNI": ("CNI001", nodes.node(hostname=NAME, cni_files=())),
    "a workload": ("CNI004", workload()),
    "a node without providerID": ("NODE001", nodes.node(hostname=NAME, objects=nodes.objects(
        nodes.kube_node(NAME, provider_id="", created_ns=BOOT + NOW - 600 * SECOND), nodes.OTHER))),
    "a server": ("NODE005", nodes.node(
        machine=(replace(nodes.MACHINE, hostname=NAME, networks=()),), addresses=("127.0.0.1",))),
    "a rule that is there twice": ("RULE002", rules.node(rules.RULE, FROM, replace(FROM, priority=9))),
    "a rule that was given up": ("RULE007", rules.node(breakers=(Breaker(FROM, 30, NOW - 60 * SECOND),))),
}  # fmt: skip


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs that only write down how they were called."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in PROGRAMS:
        file = directory / name
        file.write_text(
            f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" >> {tmp_path}/called\nprintf '\\n\\0' >> {tmp_path}/called\n"
        )
        file.chmod(0o755)
    return directory


def called(programs: Path, command: str) -> list[list[str]]:
    """The programs that a shell runs for `command`."""
    log = programs.parent / "called"
    log.unlink(missing_ok=True)
    place = programs.parent / "place"
    place.mkdir(exist_ok=True)
    subprocess.run(["/bin/sh", "-c", command], env={"PATH": str(programs)}, cwd=place, check=True, timeout=20)
    assert os.listdir(place) == []  # nothing was made there
    runs: list[list[str]] = [[]]
    for word in log.read_text().split("\0")[:-1]:
        if word == "\n":
            runs.append([])
        else:
            runs[-1].append(word)
    return runs[:-1]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_name_is_a_word_of_its_command(situation: str, programs: Path) -> None:
    identifier, what = SITUATIONS[situation]
    commands = [
        command for f in diagnose(what).findings if f.id == identifier for command in fix_row(f.fix).commands
    ]  # fmt: skip
    assert commands
    words = [word for command in commands for run in called(programs, command) for word in run]
    assert "touch" not in words
    assert any(NAME in word for word in words)


def test_a_backslash_of_a_mount_units_name_is_quoted(programs: Path) -> None:
    (finding,) = [f for f in diagnose(in_data_dir("/srv/my-leases")).findings if f.id == "LEASE010"]
    (command,) = fix_row(finding.fix).commands
    assert called(programs, command) == [["systemctl", "enable", r"srv-my\x2dleases.mount"], ["reboot"]]
