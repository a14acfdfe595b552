"""What the lease passes saw and did, as the daemon knows it. It outlives the component that runs them."""

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from janitor.core.leases.forecast import exhaustion_s
from janitor.core.model.retry import SECOND
from janitor.core.model.text import duration, listing
from janitor.daemon.component import Health
from janitor.daemon.lease_pass import CARRIED_OUT
from janitor.host.kernel.procfs import clock
from janitor.report import pass_metrics
from janitor.report.events import Log, LogEvent
from janitor.report.metrics import Family, actions
from janitor.report.pass_lines import Looked

LONGEST_S: Final = 300
"""A pass that takes longer, in seconds, is ended."""
_SAMPLES: Final = 720


@dataclass(slots=True)
class PassRecord:
    """Changed only by lease_worker.py."""

    looked: Looked | None = None
    problem: str = ""  # why the last pass failed; "" if it did not
    ended_ns: int = 0  # when a pass last completed, on CLOCK_BOOTTIME
    looked_ns: int = 0  # when a full pass last completed
    complete_at: float = 0.0  # since the epoch: the last pass that saw everything
    results: Counter[str] = field(default_factory=Counter)  # complete, incomplete, unchanged, failed
    done: Counter[LogEvent] = field(default_factory=Counter)  # actions that were carried out
    free: dict[tuple[str, str], deque[tuple[float, int]]] = field(default_factory=dict)
    _logged: tuple[object, ...] = ()  # what the last log line about a pass was made from

    def failed(self, why: str) -> None:
        """A pass failed."""
        self.results["failed"] += 1
        self.problem = why

    def unchanged(self, now_ns: int) -> None:
        """A pass ended after a fingerprint check."""
        self.ended_ns, self.problem = now_ns, ""
        self.results["unchanged"] += 1
        self._sample(now_ns)

    def saw(self, looked: Looked, now_ns: int, log: Log) -> None:
        """A pass has looked at the node."""
        self.ended_ns, self.problem = now_ns, ""
        self.looked, self.looked_ns = looked, now_ns
        self.results["incomplete" if looked.unseen else "complete"] += 1
        if not looked.unseen:
            self.complete_at = looked.at
        keys = {(n.name, n.data_dir) for n in looked.networks}
        self.free = {key: samples for key, samples in self.free.items() if key in keys}
        self._sample(now_ns)
        logged = (looked.networks, looked.findings, looked.unseen)
        if logged != self._logged:
            self._log_pass(looked, log)
        self._logged = logged

    def forecasts(self) -> dict[tuple[str, str], float]:
        """Seconds until no address is free, by network and data directory."""
        return {key: exhaustion_s(samples) for key, samples in self.free.items()}

    def metrics(self, interval_s: float) -> tuple[Family, ...]:
        """How the passes ended, what the last one saw, and what was done."""
        return (
            *pass_metrics.passes(self.results, self.complete_at, interval_s),
            *(pass_metrics.node(self.looked, self.forecasts()) if self.looked is not None else ()),
            *(actions(event, {"": self.done[event]}) for event in CARRIED_OUT.values()),
        )

    def health(self, interval_s: float, awake_ns: int) -> Health:
        """Ill only if no pass completes: an unreachable runtime is no reason for a restart."""
        since_s = (clock().boottime_ns - max(self.ended_ns, awake_ns)) / SECOND
        late = since_s > max(3 * interval_s, 2 * LONGEST_S)
        return Health(
            ill=f"no pass has finished for {since_s:.0f} s" if late else "",
            unready="" if self.ended_ns else "no pass has finished yet",
            problem=f"The last pass failed: {self.problem}" if self.problem else "",
        )

    def _sample(self, now_ns: int) -> None:
        for network in self.looked.networks if self.looked is not None else ():
            if network.free is not None:
                samples = self.free.setdefault((network.name, network.data_dir), deque(maxlen=_SAMPLES))
                samples.append((now_ns / SECOND, network.free))

    def _log_pass(self, looked: Looked, log: Log) -> None:
        """Log a pass only if it differs from the last one."""
        verdicts: Counter[str] = Counter()
        for network in looked.networks:
            verdicts.update({verdict.value: number for verdict, number in network.verdicts.items()})
        frees = [network.free for network in looked.networks if network.free is not None]
        ends = [at for at in self.forecasts().values() if math.isfinite(at)]
        log(
            LogEvent.PASS,
            took_s=f"{looked.took_s:.2f}",
            **verdicts,
            free=min(frees, default=None),
            used_up_in=duration(min(ends)) if ends else None,
            findings=listing([f"{f.number}x{f.id}" for f in looked.findings]),
        )
        if looked.unseen and looked.unseen != (self._logged[2] if self._logged else ()):
            log(LogEvent.PASS_INCOMPLETE, what="; ".join(looked.unseen))
