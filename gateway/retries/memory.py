"""What retries and hedges go by, by identity, so that it lives through a reload: budgets and latencies."""

from __future__ import annotations

from gateway.retries.budget import RetryBudget
from gateway.retries.latencies import Latencies


class Memory:
    """One per worker; `retain` is called once a snapshot has replaced another. `now` is monotonic nanoseconds."""

    def __init__(self) -> None:
        self._budgets: dict[str, RetryBudget] = {}
        self._said: dict[str, tuple[float, float]] = {}  # ratio and minimum of each pool, as configured
        self._sharers = 1
        self._latencies: dict[tuple[str, str], Latencies] = {}

    def budget(self, pool: str, ratio: float, minimum: float, now: int) -> RetryBudget:
        """The pool's budget with its settings brought up to date, or a new one."""
        self._said[pool] = ratio, minimum
        budget = self._budgets.get(pool)
        if budget is None:
            budget = self._budgets[pool] = RetryBudget(ratio, minimum / self._sharers, now)
        else:
            budget.configure(ratio, minimum / self._sharers)
        return budget

    def share(self, workers: int) -> None:
        """So many workers use the same pools from now on: the minimum is of all together. (So is the ratio, for each
        has its own requests.)
        """
        if workers == self._sharers or workers < 1:
            return
        self._sharers = workers
        for pool, budget in self._budgets.items():
            ratio, minimum = self._said[pool]
            budget.configure(ratio, minimum / workers)

    def latencies(self, route: str, pool: str, now: int) -> Latencies:
        """Of the requests of one route at one pool."""
        known = self._latencies.get((route, pool))
        if known is None:
            known = self._latencies[route, pool] = Latencies(now)
        return known

    def retain(self, routes: set[str], pools: set[str]) -> None:
        """Forgets what belongs to routes and pools that there are no longer."""
        self._budgets = {pool: budget for pool, budget in self._budgets.items() if pool in pools}
        self._said = {pool: said for pool, said in self._said.items() if pool in pools}
        self._latencies = {key: each for key, each in self._latencies.items() if key[0] in routes and key[1] in pools}
