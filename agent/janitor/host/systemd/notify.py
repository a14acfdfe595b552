"""Status messages to systemd (sd_notify(3)), if it asks for them. Standard library only."""

import os
import socket
import time


def notify(**words: str) -> None:
    """`notify(READY="1", STATUS="…")`. Does nothing without a listener, and never fails the service."""
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
    """Tell systemd that the configuration is being reloaded; READY=1 ends that."""
    notify(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))


def watchdog_s() -> float | None:
    """The interval for WATCHDOG=1, half of systemd's timeout. None if systemd has no watchdog for this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) and ours else None
