"""Runs pytest again and again, in children of a process that has imported it and the libraries of others once.

Of a run of the few tests that notice a mutant, importing those takes the largest part. Nothing of janitor is imported
before the child is there. Started in the tree that is tested; an order is a line of JSON on standard input, answered by
a line with the exit code, or null after the time limit.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

LIBRARIES: Final = (
    "hypothesis.stateful", "google.protobuf.descriptor_pb2", "grpc", "jinja2", "msgspec", "prometheus_client", "psutil",
    "pyroute2", "pytest", "rich.console", "typer", "yaml",
)  # fmt: skip
# pytest would have rewritten the asserts of its plugins, which are not those of the tests.
QUIET: Final = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")


class Server:
    """One such process, for one tree."""

    def __init__(self, tree: Path, env: dict[str, str]) -> None:
        argv = [sys.executable, "-m", "tests.mutants.server"]
        self._process = subprocess.Popen(
            argv, cwd=tree, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._output = tree.with_name(f"{tree.name}.output")

    def run(self, arguments: list[str], env: dict[str, str], limit_s: float) -> tuple[int | None, str]:
        """Run pytest with these arguments. The exit code, None after the time limit, and what was said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": [*QUIET, *arguments], "env": env, "output": str(self._output), "limit_s": limit_s}
        self._process.stdin.write(json.dumps(order) + "\n")
        code: int | None = json.loads(self._process.stdout.readline())
        return code, self._output.read_text(errors="replace")

    def close(self) -> None:
        """It ends when nobody can order any more."""
        self._process.communicate()


def _run(order: dict[str, Any]) -> int | None:
    pid = os.fork()
    if pid == 0:
        _child(order)
    deadline = time.monotonic() + order["limit_s"]
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None
    finally:
        try:
            os.killpg(pid, signal.SIGKILL)  # and what the tests have left running
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _child(order: dict[str, Any]) -> None:
    code = 70
    try:
        os.setsid()
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for fd, to in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(fd, to)
        os.environ.update(order["env"])
        import pytest

        code = int(pytest.main(order["arguments"]))
    except BaseException:  # noqa: BLE001 (whoever ordered it reads what it was; the process ends either way)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
