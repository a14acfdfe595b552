"""The boot stage in an initramfs that dracut has built, before the root is switched to."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import systemd_node, tree
from tests.lab.boot_stages import SCRIPT
from tests.lab.cache import REPOSITORY, MissingError
from tests.lab.machine import OURS, Machine
from tests.lab.networks import calico

pytestmark = pytest.mark.system

MODULE = REPOSITORY / "cloud-init/dracut/90janitor"
LEASES = "var/lib/cni/networks/k8s-pod-network"
LEASE = f"{'0123456789abcdef' * 4}\r\neth0".encode()

# The root that is to be switched to: a whole system, and the part of it that is on a disk of its own, $2.
_MOUNT = """
mkdir "$2/work" "$2/root" && mount -t overlay -o "lowerdir=$1,upperdir=$2/disk,workdir=$2/work" lab "$2/root"
"""
# The image $1 as the root of a PID 1, with the disk's root $2 in /sysroot: what an initramfs is.
_START = """
mount --rbind "$1" "$1" && mount -t proc lab "$1/proc" && mount -t tmpfs lab "$1/run" &&
    mount -t devtmpfs lab "$1/dev" && mount --rbind "$2" "$1/sysroot" && cd "$1" && shift 2 && exec chroot . "$@"
"""
_HOOK = "NEWROOT=/sysroot; . /usr/lib/dracut/hooks/pre-pivot/90-janitor-pre-pivot.sh; cat /run/janitor/ledger.json"
_CHROOT = """
cp /usr/bin/janitor-boot.sh /sysroot; for name in proc run; do mount --bind /$name /sysroot/$name; done
/bin/busybox chroot /sysroot COMMAND; cat /run/janitor/ledger.json
"""
# As the toolkits do it whose stages run in the root that is to be switched to; and with a Python that has no packages.
WAYS = {
    "dash": ["/bin/sh", "-c", _HOOK],
    "busybox": ["/bin/busybox", "ash", "-c", _HOOK],
    "chroot": ["/bin/sh", "-c", _CHROOT.replace("COMMAND", "sh /janitor-boot.sh")],
    "python": ["/bin/sh", "-c", _CHROOT.replace("COMMAND", "env PYTHONPATH=/opt python3 -m janitor.boot")],
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initramfs with the module, built by dracut and unpacked by it; and a busybox in it."""
    if reason := systemd_node.missing():
        pytest.skip(reason)
    try:
        lower = tree.layer("dracut", "busybox-static")
    except MissingError as error:
        pytest.skip(str(error))
    place = tmp_path_factory.mktemp("initramfs") / "image"
    script = (
        "dracut --no-kernel --force --no-hostonly --modules 'base janitor' /tmp/image.img && mkdir /tmp/image && "
        "cd /tmp/image && lsinitrd --unpack /tmp/image.img"
    )
    with tree.opened(lower) as root:
        module = root / "usr/lib/dracut/modules.d/90janitor"
        shutil.copytree(MODULE, module)
        shutil.copy(SCRIPT, module)
        done = subprocess.run(["chroot", str(root), "sh", "-c", script], capture_output=True, text=True)
        assert (root / "tmp/image/usr/bin/janitor-boot.sh").exists(), done.stderr[-2000:]
        shutil.copytree(root / "tmp/image", place, symlinks=True, ignore=shutil.ignore_patterns("dev"))
        shutil.copy(root / "bin/busybox", place / "bin/busybox")
    (place / "dev").mkdir()
    return place


@pytest.fixture
def machine(image: Path) -> Iterator[Machine]:
    made = Machine()
    try:
        made.power_on()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("way", WAYS)
