"""What a pod's own specification may hold, or its processes say, to keep every dead lease: that it comes to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from janitor.host.runtime import cri_pb2 as cri
from tests.lab import cgroups, image, silent_disk
from tests.lab.node import JANITOR, Node, NodeFactory
from tests.system.conftest import of_series
from tests.system.test_attacks_witness import OLD, STRANGER, Hostile, findings, hostile, old_lease, report, verdicts
from tests.system.test_traps import SOCKET

pytestmark = pytest.mark.system

__all__ = ["hostile"]


def give_containers(machine: Node, number: int, size: int) -> None:
    """A pod with so many containers, each with an environment of so many bytes (`envFrom`), that never run."""
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="large", uid=str(uuid.uuid4()), namespace="default"),
        log_directory="/run/podlogs",
        linux=cri.LinuxPodSandboxConfig(cgroup_parent=f"/{machine.machine.name}"),
    )
    kubelet = machine.kubelet
    request = cri.RunPodSandboxRequest(config=config)
    sandbox = kubelet.call("RunPodSandbox", request, cri.RunPodSandboxResponse).pod_sandbox_id
    for one in range(number):
        container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=f"c{one}"),
            image=cri.ImageSpec(image=image.NAME),
            command=["/pause"],
            envs=[cri.KeyValue(key=f"V{n}", value="x" * 100_000) for n in range(size // 100_000)],
            log_path=f"{one}.log",
            linux=cri.LinuxContainerConfig(),
        )
        made = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=container, sandbox_config=config)
        kubelet.call("CreateContainer", made, cri.CreateContainerResponse)


@pytest.mark.parametrize(("number", "size"), [(10, 1_000_000), (1, 12_000_000)], ids=["many", "large"])
def test_15_containers_whose_records_do_not_fit_into_an_answer(node: NodeFactory, number: int, size: int) -> None:
    """containerd answers with no more than 16 MiB, and a record has the environment in it, and that twice."""
    machine = old_lease(node)
    give_containers(machine, number, size)
    said = report(machine)
    assert verdicts(said)[OLD] == "orphaned", said["findings"]
    assert findings(said, "SCAN001") == []


def test_15_sandboxes_whose_records_do_not_fit_into_an_answer(node: NodeFactory) -> None:
    """Of containerd 2's sandbox store, which has a pod's labels twice; CRI has them once, and its list fits."""
    machine = node(containerd=of_series("2.4"))
    labels = {f"label-{number}": "x" * 3500 for number in range(250)}
    for number in range(12):
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=f"pod-{number}", uid=str(uuid.uuid4()), namespace="default"),
            log_directory="/run/podlogs",
            labels=labels,
            linux=cri.LinuxPodSandboxConfig(cgroup_parent=f"/{machine.machine.name}"),
        )
        request = cri.RunPodSandboxRequest(config=config)
        machine.kubelet.call("RunPodSandbox", request, cri.RunPodSandboxResponse)
    said = report(machine)
    assert findings(said, "SCAN001") == []
    assert set(verdicts(said).values()) == {"live"}


POD = "0a1b2c3d-0000-4000-8000-0123456789ab"
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
IN_A_POD = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", *POWERLESS]


def pods_group(machine: Node, container: str, pod: str = POD) -> str:
    """The control group of a container, and the words that put the process that says them into it."""
    found = []
    for top in cgroups.find(machine.machine.name):
        directory = top
        for part in ("kubepods", f"pod{pod}", container):
            above, directory = directory, directory / part
            directory.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (directory / file).exists():
                    (directory / file).write_text((above / file).read_text())
        found.append(f"echo $$ >{directory}/cgroup.procs")
    return "; ".join(found)


@pytest.mark.parametrize("who", ["a pod", "a user of the node"])
def test_15_the_environment_of_a_cni_plugin_keeps_no_empty_lease(node: NodeFactory, hostile: Hostile, who: str) -> None:
    """Whoever has it was there before the runtime, as a plugin that is still at work may have been."""
    machine = node(boot=False)
    machine.boot(start_runtime=False)
    machine.leases().mkdir(parents=True)
    (machine.leases() / OLD).write_bytes(b"")
    cgroups.make(machine.machine.name)
    group, wrapper = (pods_group(machine, "ab" * 32), IN_A_POD) if who == "a pod" else (":", STRANGER)
    words = [*wrapper, "env", "CNI_COMMAND=ADD", "CNI_CONTAINERID=x", "sh", "-c", "echo up; sleep 600; :"]
    hostile(machine, ["sh", "-ec", f'{group}; exec "$@"', "sh", *words])
    time.sleep(3)
    machine.start_runtime()
    assert verdicts(report(machine)) == {OLD: "corrupt"}


# A process of that name with arguments of that kind, in as many copies as it is told; what a fork shares costs nobody
# any memory, and each of them has a megabyte to say.
NAMESAKES = """
import ctypes, os, signal, sys
if len(sys.argv) < 8:
    os.execv(sys.executable, ["/x/" + sys.argv[1], "-c", os.environ["PROGRAM"], *sys.argv[2:] * 4])
