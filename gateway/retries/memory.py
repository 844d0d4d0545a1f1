"""What retries and hedges go by, by identity, so that it lives through a reload: budgets and latencies."""

from __future__ import annotations

from gateway.retries.budget import RetryBudget
from gateway.retries.latencies import Latencies


class Memory:
    """One per worker; `retain` is called once a snapshot has replaced another. `now` is monotonic nanoseconds."""

    def __init__(self) -> None:
        self._budgets: dict[str, RetryBudget] = {}
        self._latencies: dict[tuple[str, str], Latencies] = {}

    def budget(self, pool: str, ratio: float, minimum: float, now: int) -> RetryBudget:
        """The pool's budget with its settings brought up to date, or a new one."""
        budget = self._budgets.get(pool)
        if budget is None:
            budget = self._budgets[pool] = RetryBudget(ratio, minimum, now)
        else:
            budget.configure(ratio, minimum)
        return budget

    def latencies(self, route: str, pool: str, now: int) -> Latencies:
        """Of the requests of one route at one pool."""
        known = self._latencies.get((route, pool))
        if known is None:
            known = self._latencies[route, pool] = Latencies(now)
        return known

    def retain(self, routes: set[str], pools: set[str]) -> None:
        """Forgets what belongs to routes and pools that there are no longer."""
        self._budgets = {pool: budget for pool, budget in self._budgets.items() if pool in pools}
        self._latencies = {key: each for key, each in self._latencies.items() if key[0] in routes and key[1] in pools}
