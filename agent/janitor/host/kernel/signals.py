"""Signals as a descriptor for poll(2), and which of them have arrived. Standard library only."""

import os
import signal
from types import TracebackType
from typing import Any, Final, Self

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """A context in which SIGTERM, SIGINT and SIGHUP only wake poll(2). Entering it unblocks SIGHUP."""

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[signal.Signals, Any] = {n: signal.signal(n, lambda *_: None) for n in _NUMBERS}
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._reader

    def received(self) -> frozenset[int]:
        """The signals that have arrived since the last call."""
        try:
            return frozenset(os.read(self._reader, 256))
        except BlockingIOError:
            return frozenset()
