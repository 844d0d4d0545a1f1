"""Token bucket arithmetic: pure, in tokens and microseconds. `bucket.lua` mirrors it line for line.

A bucket holds at most `burst` tokens and gains `rate` tokens per second. A request takes `cost` tokens or is
refused and takes none, so over any T seconds at most `burst + rate * T` tokens are admitted.
Source: the leaky bucket as a meter, Turner 1986; RFC 2697 section 3 for the refill rule.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class BucketSpec(NamedTuple):
    """`rate` in tokens per second, `burst` in tokens."""

    rate: float
    burst: float


class Taken:
    """What became of one bucket: whether it gave, and the `tokens` left after that."""

    __slots__ = ("allowed", "tokens")

    def __init__(self, allowed: bool, tokens: float) -> None:
        self.allowed = allowed
        self.tokens = tokens

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taken) and self.allowed == other.allowed and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash((self.allowed, self.tokens))

    def __repr__(self) -> str:
        return f"Taken({self.allowed}, {self.tokens:g})"


def refill(spec: BucketSpec, tokens: float, elapsed_us: float) -> float:
    """Tokens after `elapsed_us` microseconds; a clock that went backwards adds nothing."""
    return min(spec.burst, tokens + max(0.0, elapsed_us) * spec.rate / 1e6)


def take(spec: BucketSpec, tokens: float, elapsed_us: float, cost: float = 1.0) -> Taken:
    """Refills, then takes `cost` tokens if there are that many."""
    tokens = refill(spec, tokens, elapsed_us)
    if tokens >= cost:
        return Taken(True, tokens - cost)
    return Taken(False, tokens)


def wait_s(spec: BucketSpec, tokens: float, cost: float = 1.0) -> float:
    """Seconds until `cost` tokens are there; infinite when the bucket can never hold them."""
    if cost > spec.burst:
        return math.inf
    return max(0.0, (cost - tokens) / spec.rate)


def full_s(spec: BucketSpec, tokens: float) -> float:
    """Seconds until the bucket is full again."""
    return max(0.0, (spec.burst - tokens) / spec.rate)
