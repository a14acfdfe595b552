"""A real machine: Debian's kernel on ext4 under qemu, with a real systemd and containerd, whose power is cut for real.

The only node of the lab in which the page cache is lost: the disk is a raw file, and what the guest had not written to
it when qemu is killed is gone, as on a machine whose disk has no volatile cache. `make test-vm` plays the power cuts
without anything of janitor's, with a daemon that only keeps what is written durable (no boot stage, no repairs), and
with each form of the boot stage, and prints the table. No KVM is needed.

The guest plays the kubelet itself (vm_guest.py) and says on its console what happened, one JSON line a step.
vm_clock.py plays a clock that is set, on the same machine.
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
CUTS: Final = (1.0, 5.0, 15.0, 29.0)  # seconds after the last pod was started
MARK: Final = "LAB "
_BOOT_S = 240.0
_COMMAND_LINE: Final = "console=ttyS0 root=/dev/vda rw quiet panic=-1 mitigations=off systemd.show_status=0 rd.shell=0"
_ONE_CLOCK: Final = " tsc=reliable"  # the other one of such a machine begins anew after five seconds
_EARLY: Final = {"leases": 0, "stuck": 0, "left": 0, "new": 4}
_GOOD: Final[dict[str, dict[str, int]]] = {
    "without": {}, "daemon": {"leases": 4, "damaged": 0, "damaged results": 0, "stuck": 0, "left": 0, "new": 4},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One cut: what the guest counted after it, and what it said."""

    form: str
    cut_s: float
    steps: dict[str, Any]


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
        """The same for a machine that is on. Cuts its power and raises RuntimeError where it does not come to that."""
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
        """A command without arguments for qemu: `stop`, `cont`."""
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
        """Let qemu itself stand still: its machine gets no time, and its clocks go on."""
        assert self._qemu is not None
        self._qemu.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._qemu.send_signal(signal.SIGCONT)

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