for _ in range(100):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) # PR_SET_PDEATHSIG
        signal.pause()
print("up", flush=True)
signal.pause()"""
RANGES = ",".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(8000))


@pytest.mark.parametrize(
    ("name", "words", "wrapper"),
    [
        ("cluster-autoscaler", ["--x=" + "token" * 20_000] * 2, IN_A_POD),
        (
            "kube-controller-manager",
            [f"--cluster-cidr={RANGES}", f"--service-cluster-ip-range={RANGES}"],
            [word for word in IN_A_POD if word != "--net"],
        ),
    ],
    ids=["an autoscaler", "ranges, in the node's network"],
)
def test_17_what_calls_itself_a_component_keeps_no_pass_from_ending(
    node: NodeFactory, hostile: Hostile, name: str, words: list[str], wrapper: list[str]
) -> None:
    machine = old_lease(node)
    cgroups.make(machine.machine.name)
    group = pods_group(machine, "ab" * 32)
    argv = [*wrapper, "env", f"PROGRAM={NAMESAKES}", sys.executable, "-c", NAMESAKES, name, *words]
    hostile(machine, ["sh", "-ec", f'{group}; exec "$@"', "sh", *argv])
    assert verdicts(report(machine, timeout=60)) == {OLD: "orphaned"}


@pytest.mark.skipif(not os.path.exists(silent_disk.DEVICE), reason="this kernel has no FUSE")
def test_15_a_program_on_a_file_system_that_does_not_answer_is_not_waited_for(
    node: NodeFactory, hostile: Hostile
) -> None:
    """It is called kubelet; whoever asks for its attributes is not even to be killed until the pod's server ends."""
    machine = old_lease(node)
    cgroups.make(machine.machine.name)
    machine.run(["mkdir", "/run/volume"], check=True)
    argv = [sys.executable, "-m", "tests.lab.silent_disk", "/run/volume", "/usr/bin/sleep", "kubelet"]
    pipe = subprocess.PIPE
    with machine.popen(argv, cwd=str(Path(__file__).parents[2]), stdin=pipe, stdout=pipe) as server:
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            words = [*IN_A_POD, "/run/volume/kubelet", "600"]
            group = pods_group(machine, "ab" * 32)
            hostile(machine, ["sh", "-ec", f'{group}; "$@" & sleep 1; echo up; wait', "sh", *words])
            server.stdin.write("\n")
            server.stdin.flush()
            assert server.stdout.readline() == "silent\n"
            argv = [str(JANITOR), "scan", "-o", "json", "--cri-endpoint", SOCKET]
            with machine.popen(argv, stdout=pipe) as scan:
                try:
                    said, _ = scan.communicate(timeout=30)
                except subprocess.TimeoutExpired:
                    server.kill()
                    pytest.fail("it waits for the pod's file system")
            assert verdicts(json.loads(said)) == {OLD: "orphaned"}
        finally:
            server.kill()


