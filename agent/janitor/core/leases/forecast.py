"""Forecast of when a range will be used up. Pure."""

import math
from collections.abc import Sequence

SPAN_S = 3600
"""How far back it looks, in seconds: long enough that a rollout does not count as a trend."""
_LEAST_S = 300
LATELY_S = 900
"""The trend must continue this long, in seconds: a node that was filled as intended is not running out."""


def exhaustion_s(samples: Sequence[tuple[float, int]]) -> float:
    """Seconds until no address is free: 0 if none is now, infinity if there is no such trend.

    `samples` are (seconds on any monotonic clock, free addresses), the newest last. The trend is the least-squares line
    through the samples of the last hour; less than five minutes give no trend.
    """
    if not samples:
        return math.inf
    now, free = samples[-1]
    if free <= 0:
        return 0.0
    recent = [(at, left) for at, left in samples if now - at <= SPAN_S]
    if now - recent[0][0] < _LEAST_S:
        return math.inf
    slope = _slope(recent)
    falling = slope < 0 and _slope([(at, left) for at, left in recent if now - at <= LATELY_S]) < 0
    return free / -slope if falling else math.inf


def _slope(samples: Sequence[tuple[float, int]]) -> float:
    """Least-squares slope, per second."""
    mean_at = sum(at for at, _ in samples) / len(samples)
    mean_left = sum(left for _, left in samples) / len(samples)
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    return sum((at - mean_at) * (left - mean_left) for at, left in samples) / spread if spread else 0.0
