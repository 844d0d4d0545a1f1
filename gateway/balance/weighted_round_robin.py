"""Smooth weighted round-robin (nginx's): every turn each candidate gains its weight, the richest is picked and pays
the sum. Picks of one backend are spread evenly (a, a, b, a for 3:1) and shares stay right while others are away,
because only candidates take part in a turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.balance import C


class WeightedRoundRobin:
    """State lives in the candidates' `turn`, so it survives a reload with the backend."""

    __slots__ = ()

    def pick(self, candidates: Sequence[C]) -> C:
        total = 0
        best = candidates[0]
        for candidate in candidates:
            weight = candidate.weight
            candidate.turn += weight
            total += weight
            if candidate.turn > best.turn:
                best = candidate
        best.turn -= total
        return best
