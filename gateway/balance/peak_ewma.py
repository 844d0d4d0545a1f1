"""Peak EWMA: where an answer is expected soonest, judged by latency and by what is in flight.

The expected time at a candidate is (latency) x (1 + requests in flight for its share). One candidate is drawn by share
and stands unless another would be faster *with* the request than the first is *without* it; so differences that are
noise move nobody, an even pool is shared by weight, and a backend that slows down is left at its first slow answer.
Up to `SCAN` candidates all are looked at, beyond it one other drawn by share (power of two choices): with many
candidates the best of all would be everybody's choice at once, and a look costs time.
Who has not answered yet is taken to be as fast as whom it is held against.
Source: Finagle's `p2c/PeakEwma` (Twitter 2015), there without weights and penalties; see `latency.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from gateway.balance.draw import Draw
from gateway.balance.latency import PeakLatency
from gateway.balance.policy import Balancer, Candidate, Rand
from gateway.request import Request

SCAN: Final = 16
DECAY: Final = 5e9  # nanoseconds; Finagle's 10 s is slow to notice that a backend is well again


class PeakEwma(Balancer):
    __slots__ = ("_decay", "_draw")

    def __init__(self, rand: Rand = random.random, decay: float = DECAY) -> None:
        super().__init__(rand)
        self._decay = decay

    def settle(self, members: Sequence[Candidate]) -> None:
        self._draw = Draw(members, self.rand)
        for member in members:
            gauge = member.gauge
            if isinstance(gauge, PeakLatency):
                gauge.decay = self._decay
            else:
                member.gauge = PeakLatency(self._decay)

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:  # noqa: ARG002
        draw = self._draw.without(tried) if tried else self._draw
        candidates = draw.candidates
        size = len(candidates)
        if size < 2:
            return candidates[0] if size else None
        at = draw.any()
        best = candidates[at]
        mean = draw.mean
        latency = _latency(best, now)
        level = 1.0 + best.inflight * mean / best.share
        if size > SCAN:
            other = candidates[draw.other(at)]
            its = _latency(other, now)
            if _sooner(its, 1.0 + (other.inflight + 1) * mean / other.share, latency, level):
                return other
            return best
        moved = False
        for step in range(1, size):  # from where it stands, so that who is as good is not always the same
            other = candidates[(at + step) % size]
            its = _latency(other, now)
            its_level = 1.0 + (other.inflight + 1) * mean / other.share
            if _sooner(its, its_level, latency, level) and not (moved and _sooner(latency, level, its, its_level)):
                best, latency, level = other, its, its_level
                moved = True
        return best


def _latency(candidate: Candidate, now: int) -> float:
    gauge = candidate.gauge
    return gauge.read(now) if isinstance(gauge, PeakLatency) else 0.0


def _sooner(latency: float, level: float, than_latency: float, than_level: float) -> bool:
    """Whether one is expected sooner; a latency of 0 is not known, and taken to be the other's."""
    if latency > 0.0 and than_latency > 0.0:
        return latency * level <= than_latency * than_level
    return level <= than_level
