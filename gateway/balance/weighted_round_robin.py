"""Smooth weighted round-robin: every candidate is due again one over its share after it was due, and the one that is
due first is picked (earliest deadline first, on a clock of its own that a pick moves). Over any stretch each candidate
is within a pick of its exact share, and its picks are spread evenly: 5:1:1 is a a a b c a a rather than a a a a a b c.
The first turn lies half a period ahead, which makes it so from the beginning. O(log n) a pick, where nginx's sums
(the same order, but for ties) take O(n).

Who comes back, or is new, starts half a period from now; it does not catch up on what it missed. A second try is a
round of its own among those that are left (as nginx's): if it counted as a turn, those who help out would be passed
over later, and the one that fails would be first all the more. That takes O(n log n).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from gateway.balance.policy import Balancer, Candidate, Rand
from gateway.request import Request

APART: Final = 1e-6  # of a period, between first turns that would be at the same time: so equals keep their order


class WeightedRoundRobin(Balancer):
    """When a candidate is due stands in its `turn`, so it survives a reload with the backend."""

    __slots__ = ("_clock", "_heap")

    def __init__(self, rand: Rand = random.random) -> None:
        super().__init__(rand)
        self._clock = 0.0  # when the last pick was due
        self._heap: list[Candidate] = []

    def settle(self, members: Sequence[Candidate]) -> None:
        ready = [member for member in members if member.share > 0.0]
        now = self._clock
        if not now:  # after a reload; whoever was picked last is due a period after that
            now = max([member.turn - 1.0 / member.share for member in ready if member.turn], default=0.0)
        for number, member in enumerate(ready):
            period = 1.0 / member.share
            due = member.turn - now
            if not member.turn or due < 0.0:
                due = (0.5 + APART * number) * period
            # A clock that begins anew at 1 never grows so large that a period is lost in rounding; 0 is "never".
            member.turn = 1.0 + min(due, period)
        self._clock = 1.0
        self._heap = sorted(ready, key=_turn)

    def pick(self, request: Request, tried: Sequence[Candidate], total: int, now: int) -> Candidate | None:  # noqa: ARG002
        heap = self._heap
        if not heap:
            return None
        best = heap[0]
        if tried:
            return self._another(tried)
        self._clock = best.turn
        best.turn += 1.0 / best.share
        self._sift()
        return best

    def _another(self, tried: Sequence[Candidate]) -> Candidate | None:
        """Who is due next of those left; it pays, and they all are paid: between them and the others nothing moves."""
        left = [candidate for candidate in self._heap if candidate not in tried]
        if not left:
            return None
        best = min(left, key=_turn)
        best.turn += 1.0 / best.share
        whole = sum([candidate.share for candidate in left])
        for candidate in left:
            candidate.turn -= 1.0 / whole
        self._heap.sort(key=_turn)
        return best

    def _sift(self) -> None:
        """Puts the first candidate, who is due later now, where it belongs."""
        heap = self._heap
        size = len(heap)
        at = 0
        moved = heap[at]
        turn = moved.turn
        child = 1
        while child < size:
            lower = heap[child]
            if child + 1 < size:
                right = heap[child + 1]
                if right.turn < lower.turn:
                    child += 1
                    lower = right
            if lower.turn >= turn:
                break
            heap[at] = lower
            at = child
            child = 2 * at + 1
        heap[at] = moved


def _turn(candidate: Candidate) -> float:
    return candidate.turn
