"""A real machine: Debian's kernel on ext4 under qemu, with a real systemd and containerd, whose power is cut for real.

The only node of the lab in which the page cache is lost: the disk is a raw file, and what the guest had not written to
it when qemu is killed is gone, as on a machine whose disk has no volatile cache. `make test-vm` plays the power cuts
without anything of janitor's, with a daemon that only keeps what is written durable (no boot stage, no repairs), and
with each form of the boot stage, and prints the table. No KVM is needed.

The guest plays the kubelet itself (vm_guest.py) and says on its console what happened, one JSON line a step.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.lab import image, runtimes, tree
from tests.lab.networks import calico
from tests.lab.runtimes import REPOSITORY, MissingError

PACKAGES: Final = ("linux-image-cloud-amd64", "dracut", "busybox-static", "udev", "kmod", "e2fsprogs")
FORMS: Final = ("without", "daemon", "unit", "script", "initramfs")
CUTS: Final = (1.0, 5.0, 15.0, 29.0)  # seconds after the last pod was started
MARK: Final = "LAB "
_DISKS: Final = ("without", "daemon", "unit", "script")  # the initramfs takes the first one's
_BOOT_S = 240.0
_COMMAND_LINE: Final = "console=ttyS0 root=/dev/vda rw quiet panic=-1 mitigations=off systemd.show_status=0 rd.shell=0"
# Not wanted at boot under emulation; nothing here takes part in an unclean reboot.
_MASKED: Final = (
    "getty@tty1.service", "serial-getty@ttyS0.service", "apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer",
    "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "systemd-logind.service",
    "systemd-pstore.service",
)  # fmt: skip
_PLAY: Final = """[Unit]
After=containerd.service janitor.service
[Service]
Environment=PYTHONPATH=/opt/site:/opt/repository:/opt/repository/agent
ExecStart=/usr/bin/python3 -m tests.lab.vm_guest
StandardOutput=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""
# What is shown is that nothing is broken, so nothing may be repaired.
_ONLY_DURABLE: Final = 'mode = "observe"\ninterval = 5\n'
_DAEMON: Final = """#!/bin/sh
PYTHONPATH=/opt/site:/opt/repository/agent exec python3 -c 'from janitor.cli import main; main()' "$@"
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
_EARLY: Final = {"leases": 0, "stuck": 0, "left": 0, "new": 4}
_GOOD: Final[dict[str, dict[str, int]]] = {
    "without": {}, "daemon": {"leases": 4, "damaged": 0, "damaged results": 0, "stuck": 0, "left": 0, "new": 4},
}  # fmt: skip
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
    """Why there can be no such machine here, or None."""
    absent = [name for name in ("debootstrap", "qemu-system-x86_64", "mke2fs") if shutil.which(name) is None]
    return (
        f"not installed: {', '.join(absent)} (apt-get install debootstrap qemu-system-x86 e2fsprogs)"
        if absent
        else None
    )


@dataclass(frozen=True)
class Row:
    """One cut: what the guest counted after it, and what it said."""

    form: str
    cut_s: float
    steps: dict[str, Any]


class Base:
    """What machines start from: kernel, two initramfs, and a disk for each form of the boot stage. Made once a run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel = directory / "vmlinuz"
        with tree.opened(tree.layer(*PACKAGES)) as root:
            _furnish(root)
            subprocess.run(["chroot", str(root), "sh", "-c", _INITRAMFS], check=True, capture_output=True)
            for name in ("plain", "janitor"):
                shutil.copy(root / f"boot/{name}.img", directory / f"{name}.img")
            shutil.copy(next((root / "boot").glob("vmlinuz-*")), self.kernel)
            tree.unmount(root)
            for form in _DISKS:
                _install(root, form)
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
        """The one with the dracut module only where that is what is shown."""
        return self.directory / f"{'janitor' if form == 'initramfs' else 'plain'}.img"


