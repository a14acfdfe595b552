"""Inside the machine of vm_clock.py: sets the clock under a running daemon, and reports the results on the console.

For each way of setting it there are at least two live pods, two leases older than the runtime (one of them empty), a
pod whose creation a slow plugin holds, and two leases that the real host-local has just written and whose pods nobody
lists yet: one from before the clock is set, one from after, or from between the two steps. A lease that janitor frees
is recorded with its age on CLOCK_BOOTTIME and the proof that the daemon logged.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.lab.kubelet import Kubelet, Pod
from tests.lab.networks import SUBNET
from tests.lab.vm_guest import LEASES, import_image, say, until_ready

DAY_S: Final = 86_400
STILL_S: Final = 120  # how long the host stops the machine
_SLOW: Final = Path("/run/lab/slow")
_ASIDE_S: Final = 5.0  # long enough for the host to see the request
_PATIENCE_S: Final = 240.0
_RTC: Final = Path("/sys/class/rtc/rtc0/since_epoch")


def up_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def add_s(seconds: float) -> None:
    """Step the wall clock."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def to_1970() -> None:
    # The kernel accepts no time before its own start.
    time.clock_settime(time.CLOCK_REALTIME, up_s() + 3600)


def aside(wish: str) -> None:
    """Ask the host to do something to the whole machine, and wait until it has."""
    say(**{wish: True})
    time.sleep(_ASIDE_S)


@dataclass(frozen=True)
class Way:
    """A way to set the clock: once, or there and, after a pod's lease was written, back again."""

    name: str
    step: Callable[[], None]
    back: Callable[[], None] | None = None


WAYS: Final = (
    Way("not at all", lambda: None),
    Way("a day ahead", lambda: add_s(DAY_S)),
    Way("a day back", lambda: add_s(-DAY_S)),
    Way("to 1970", to_1970),
    Way("ahead, then back", lambda: add_s(DAY_S), lambda: add_s(-DAY_S)),
    Way("back, then ahead", lambda: add_s(-DAY_S), lambda: add_s(DAY_S)),
    Way("machine stopped", lambda: aside("stop")),
    Way("machine frozen", lambda: aside("freeze")),
)


@dataclass
class Guest:
    """The kubelet, and the times of leases: `born` and `gone` are on CLOCK_BOOTTIME, by address."""

    kubelet: Kubelet
    true_s: float = field(default_factory=lambda: time.time() - up_s())
    live: list[Pod] = field(default_factory=list)
    born: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    health: set[int] = field(default_factory=set)  # every answer of /healthz
    ages: list[float] = field(default_factory=list)  # of the oldest orphan, every answer
    taken: tuple[str, str] = ("", "")  # the address that was freed last before a step, and the pass that freed it

    def watch(self) -> None:
        """Thread: record when each lease disappears."""
        while True:
            there = {path.name for path in LEASES.glob("*")}
            now = up_s()
            for name in [name for name in self.born if name not in there]:
                self.gone.setdefault(name, now)
            time.sleep(0.2)

    def look(self) -> None:
        """Thread: record what the daemon reports, continuously."""
        while True:
            self.health.add(_get("/healthz")[0])
            self.ages.append(_metric("janitor_oldest_orphan_age_seconds"))
            time.sleep(2)

    def lease(self, address: str, *, empty: bool = False) -> None:
        """Write a lease by the real host-local, for a container that nobody lists; `empty` as after a power cut."""
        config = {"cniVersion": "0.4.0", "name": LEASES.name, "type": "ptp"}
        ipam = {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]}
        environment = {
            "CNI_COMMAND": "ADD", "CNI_CONTAINERID": os.urandom(32).hex(), "CNI_NETNS": "/none", "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni", "CNI_ARGS": f"IP={address}",
        }  # fmt: skip
        words = ["/usr/lib/cni/host-local"]
        text = json.dumps({**config, "ipam": ipam})
        subprocess.run(words, env=environment, input=text, text=True, check=True, capture_output=True)
        if empty:
            os.truncate(LEASES / address, 0)
        self.born[address] = up_s()

    def begin_birth(self) -> Any:
        """Start a pod and hold it in the middle of its ADD."""
        (_SLOW / "hold-ADD").touch()
        future = self.kubelet.run_async(timeout=_PATIENCE_S)
        _wait(lambda: any(_SLOW.glob("held-ADD-*")), "the slow plugin")
        return future

    def play(self, way: Way, number: int) -> dict[str, Any]:
        """Play one way, from a runtime's start until all dead leases are gone. Returns the results."""
        # host-local gives the pod the address after the last requested one.
        offsets = {"old": 5, "empty": 1, "before": 7, "after": 8}
        ours = {name: f"10.52.0.{100 + 10 * number + offset}" for name, offset in offsets.items()}
        self.health, self.ages = set(), []
        lines_before, restarts_before = len(_journal()), _restarts()
        self.lease(ours["old"])
        self.lease(ours["empty"], empty=True)
        time.sleep(4)  # older than the next runtime by more than the clocks' margin
        subprocess.run(["systemctl", "restart", "containerd.service"], check=True)
        until_ready(self.kubelet)
        birth = self.begin_birth()
        self.lease(ours["before"])
        passes = _metric("janitor_passes_total")
        _wait(lambda: _metric("janitor_passes_total") > passes + 1, "a pass that has seen them")
        passes, clocks = _metric("janitor_passes_total"), _clocks()
        way.step()
        self.lease(ours["after"])
        set_s = up_s()
        if way.back is not None:
            time.sleep(2)
            way.back()
        moved = _clocks()
        # The counter of a restarted daemon starts at 0.
        _wait(lambda: _metric("janitor_passes_total") not in (0, passes), "a pass after it")
        next_pass_s = up_s() - set_s
        took_s = _metric("janitor_pass_duration_seconds")
        forecast = _metric("janitor_exhaustion_forecast_seconds")
        undone = self._undo() if self.taken[0] else None
        _wait(lambda: ours["old"] in self.gone, "the oldest one to be freed", fatal=False)
        (_SLOW / "hold-ADD").unlink()
        self.live.append(birth.result(timeout=_PATIENCE_S))
        _wait(lambda: not {*ours.values()} - self.gone.keys(), "what is dead to be freed", fatal=False)
        lines = _journal()
        here = {path.name for path in LEASES.glob("*")}
        self.taken = (ours["old"], _word(_freed(lines, ours["old"]), "pass"))
        found = {
            "moved": {name: round(moved[name] - clocks[name]) for name in clocks},
            "freed": {
                name: [round(self.gone[address] - self.born[address]), _proof(_freed(lines, address))]
                for name, address in ours.items()
                if address in self.gone
            },
            "next pass": round(next_pass_s, 1),
            "live lost": sum(pod.ip not in here for pod in self.live),
            "pods ready": sum(pod.ready for pod in self.kubelet.list()) == len(self.live),
            "undone": undone,
            "health": sorted(self.health),
            "ready": _get("/readyz")[0],
            "restarts": _restarts() - restarts_before,
            "forecast": forecast,
            "pass took": round(took_s, 1),
            "ages": [round(min(self.ages)), round(max(self.ages))],
            "lines": len(lines) - lines_before,
        }
        time.clock_settime(time.CLOCK_REALTIME, self.true_s + up_s())
        return found

    def _undo(self) -> bool:
        """Whether what was freed before the clock was set can be put back."""
        address, pass_id = self.taken
        done = subprocess.run(["/opt/janitor/bin/janitor", "undo", pass_id], capture_output=True, text=True)
        there = (LEASES / address).exists()
        if not there:
            say(undo=[done.returncode, done.stdout[-300:], done.stderr[-300:]])
        return done.returncode in (0, 1) and there


