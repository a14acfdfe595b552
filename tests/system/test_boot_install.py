"""The boot stage as it gets onto machines: install.sh, a real cloud-init, a dracut initramfs; and podman beside it."""

from __future__ import annotations

import json
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
from tests.lab.machine import Machine
from tests.lab.networks import calico
from tests.lab.runtimes import REPOSITORY, MissingError
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
        assert node.run(["systemctl", "is-enabled", "janitor-boot.service"]).stdout.strip() == "enabled"
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
        lease(node.disk, "10.52.0.99", b"")
        node.boot()
        assert node.addresses() == {}
        assert node.show("janitor-boot.service", "ActiveState") == "inactive"


def test_user_data_has_the_unit_and_harvester_the_right_key() -> None:
    files = yaml.safe_load((CLOUD_INIT / "user-data.yaml").read_text())["write_files"]
    (unit,) = [file for file in files if file["path"].endswith("janitor-boot.service")]
    assert unit["content"] == (UNITS / "janitor-boot.service").read_text()
    (step,) = yaml.safe_load((CLOUD_INIT / "harvester.yaml").read_text())["stages"]["initramfs"]
    assert set(step) == {"name", "commands"}
    assert all(isinstance(command, str) and SCRIPT.name in command for command in step["commands"])


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
        node.cut("empty")
        node.boot()
        for pod in old:
            node.kubelet.stop(pod)
            node.kubelet.remove(pod)
        # What it costs: the round-robin starts anew.
        assert node.kubelet.run().ip == "10.52.0.2"


@pytest.fixture(scope="module")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initramfs with the module, built by dracut and unpacked."""
    place = tmp_path_factory.mktemp("initramfs") / "image"
    with tree.opened(layer("dracut", "busybox-static")) as root:
        module = root / "usr/lib/dracut/modules.d/90janitor"
        shutil.copytree(CLOUD_INIT / "dracut/90janitor", module)
        shutil.copy(SCRIPT, module)
        script = (
            "dracut --no-kernel --force --no-hostonly --modules 'base janitor' /tmp/image.img && mkdir /tmp/image && "
            "cd /tmp/image && lsinitrd --unpack /tmp/image.img"
        )
        done = subprocess.run(["chroot", str(root), "sh", "-c", script], capture_output=True, text=True)
        assert (root / "tmp/image/usr/bin/janitor-boot.sh").exists(), done.stderr[-2000:]
        shutil.copytree(
            root / "tmp/image", place, symlinks=True, ignore=lambda *_: ["console", "kmsg", "null", "random", "urandom"]
        )
        shutil.copy(root / "bin/busybox", place / "bin/busybox")
    return place


# PID 1 of a new PID namespace, in the image as its root: what an initramfs is. $1 image, $2 the root that is to be switched to.
_AS_INITRAMFS = """
mount --rbind "$1" "$1" && mount -t proc lab "$1/proc" && mount -t tmpfs lab "$1/run" && mount -t devtmpfs lab "$1/dev" &&
    mount --rbind "$2" "$1/sysroot" && image=$1 && shift 2 && exec chroot "$image" "$@"