def _furnish(root: Path) -> None:
    """Everything in the guest but the boot stage."""
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
    (root / "etc/systemd/system/lab.service").write_text(_PLAY)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    pip += ["--python-version", "3.11", "-c", str(REPOSITORY / "constraints.txt"), "--target", str(root / "opt/site")]
    done = subprocess.run([*pip, *_GUEST_NEEDS], capture_output=True, text=True)
    if done.returncode != 0:
        raise MissingError(f"pip: {done.stderr.strip()[-400:]}")
    subprocess.run(["systemctl", f"--root={root}", "mask", *_MASKED], check=True, capture_output=True)
    subprocess.run(["systemctl", f"--root={root}", "enable", "lab.service"], check=True, capture_output=True)


def _install(root: Path, form: str) -> None:
    """The boot stage in one of its forms, by install.sh; the daemon by its unit; nothing for `without`."""
    unit, daemon = root / "etc/systemd/system/janitor.service", root / "opt/janitor/bin/janitor"
    wanted = root / "etc/systemd/system/multi-user.target.wants" / unit.name
    for path in (unit, wanted, daemon):
        path.unlink(missing_ok=True)
    if form == "without":
        return
    if form == "daemon":
        for path, text in (
            (daemon, _DAEMON),
            (root / "etc/janitor/janitor.toml", _ONLY_DURABLE),
        ):
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


class Machine:
    """One machine, on one disk, switched on and off."""

    def __init__(self, base: Base, form: str) -> None:
        self._base, self._form = base, form
        self._disk = base.disk(form)
        self._console = base.directory / "console.log"
        self._qemu: subprocess.Popen[bytes] | None = None

    def boot(self, until: str) -> dict[str, Any]:
        """Switch it on; returns what the guest says of all steps up to this one, by their names."""
        self._console.write_bytes(b"")
        words = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
            "-machine", "q35,usb=off,vmport=off,hpet=off", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2",
            "-m", "1024", "-kernel", str(self._base.kernel), "-initrd", str(self._base.initramfs(self._form)),
            "-append", _COMMAND_LINE, "-drive", f"file={self._disk},format=raw,if=none,id=disk,cache=unsafe",
            "-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci", "-serial", f"file:{self._console}",
        ]  # fmt: skip
        nothing = subprocess.DEVNULL
        self._qemu = subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        deadline = time.monotonic() + _BOOT_S
        while until not in (steps := self._steps()):
            if self._qemu.poll() is not None or time.monotonic() > deadline:
                self.cut()
                raise RuntimeError(f"the machine did not come up:\n{self._console.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return steps

    def _steps(self) -> dict[str, Any]:
        lines = self._console.read_text(errors="replace").replace("\r", "").split("\n")[:-1]
        return {k: v for line in lines if line.startswith(MARK) for k, v in json.loads(line[len(MARK) :]).items()}

    def cut(self) -> None:
        """The power cut."""
        if self._qemu is not None:
            self._qemu.send_signal(signal.SIGKILL)
            self._qemu.wait()
            self._qemu = None


def play(base: Base, form: str) -> Iterator[Row]:
    """One machine through all the cuts, each so long after its last pod was started; then a boot, and taking stock."""
    machine = Machine(base, form)
    try:
        machine.boot("started")
        for cut_s in CUTS:
            time.sleep(cut_s)
            machine.cut()
            yield Row(form, cut_s, machine.boot("stock")["stock"])
    finally:
        machine.cut()


def table(rows: list[Row]) -> str:
    """One line a cut."""
    names = list(rows[0].steps)
    lines = [" | ".join(("form", "cut after", *names))]
    lines += [" | ".join((row.form, f"{row.cut_s:g} s", *(str(row.steps[name]) for name in names))) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """The table, and exit 1 where the daemon or the boot stage has not done what it is for."""
    if reason := missing():
        sys.exit(reason)
    forms = tuple(sys.argv[1:]) or FORMS
    rows = []
    with tempfile.TemporaryDirectory(prefix="janitor-vm-") as directory:
        base = Base(Path(directory))
        for form in forms:
            for row in play(base, form):
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
    print(table(rows))
    bad = [
        row for row in rows if any(row.steps[name] != number for name, number in _GOOD.get(row.form, _EARLY).items())
    ]
    sys.exit(f"not as it should be: {bad}" if bad else 0)


if __name__ == "__main__":
    main()
