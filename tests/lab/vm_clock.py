"""A clock that is set under the daemon: on the machine of vm.py, because on a host it would be set for everybody.

`make test-vm` plays it, or `python -m tests.lab.vm_clock`. The guest (vm_clock_guest.py) sets its clock ahead, back, to
1970, there and back; and this side stops the whole machine for two minutes, once by qemu's monitor, which stops its
clocks too, and once by stopping qemu, whose clocks then go on. With live pods, births in progress and dead leases.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.vm import Machine
from tests.lab.vm_clock_guest import STILL_S, WAYS
from tests.lab.vm_disk import Base, missing

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
        print(json.dumps(machine.wait_for("over", _LONGEST_S).get("journal"), indent=1), file=sys.stderr)
    finally:
        machine.cut()


def main() -> None:
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="janitor-vm-") as directory:
        base = Base(Path(directory), ("clock",))
        for name, found in play(base):
            print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
