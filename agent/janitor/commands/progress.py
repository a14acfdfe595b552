"""A progress bar on a terminal, an occasional line elsewhere; both on standard error."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from janitor.core.model.text import duration

_LINE_EVERY_S = 60


class Waiting:
    """Shows what is being waited for, and for how much longer."""

    def __init__(self, total_s: float, what: str) -> None:
        self.total_s, self.what = total_s, what
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._said = -1

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            columns = (TextColumn("waiting for {task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.what, total=self.total_s)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, gone_s: float) -> None:
        """Update: `gone_s` seconds have passed."""
        if self._bar is not None:
            self._bar.update(self._task, completed=gone_s)
        elif gone_s // _LINE_EVERY_S != self._said:
            self._said = int(gone_s // _LINE_EVERY_S)
            left = duration(max(0, self.total_s - gone_s))
            print(f"janitor: waiting for {self.what}, {left} left (--no-wait skips this)", file=sys.stderr, flush=True)
