"""Weighted least-request.

One candidate is drawn by share, and stands unless another would be no busier *with* the request than the first is
*without* it, each counted in requests in flight for its share. So an unloaded pool is shared exactly by weight, equal
weights give the classical choice of the emptier, and a small backend beside a large one is asked only when the large
one is as full, which comparing bare ratios gets wrong: 0 of 1 looks emptier than 1 of 100.
Up to `CHOICES` candidates all are looked at, beyond it one other drawn by share: the power of two choices (Mitzenmacher
2001). What is counted is this worker's own, so several workers do not all run to the same candidate.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from gateway.balance.draw import Draw
from gateway.balance.policy import Balancer, Candidate, Rand
from gateway.request import Request

CHOICES: Final = 32


class LeastRequest(Balancer):
    """Up to `choices` candidates all are looked at."""

    __slots__ = ("_choices", "_draw")

    def __init__(self, rand: Rand = random.random, choices: int = CHOICES) -> None:
        super().__init__(rand)
        self._choices = choices

    def settle(self, members: Sequence[Candidate]) -> None:
        self._draw = Draw(members, self.rand)

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:  # noqa: ARG002
        draw = self._draw.without(tried) if tried else self._draw
        candidates = draw.candidates
        if not candidates:
            return None
        size = len(candidates)
        at = draw.any()
        best = candidates[at]
        if best.inflight == 0 or size == 1:
            return best
        if size > self._choices:
            other = candidates[draw.other(at)]
            return other if (other.inflight + 1) * best.share <= best.inflight * other.share else best
        load = best.inflight / best.share
        moved = False
        for step in range(1, size):  # from where it stands, so that who is as good is not always the same
            other = candidates[(at + step) % size]
            its = (other.inflight + 1) / other.share
            if its < load or (its == load and not moved):
                best, load = other, its
                moved = True
        return best
