"""Weighted least-request by the power of two choices.

Two candidates are drawn by weight; the one with fewer requests in flight for its weight is picked. When both are
equally loaded the first draw stands, so the share of an unloaded pool follows the weights exactly.
Source: Mitzenmacher 2001, "The power of two choices in randomized load balancing".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gateway.balance import C


class LeastRequest:
    """`rand` returns a float in [0, 1)."""

    __slots__ = ("_rand",)

    def __init__(self, rand: Callable[[], float] = random.random) -> None:
        self._rand = rand

    def pick(self, candidates: Sequence[C]) -> C:
        if len(candidates) == 1:
            return candidates[0]
        first = self._draw(candidates)
        second = self._draw(candidates)
        if second.inflight * first.weight < first.inflight * second.weight:
            return second
        return first

    def _draw(self, candidates: Sequence[C]) -> C:
        total = 0
        for candidate in candidates:
            total += candidate.weight
        mark = self._rand() * total
        for candidate in candidates:
            mark -= candidate.weight
            if mark < 0:
                return candidate
        return candidates[-1]
