"""What the machines of vm.py start from: Debian's kernel, two initramfs, and a disk for each form."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.lab import image, runtimes, tree
from tests.lab.cache import REPOSITORY, MissingError
from tests.lab.networks import PORTMAP, SLOW, calico

PACKAGES: Final = ("linux-image-cloud-amd64", "dracut", "busybox-static", "udev", "kmod", "e2fsprogs")
_DISKS: Final = ("without", "daemon", "unit", "script")  # the initramfs form uses the first one's
# Not wanted at boot under emulation; none of them matters for an unclean reboot.
_MASKED: Final = (
    "getty@tty1.service", "serial-getty@ttyS0.service", "apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer",
    "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "systemd-logind.service",
    "systemd-pstore.service",
)  # fmt: skip
PLAY: Final = """[Unit]
After=containerd.service janitor.service
[Service]
Environment=PYTHONPATH=/opt/site:/opt/repository:/opt/repository/agent
ExecStart=/usr/bin/python3 -m tests.lab.{}
StandardOutput=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""
_CONFIGURED: Final = {
    # The test shows that nothing breaks, so nothing may be repaired.
    "daemon": 'mode = "observe"\ninterval = 5\n',
    # A short grace period, to wait for it; longer than the minute that a runtime must have run before anything is
    # freed.
    "clock": 'interval = 5\ngrace = 90\ncri_endpoints = ["unix:///run/containerd/containerd.sock"]\n',
}
_SLOW: Final = "#!/bin/sh\nexec /usr/bin/python3 -IS /opt/repository/tests/lab/plugins/slow.py\n"
DAEMON: Final = """#!/bin/sh
PYTHONPATH=/opt/site:/opt/repository/agent exec python3 -c 'from janitor.commands.cli import main; main()' "$@"
"""
_GUEST_NEEDS: Final = (
    "grpcio",
    "protobuf",
    "typer",
    "msgspec",
    "psutil",
    "pyroute2",
    "jinja2",
    "prometheus-client",
    "pyyaml",
    "rich",
)
_STAGE: Final = '#!/bin/sh\nPYTHONPATH=/opt/repository/agent exec python3 -m janitor.boot "$@"\n'
_INITRAMFS: Final = """
cp -r /opt/repository/cloud-init/dracut/90janitor /usr/lib/dracut/modules.d/
cp /opt/repository/cloud-init/janitor-boot.sh /usr/lib/dracut/modules.d/90janitor/
release=$(ls /lib/modules)
for with in plain janitor; do
    modules="base udev-rules rootfs-block fs-lib kernel-modules"
    [ $with = plain ] || modules="$modules janitor"
    dracut --force --no-hostonly --no-early-microcode --modules "$modules" --drivers "virtio_pci virtio_blk ext4" \
        --gzip /boot/$with.img "$release" || exit 1
done
"""


def missing() -> str | None:
    """Why no such machine can run here, or None."""
    absent = [name for name in ("debootstrap", "qemu-system-x86_64", "mke2fs") if shutil.which(name) is None]
    return (
        f"not installed: {', '.join(absent)} (apt-get install debootstrap qemu-system-x86 e2fsprogs)"
        if absent
        else None
    )