"""


@pytest.mark.parametrize("how", ["dash", "busybox", "chroot"])
def test_an_initramfs_frees_leases_before_the_root_is_switched(initramfs: Path, how: str, tmp_path: Path) -> None:
    """dracut's hook under the image's own dash and under busybox; and from a chroot in the root, as Elemental runs its stage."""
    sysroot = tmp_path / "sysroot"
    (sysroot / "etc/cni/net.d").mkdir(parents=True)
    calico().write(sysroot / "etc/cni/net.d")
    kept, freed, other = (
        lease(sysroot, "10.52.0.4", b"mine"),
        lease(sysroot, "10.52.0.2", LEASE),
        lease(sysroot, "10.52.0.3", b""),
    )
    hook = "set -- ; NEWROOT=/sysroot; . /usr/lib/dracut/hooks/pre-pivot/90-janitor-pre-pivot.sh; cat /run/janitor/ledger.json"
    inside = {
        "dash": ["/bin/sh", "-c", hook],
        "busybox": ["/bin/busybox", "ash", "-c", hook],
        "chroot": ["/bin/sh", "-c", "cp /usr/bin/janitor-boot.sh /sysroot; mount --bind /proc /sysroot/proc; mount --bind /run /sysroot/run; "
                   "/bin/busybox chroot /sysroot sh /janitor-boot.sh; cat /run/janitor/ledger.json"],
    }[how]  # fmt: skip
    lower = layer()
    if how == "chroot":  # in a whole system; the leases lie over it
        for name in ("proc", "run"):
            (sysroot / name).mkdir()
    machine = Machine()
    try:
        machine.power_on()
        seen = str(sysroot)
        if how == "chroot":
            machine.run(["sh", "-c", f"mkdir /run/upper /run/work /run/sysroot && cp -a {sysroot}/. /run/upper && mount -t overlay -o "
                         f"lowerdir={lower},upperdir=/run/upper,workdir=/run/work lab /run/sysroot"], check=True)  # fmt: skip
            seen = "/run/sysroot"
        words = [
            "unshare",
            "--pid",
            "--fork",
            "--mount",
            "sh",
            "-c",
            _AS_INITRAMFS,
            "sh",
            str(initramfs),
            seen,
            *inside,
        ]
        done = machine.run(words)
        if how == "chroot":
            machine.run(["sh", "-c", f"rm -rf {sysroot}/var && cp -a /run/upper/var {sysroot}/"], check=True)
    finally:
        machine.close()
    assert "freed 2 of k8s-pod-network" in done.stdout + done.stderr, done
    assert kept.exists()
    assert not freed.exists() and not other.exists()
    assert len(list((sysroot / "var/lib/janitor/quarantine").glob("*/*"))) == 2
    # The ledger is in the /run that goes along to the new root.
    assert len(json.loads(done.stdout[done.stdout.index("{") :])["files"]) == 3


@pytest.fixture
def podman() -> Iterator[SystemdNode]:
    with SystemdNode(calico(), base=layer("podman")) as node:
        node.install()
        (node.disk / "etc/containers").mkdir()
        (node.disk / "etc/containers/containers.conf").write_text(
            '[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/usr/lib/cni"]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        (node.disk / "etc/containers/storage.conf").write_text(
            '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
        )
        yield node


def test_podmans_and_nerdctls_leases_survive(podman: SystemdNode) -> None:
    """podman's are 64 digits like CRI's, in the same data directory; nerdctl's say whose they are."""
    node = podman
    node.boot()
    started = node.run(
        ["sh", "-c", "podman load -q -i /root/pause.tar && podman run -d --network podman localhost/pause:lab"]
    )
    assert started.returncode == 0, started.stderr
    networks = node.disk / "var/lib/cni/networks"
    (theirs,) = [path for path in (networks / "podman").iterdir() if path.name.startswith("10.")]
    content = theirs.read_bytes()
    assert len(content.partition(b"\r\n")[0]) == 64
    nerdctl = networks / "k8s-pod-network/10.52.0.200"
    pod = node.kubelet.run()
    nerdctl.write_bytes(f"default-{ID}\r\neth0".encode())
    node.sync()
    node.cut()
    node.boot()
    deadline = time.monotonic() + 20
    while not (said := [e["MESSAGE"] for e in node.journal("janitor-boot.service") if "recorded" in e["MESSAGE"]]):
        assert time.monotonic() < deadline
    assert "freed 1 of k8s-pod-network" in said[0]
    assert theirs.read_bytes() == content
    assert list(node.addresses()) == ["10.52.0.200"]
    # Without any configuration of CRI's, too.
    node.cut("intact")
    (node.disk / "etc/cni/net.d/10-calico.conflist").unlink()
    node.boot(wait=False)
    time.sleep(4)
    assert theirs.read_bytes() == content
    assert pod.ip not in node.addresses()
