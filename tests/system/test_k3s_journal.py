"""A journal as journald writes it: k3s says in it what it hides from /proc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from janitor.core.model.evidence import Unknown
from janitor.core.node.node_view import cluster_cidrs, component, flag
from janitor.host.cni.reader import read_configuration
from janitor.host.kubernetes import node_config
from janitor.host.node import find_node
from tests.lab.trees import k3s_server

pytestmark = pytest.mark.system

WRITER = "/usr/lib/systemd/systemd-journal-remote"
LINES = [
    "Running kube-apiserver --service-cluster-ip-range=10.9.0.0/16",  # an earlier start
    "Running kube-apiserver --advertise-port=6443 --service-cluster-ip-range=10.53.0.0/16 --token-auth-file=/x",
    "Running kube-controller-manager --cluster-cidr=10.42.0.0/16 --profiling=false",
    "Running kubelet --cloud-provider=external --node-labels= --bootstrap-token=abc --node-ip=10.0.0.3",
]


def test_what_runs_is_in_the_journal(tmp_path: Path) -> None:
    if not Path(WRITER).exists() or shutil.which("journalctl") is None:
        pytest.skip("systemd-journal-remote is not installed, and a journal cannot be written")
    k3s_server(tmp_path)
    directory = tmp_path / "var/log/journal/0123456789abcdef0123456789abcdef"
    directory.mkdir(parents=True)
    entries = [
        f"__REALTIME_TIMESTAMP={1_790_000_000_000_000 + number}\n__MONOTONIC_TIMESTAMP={number + 1}\n"
        f"_BOOT_ID=5f0c7d1e00004000800000000000000{7}\n_SYSTEMD_UNIT=k3s.service\nPRIORITY=6\n"
        f'MESSAGE=time="2026-09-21T10:00:00Z" level=info msg="{line}"\n'
        for number, line in enumerate(LINES)
    ]
    argv = [WRITER, f"--output={directory}/system.journal", "-"]
    subprocess.run(argv, input="\n".join(entries) + "\n", text=True, check=True, capture_output=True)
    found = find_node(str(tmp_path))
    assert not isinstance(found.proc, Unknown)
    node = node_config.read(found, node_config.PLAIN, read_configuration(found, ()), ())
    assert flag(component(node, "kube-apiserver"), "--service-cluster-ip-range") == "10.53.0.0/16"
    assert flag(component(node, "kubelet"), "--node-ip") == "10.0.0.3"
    assert flag(component(node, "kubelet"), "--bootstrap-token") == "(not kept)"
    assert cluster_cidrs(node)[0].component == "kube-controller-manager"
