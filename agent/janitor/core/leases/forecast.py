"""When a range will be used up, if it goes on like this. Pure."""

import math
from collections.abc import Sequence

SPAN_S = 3600
"""How far back it looks: long enough for a rollout not to count as a trend for ever."""
_LEAST_S = 300
LATELY_S = 900
"""It must go on falling for so long: a node that was filled with pods, and is full as it should be, tends nowhere."""


def exhaustion_s(samples: Sequence[tuple[float, int]]) -> float:
    """Seconds until nothing is free: 0 where that is so now, infinity where nothing tends there.

    `samples` are (seconds on any clock that does not go back, free addresses), the last one newest. The trend is the
    line of least squares through those of the last hour; less than five minutes make none.
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
    """By least squares, per second."""
    mean_at = sum(at for at, _ in samples) / len(samples)
    mean_left = sum(left for _, left in samples) / len(samples)
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    return sum((at - mean_at) * (left - mean_left) for at, left in samples) / spread if spread else 0.0
