"""Weighted least-request by the power of two choices.

Two candidates are drawn by weight; the one with fewer requests in flight for its weight is picked. When both are
equally loaded the first draw stands, so the share of an unloaded pool follows the weights exactly.
Source: Mitzenmacher 2001, "The power of two choices in randomized load balancing".
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from gateway.balance import C


class LeastRequest:
    """`rand` returns a float in [0, 1). Sums of weights are kept for as long as the same candidates are offered."""

    __slots__ = ("_rand", "_seen", "_sums")

    def __init__(self, rand: Callable[[], float] = random.random) -> None:
        self._rand = rand
        self._seen: Sequence[Any] = ()
        self._sums: list[int] = []

    def pick(self, candidates: Sequence[C]) -> C:
        if len(candidates) == 1:
            return candidates[0]
        if candidates is not self._seen:
            self._seen = candidates
            self._sums = list(accumulate(candidate.weight for candidate in candidates))
        sums, rand = self._sums, self._rand
        first = candidates[bisect_right(sums, rand() * sums[-1])]
        second = candidates[bisect_right(sums, rand() * sums[-1])]
        if second.inflight * first.weight < first.inflight * second.weight:
            return second
        return first
