"""A retry budget: retries may be at most a share of the requests, so that retrying cannot become a storm.

Each request deposits `ratio` of a retry; each retry withdraws a whole one. `minimum` retries per second are
earned on top, so that a quiet route can retry at all. Savings are capped at `HORIZON` seconds' worth of either.
Source: Finagle's RetryBudget; the SRE book, chapter 22.
"""

from __future__ import annotations

from typing import Final

HORIZON: Final = 10.0  # seconds of savings (Finagle's default)


class RetryBudget:
    """One per route and worker. `now` is monotonic nanoseconds."""

    __slots__ = ("_balance", "_cap", "_minimum", "_ratio", "_since", "exhausted", "spent")

    def __init__(self, ratio: float, minimum: float, now: int) -> None:
        self._ratio = ratio
        self._minimum = minimum
        self._cap = max(minimum * HORIZON, 1.0)
        self._balance = min(max(minimum, 1.0), self._cap)
        self._since = now
        self.spent = 0
        self.exhausted = 0

    def deposit(self) -> None:
        """Once per request, on its first attempt."""
        if self._balance < self._cap:
            self._balance += self._ratio

    def withdraw(self, now: int) -> bool:
        """Whether one retry may be made now; takes it if so."""
        self._balance = min(self._cap, self._balance + (now - self._since) * self._minimum / 1e9)
        self._since = now
        if self._balance < 1.0:
            self.exhausted += 1
            return False
        self._balance -= 1.0
        self.spent += 1
        return True