class Base:
    """What machines start from: kernel, two initramfs, and a disk for each form. Made once per run."""

    def __init__(
        self,
        directory: Path,
        disks: Sequence[str] = _DISKS,
        packages: Sequence[str] = (),
        furnish: Callable[[Path], None] | None = None,
    ) -> None:
        """`packages`: further Debian packages. `furnish` adds to its root what else a guest needs."""
        self.directory = directory
        self.kernel = directory / "vmlinuz"
        with tree.opened(tree.layer(*PACKAGES, *packages)) as root:
            _furnish(root)
            subprocess.run(["chroot", str(root), "sh", "-c", _INITRAMFS], check=True, capture_output=True)
            for name in ("plain", "janitor"):
                shutil.copy(root / f"boot/{name}.img", directory / f"{name}.img")
            shutil.copy(next((root / "boot").glob("vmlinuz-*")), self.kernel)
            tree.unmount(root)
            for form in disks:
                _install(root, form)
                if form == "clock":
                    _play_with_the_clock(root)
                if furnish is not None:
                    furnish(root)
                subprocess.run(
                    ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", str(root),
                     str(directory / f"{form}.disk"), "3G"], check=True, capture_output=True,
                )  # fmt: skip

    def disk(self, form: str) -> Path:
        """A fresh copy of the disk for one machine."""
        target = self.directory / "machine.disk"
        source = self.directory / f"{'without' if form == 'initramfs' else form}.disk"
        subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
        return target

    def initramfs(self, form: str) -> Path:
        """The one with the dracut module only for the form that tests it."""
        return self.directory / f"{'janitor' if form == 'initramfs' else 'plain'}.img"


def _furnish(root: Path) -> None:
    """Install everything in the guest except the boot stage."""
    for name in ("etc/cni/net.d", "etc/containerd", "opt/repository/tests", "opt/janitor/bin", "opt/site"):
        (root / name).mkdir(parents=True, exist_ok=True)
    calico().write(root / "etc/cni/net.d")
    config = runtimes.Containerd(Path("/usr/bin"), "1.6").config().replace("/opt/cni/bin", "/usr/lib/cni")
    (root / "etc/containerd/config.toml").write_text(config)
    (root / "var/lib/pause.tar").write_bytes(image.archive())
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("agent", "cloud-init", "tests/lab"):
        shutil.copytree(REPOSITORY / name, root / "opt/repository" / name, ignore=ignore)
    (root / "opt/repository/tests/__init__.py").touch()
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 0\n")
    (root / "etc/systemd/system/lab.service").write_text(PLAY.format("vm_guest"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    pip += ["--python-version", "3.11", "-c", str(REPOSITORY / "constraints.txt"), "--target", str(root / "opt/site")]
    done = subprocess.run([*pip, *_GUEST_NEEDS], capture_output=True, text=True)
    if done.returncode != 0:
        raise MissingError(f"pip: {done.stderr.strip()[-400:]}")
    subprocess.run(["systemctl", f"--root={root}", "mask", *_MASKED], check=True, capture_output=True)
    subprocess.run(["systemctl", f"--root={root}", "enable", "lab.service"], check=True, capture_output=True)


def _play_with_the_clock(root: Path) -> None:
    """Install the other guest program, and a plugin that holds a pod's creation on request."""
    (root / "etc/systemd/system/lab.service").write_text(PLAY.format("vm_clock_guest"))
    (root / "usr/lib/cni/slow").write_text(_SLOW)
    (root / "usr/lib/cni/slow").chmod(0o755)
    calico(chain=(PORTMAP, SLOW)).write(root / "etc/cni/net.d")


def _install(root: Path, form: str) -> None:
    """Install the boot stage in one of its forms with install.sh; the daemon by its unit; nothing for `without`."""
    unit, daemon = root / "etc/systemd/system/janitor.service", root / "opt/janitor/bin/janitor"
    wanted = root / "etc/systemd/system/multi-user.target.wants" / unit.name
    for path in (unit, wanted, daemon):
        path.unlink(missing_ok=True)
    if form == "without":
        return
    if form in _CONFIGURED:
        for path, text in ((daemon, DAEMON), (root / "etc/janitor/janitor.toml", _CONFIGURED[form])):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        shutil.copy(REPOSITORY / "systemd/janitor.service", unit)
        wanted.symlink_to(f"/etc/systemd/system/{unit.name}")
        return
    program = root / "opt/janitor/bin/janitor-boot"
    program.write_text(_STAGE if form == "unit" else (REPOSITORY / "cloud-init/janitor-boot.sh").read_text())
    program.chmod(0o755)
    install = ["sh", str(REPOSITORY / "systemd/install.sh"), "--root", str(root)]
    subprocess.run(install, check=True, capture_output=True)
