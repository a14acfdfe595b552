"""What janitor runs on a node: the node's own programs and nothing that a pod could have put in their place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from janitor.core.model.evidence import Unknown
from janitor.host.kernel.programs import NotRun, Programs, programs_here
from janitor.host.kernel.trusted import Exposed
from tests.lab.kubelet import Pod
from tests.lab.networks import calico
from tests.lab.node import Node, NodeFactory
from tests.system.test_traps import argv, clean, kept_by_the_list_alone, remove_task
from tests.system.test_trusted import container

pytestmark = pytest.mark.system

VOLUME = "/var/lib/kubelet/pods/0a1b2c3d-0000-4000-8000-000000000000/volumes/kubernetes.io~empty-dir/x"
FAKE = "#!/bin/sh\n{ echo $0; id; } >>/run/fakes\nexit 0\n"


def leaked(machine: Node) -> Pod:
    """A dead pod with a hostPort and its cache entry: its chain's DEL is to be run."""
    dead = machine.kubelet.run(host_ports={8080: 80})
    kept_by_the_list_alone(machine, dead)
    remove_task(machine, dead)
    machine.lose_metadata()
    return dead


def fakes(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).unlink(missing_ok=True)  # never write through a link
        (directory / name).write_text(FAKE)
        (directory / name).chmod(0o755)


def has_rules(machine: Node, pod: Pod) -> bool:
    return f"{pod.ip}:80" in machine.run(["iptables-save"], check=True).stdout


def test_plugins_are_not_run_from_where_a_runtime_says_they_are(node: NodeFactory) -> None:
    """Its Status names an emptyDir, in which a pod has made programs that are root's, because the pod is."""
    machine = node()
    dead = leaked(machine)
    fakes(machine.disk / "kubelet" / VOLUME.removeprefix("/var/lib/kubelet/"), "ptp", "portmap", "host-local")
    configuration = machine.disk / "etc-containerd/config.toml"
    text = configuration.read_text()
    assert "/opt/cni/bin" in text
    configuration.write_text(text.replace("/opt/cni/bin", VOLUME))
    machine.restart_runtime()
    clean(machine)
    configuration.write_text(text)
    clean(machine)
    assert not (machine.root / "run/fakes").exists()
    assert (machine.addresses(), has_rules(machine, dead)) == ({}, False)


def test_plugins_that_a_pod_can_replace_are_run_only_if_the_operator_says_so(node: NodeFactory) -> None:
    """A CNI DaemonSet with a hostPath of /opt/cni/bin, as multus has it."""
    machine = node()
    dead = leaked(machine)
    container(machine.machine, Path("/opt/cni/bin"), "rw")
    fakes(machine.disk / "plugins", "portmap")
    said = clean(machine)
    assert "portmap is not run: /opt/cni/bin, on the way to /opt/cni/bin/portmap, is in a mount that process " in said
    assert "add its directory to program_dirs" in said
    assert (list(machine.addresses()), has_rules(machine, dead)) == ([dead.ip], True)
    assert not (machine.root / "run/fakes").exists()
    (machine.disk / "plugins/portmap").unlink()
    (machine.disk / "plugins/portmap").symlink_to("/usr/lib/cni/portmap")
    machine.machine.configure('program_dirs = ["/opt/cni/bin"]\n')
    clean(machine)
    assert (machine.addresses(), has_rules(machine, dead)) == ({}, False)


def test_a_plugin_finds_no_tool_that_a_pod_can_replace(node: NodeFactory) -> None:
    """A hostPath of /usr/local/sbin, which comes first in most PATHs, with an iptables of the pod's."""
    machine = node()
    dead = leaked(machine)
    machine.run(["mount", "-t", "tmpfs", "-o", "mode=755", "local", "/usr/local/sbin"], check=True)
    container(machine.machine, Path("/usr/local/sbin"), "rw")
    fakes(machine.root / "usr/local/sbin", "iptables", "ip6tables", "iptables-save", "ip6tables-save", "nft")
    clean(machine)
    assert not (machine.root / "run/fakes").exists()
    assert (machine.addresses(), has_rules(machine, dead)) == ({}, False)


