"""CRI-O in containerd's place, under today's kubelet."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab import image, programs
from tests.lab.cluster import Cluster, ClusterFactory
from tests.lab.figures import Figure
from tests.lab.networkd import wait_for
from tests.lab.networks import bridge
from tests.lab.programs import Elsewhere

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.elsewhere]

SOCKET = "/run/crio/crio.sock"
PODS = 6
CONFIG = f"""
[crio]
root = "/var/lib/containerd/crio"
runroot = "/run/crio-storage"
storage_driver = "vfs"
version_file = "/run/crio/version"
version_file_persist = "/var/lib/containerd/crio-version"
clean_shutdown_file = "/var/lib/containerd/crio-clean"
[crio.api]
listen = "{SOCKET}"
[crio.runtime]
default_runtime = "runc"
conmon = "/usr/bin/conmon"
conmon_cgroup = "pod"
cgroup_manager = "cgroupfs"
pinns_path = "PINNS"
seccomp_profile = ""
apparmor_profile = "unconfined"
hooks_dir = []
namespaces_dir = "/run/crio-ns"
add_inheritable_capabilities = false
[crio.runtime.runtimes.runc]
runtime_path = "RUNC"
runtime_type = "oci"
runtime_root = "/run/runc"
monitor_path = "/usr/bin/conmon"
monitor_cgroup = "pod"
[crio.image]
pause_image = "{image.NAME}"
signature_policy = "/run/policy.json"
[crio.network]
network_dir = "/etc/cni/net.d"
plugin_dirs = ["/opt/cni/bin"]
[crio.metrics]
enable_metrics = false
[crio.stats]
collection_period = 0
"""


class Crio:
    """Starts CRI-O on a cluster's node, in each boot anew."""

    def __init__(self, machine: Cluster, crio: Path, pinns: Path) -> None:
        self.machine = machine
        self.program = str(crio)
        self.config = CONFIG.replace("PINNS", str(pinns)).replace("RUNC", str(shutil.which("runc")))

    def start(self) -> None:
        node = self.machine.node
        node.run(["mkdir", "-p", "/run/crio", "/run/crio-ns"], check=True)
        (node.root / "run/crio.conf").write_text(self.config)
        (node.root / "run/policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        storage = "/var/lib/containerd/crio"
        if not (node.disk / "containerd/crio").exists():
            (node.disk / "containerd/pause.tar").write_bytes(image.archive())
            to = f"containers-storage:[vfs@{storage}+/run/crio-storage]{image.NAME}"
            words = ["--policy", "/run/policy.json", "copy", "oci-archive:/var/lib/containerd/pause.tar", to]
            node.run(["skopeo", *words], env={"TMPDIR": "/run"}, check=True)
        self.machine.plane.start("crio", self.program, "--config=/run/crio.conf", "--config-dir=", "--log-level=info")
        crictl = [str(programs.program(programs.CRICTL, "crictl")), "-r", f"unix://{SOCKET}", "info"]
        wait_for(lambda: node.run(crictl).returncode == 0, "CRI-O to answer", 40, pause=0.5)


def verdicts(machine: Cluster) -> list[str]:
    done = machine.node.janitor("scan", "-o", "json", "--only", "leases")
    return sorted(lease["verdict"] for lease in json.loads(done.stdout)["leases"])


def test_crio(cluster: ClusterFactory, figure: Figure, elsewhere: Elsewhere) -> None:
    crio, pinns = elsewhere("crio", "pinns")
    if absent := [name for name in ("conmon", "skopeo", "runc") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(absent)} (apt-get install {' '.join(absent)})")
    version = subprocess.run([crio, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    if reason := programs.missing(programs.CRICTL):
        pytest.skip(reason)
    machine = cluster(bridge(cni_version="1.0.0"), socket=SOCKET)
    machine.start_runtime = Crio(machine, crio, pinns).start
    machine.boot()
    machine.wait_ready()
    machine.deploy("web", PODS)
    # Where the cgroup hugetlb is missing no container of an application starts; their sandboxes do.
    machine.wait(lambda: machine.counts().ready == PODS, "the sandboxes", 60)
    assert verdicts(machine) == ["live"] * PODS

    machine.cut()
    machine.boot()
    machine.wait(lambda: machine.counts().ready == PODS, "the sandboxes again", 90)
    seconds = machine.age()
    assert len(machine.addresses()) == 2 * PODS
    machine.wait_settled()
    assert verdicts(machine) == ["corrupt"] * PODS + ["live"] * PODS
    done = machine.node.janitor("clean", "--yes", "--no-wait", timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts(machine) == ["live"] * PODS
    figure(f"CRI-O {version}: sandboxes after {seconds:.1f} s, {PODS} leases freed")
