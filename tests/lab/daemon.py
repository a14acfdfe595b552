"""A running `janitor run` on a node of the lab: its log, what it shows, its end."""

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
    """A context manager: the daemon runs in it, with a clock that is `ahead` by so many seconds (clock.py)."""

    def __init__(
        self,
        node: Node,
        *args: str,
        config: str | None = "interval = 1\n",
        ahead: int = 0,
        before: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """`before`: words of a command that starts it, strace for one."""
        self.node = node
        if config is not None:
            self.configure(config)
        self.path = node.machine.directory / f"daemon-{time.monotonic_ns()}.log"
        program = [sys.executable, _CLOCK, str(ahead)] if ahead else [str(JANITOR)]
        with self.path.open("w") as log:
            self.process = node.popen([*before, *program, "run", *ENDPOINT, *args], stderr=log, env=env)

    def configure(self, text: str) -> None:
        """Write its configuration; it reads that when it starts, and at `reload`."""
        self.node.machine.configure(text)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        return self.path.read_text()

    def wait_for(self, text: str, times: int = 1, timeout: float = 20) -> str:
        """Wait until it has logged this so often; returns the log."""
        wait_for(lambda: len(re.findall(text, self.log())) >= times, f"{times} times {text!r}: {self.path}", timeout)
        return self.log()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of what it shows there; (0, why) where it does not answer."""
        done = self.node.run([sys.executable, "-c", GET, path])
        status, _, body = done.stdout.partition(" ")
        return (int(status), body) if done.returncode == 0 else (0, done.stderr)

    def metric(self, name: str) -> float:
        """The sum over all labels of one metric."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}(\{{|\s)", line))

    def children(self) -> list[int]:
        """Its children, by their process ID here."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def stop(self) -> float:
        """SIGTERM; how many seconds it took to end, which it must with 0."""
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
