"""What reading other people's processes may cost, and what happens to those that cost more.

A pod decides the size of most of what /proc shows, so reading it has a budget. For the first seconds no share is
counted. After that each pod has a share, and all strangers have one together. Half of the longest time that a look may
take is for all of these, since a tenant may have any number of pods. What exceeds a share is given up and reported
(core/model/evidence.py, Overlooked); that is safe only for confined processes (host/kernel/holders.py). The node's own
processes have no share but one deadline: if it passes, the whole look fails, which keeps every lease.

A read may also block, on a page or a directory of a file system that a pod serves. So reads happen in a thread of their
own, which is abandoned when it makes no progress. Standard library only.
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
"""No share is counted until a look has taken this long. An ordinary node takes a tenth of it."""
QUICK_S: Final = 1.0
"""How long a single process may take before its owner is looked up."""
SHARE_S: Final = 1.0
WHOLE_S: Final = 60.0
HALF_S: Final = WHOLE_S / 2
"""After this time no confined process is read any more: the rest is for the node's own."""
PATIENCE_S: Final = 3.0
"""How long one read may block."""
_HASTE: Final = 50
"""After one blocked read, others of that share may block only PATIENCE_S / _HASTE: there may be thousands."""
_STEPS: Final = 32  # small steps between two looks at the clock
_WAITING: Final = 8
_NAMED_MOST: Final = 64

_T = TypeVar("_T")


@dataclass(slots=True)
class Budget:
    """The budget of one look. `overlooked` is what was given up so far, one entry per share and kind."""

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
        """Whose a process is."""
        return self.register.whose(pid)

    def give_up(self, pid: int, what: str) -> None:
        """Report what is not read any further. OSError if it may be the node's own."""
        owner = self.whose(pid)
        if not owner.confined:
            raise OSError(errno.ETIMEDOUT, f"process {pid} ({self.proc.name(pid)}): reading {what} took too long")
        # One process is named per pod and kind: a pod may have any number of them.
        if len(self.overlooked) < _NAMED_MOST:
            key = (owner.share, what)
            self.overlooked.setdefault(key, Overlooked(pid, self.proc.name(pid), owner.holder, what))

    def charge(self, pid: int, seconds: float) -> None:
        """Charge the time that reading this process took."""
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
        """Whether to go on; called for each entry of a list of any length. OSError if the whole look takes too long."""
        self._step += 1
        return bool(self._step % _STEPS) or self.left()

    def left(self) -> bool:
        """The same, but always checks the clock."""
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
        """In seconds of CPU time, so that a busy machine uses up nobody's share; waiting counts an eighth."""
        return max(time.thread_time() - self._worked, (now - self.began) / _WAITING)


class _Round(Generic[_T]):
    """One thread that reads processes, from one place in the list on."""

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
                with self.lock:  # so that an abandoned thread adds nothing later
                    if self.lost:
                        return
                    self.take(pid, seen)
                    self.at += 1
        except BaseException as error:  # noqa: BLE001 (raised again by whoever waits)
            self.failure = error


def each(pids: list[int], budget: Budget, visit: Callable[[int], _T], take: Callable[[int, _T], None]) -> None:
    """Call `take(pid, visit(pid))` for every process. A process that blocks the reader for too long is given up.

    `visit` must not change anything that outlives it. Raises what it raises; OSError if one of the node's own blocks.
    """
    at = lost = 0
    blocked: set[str] = set()  # shares of the processes that blocked
    while True:
        budget.last_sign = time.monotonic()
        run = _Round(pids, at, visit, take)
        thread = threading.Thread(target=run.body, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the kernel's EAGAIN, as threading reports it
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
    """A regular file, or one of /proc; None if it exceeds the limit or the budget. OSError."""
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
