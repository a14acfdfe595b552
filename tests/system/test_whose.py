"""Whose a process is, on a real kernel: kubelets as distributions start them, and what only looks like one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.lab import cgroups
from tests.lab.machine import Machine
from tests.lab.networkd import wait_for
from tests.lab.node import JANITOR

pytestmark = pytest.mark.system

ENDPOINT = "unix:///run/its-own.sock"
IDLE = ["-c", "while :; do sleep 1000; done", f"--container-runtime-endpoint={ENDPOINT}"]
ID = "4f" * 32


def install(machine: Machine, path: str, mode: int = 0o755) -> None:
    """A program of that name, in memory or on the machine's own disk."""
    machine.run(["mkdir", "-p", path.rpartition("/")[0]], check=True)
    shutil.copy(Path("/bin/sh").resolve(), f"{machine.root}{path}")
    (machine.root / path.lstrip("/")).chmod(mode)


def start(machine: Machine, path: str, group: str = "", wrapper: tuple[str, ...] = ()) -> None:
    """Run it; `group` is its control group, below process 1's, "" for that one itself."""
    enter = "".join(f"echo $$ >{one}/cgroup.procs;" for one in cgroups.unit(machine.name, group)) if group else ""
    machine.popen(["sh", "-ec", f'{enter} exec "$@"', "sh", *wrapper, path, *IDLE])
    wait_for(lambda: any(line.startswith(path) for line in machine.processes().values()), f"{path} to run")


def believed(machine: Machine) -> bool:
    """Whether the endpoint that it names is asked, as the kubelet's."""
    done = machine.run([str(JANITOR), "collect"], check=True)
    evidence = json.loads(done.stdout)
    found = [e["origin"] for e in evidence["endpoints"] if e["address"] == ENDPOINT]
    assert bool(found) != any(one["role"] == "kubelet" for one in evidence["disowned"]), evidence["disowned"]
    return found == ["kubelet"]


REAL = {
    "kubeadm": ("/usr/local/bin/kubelet", "kubelet.service"),
    "in a slice of its own": ("/opt/bin/kubelet", "runtime.slice/kubelet.service"),
    "k3s": ("/var/lib/rancher/k3s/data/0a1b/bin/k3s", "k3s.service"),
    "RKE2, a child of its service": ("/var/lib/rancher/rke2/data/v1.30/bin/kubelet", "rke2-server.service"),
    "k0s": ("/var/lib/k0s/bin/kubelet", "k0sworker.service"),
    "microk8s": ("/snap/microk8s/7000/kubelite", "snap.microk8s.daemon-kubelite.service"),
    "by hand": ("/usr/local/bin/kubelet", ""),
}


@pytest.mark.parametrize("how", REAL)
def test_a_kubelet_as_it_is_started(machine: Machine, how: str) -> None:
    path, unit = REAL[how]
    if path.startswith(("/usr", "/snap")):  # which are the host's here
        path = f"/opt{path}"
    install(machine, path)
    start(machine, path, unit)
    assert believed(machine)


def test_one_that_was_upgraded_under_its_service(machine: Machine) -> None:
    install(machine, "/opt/bin/kubelet")
    start(machine, "/opt/bin/kubelet", "kubelet.service")
    machine.run(["rm", "/opt/bin/kubelet"], check=True)
    assert believed(machine)


def test_one_in_a_mount_namespace_of_its_own(machine: Machine) -> None:
    """As systemd makes them (ProtectSystem=), and snaps have them."""
    install(machine, "/opt/bin/kubelet")
    start(machine, "/opt/bin/kubelet", "kubelet.service", ("unshare", "--mount"))
    assert believed(machine)


USER = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
FALSE = {
    "a user's": (USER, ""),
    "a user's, in a session": (USER, "user.slice/session-1.scope"),
    "in a PID namespace": (("unshare", "--pid", "--fork", "--kill-child"), "kubelet.service"),
    "in a user namespace": (("unshare", "--user", "--map-root-user"), "kubelet.service"),
    "in a network namespace": (("unshare", "--net"), "kubelet.service"),
    "a container, cgroupfs": ((), f"kubepods/pod0a1b/{ID}"),
    "a container, systemd": ((), f"kubepods.slice/kubepods-pod0a1b.slice/cri-containerd-{ID}.scope"),
    "a container of docker": ((), f"docker-{ID}.scope"),
    "a group of a pod's own making": ((), f"kubepods.slice/cri-containerd-{ID}.scope/kubelet.service"),
    "half root": (("setpriv", "--ruid", "65534"), ""),
}


@pytest.mark.parametrize("how", FALSE)
def test_what_is_none(machine: Machine, how: str) -> None:
    wrapper, group = FALSE[how]
    install(machine, "/opt/bin/kubelet")
    start(machine, "/opt/bin/kubelet", group, wrapper)
    assert not believed(machine)


@pytest.mark.parametrize(
    "where", ["/var/lib/kubelet/pods/0a1b2c3d-0000-4000-8000-000000000000/volumes/x/kubelet", "/run/open/kubelet"]
)
def test_a_program_that_others_can_have_put_there(machine: Machine, where: str) -> None:
    """Root runs it, by hand and in the node's namespaces: in a pod's volume, or where everybody may write."""
    install(machine, where)
    machine.run(["chmod", "777", where.rpartition("/")[0]], check=True)
    start(machine, where)
    assert not believed(machine)


CONTAINER = """mount -t tmpfs t /mnt; cd /mnt; mkdir usr old volume proc
for d in bin lib lib64 sbin; do ln -s usr/$d $d; done
mount --bind /usr usr; mount -o remount,bind,ro usr; mount --bind /opt/shown volume
mount -t proc proc proc; pivot_root . old; umount -l /old; exec sleep 1000"""


def test_a_program_in_a_mount_that_a_pod_sees(machine: Machine) -> None:
    """And may write to: a container's root is root, and so is what it makes there."""
    install(machine, "/opt/shown/kubelet")
    as_one = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    machine.popen([*as_one, "sh", "-ec", CONTAINER])
    wait_for(lambda: "sleep 1000" in machine.processes().values(), "the pod")
    start(machine, "/opt/shown/kubelet")
    assert not believed(machine)


def test_another_program_by_that_name(machine: Machine) -> None:
    """Its comm and its arguments are what it likes: a link to su waits for a password with root's effective ID."""
    install(machine, "/opt/bin/other")
    script = 'exec -a /opt/bin/kubelet /opt/bin/other "$@"'
    machine.popen(["bash", "-c", script, "bash", *IDLE])
    wait_for(lambda: any(line.startswith("/opt/bin/kubelet") for line in machine.processes().values()), "it to run")
    evidence = json.loads(machine.run([str(JANITOR), "collect"], check=True).stdout)
    assert not [e for e in evidence["endpoints"] if e["address"] == ENDPOINT]


def test_a_users_programs_are_no_part_of_kubernetes(machine: Machine) -> None:
    """By their names: below a user's service manager he makes control groups of any name himself."""
    install(machine, "/opt/bin/kube-proxy")
    start(machine, "/opt/bin/kube-proxy", f"user.slice/user-65534.slice/user@65534.service/pod0a1b/{ID}", USER)
    evidence = json.loads(machine.run([str(JANITOR), "collect"], check=True).stdout)
    assert evidence["node_config"]["components"] == []
