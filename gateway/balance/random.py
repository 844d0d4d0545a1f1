"""Weighted random: each request is drawn by itself. No state, so any number of gateways agree without knowing of each
other; the price is uneven runs (a backend's queue is that of Poisson arrivals, not of its turn).
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.balance.draw import Draw
from gateway.balance.policy import Balancer, Candidate
from gateway.request import Request


class Random(Balancer):
    __slots__ = ("_draw",)

    def settle(self, members: Sequence[Candidate]) -> None:
        self._draw = Draw(members, self.rand)

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:  # noqa: ARG002
        draw = self._draw.without(tried) if tried else self._draw
        candidates = draw.candidates
        return candidates[draw.any()] if candidates else None
