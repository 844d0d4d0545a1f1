"""Slow start: how much of its weight a backend gets after it is new, or back.

The part grows in a straight line from `FIRST` to 1 over the window, in steps small enough not to be seen (as Envoy's
slow start with its default aggression of 1.0 and min_weight_percent of 10 %). A cold cache, a JIT or a model that was
just loaded is warmed by a tenth of the traffic instead of being drowned in its full share.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 0.1
STEPS: Final = 50  # in a window; each is at most 1.8 % of the weight


def ramp(ready: int, window: int, now: int) -> float:
    """The part of its weight, from FIRST to 1, of a backend that became ready at `ready`; nanoseconds."""
    if now - ready >= window:
        return 1.0
    step = max(now - ready, 0) * STEPS // window
    return FIRST + (1.0 - FIRST) * step / STEPS


def next_step(ready: int, window: int, now: int) -> int:
    """When `ramp` changes next; there must be a change to come."""
    step = max(now - ready, 0) * STEPS // window + 1
    return ready + -(-step * window // STEPS)
