"""A backend: where it is, how it is doing, and one attempt to use it.

What lives here survives a reload (breaker, health, in-flight count, connections), keyed by pool and address.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

from gateway.balance.groups import LONGEST_REST
from gateway.balance.load import ASK, TELL, read
from gateway.balance.policy import Candidate
from gateway.breakers.gate import Gate
from gateway.breakers.models import ModelGates, own_settings
from gateway.breakers.permit import AnyGate, BreakerSettings
from gateway.http.client import ConnectionPool
from gateway.http.dial import Address, Tls
from gateway.http.upstream import ClientLimits
from gateway.link.frames import LoadReport
from gateway.link.pool import LinkPool
from gateway.request import Outcome, Request, Response

Speaks = Literal["http", "link", "auto"]

ASKED_FOR: Final = ASK + b": JSON\r\n"
OFTEN: Final = 1_000_000  # nanoseconds between two reports that are read: what comes sooner says nothing new


class Backend(Candidate):
    """One server of a pool."""

    __slots__ = (
        "_breaker", "_returned", "authority", "connections", "ejected", "gate", "healthy", "key", "models", "name",
        "on_change", "on_trip", "reported", "series", "speaks",
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
        priority: int = 0,
        zone: str = "",
    ) -> None:
        super().__init__(key.encode(), weight, priority, zone)
        self.key = key
        self.name = name
        self.authority = address.authority
        self.healthy = True
        self.ejected = False
        self._returned = 0
        self.on_change: Callable[[], None] | None = None  # called when health, ejection or a breaker turns
        self.on_trip: Callable[[Backend, bytes, int], None] | None = None  # a gate opened; of a model, if one is named
        self._breaker = gate
        self.gate = Gate(own_settings(gate), self._changed, _Trip(self, b""))
        self.models = ModelGates(self.gate, self._model_gate) if gate.per_model else None
        self.speaks = speaks
        self.connections = _connections(address, limits, speaks, tls, self.told)
        self.reported = False  # asked to report its load over HTTP
        self.series = 0  # first of this backend's metric cells

    def speak(self, speaks: Speaks, tls: Tls | None) -> None:
        """Changes the protocol for exchanges to come; those under way finish as they began."""
        old = self.connections
        if speaks != self.speaks or tls != old.tls:
            self.speaks = speaks
            self.connections = _connections(old.address, old.limits, speaks, tls, self.told)
            self.report(asked=self.reported)
            old.close()
        else:
            old.tls = tls  # an equal one, which knows whom the system trusts now

    def mark(self, *, healthy: bool, now: int) -> None:
        """Takes the verdict of a health check; a recovery lets the breaker probe at once."""
        if healthy and not self.healthy:
            self.gate.hint_recovered(now)
            self._returned = now
        if healthy != self.healthy:
            self.healthy = healthy
            self._changed()

    def eject(self, *, out: bool, now: int) -> None:
        """Takes the verdict of the outlier detection."""
        if out != self.ejected:
            self.ejected = out
            if not out:
                self._returned = now
            self._changed()

    @property
    def standing(self) -> bool:
        """Nothing but its gate may speak against it."""
        return self.healthy and not self.ejected

    @property
    def recovered_at(self) -> int:
        """When it last came back: its gate closed, a check passed again, its ejection ended, or it was added to a
        gateway that runs; 0 for never.
        """
        return max(self._returned, self.gate.recovered)

    def added(self, now: int) -> None:
        """It is new in a gateway that runs."""
        self._returned = now

    def gate_for(self, request: Request) -> AnyGate:
        """The gate that this request passes."""
        return self.gate if self.models is None else self.models.of(request.model)

    def gates(self) -> list[tuple[bytes, Gate]]:
        """Its own gate (of no model), then those of its models."""
        models = [] if self.models is None else [(name, gate.inner) for name, gate in self.models.all().items()]
        return [(b"", self.gate), *models]

    def configure(self, breaker: BreakerSettings) -> None:
        """Takes new settings of the breaker without forgetting its state."""
        self._breaker = breaker
        if breaker.per_model != (self.models is not None):
            self.models = ModelGates(self.gate, self._model_gate) if breaker.per_model else None
            self._changed()
        self.gate.configure(own_settings(breaker))
        for _, gate in self.gates()[1:]:
            gate.configure(breaker)

    def force(self, how: str, now: int, until: int) -> None:
        """An operator's word: "open", "closed", or "" for the breaker's own rule; monotonic nanoseconds."""
        self.gate.force(how, now, until)
        for _, gate in self.gates()[1:]:
            gate.force(how if how == "closed" else "", now, until)  # open is the backend's own gate's business

    def hint_failing(self, model: bytes, now: int) -> None:
        """Somebody else's breaker for this backend, or for this model here, has opened."""
        if not model:
            self.gate.hint_failing(now)
        elif self.models is not None and (gate := self.models.find(model, now)) is not None:
            gate.hint_failing(now)

    def forgotten(self, event: str) -> int:
        """How often it happened to gates of models that are no more."""
        return 0 if self.models is None else self.models.forgotten.get(event, 0)

    def _model_gate(self, model: bytes) -> Gate:
        gate = Gate(self._breaker, self._changed, _Trip(self, model))
        if self.gate.forced == "closed":
            gate.force("closed", 0, self.gate.forced_until)
        self._changed()
        return gate

    def observe(self, outcome: Outcome, took_ns: int, now: int, retry_after_ns: int = 0, found: int = 0) -> None:
        """Takes the end of one attempt: what it proved, how long it took, and, of an answer that says "not now", how
        long the backend asks to be left alone (0: it does not say); `found` were in flight before it.
        """
        if self.gauge is not None:
            self.gauge.observe(self, outcome, took_ns, found, now)
        if retry_after_ns and outcome is Outcome.DROPPED:
            until = now + min(retry_after_ns, LONGEST_REST)
            if until > self.resting:
                self.resting = until
                self._changed()

    # -- load reports -------------------------------------------------------------------------------------------

    def report(self, *, asked: bool) -> None:
        """Whether it is to be asked for reports of its load over HTTP; on a link they come unasked."""
        self.reported = asked
        self.connections.asks = ASKED_FOR if asked else b""

    def told(self, report: LoadReport) -> None:
        """Takes a report that came on a link."""
        service, now = report.service * 1e9, time.monotonic_ns()
        self.load.hear(report.queued, report.running, report.capacity, service, self.inflight, now)

    def hear(self, request: Request, response: Response, now: int) -> None:
        """Takes the report out of an answer; the client gets it only if it asked for one itself."""
        headers = response.headers
        for at in range(len(headers)):
            if headers[at][0] == TELL:
                if now - self.load.heard >= OFTEN:
                    read(self.load, headers[at][1], self.inflight - 1, now)  # the answered one is no longer there
                if ASK not in request.headers:
                    del headers[at]
                return

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def __repr__(self) -> str:
        health = "healthy" if self.healthy else "unhealthy"
        return f"<Backend {self.key} w{self.weight} {health}, {self.inflight} in flight, {self.gate.state}>"


class _Trip:
    """Hears that a gate of a backend opened."""

    __slots__ = ("_backend", "_model")

    def __init__(self, backend: Backend, model: bytes) -> None:
        self._backend = backend
        self._model = model

    def __call__(self, _event: str, now: int) -> None:
        if self._backend.on_trip is not None:
            self._backend.on_trip(self._backend, self._model, now)


def _connections(
    address: Address, limits: ClientLimits, speaks: Speaks, tls: Tls | None, told: Callable[[LoadReport], None]
) -> ConnectionPool:
    if speaks == "http":
        return ConnectionPool(address, limits, tls)
    return LinkPool(address, limits, tls, required=speaks == "link", on_load=told)
