"""Telling systemd how it goes (sd_notify(3)), as far as anybody listens. Standard library only."""

import os
import socket
import time


def notify(**words: str) -> None:
    """`notify(READY="1", STATUS="…")`. Nothing happens where nobody listens; a service must not fail of that."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    text = "\n".join(f"{name}={' '.join(value.split())}" for name, value in words.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.sendto(text.encode(), f"\0{path[1:]}" if path.startswith("@") else path)
    except OSError:
        return


def reloading() -> None:
    """The configuration is being read anew; READY=1 ends it."""
    notify(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))


def watchdog_s() -> float | None:
    """How often to say WATCHDOG=1: at half the time systemd waits. None where it does not wait for us."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) and ours else None
