"""A real machine: Debian's kernel on ext4 under qemu, with a real systemd and containerd, whose power is really cut.

Only on this node of the lab is the page cache lost. The disk is a raw file; what the guest had not written to it when
qemu is killed is gone, as on a machine whose disk has no volatile cache. `make test-vm` plays the power cuts without
janitor, with a daemon that only keeps files durable (no boot stage, no repairs), and with each form of the boot stage,
and prints the table. No KVM is needed.

The guest itself acts as the kubelet (vm_guest.py) and reports on its console, one JSON line per step. vm_clock.py sets
the clock of the same machine.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.lab.vm_disk import Base, missing

FORMS: Final = ("without", "daemon", "unit", "script", "initramfs")
CUTS: Final = (1.0, 5.0, 15.0, 29.0)  # seconds after the start of the last pod
MARK: Final = "LAB "
_BOOT_S = 240.0
_COMMAND_LINE: Final = "console=ttyS0 root=/dev/vda rw quiet panic=-1 mitigations=off systemd.show_status=0 rd.shell=0"
_ONE_CLOCK: Final = " tsc=reliable"  # such a machine's other clock restarts after five seconds
_EARLY: Final = {"leases": 0, "stuck": 0, "left": 0, "new": 4}
_GOOD: Final[dict[str, dict[str, int]]] = {
    "without": {}, "daemon": {"leases": 4, "damaged": 0, "damaged results": 0, "stuck": 0, "left": 0, "new": 4},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One cut: the guest's report after it."""

    form: str
    cut_s: float
    steps: dict[str, Any]


class Machine:
    """One machine on one disk, powered on and off."""

    def __init__(self, base: Base, form: str) -> None:
        self._base, self._form = base, form
        self._disk = base.disk(form)
        self._console = base.directory / "console.log"
        self._qemu: subprocess.Popen[bytes] | None = None

    def boot(self, until: str) -> dict[str, Any]:
        """Power on; returns the guest's reports of all steps up to this one, by name."""
        self._console.write_bytes(b"")
        command_line = _COMMAND_LINE + (_ONE_CLOCK if self._form == "clock" else "")
        words = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
            "-machine", "q35,usb=off,vmport=off,hpet=off", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2",
            "-m", "1024", "-kernel", str(self._base.kernel), "-initrd", str(self._base.initramfs(self._form)),
            "-append", command_line, "-drive", f"file={self._disk},format=raw,if=none,id=disk,cache=unsafe",
            "-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci", "-serial", f"file:{self._console}",
            "-qmp", f"unix:{self._base.directory}/monitor,server=on,wait=off",
        ]  # fmt: skip
        nothing = subprocess.DEVNULL
        self._qemu = subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        return self.wait_for(until, _BOOT_S)

    def wait_for(self, until: str, timeout: float) -> dict[str, Any]:
        """The same for a running machine. If the step does not come, cuts its power and raises RuntimeError."""
        assert self._qemu is not None
        deadline = time.monotonic() + timeout
        while until not in (steps := self._steps()):
            if self._qemu.poll() is not None or time.monotonic() > deadline:
                self.cut()
                raise RuntimeError(
                    f"no {until!r} from the machine:\n{self._console.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.05)
        return steps

    def monitor(self, command: str) -> None:
        """Send qemu a command without arguments: `stop`, `cont`."""
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as lines:
            connection.settimeout(30)
            connection.connect(f"{self._base.directory}/monitor")
            for name in ("qmp_capabilities", command):
                lines.write(json.dumps({"execute": name}) + "\n")
                lines.flush()
                while not {"return", "error"} & (answer := json.loads(lines.readline())).keys():
                    pass
                if "error" in answer:
                    raise RuntimeError(f"{name}: {answer['error']}")

    def freeze(self, seconds: float) -> None:
        """Stop qemu itself: the machine does not run, but its clocks advance."""
        assert self._qemu is not None
        self._qemu.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._qemu.send_signal(signal.SIGCONT)

    def _steps(self) -> dict[str, Any]:
        lines = self._console.read_text(errors="replace").replace("\r", "").split("\n")[:-1]
        return {k: v for line in lines if line.startswith(MARK) for k, v in json.loads(line[len(MARK) :]).items()}

    def cut(self) -> None:
        """Cut the power."""
        if self._qemu is not None:
            self._qemu.send_signal(signal.SIGKILL)
            self._qemu.wait()
            self._qemu = None


def play(base: Base, form: str) -> Iterator[Row]:
    """One machine through all the cuts, each at a time after the start of its last pod; then a boot, and its report."""
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
    """One line per cut."""
    names = list(rows[0].steps)
    lines = [" | ".join(("form", "cut after", *names))]
    lines += [" | ".join((row.form, f"{row.cut_s:g} s", *(str(row.steps[name]) for name in names))) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Print the table; exit 1 if the daemon or the boot stage did not do its job."""
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
