"""A running `janitor run` on a node of the lab: its log, its answers, its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.networkd import wait_for
from tests.lab.node import JANITOR, Node

ENDPOINT = ("--cri-endpoint", "unix:///run/containerd/containerd.sock")
_CLOCK = str(Path(__file__).with_name("clock.py"))
GET = """import sys, urllib.error, urllib.request
try: answer = urllib.request.urlopen('http://127.0.0.1:9742' + sys.argv[1], timeout=5)
except urllib.error.HTTPError as error: answer = error
sys.stdout.buffer.write(b'%d ' % answer.status + answer.read())"""


class Daemon:
    """A context manager that runs the daemon, with clocks `ahead` by so many seconds (clock.py)."""

    def __init__(
        self,
        node: Node,
        *args: str,
        config: str | None = "interval = 1\n",
        ahead: int = 0,
        before: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """`before`: the words of a command that starts it, such as strace."""
        self.node = node
        if config is not None:
            self.configure(config)
        self.path = node.machine.directory / f"daemon-{time.monotonic_ns()}.log"
        program = [sys.executable, _CLOCK, str(ahead)] if ahead else [str(JANITOR)]
        with self.path.open("w") as log:
            self.process = node.popen([*before, *program, "run", *ENDPOINT, *args], stderr=log, env=env)

    def configure(self, text: str) -> None:
        """Write its configuration, which it reads when it starts, and at `reload`."""
        self.node.machine.configure(text)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        return self.path.read_text()

    def wait_for(self, text: str, times: int = 1, timeout: float = 20) -> str:
        """Wait until it has logged this `times` times; returns the log."""
        wait_for(lambda: len(re.findall(text, self.log())) >= times, f"{times} times {text!r}: {self.path}", timeout)
        return self.log()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of its answer; (0, why) if it does not answer."""
        done = self.node.run([sys.executable, "-c", GET, path])
        status, _, body = done.stdout.partition(" ")
        return (int(status), body) if done.returncode == 0 else (0, done.stderr)

    def metric(self, name: str) -> float:
        """The sum of one metric over all labels."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}(\{{|\s)", line))

    def children(self) -> list[int]:
        """The process IDs of its children, in this namespace."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def stop(self) -> float:
        """Send SIGTERM. Returns the seconds it took to end; it must exit with 0."""
        began = time.monotonic()
        self.process.terminate()
        assert self.process.wait(10) == 0, self.log()
        return time.monotonic() - began

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert "Traceback" not in self.log(), self.log()
