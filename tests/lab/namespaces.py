"""Starts a process in the namespaces of a node, as a direct child of this one.

`nsenter --pid` and `unshare --pid` fork, so their parent would get the intermediate process's signals and exit status.
Here a short-lived thread changes the PID namespace of its next child, and `nsenter`/`unshare` does the rest by exec. So
`Popen.pid`, `kill()` and `returncode` are those of the program, and nothing is left when it ends.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CLONE_NEWPID = 0x20000000
_libc = ctypes.CDLL(None, use_errno=True)


def start_init(argv: Sequence[str], **popen: Any) -> subprocess.Popen[str]:
    """Start the first process of new pid, mount, network and uts namespaces, which end with it."""
    unshare = ["unshare", "--mount", "--net", "--uts", "--propagation", "private", "--"]

    def start() -> subprocess.Popen[str]:
        _check("unshare", _libc.unshare(CLONE_NEWPID))
        # A session of its own: Ctrl-C at the terminal must only reach pytest, which then ends the node in order.
        return subprocess.Popen([*unshare, *argv], text=True, start_new_session=True, **popen)

    return _in_thread(start)


def start_inside(
    init: int, argv: Sequence[str], env: Mapping[str, str], cwd: str = "/", **popen: Any
) -> subprocess.Popen[str]:
    """Start a program in all the namespaces of the node whose first process is `init`."""
    # env -C, because nsenter resolves --wd before it enters.
    nsenter = ["nsenter", "--target", str(init), "--mount", "--net", "--uts", "--", "env", "-C", cwd]

    def start() -> subprocess.Popen[str]:
        namespace = os.open(f"/proc/{init}/ns/pid", os.O_RDONLY)
        try:
            _check("setns", _libc.setns(namespace, CLONE_NEWPID))
        finally:
            os.close(namespace)
        return subprocess.Popen([*nsenter, *argv], env=dict(env), text=True, start_new_session=True, **popen)

    return _in_thread(start)


def missing() -> str | None:
    """Why no node can be made here, or None."""
    if os.geteuid() != 0:
        return "not root: namespaces and cgroups are out of reach"
    for kind in ("mnt", "net", "pid", "uts"):
        if not Path(f"/proc/self/ns/{kind}").exists():
            return f"this kernel has no {kind} namespaces"
    unshare = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--propagation", "private", "true"]
    refused = subprocess.run(unshare, capture_output=True, text=True, check=False)
    if refused.returncode != 0:
        said = refused.stderr.strip().removeprefix("unshare: ")
        return f"root, but new namespaces are refused here, as in a chroot or an unprivileged container ({said})"
    return None


def _check(call: str, result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")


def _in_thread(start: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Run `start` in a separate thread: the PID namespace for children is a property of the thread."""
    started: list[subprocess.Popen[str]] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            started.append(start())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=body, name="enter-namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return started[0]
