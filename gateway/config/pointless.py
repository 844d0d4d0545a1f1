"""Warnings about settings of pools, retries and hedges that can change nothing where they stand.

Rules as in ``lint.py``, which runs them.
"""

from collections.abc import Callable, Iterator

from gateway.config.model import Config, Route
from gateway.config.source import Loc
from gateway.config.units import format_duration

Finding = tuple[Loc, str, str | None]


def _others(config: Config, route: Route) -> int:
    """How many there are to ask besides the first, in the largest of the route's pools."""
    return max((sum(each.weight > 0 for each in config.pools[name].backends) - 1 for name in route.pools), default=0)


def few_to_hedge_to(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        others = _others(config, route)
        if route.hedge is not None and 0 < others < route.hedge.max and not route.retry.same_backend:
            message = f"more than there are others to ask in the pool ({others})"
            yield ("routes", index, "hedge", "max"), message, None


def hedge_behind_per_try(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        hedge, per_try = route.hedge, route.retry.per_try
        if hedge is None or isinstance(hedge.after, str) or per_try is None or route.retry.attempts == 1:
            continue
        if per_try <= hedge.after < route.timeout and per_try < route.timeout:
            message = (
                f"not before per_try ({format_duration(per_try)}), when the try is given up; only the last is hedged"
            )
            yield ("routes", index, "hedge", "after"), message, "hedge earlier, or raise retry.per_try"


def long_backoff(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        if route.retry.attempts > 1 and route.retry.backoff >= route.timeout:
            message = (
                f"not below the timeout ({format_duration(route.timeout)}), so hardly any retry that waits is made"
            )
            yield ("routes", index, "retry", "backoff"), message, None


def idle_retry_budget(config: Config) -> Iterator[Finding]:
    asking = {pool for route in config.routes if route.hedge or route.retry.attempts > 1 for pool in route.pools}
    used = {pool for route in config.routes for pool in route.pools}
    for name, pool in config.pools.items():
        if name in used - asking and "retry_budget" in pool.model_fields_set:
            yield ("pools", name, "retry_budget"), "no route retries or hedges here, so there is nothing to bound", None


def blind_breaker(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        breaker = pool.breaker
        if breaker.error_rate or (breaker.slow_after is not None and breaker.slow_rate):
            continue
        for key in ("min_calls", "window", "window_calls"):
            if key in breaker.model_fields_set:
                message = "means nothing: with error_rate 0 and no slow calls no rate is looked at"
                yield ("pools", name, "breaker", key), message, None
                break


def blind_ejection(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        if pool.ejection is not None and not pool.ejection.success_factor and not pool.ejection.latency_factor:
            message = "nobody is ever ejected: neither success rates nor latencies are looked at"
            yield ("pools", name, "ejection"), message, "leave it out, or one of the factors at its default"


def no_choice(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        if len(pool.backends) > 1:
            continue
        if pool.sticky is not None:
            yield (
                ("pools", name, "sticky"),
                "means nothing: the pool has one backend, so every session stays there",
                None,
            )
        if pool.slow_start:
            message = "means nothing: the pool has one backend, which gets everything at once"
            yield ("pools", name, "slow_start"), message, "admission: {limit: adaptive} finds out what it can take"


def priority_gap(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        known = {backend.priority for backend in pool.backends}
        missing = next((number for number in range(max(known)) if number not in known), None)
        if missing is not None:
            index = next(at for at, backend in enumerate(pool.backends) if backend.priority > missing)
            loc: Loc = ("pools", name, "backends", index, "priority")
            message = f"no backend has priority {missing}: groups are asked in their order, and a gap means nothing"
            yield loc, message, "number them 0, 1, 2 ..."


POINTLESS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    few_to_hedge_to,
    hedge_behind_per_try,
    long_backoff,
    idle_retry_budget,
    blind_breaker,
    blind_ejection,
    no_choice,
    priority_gap,
)
