"""When a range will be used up, if it goes on like this. Pure."""

import math
from collections.abc import Sequence

SPAN_S = 3600
"""How far back it looks: long enough for a rollout not to count as a trend for ever."""
_LEAST_S = 300


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
    mean_at = sum(at for at, _ in recent) / len(recent)
    mean_left = sum(left for _, left in recent) / len(recent)
    spread = sum((at - mean_at) ** 2 for at, _ in recent)
    slope = sum((at - mean_at) * (left - mean_left) for at, left in recent) / spread if spread else 0.0
    return free / -slope if slope < 0 else math.inf