def test_08_where_a_namespace_is_pinned_is_no_part_of_a_command(node: NodeFactory, hostile: Hostile) -> None:
    """The path is the pod's to choose, and a fix is there to be pasted into a shell of root's."""
    machine = old_lease(node)
    cgroups.make(machine.machine.name)
    crowd = "ip link set lo up; for n in $(seq 90 110); do ip address add 10.52.0.$n/32 dev lo; done"
    pin = f"""
        mount -t tmpfs pod /mnt; cd /mnt; mkdir '$(reboot);'; touch '$(reboot);/x'; {pods_group(machine, "ab" * 32)}
        unshare --net sh -ec '{crowd}; mount --bind /proc/self/ns/net "/mnt/\\$(reboot);/x"'; echo up; exec sleep 600"""
    hostile(machine, ["unshare", "--mount", "--propagation", "private", "sh", "-ec", pin])
    (finding,) = [finding for finding in report(machine)["findings"] if finding["id"] == "SCAN003"]
    assert "reboot" in finding["summary"]
    assert "reboot" not in finding["fix"]["text"]


ADDRESSES = " ".join(f"10.52.0.{number}" for number in range(90, 110))


@pytest.mark.parametrize("where", ["its own network", "the node's network"])
def test_08_a_pod_with_routes_to_the_whole_range_is_named(node: NodeFactory, hostile: Hostile, where: str) -> None:
    """They lead nowhere, and keep every lease."""
    machine = old_lease(node)
    cgroups.make(machine.machine.name)
    space = ["unshare", "--net"] if where == "its own network" else []
    routes = f"ip link set lo up; for a in {ADDRESSES}; do ip route add $a/32 dev lo; done; echo up; exec sleep 600"
    hostile(machine, [*space, "sh", "-ec", f"{pods_group(machine, 'ab' * 32)}; {routes}"])
    said = report(machine)
    assert verdicts(said) == {OLD: "live"}
    (summary,) = findings(said, "SCAN003")
    assert "has 20 addresses of the pods' ranges, or host routes to such," in summary


@pytest.mark.parametrize("pinned", [True, False], ids=["nobody in them", "a process in each"])
def test_08_a_pod_with_an_address_in_each_of_many_namespaces_is_named(
    node: NodeFactory, hostile: Hostile, pinned: bool
) -> None:
    machine = old_lease(node)
    cgroups.make(machine.machine.name)
    keep = "touch /mnt/$a; mount --bind /proc/self/ns/net /mnt/$a" if pinned else "sleep 600 >/dev/null & :"
    inside = f"ip link set lo up; ip address add $a/32 dev lo; {keep}"
    script = f"""{pods_group(machine, "ab" * 32)}; mount -t tmpfs pod /mnt
        for a in {ADDRESSES}; do export a; unshare --net sh -ec '{inside}'; done; echo up; exec sleep 600"""
    hostile(machine, ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script])
    said = report(machine)
    assert verdicts(said) == {OLD: "live"}
    (summary,) = findings(said, "SCAN003")
    assert "has 20 addresses of the pods' ranges that no runtime gave it" in summary


def test_08_a_pod_that_names_the_containers_of_many_leases_is_named(node: NodeFactory, hostile: Hostile) -> None:
    """In one command line each; whoever reads the runtime's log (a hostPath of /var/log) knows them all."""
    machine = old_lease(node)
    cgroups.make(machine.machine.name)
    ids = [f"{number:064x}" for number in range(5)]
    for number, one in enumerate(ids):
        (machine.leases() / f"10.52.0.{110 + number}").write_bytes(f"{one}\r\neth0".encode())
    each = f"for id in {' '.join(ids)}; do sh -c 'sleep 600; :' $id >/dev/null & done; echo up; exec sleep 600"
    hostile(machine, ["sh", "-ec", f"{pods_group(machine, 'ab' * 32)}; {each}"])
    said = report(machine)
    assert [verdict for address, verdict in verdicts(said).items() if address != OLD] == ["live"] * 5
    (summary,) = findings(said, "SCAN003")
    assert summary == f"processes of the container or pod {POD} name 5 containers of leases that no runtime knows"
