"""Balancing policies: one file each, registered by the name that the configuration uses.

A policy is one class with `pick(candidates) -> candidate`. Candidates are what may be picked right now (not down,
not tried before, weight above zero), in the pool's order. Invariants, held by one contract test over all
policies: over many picks the share follows the weight; only a candidate is ever returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What a policy may read and keep about a backend."""

    weight: int
    inflight: int
    turn: int  # smooth weighted round-robin's running balance; belongs to that policy alone


C = TypeVar("C", bound=Candidate)


class Balancer(Protocol):
    """`candidates` is never empty."""

    def pick(self, candidates: Sequence[C]) -> C: ...