def _clocks() -> dict[str, float]:
    return {
        "wall": time.time(), "boottime": up_s(), "monotonic": time.monotonic(), "rtc": float(_RTC.read_text())
    }  # fmt: skip


def _wait(done: Callable[[], bool], what: str, *, fatal: bool = True) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            say(late=what)
            if fatal:
                raise TimeoutError(what)
            return
        time.sleep(0.3)


def _get(path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:9742{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except OSError as error:
        return int(getattr(error, "code", 0)), str(error)


def _metric(name: str) -> float:
    """The sum over all labels."""
    values = [
        line.rpartition(" ")[2] for line in _get("/metrics")[1].splitlines() if re.match(rf"{name}(\{{|\s)", line)
    ]
    return sum(map(float, values))


def _journal() -> list[str]:
    words = ["journalctl", "-b", "-u", "janitor.service", "-o", "cat", "--no-pager"]
    return subprocess.run(words, capture_output=True, text=True).stdout.splitlines()


def _freed(lines: list[str], address: str) -> str:
    return next((line for line in lines if f"address={address} " in line and "lease freed" in line), "")


def _proof(line: str) -> str:
    """Which of the three proofs it is, by its words."""
    words = {"(a)": "boot ledger", "(b)": "it was watched", "(c)": "written before the runtime started"}
    return "".join(letter for letter, text in words.items() if text in line) or line


def _word(line: str, key: str) -> str:
    found = re.search(rf"\b{key}=(\S+)", line)
    return found[1] if found else ""


def _restarts() -> int:
    words = ["systemctl", "show", "-P", "NRestarts", "janitor.service"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    try:
        play()
    except Exception:
        say(failed=traceback.format_exc(), journal=_journal()[-40:])
        raise


def play() -> None:
    _SLOW.mkdir(parents=True)
    guest = Guest(Kubelet(lambda: Path("/run/containerd/containerd.sock"), cgroup_parent="/pods"))
    until_ready(guest.kubelet)
    import_image()
    guest.live = [guest.kubelet.run(timeout=_PATIENCE_S) for _ in range(2)]
    _wait(lambda: _get("/readyz")[0] == 200, "the daemon")
    for body in (guest.watch, guest.look):
        threading.Thread(target=body, daemon=True).start()
    say(begun=True)
    for number, way in enumerate(WAYS):
        say(**{way.name: guest.play(way, number)})
    say(journal=_journal()[-40:])
    say(over=True)


if __name__ == "__main__":
    main()
