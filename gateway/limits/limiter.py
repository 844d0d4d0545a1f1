"""Decides whether a request may pass its limits: asks the shared store, or decides alone when the store is away.

Invariants: a request is admitted by all of its limits or takes from none (shared mode); the store never delays a
request beyond the store's own deadline; a failed store never turns into an error for the client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from gateway.limits.bucket import Taken
from gateway.limits.local import LocalBuckets
from gateway.limits.policy import SCOPES, LimitPolicy
from gateway.request import Request


class Ask:
    """One bucket to take `cost` tokens from."""

    __slots__ = ("cost", "key", "policy")

    def __init__(self, key: bytes, policy: LimitPolicy, cost: float) -> None:
        self.key = key
        self.policy = policy
        self.cost = cost


class BucketStore(Protocol):
    """Where the shared buckets live."""

    def take(self, asks: Sequence[Ask]) -> Awaitable[list[Taken] | None] | None:
        """All-or-nothing over `asks`. None, at once or later: the store is away, decide locally."""


class LimitVerdict:
    """The decision over all limits of a route. `left` is parallel to the route's policies."""

    __slots__ = ("allowed", "left", "refused_by", "shared")

    def __init__(self, left: list[Taken], refused_by: LimitPolicy | None, *, shared: bool) -> None:
        self.allowed = refused_by is None
        self.left = left
        self.refused_by = refused_by
        self.shared = shared  # False: decided by this worker alone


class RouteLimits:
    """The limits of one route, with everything constant built once."""

    __slots__ = ("legacy", "policies", "policy_header", "prefixes", "route")

    def __init__(self, route: str, policies: Sequence[LimitPolicy], key_prefix: str) -> None:
        self.route = route.encode()
        self.policies = tuple(policies)
        self.prefixes = tuple(
            (f"{key_prefix}:{policy.name}:".encode(), SCOPES[policy.scope], policy) for policy in policies
        )
        self.policy_header = b", ".join(policy.policy_header() for policy in policies)
        self.legacy = next((p for p in policies if p.legacy_headers), None)

    def left_header(self, left: Sequence[Taken]) -> bytes:
        """The RateLimit field: what is left in each bucket."""
        if len(left) == 1:
            return self.policies[0].left_header(left[0].tokens, allowed=left[0].allowed)
        return b", ".join(
            [policy.left_header(left[i].tokens, allowed=left[i].allowed) for i, policy in enumerate(self.policies)]
        )

    def asks(self, request: Request) -> list[Ask]:
        return [Ask(prefix + scope(request, self.route), policy, 1.0) for prefix, scope, policy in self.prefixes]


class Limiter:
    """One per worker; survives reloads, because levels belong to clients and not to a configuration."""

    def __init__(self, store: BucketStore, workers: int = 1) -> None:
        self._store = store
        self._local = LocalBuckets()
        self.workers = workers  # live workers of all gateways that share the store
        self._alone_us: float | None = None  # since when decisions are local

    def share_with(self, workers: int) -> None:
        """How many workers share the limits now, this one included."""
        self.workers = workers

    async def check(self, limits: RouteLimits, request: Request, now_ns: int) -> LimitVerdict:
        """Takes one token from every limit of the route, or says which one refused."""
        asks = limits.asks(request)
        pending = self._store.take(asks)
        taken = None if pending is None else await pending
        now_us = now_ns / 1e3
        if taken is None:
            if self._alone_us is None:
                self._alone_us = now_us
            return self._alone(asks, now_us, self._alone_us)
        self._alone_us = None
        refused = None
        for i, ask in enumerate(asks):
            one = taken[i]
            self._local.learn(ask.key, one.tokens, now_us)
            if not one.allowed and refused is None:
                refused = ask.policy
        return LimitVerdict(taken, refused, shared=True)

    def _alone(self, asks: Sequence[Ask], now_us: float, alone_us: float) -> LimitVerdict:
        left: list[Taken] = []
        refused = None
        for ask in asks:
            policy = ask.policy
            if policy.on_store_failure == "local":
                result = self._local.take(ask.key, policy.spec, self.workers, now_us, alone_us, ask.cost)
            else:
                admits = policy.on_store_failure == "open"
                result = Taken(admits, policy.spec.burst if admits else 0.0)
            left.append(result)
            if not result.allowed and refused is None:
                refused = policy
        return LimitVerdict(left, refused, shared=False)
