"""Prequal: of the candidates that are not loaded more than usual the fastest, else the least loaded.

Load is *requests in flight* at the backend, of everybody where it reports them (see `load.py`), ours alone where not;
in both cases what we have sent since is counted. A candidate is hot when its load is above the `HOT` quantile of what
was seen lately over all candidates. Among the cold ones the lowest expected latency wins; if all are hot, the lowest
load. Load tells at once what latency tells late, and latency tells what load alone cannot: that a replica has lost its
machine's capacity to somebody else. One candidate is drawn by share, and stands unless another is better.
Source: Wydrowski, Kleinberg, Rumble, Archer, "Load is not what you should balance: introducing Prequal", NSDI 2024.
Different here: it probes, our reports ride on the answers, which costs nothing and is as fresh while there is traffic;
and one gateway sends a large part of all requests, so that latency has to be foretold for the load of this moment (at
the load of a moment ago everybody goes to the one that was fast until it no longer is).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from gateway.balance.draw import Draw
from gateway.balance.latency import ServiceTime
from gateway.balance.policy import Balancer, Candidate, Rand
from gateway.request import Request

HOT: Final = 0.84  # quantile; the paper's 2^-0.25
SCAN: Final = 16
SAMPLE: Final = 4  # candidates looked at where there are more than SCAN
BINS: Final = 256  # of the histogram of loads; whatever is above counts as the last
WINDOW: Final = 1024  # loads, after which all that were seen before count half


class Prequal(Balancer):
    """`hot` is the quantile; `rand` as everywhere."""

    __slots__ = ("_draw", "_hot", "_limit", "_loads", "_seen", "_since")

    def __init__(self, rand: Rand = random.random, hot: float = HOT) -> None:
        super().__init__(rand)
        self.reads_load = True
        self._hot = hot
        self._limit = 1.0  # a load above it is hot
        self._loads: list[int] = [0] * BINS
        self._seen = 0
        self._since = 0

    def settle(self, members: Sequence[Candidate]) -> None:
        self._draw = Draw(members, self.rand)
        for member in members:
            if not isinstance(member.gauge, ServiceTime):
                member.gauge = ServiceTime()

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:  # noqa: ARG002
        draw = self._draw.without(tried) if tried else self._draw
        candidates = draw.candidates
        size = len(candidates)
        if size < 2:
            return candidates[0] if size else None
        mean = draw.mean
        limit = self._limit
        at = draw.any()
        best = candidates[at]
        load = best.outstanding(now) * mean / best.share
        latency = _latency(best, load, now)
        self._note(load)
        scan = size <= SCAN
        for step in range(1, size if scan else SAMPLE):
            other = candidates[(at + step) % size] if scan else candidates[draw.any()]
            its = other.outstanding(now) * mean / other.share
            self._note(its)
            its_latency = _latency(other, its, now)
            if its < load if load > limit else its <= limit and its_latency < latency:
                best, load, latency = other, its, its_latency
        return best

    def _note(self, load: float) -> None:
        self._loads[min(int(load), BINS - 1)] += 1
        self._seen += 1
        self._since += 1
        if self._since & 63 == 0:
            self._find_limit()

    def _find_limit(self) -> None:
        loads = self._loads
        if self._since >= WINDOW:
            self._since = 0
            self._seen = 0
            for at in range(BINS):
                loads[at] >>= 1
                self._seen += loads[at]
        left = self._hot * self._seen
        for at in range(BINS):
            left -= loads[at]
            if left <= 0.0:
                self._limit = float(at)
                return


def _latency(candidate: Candidate, load: float, now: int) -> float:
    gauge = candidate.gauge
    return gauge.expect(load, candidate.load.capacity, now) if isinstance(gauge, ServiceTime) else 0.0