def test_leases_are_freed_before_the_root_is_switched(image: Path, machine: Machine, way: str) -> None:
    disk = machine.root / "run/lab/disk"
    for directory in (LEASES, "etc/cni/net.d"):
        (disk / directory).mkdir(parents=True)
    calico().write(disk / "etc/cni/net.d")
    (disk / "etc/janitor").mkdir()
    (disk / "etc/janitor/janitor.toml").write_text(OURS)
    for name, content in {"lock": b"", "10.52.0.2": LEASE, "10.52.0.3": b"", "10.52.0.4": b"mine"}.items():
        (disk / LEASES / name).write_bytes(content)
    shutil.copytree(REPOSITORY / "agent/janitor", disk / "opt/janitor", ignore=shutil.ignore_patterns("__pycache__"))
    machine.run(["sh", "-c", _MOUNT, "sh", str(tree.base()), "/run/lab"], check=True)

    unshare = ["unshare", "--pid", "--fork", "--mount", "sh", "-c", _START, "sh", str(image), "/run/lab/root"]
    done = machine.run([*unshare, *WAYS[way]])
    assert "freed 2 of k8s-pod-network" in done.stdout + done.stderr, done
    assert sorted(path.name for path in (disk / LEASES).iterdir()) == ["10.52.0.4", "lock"]
    assert len(list((disk / "var/lib/janitor/quarantine").glob("*/*"))) == 2
    # The ledger is in the /run that goes along to the new root.
    ledger = json.loads(done.stdout[done.stdout.index("{") :])
    assert len(ledger["files"]) == 3
    assert not (disk / "run/janitor").exists()


@pytest.mark.parametrize("way", WAYS)
def test_leases_on_a_file_system_that_is_mounted_later(image: Path, machine: Machine, way: str) -> None:
    """Then nothing is done, and there is no ledger that would keep the unit from doing it."""
    disk = machine.root / "run/lab/disk"
    (disk / "etc/janitor").mkdir(parents=True)
    (disk / "etc/janitor/janitor.toml").write_text(OURS)
    shutil.copytree(REPOSITORY / "agent/janitor", disk / "opt/janitor", ignore=shutil.ignore_patterns("__pycache__"))
    machine.run(["sh", "-c", _MOUNT, "sh", str(tree.base()), "/run/lab"], check=True)
    unshare = ["unshare", "--pid", "--fork", "--mount", "sh", "-c", _START, "sh", str(image), "/run/lab/root"]
    done = machine.run([*unshare, *WAYS[way]])
    assert "/var/lib/cni/networks does not exist yet" in done.stdout + done.stderr, done
    assert "boot_id" not in done.stdout
    # The mount point, or what lies below the mount: no lease in sight.
    machine.run(["mkdir", "-p", f"/run/lab/root/{LEASES}"], check=True)
    done = machine.run([*unshare, *WAYS[way]])
    assert "there are no leases in /var/lib/cni/networks" in done.stdout + done.stderr, done
    assert "boot_id" not in done.stdout


def test_the_hook_does_not_hold_up_a_boot(image: Path, machine: Machine) -> None:
    """With the timeout of busybox, which the image has nothing else of."""
    installed = "/usr/lib/dracut/hooks/pre-pivot/90-janitor-pre-pivot.sh"
    hook = f"sed 's/60/1/; s|/usr/bin/janitor-boot.sh|/run/hangs|' {installed} >/run/hook"
    busybox = "mkdir /run/bin; /bin/busybox --install -s /run/bin; PATH=/run/bin"
    script = f"{hook}; echo 'sleep 1000' >/run/hangs; {busybox}; . /run/hook; echo went on"
    (machine.root / "run/lab/root").mkdir(parents=True)
    unshare = ["unshare", "--pid", "--fork", "--mount", "sh", "-c", _START, "sh", str(image), "/run/lab/root"]
    done = machine.run([*unshare, "/bin/sh", "-c", script], timeout=30)
    assert done.stdout.endswith("went on\n"), done


def test_a_disk_at_rest_is_left_alone(machine: Machine) -> None:
    """The same root beside a system that is up: nothing is known about who else uses it."""
    machine.run(["mkdir", "-p", f"/run/lab/disk/{LEASES}", "/run/lab/disk/etc"], check=True)
    done = machine.run(["sh", str(SCRIPT), "--strict", "--root", "/run/lab/disk"])
    assert (done.returncode, "nothing done" in done.stderr) == (1, True)
    machine.run(["touch", "/run/lab/disk/etc/initrd-release"], check=True)
    done = machine.run(["sh", str(SCRIPT), "--strict", "--root", "/run/lab/disk"])
    assert (done.returncode, "is an initramfs" in done.stderr) == (1, True)