def test_without_iptables_no_chain_is_taken_for_done_and_with_that_of_k3s_it_is(node: NodeFactory) -> None:
    """portmap says nothing where it finds no iptables for one of the families. k3s has its own, which are links."""
    machine = node(calico())
    dead = leaked(machine)
    tool = machine.run(["readlink", "-f", "/usr/sbin/iptables"], check=True).stdout.strip()
    script = f"""
        mkdir -p /var/lib/rancher/k3s/data/abc/bin/aux; cd /var/lib/rancher/k3s/data/abc/bin/aux; cp {tool} multi
        mount -t tmpfs -o mode=755 empty /usr/sbin
        mount -t tmpfs -o mode=755 empty /usr/local/sbin
    """
    machine.run(["sh", "-ec", script], check=True)
    said = clean(machine)
    assert "a plugin of the chain has added packet filter rules, but iptables is in none of /usr/sbin, " in said, said
    assert list(machine.addresses()) == [dead.ip]
    aux = machine.root / "var/lib/rancher/k3s/data/abc/bin/aux"
    for name in ("iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"):
        (aux / name).symlink_to("multi")
    (aux.parents[2] / "current").symlink_to("abc")
    clean(machine)
    machine.run(["umount", "/usr/sbin"], check=True)
    assert (machine.addresses(), has_rules(machine, dead)) == ({}, False)


def test_a_container_runs_the_node_s_plugins_where_the_node_has_them(node: NodeFactory) -> None:
    """With parts of the node at /run/host, and of its own neither plugins nor iptables."""
    machine = node()
    dead = leaked(machine)
    script = """
        for part in /var/lib/cni /var/lib/janitor /run/janitor /run/containerd; do
            mkdir -p $part /run/host$part; mount --bind $part /run/host$part
        done
        for own in /opt/cni/bin /usr/lib/cni /usr/sbin; do mount -t tmpfs own $own; done
        exec "$@" --root /run/host
    """
    for _ in range(2):
        said = machine.run(["unshare", "--mount", "sh", "-ec", script, "sh", *argv()], timeout=120)
    assert said.returncode == 0, said
    assert (machine.addresses(), has_rules(machine, dead)) == ({}, False)


# Running one.


@pytest.fixture
def here() -> Programs:
    found = programs_here()
    assert not isinstance(found, Unknown)
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(str(tmp_path), None, Exposed({}))


def script(disk: Programs, text: str, name: str = "tool") -> str:
    path = Path(disk.base) / "bin" / name
    path.write_text(text)
    path.chmod(0o755)
    return f"/bin/{name}"


def test_a_program_is_run_by_its_name_with_nothing_of_ours(here: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/x")
    assert here.run(["/usr/bin/env"]).stdout.splitlines() == [b"PATH=/usr/bin", b"LC_ALL=C"]
    assert here.run(["/bin/sh", "-c", "echo $0; cat; exit 3", "name"], stdin=b"in" * 100_000).returncode == 3
    words = here.run(["/usr/bin/cat", "/proc/self/cmdline"]).stdout
    assert words.startswith(b"/usr/bin/cat\0")


def test_a_script_is_run_by_an_interpreter_that_is_root_s_as_well(disk: Programs) -> None:
    (Path(disk.base) / "bin/sh").write_bytes(Path("/bin/sh").read_bytes())
    (Path(disk.base) / "bin/sh").chmod(0o755)
    path = script(disk, "#! /bin/sh -e\necho $1; cat /proc/$$/cmdline\n")
    lines = disk.run([path, "word"]).stdout.split(b"\n")
    assert lines[0] == b"word"
    assert lines[1].startswith(b"/bin/sh\0-e\0/proc/self/fd/")
    os.chown(Path(disk.base) / "bin/sh", 1000, 1000)
    with pytest.raises(NotRun, match="/bin/sh is owned by user 1000, not by root"):
        disk.run([path])
    for text, problem in (("#!\n", "does not name an interpreter"), ("#!/bin/tool\n", "is a script itself")):
        with pytest.raises(NotRun, match=problem):
            disk.run([script(disk, text)])


def test_whatever_a_program_does_it_ends_and_so_does_what_it_started(here: Programs, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(NotRun, match=r"sleep did not end within 0.3 s"):
        here.run(["/usr/bin/sleep", "1000"], timeout_s=0.3)
    with pytest.raises(NotRun, match="yes printed more than 1 MiB"):
        here.run(["/usr/bin/yes"], limit=1 << 20)
    # One that leaves somebody behind who holds its output open.
    done = here.run(["/bin/sh", "-c", f"sleep 1000 & echo $! >{tmp_path}/pid; echo done"])
    assert (done.returncode, done.stdout) == (0, b"done\n")
    left = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _running(left):
        time.sleep(0.01)
    assert not _running(left)
    assert time.monotonic() - began < 10


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_not_there_or_cannot_be_started_is_one_sentence(disk: Programs) -> None:
    with pytest.raises(NotRun, match=r"^tool is in none of /bin, /usr/bin$"):
        disk.locate("tool", ("/bin", "/usr/bin"))
    script(disk, "neither a script nor a program")
    with pytest.raises(NotRun, match=r"^starting /bin/tool: "):
        disk.run([disk.locate("tool", ("/bin",))])
