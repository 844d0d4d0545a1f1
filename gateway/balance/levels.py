"""Priority groups and zones: which part of the requests each group of backends gets.

Groups stand in order of preference: priority 0 in our own zone, priority 0 elsewhere, priority 1 in our own zone, ...
A group is taken to be able to carry `OVERPROVISIONING` times its share of what is ready: 1.4 means that a group goes on
taking everything until 29 % of its weight is away, and from there on hands over gradually: with 50 % ready it
takes 70 %, and the next group 30 %. When all groups together cannot carry everything, each takes in proportion to what
it can. This is Envoy's rule for priority levels (Envoy documentation, "Priority levels", default factor 140 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

OVERPROVISIONING: Final = 1.4


def spread(groups: Sequence[tuple[float, float]]) -> list[float]:
    """The part of the requests for each group of (weight that is ready, weight in all), from 0 to 1; the sum is 1, or
    0 if nothing is ready.
    """
    able = [min(OVERPROVISIONING * ready / total, 1.0) if total > 0.0 else 0.0 for ready, total in groups]
    whole = min(sum(able), 1.0)
    if whole <= 0.0:
        return [0.0] * len(able)
    left = 1.0
    parts = []
    for each in able:
        part = min(each / whole, left)
        parts.append(part)
        left -= part
    return parts
