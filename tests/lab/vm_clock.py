"""Sets the clock under the daemon, on the machine of vm.py: on a host it would be set for everybody.

`make test-vm` runs it, or `python -m tests.lab.vm_clock`. The guest (vm_clock_guest.py) sets its clock ahead, back, to
1970, and there and back. This side stops the whole machine for two minutes: once by qemu's monitor, which stops its
clocks too, and once by stopping qemu, whose clocks then advance. There are live pods, pods being created and dead
leases.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.vm import Machine
from tests.lab.vm_clock_guest import STILL_S, WAYS
from tests.lab.vm_disk import Base, missing

UNSTEPPED = ("not at all", "machine stopped", "machine frozen")
GRACE_S = 90  # as configured in vm_disk.py
_NEXT_PASS_S = 30.0  # the interval is 5 s, and a pass takes up to three under emulation
_LINES = 40  # lines of the journal, including systemd's own
_LONGEST_S = 900.0
"""For one way. Most of it is waiting: for the runtime to be a minute old, and for a minute of watching."""


def play(base: Base) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way by its name, with the guest's report."""
    machine = Machine(base, "clock")
    try:
        machine.boot("begun")
        for way in WAYS:
            if way.name == "machine stopped":
                machine.wait_for("stop", _LONGEST_S)
                machine.monitor("stop")
                time.sleep(STILL_S)
                machine.monitor("cont")
            elif way.name == "machine frozen":
                machine.wait_for("freeze", _LONGEST_S)
                machine.freeze(STILL_S)
            yield way.name, machine.wait_for(way.name, _LONGEST_S)[way.name]
        print(*machine.wait_for("over", _LONGEST_S)["journal"], sep="\n", file=sys.stderr)
    finally:
        machine.cut()


def wrong(name: str, found: dict[str, Any]) -> list[str]:
    """The expectations that failed. The lease of a pod that was being created is dead only after the grace period."""
    freed, frozen = found["freed"], name == "machine frozen"  # systemd's watchdog kills a daemon that was frozen
    by = "(c)" if name in UNSTEPPED else "(b)"
    wanted = {
        "everything that is dead is freed": freed.keys() == {"old", "empty", "before", "after"},
        "older than the runtime": all(freed[n][1] == by for n in ("old", "empty") if n in freed),
        "births": all(freed[n][1] == "(b)" and freed[n][0] >= GRACE_S for n in ("before", "after") if n in freed),
        "no live pod's lease": found["live lost"] == 0 and found["pods ready"],
        "undo": found["undone"] in (None, True),
        "the daemon": found["ready"] == 200 and (frozen or (found["health"] == [200] and found["restarts"] == 0)),
        "passes": found["next pass"] < _NEXT_PASS_S,
        "figures": found["forecast"] >= 0 and found["ages"][0] >= 0,
        "log": found["lines"] <= _LINES,
    }  # fmt: skip
    if frozen and "before" in freed:
        wanted["no watching while frozen"] = freed["before"][0] >= GRACE_S + STILL_S
    return [what for what, well in wanted.items() if not well]


def table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    """One line per way; freed leases with their age on CLOCK_BOOTTIME and their proof."""
    names = ("old", "empty", "before", "after")
    lines = [" | ".join(("way", "wall clock", "next pass", *names, "undo", "ages shown", "log lines"))]
    for name, found in rows:
        freed = [" s ".join(map(str, found["freed"].get(n, ("kept",)))) for n in names]
        rest = (found["undone"], found["ages"], found["lines"])
        lines.append(" | ".join(map(str, (name, f"{found['moved']['wall']:+} s", found["next pass"], *freed, *rest))))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Print the table; exit 1 if an expectation failed."""
    if reason := missing():
        sys.exit(reason)
    rows = []
    with tempfile.TemporaryDirectory(prefix="janitor-vm-") as directory:
        for row in play(Base(Path(directory), ("clock",))):
            print(*row, file=sys.stderr, flush=True)
            rows.append(row)
    print(table(rows))
    bad = {name: what for name, found in rows if (what := wrong(name, found))}
    sys.exit(f"not as it should be: {bad}" if bad else 0)


if __name__ == "__main__":
    main()
