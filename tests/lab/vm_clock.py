"""A clock that is set under the daemon: on the machine of vm.py, because on a host it would be set for everybody.

`make test-vm` plays it, or `python -m tests.lab.vm_clock`. The guest (vm_clock_guest.py) sets its clock ahead, back, to
1970, there and back; and this side stops the whole machine for two minutes, once by qemu's monitor, which stops its
clocks too, and once by stopping qemu, whose clocks then go on. With live pods, births in progress and dead leases.
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
_LINES = 40  # of the journal, systemd's own among them
_LONGEST_S = 900.0
"""For one way, most of it waiting: a runtime that is a minute old, and a minute of watching."""


def play(base: Base) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way by its name, with what the guest says of it."""
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
    """What is not as it should be. A birth is dead when it has been watched for the grace, and by no other proof."""
    freed, frozen = found["freed"], name == "machine frozen"  # where systemd's watchdog ends what could not speak
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
    """One line a way; what is freed with its age on CLOCK_BOOTTIME and its proof."""
    names = ("old", "empty", "before", "after")
    lines = [" | ".join(("way", "wall clock", "next pass", *names, "undo", "ages shown", "log lines"))]
    for name, found in rows:
        freed = [" s ".join(map(str, found["freed"].get(n, ("kept",)))) for n in names]
        rest = (found["undone"], found["ages"], found["lines"])
        lines.append(" | ".join(map(str, (name, f"{found['moved']['wall']:+} s", found["next pass"], *freed, *rest))))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """The table, and exit 1 where something is not as it should be."""
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
