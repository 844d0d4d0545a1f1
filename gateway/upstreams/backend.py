"""A backend: where it is, how it is doing, and one attempt to use it.

What lives here survives a reload (breaker, health, in-flight count, connections), keyed by pool and address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gateway.balance import Balancer
from gateway.breakers.gate import BreakerSettings, Gate
from gateway.http.client import ClientLimits, ConnectionPool
from gateway.http.dial import Address, Tls
from gateway.link.pool import LinkPool
from gateway.request import Outcome, Request

Speaks = Literal["http", "link", "auto"]


class Backend:
    """One server of a pool. `weight` and `turn` belong to the balancing policy."""

    __slots__ = (
        "authority", "connections", "gate", "healthy", "inflight", "key", "name", "on_change", "series",
        "speaks", "turn", "weight",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        name: str,
        address: Address,
        weight: int,
        gate: BreakerSettings,
        limits: ClientLimits,
        speaks: Speaks = "http",
        tls: Tls | None = None,
    ) -> None:
        self.key = key
        self.name = name
        self.authority = address.authority
        self.weight = weight
        self.turn = 0
        self.inflight = 0
        self.healthy = True
        self.on_change: Callable[[], None] | None = None  # called when health or the breaker turns
        self.gate = Gate(gate, self._changed)
        self.speaks = speaks
        self.connections = _connections(address, limits, speaks, tls)
        self.series = 0  # first of this backend's metric cells

    def speak(self, speaks: Speaks, tls: Tls | None) -> None:
        """Changes the protocol for exchanges to come; those under way finish as they began."""
        old = self.connections
        if speaks != self.speaks or tls != old.tls:
            self.speaks = speaks
            self.connections = _connections(old.address, old.limits, speaks, tls)
            old.close()
        else:
            old.tls = tls  # an equal one, which knows whom the system trusts now

    def mark(self, *, healthy: bool, now: int) -> None:
        """Takes the verdict of a health check; a recovery lets the breaker probe at once."""
        if healthy and not self.healthy:
            self.gate.hint_recovered(now)
        if healthy != self.healthy:
            self.healthy = healthy
            self._changed()

    def observe(self, outcome: Outcome, took_ns: int, now: int, retry_after_ns: int = 0) -> None:
        """Takes the end of one attempt: what it proved, how long it took, and, of an answer that says "not now", how
        long the backend asks to be left alone (0: it does not say).
        """

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def __repr__(self) -> str:
        health = "healthy" if self.healthy else "unhealthy"
        return f"<Backend {self.key} w{self.weight} {health}, {self.inflight} in flight, {self.gate.state}>"


def _connections(address: Address, limits: ClientLimits, speaks: Speaks, tls: Tls | None) -> ConnectionPool:
    if speaks == "http":
        return ConnectionPool(address, limits, tls)
    return LinkPool(address, limits, tls, required=speaks == "link")


class Pool:
    """Backends that serve the same thing; rebuilt at each snapshot around backends that survive."""

    __slots__ = ("_steady", "backends", "balancer", "inflight", "max_inflight", "name")

    def __init__(self, name: str, backends: tuple[Backend, ...], balancer: Balancer, max_inflight: int) -> None:
        self.name = name
        self.backends = backends
        self.balancer = balancer
        self.max_inflight = max_inflight
        self.inflight = 0
        self._steady: tuple[Backend, ...] | None = None  # all that have weight, while all are healthy and closed
        for backend in backends:
            backend.on_change = self._unsettle

    def _unsettle(self) -> None:
        self._steady = None

    def pick(self, request: Request, tried: list[Backend], now: int) -> Backend | None:  # noqa: ARG002
        """A backend that may be tried for `request` now and is not in `tried`, or None.

        Health is a preference and the breaker is the law: when every backend that is left is marked unhealthy they
        are tried all the same, for the prober may be the one at fault.
        """
        if self._steady is not None and not tried:
            return self.balancer.pick(self._steady)
        usable = [b for b in self.backends if b.weight and b.gate.available(now) and b not in tried]
        if not usable:
            return None
        healthy = [b for b in usable if b.healthy]
        if not tried and all(b.healthy and b.gate.closed for b in self.backends):
            self._steady = tuple(usable)
        return self.balancer.pick(healthy or usable)
