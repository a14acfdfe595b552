"""What a look at other people's processes may cost, and what becomes of whoever costs more.

Most of what /proc shows has the size that a pod gives it. So a look has a budget: first a time in which nobody is
asked who he is, and after that a share for each pod, and one for all strangers together; and half of the longest that
a look may take is for all of these, for a tenant may have any number of pods. What exceeds that is given up and named
(core/model/evidence.py, Overlooked), which is safe only for whoever is confined (host/kernel/holders.py). The node's
own have no share; for them there is one deadline, and with it the whole look fails, which keeps everything.

A read may also block, for a page or a directory of a file system that a pod serves: so the looks are made in a thread
of their own, and one that shows no sign of life is left behind. Standard library only.
"""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Self, TypeVar

from janitor.core.model.evidence import Overlooked
from janitor.host.files import open_quietly
from janitor.host.kernel.holders import Register, Standing
from janitor.host.kernel.procfs import Proc

FREE_S: Final = 3.0
"""As long as a look has taken less, nobody's share is counted; that of an ordinary node takes a tenth."""
QUICK_S: Final = 1.0
"""So long a single process may take before it is asked whose it is."""
SHARE_S: Final = 1.0
WHOLE_S: Final = 60.0
HALF_S: Final = WHOLE_S / 2
"""After so long nobody who is confined is looked at any further: the rest is for the node's own."""
PATIENCE_S: Final = 3.0
"""So long one read may block."""
_HASTE: Final = 50
"""By so much shorter one may block of which another has blocked: he may have thousands."""
_STEPS: Final = 32  # so many small steps are made between two looks at the clock
_WAITING: Final = 8
_NAMED_MOST: Final = 64

_T = TypeVar("_T")


@dataclass(slots=True)
class Budget:
    """One look's. `overlooked` is what was given up so far, one entry for a process and kind."""

    proc: Proc
    began: float = field(default_factory=time.monotonic)
    spent: float = 0
    shares: dict[str, float] = field(default_factory=dict)
    overlooked: dict[tuple[str, str], Overlooked] = field(default_factory=dict)
    last_sign: float = field(default_factory=time.monotonic)  # of life
    register: Register = field(init=False)

    def __post_init__(self) -> None:
        self.register = Register(self.proc)

    def whose(self, pid: int) -> Standing:
        """Whose this process is."""
        return self.register.whose(pid)

    def give_up(self, pid: int, what: str) -> None:
        """Name what is not looked at any further. OSError where it may be the node's own."""
        owner = self.whose(pid)
        if not owner.confined:
            raise OSError(errno.ETIMEDOUT, f"process {pid} ({self.proc.name(pid)}): reading {what} took too long")
        # Of each pod and kind one process is named: it may have any number of them.
        if len(self.overlooked) < _NAMED_MOST:
            key = (owner.share, what)
            self.overlooked.setdefault(key, Overlooked(pid, self.proc.name(pid), owner.holder, what))

    def charge(self, pid: int, seconds: float) -> None:
        """Put down what a look at this process has taken."""
        self.spent += seconds
        if self.spent > FREE_S or seconds > QUICK_S:
            share = self.whose(pid).share
            self.shares[share] = self.shares.get(share, 0.0) + seconds


@dataclass(slots=True)
class Allowance:
    """What one process may still cost."""

    budget: Budget
    pid: int
    began: float = field(default_factory=time.monotonic)
    _worked: float = field(default_factory=time.thread_time)
    _step: int = 0

    def step(self) -> bool:
        """Whether to go on: asked for each entry of what may be long. OSError where the whole look takes too long."""
        self._step += 1
        return bool(self._step % _STEPS) or self.left()

    def left(self) -> bool:
        """The same, with a look at the clock."""
        budget = self.budget
        now = budget.last_sign = time.monotonic()
        cost = self._cost(now)
        if budget.spent < FREE_S and cost < QUICK_S:
            return True
        owner = budget.whose(self.pid)
        if owner.confined:
            return now - budget.began < HALF_S and budget.shares.get(owner.share, 0.0) + cost < SHARE_S
        if now - budget.began > WHOLE_S:
            budget.give_up(self.pid, "it and others")
        return True

    def __enter__(self) -> Self:
        self.budget.last_sign = self.began
        return self

    def __exit__(self, *_: object) -> None:
        self.budget.charge(self.pid, self._cost(time.monotonic()))

    def _cost(self, now: float) -> float:
        """In seconds of work, so that a busy machine makes nobody exceed his share; waiting counts for less."""
        return max(time.thread_time() - self._worked, (now - self.began) / _WAITING)


class _Round(Generic[_T]):
    """One thread, going through processes from a place in the list on."""

    def __init__(self, pids: list[int], at: int, visit: Callable[[int], _T], take: Callable[[int, _T], None]) -> None:
        self.pids, self.at, self.visit, self.take = pids, at, visit, take
        self.lost = False
        self.failure: BaseException | None = None
        self.lock = threading.Lock()

    def body(self) -> None:
        try:
            while self.at < len(self.pids):
                pid = self.pids[self.at]
                seen = self.visit(pid)
                with self.lock:  # so that what is left behind adds nothing later
                    if self.lost:
                        return
                    self.take(pid, seen)
                    self.at += 1
        except BaseException as error:  # noqa: BLE001 (raised again by whoever waits)
            self.failure = error


def each(pids: list[int], budget: Budget, visit: Callable[[int], _T], take: Callable[[int, _T], None]) -> None:
    """Call `take(pid, visit(pid))` for every process. One that blocks the reader for long is given up.

    `visit` must change nothing that outlives it. Raises what it raises; OSError where the node's own block.
    """
    at = lost = 0
    blocked: set[str] = set()  # the shares of those that did
    while True:
        budget.last_sign = time.monotonic()
        run = _Round(pids, at, visit, take)
        thread = threading.Thread(target=run.body, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the kernel's EAGAIN, as threading says it
            raise BlockingIOError(errno.EAGAIN, str(error)) from None
        while thread.is_alive():
            thread.join(PATIENCE_S / (_HASTE if blocked else 4))
            with run.lock:
                run.lost = thread.is_alive() and run.at < len(pids) and _too_long(pids[run.at], budget, blocked)
                if run.lost:
                    break
        if not run.lost:
            if run.failure is not None:
                raise run.failure
            return
        lost += 1
        if time.monotonic() - budget.began > WHOLE_S:
            raise OSError(errno.ETIMEDOUT, f"reading {lost} processes blocked")
        budget.charge(pids[run.at], PATIENCE_S)
        blocked.add(budget.whose(pids[run.at]).share)
        budget.give_up(pids[run.at], "its entries in /proc (reading them blocked)")
        at = run.at + 1


def _too_long(pid: int, budget: Budget, blocked: set[str]) -> bool:
    waited = time.monotonic() - budget.last_sign
    if blocked and waited > PATIENCE_S / _HASTE and budget.whose(pid).share in blocked:
        return True
    return waited > PATIENCE_S


def read_whole(path: str, limit: int, allowance: Allowance) -> bytes | None:
    """A regular file, or one of /proc; None where it is longer than the limit or the budget. OSError."""
    fd = open_quietly(path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        parts: list[bytes] = []
        while part := os.read(fd, 1 << 20):
            limit -= len(part)
            parts.append(part)
            if limit < 0 or not allowance.left():
                return None
        return b"".join(parts)
    finally:
        os.close(fd)
