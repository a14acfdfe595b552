"""The daemon's loop: one thread, `select` on the rule socket, a timer and the signals.

It ends when it is told to, and for nothing that a node can do to it.
"""

import os
import select
import signal
from collections.abc import Callable
from typing import Final

from janitor.host.procfs import clock
from janitor.restoring import RuleKeeper

_LONGEST_S: Final = 60.0


def run(keeper: RuleKeeper, ready: Callable[[], None]) -> None:
    """Keep the rules until SIGTERM or SIGINT. OSError where it cannot begin."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that goes is no reason to end
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        keeper.start()
        try:
            ready()
            while True:
                deadline = keeper.deadline_ns()
                wait = (deadline - clock().boottime_ns) / 1e9
                readable, _, _ = select.select([keeper.fileno(), reader], [], [], min(max(wait, 0), _LONGEST_S))
                if reader in readable:
                    return
                if readable:
                    keeper.readable()
                if clock().boottime_ns >= deadline:
                    keeper.tick()
        finally:
            keeper.close()
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
