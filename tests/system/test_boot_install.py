"""The boot stage as it gets onto machines: install.sh, a real cloud-init; and podman beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab import systemd_node, tree
from tests.lab.boot_stages import SCRIPT
from tests.lab.cache import REPOSITORY, MissingError
from tests.lab.networks import calico
from tests.lab.systemd_node import UNITS, SystemdNode

pytestmark = pytest.mark.system

CLOUD_INIT = REPOSITORY / "cloud-init"
ID = "0123456789abcdef" * 4
LEASE = f"{ID}\r\neth0".encode()

# The modules that user-data.yaml speaks to; Debian's others want an SSH server and locales, which are not in the tree.
_CLOUD_CONFIG = """datasource_list: [NoCloud]
cloud_init_modules: [bootcmd, write-files]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user]
"""

_PODMAN = """[network]
network_backend = "cni"
cni_plugin_dirs = ["/usr/lib/cni"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_PODMAN_STORAGE = """[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""


def layer(*packages: str) -> Path:
    if reason := systemd_node.missing():
        pytest.skip(reason)
    try:
        return tree.layer(*packages)
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """janitor's wheel and those it needs, for the Python of the tree; from wherever pip gets them here."""
    made = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(made), str(REPOSITORY)], check=True, capture_output=True)
    (wheel,) = made.glob("cni_janitor-*.whl")
    constraints = ["-c", str(REPOSITORY / "constraints.txt")]
    only = ["--only-binary=:all:", "--python-version", "3.11"]
    done = subprocess.run(
        [*pip, "download", *constraints, *only, "-d", str(made), str(wheel)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return made


def lease(root: Path, address: str, content: bytes) -> Path:
    directory = root / "var/lib/cni/networks/k8s-pod-network"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lock").touch()
    (directory / address).write_bytes(content)
    return directory / address


def test_cloud_init_installs_and_enables_it(wheels: Path) -> None:
    """NoCloud, offline: at the end of the first boot it is installed and enabled, and at the next it has run."""
    with SystemdNode(calico(), base=layer("cloud-init", "python3-venv")) as node:
        seed = node.disk / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True)
        shutil.copy(CLOUD_INIT / "user-data.yaml", seed / "user-data")
        (seed / "meta-data").write_text("instance-id: lab\n")
        (node.disk / "etc/cloud/cloud.cfg.d").mkdir(parents=True)
        (node.disk / "etc/cloud/cloud.cfg.d/99-lab.cfg").write_text(_CLOUD_CONFIG)
        shutil.copytree(wheels, node.disk / "opt/janitor/wheels")
        node.boot()
        schema = node.run(["cloud-init", "schema", "--config-file", "/var/lib/cloud/seed/nocloud/user-data"])
        assert (schema.returncode, "Valid" in schema.stdout) == (0, True), schema
        status = node.run(["cloud-init", "status", "--wait", "--long"], timeout=180)
        log = (node.disk / "var/log/cloud-init-output.log").read_text()
        assert (status.returncode, "status: done" in status.stdout) == (0, True), log[-2000:]
        enabled = node.run(["systemctl", "is-enabled", "janitor-boot.service", "janitor.service"])
        assert enabled.stdout.split() == ["enabled", "enabled"]
        node.run(["sh", "-c", "while [ $(systemctl is-active janitor.service) = activating ]; do sleep 0.2; done"])
        assert node.show("janitor.service", "ActiveState") == "active"
        assert "janitor " in node.run(["/opt/janitor/bin/janitor", "--version"], check=True).stdout
        pod = node.kubelet.run()
        node.cut("empty")

        node.boot()
        (said,) = [
            e["MESSAGE"] for e in node.journal("janitor-boot.service") if e["MESSAGE"].startswith("janitor-boot: ")
        ]
        assert "freed 1 of k8s-pod-network; discarded 1 blank cache entry" in said
        node.kubelet.stop(pod)
        node.cut("intact")

        # The unit is lost, as with an /etc that is made anew: bootcmd stands in for it.
        (node.disk / "etc/systemd/system/multi-user.target.wants/janitor-boot.service").unlink()
        (node.disk / "etc/systemd/system/janitor-boot.service").unlink()
        lease(node.disk, "10.52.0.99", b"")
        node.boot()
        assert node.addresses() == {}
        assert node.show("janitor-boot.service", "ActiveState") == "inactive"


def test_user_data_has_the_units_and_harvester_the_right_key() -> None:
    files = yaml.safe_load((CLOUD_INIT / "user-data.yaml").read_text())["write_files"]
    units = {Path(file["path"]).name: file["content"] for file in files if file["path"].endswith(".service")}
    assert sorted(units) == ["janitor-boot.service", "janitor.service"]
    assert all(content == (UNITS / name).read_text() for name, content in units.items())
    (step,) = yaml.safe_load((CLOUD_INIT / "harvester.yaml").read_text())["stages"]["initramfs"]
    assert set(step) == {"name", "commands"}
    assert all(isinstance(command, str) and SCRIPT.name in command for command in step["commands"])
    assert all(command.startswith("timeout ") for command in step["commands"])


def test_install_sh_takes_what_is_there_and_away_again(tmp_path: Path) -> None:
    """The boot stage alone, or with the daemon where there is one; --remove leaves what somebody else has put there."""
    place, programs = tmp_path / "etc/systemd/system", tmp_path / "opt/janitor/bin"
    programs.mkdir(parents=True)
    enabled = []
    for program in ("janitor-boot", "janitor"):
        shutil.copy("/bin/true", programs / program)
        install(tmp_path)
        enabled.append(sorted(path.name for path in (place / "multi-user.target.wants").iterdir()))
    assert enabled == [["janitor-boot.service"], ["janitor-boot.service", "janitor.service"]]
    (place / "multi-user.target.wants/janitor.service").unlink()  # as `systemctl disable` does
    install(tmp_path)
    assert not (place / "multi-user.target.wants/janitor.service").is_symlink(), "what was disabled stays so"
    install(tmp_path, "--tmpfs")
    (place / "mine.service").write_text("")
    install(tmp_path, "--remove")
    assert [path.name for path in place.rglob("*") if not path.is_dir()] == ["mine.service"]
    install(tmp_path, "--remove")
    assert (tmp_path / "etc/janitor/boot-stage-removed").exists()
    (place / "janitor.service").symlink_to("/dev/null")
    (place / "multi-user.target.wants").mkdir(exist_ok=True)
    (place / "multi-user.target.wants/janitor.service").symlink_to("../janitor.service")
    install(tmp_path, "--remove")
    assert (place / "janitor.service").is_symlink()
    assert not (place / "multi-user.target.wants/janitor.service").is_symlink()
    done = subprocess.run(["sh", str(UNITS / "install.sh"), "--root", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, "is it masked?" in done.stderr) == (2, True)
    assert not (place / "janitor-boot.service").exists()


def install(root: Path, *words: str) -> None:
    argv = ["sh", str(UNITS / "install.sh"), "--root", str(root), *words]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_install_sh(tmp_path: Path) -> None:
    """Into a tree that is not running; --tmpfs with the mounts, which then hold the leases."""
    install = str(UNITS / "install.sh")
    done = subprocess.run(["sh", install, "--root", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, "install janitor first" in done.stderr) == (2, True)
    done = subprocess.run(["sh", install, "--nonsense"], capture_output=True, text=True)
    assert done.returncode == 64
    layer()
    with SystemdNode(calico()) as node:
        program = node.disk / "opt/janitor/bin/janitor-boot"
        shutil.copy(SCRIPT, program)  # a node without Python
        lease(node.disk, "10.52.0.99", b"")
        done = subprocess.run(["sh", install, "--root", str(node.disk), "--tmpfs"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        node.boot()
        assert node.run(["findmnt", "-n", "-o", "FSTYPE", "/var/lib/cni/networks"]).stdout.strip() == "tmpfs"
        assert node.run(["findmnt", "-n", "-o", "FSTYPE", "/var/lib/cni/results"]).stdout.strip() == "tmpfs"
        assert node.show("janitor-boot.service", "Result") == "success"
        old = [node.kubelet.run() for _ in range(3)]
        assert [pod.ip for pod in old] == ["10.52.0.2", "10.52.0.3", "10.52.0.4"]
        # Never over what running pods have, whoever starts it.
        for verb in ("stop", "start"):
            node.run(["systemctl", verb, "var-lib-cni-results.mount"])
        assert node.run(["sh", "-c", "findmnt /var/lib/cni/results || echo none"]).stdout.strip() == "none"
        node.cut("empty")
        node.boot()
        for pod in old:
            node.kubelet.stop(pod)
            node.kubelet.remove(pod)
        # What it costs: the round-robin starts anew.
        assert node.kubelet.run().ip == "10.52.0.2"


@pytest.fixture
def podman() -> Iterator[SystemdNode]:
    with SystemdNode(calico(), base=layer("podman")) as node:
        node.install()
        # Debian's podman has systemd-tmpfiles remove all of /var/lib/cni/networks at each boot, whosever they are.
        (node.disk / "etc/tmpfiles.d").mkdir()
        (node.disk / "etc/tmpfiles.d/podman.conf").symlink_to("/dev/null")
        (node.disk / "etc/containers").mkdir()
        (node.disk / "etc/containers/containers.conf").write_text(_PODMAN)
        (node.disk / "etc/containers/storage.conf").write_text(_PODMAN_STORAGE)
        yield node


def test_podmans_and_nerdctls_leases_survive(podman: SystemdNode) -> None:
    """podman's are 64 digits like CRI's, in the same data directory; nerdctl's say whose they are."""
    node = podman
    node.boot()
    started = node.run(
        ["sh", "-c", "podman load -q -i /var/lib/pause.tar && podman run -d --network podman localhost/pause:lab"]
    )
    assert started.returncode == 0, started.stderr
    networks = node.disk / "var/lib/cni/networks"
    (theirs,) = [path for path in (networks / "podman").iterdir() if path.name.startswith("10.")]
    content = theirs.read_bytes()
    assert len(content.partition(b"\r\n")[0]) == 64
    nerdctl = networks / "k8s-pod-network/10.52.0.200"
    node.kubelet.run()
    nerdctl.write_bytes(f"default-{ID}\r\neth0".encode())
    node.sync()
    node.cut()
    node.boot()
    said = [e["MESSAGE"] for e in node.journal("janitor-boot.service") if "recorded" in e["MESSAGE"]]
    assert "freed 1 of k8s-pod-network" in said[0]
    assert theirs.read_bytes() == content
    assert list(node.addresses()) == ["10.52.0.200"]
    # Without any configuration, too: then it is podman's by its name.
    node.run(["sh", "-c", "rm /etc/cni/net.d/*"], check=True)
    node.cut("intact")
    (networks / "k8s-pod-network/10.52.0.200").unlink()
    lease(node.disk, "10.52.0.2", LEASE)
    node.boot(wait=False)
    deadline = time.monotonic() + 20
    while node.addresses():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert theirs.read_bytes() == content
