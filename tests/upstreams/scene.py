"""A pool over backends that do what they are told, and a caller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

from gateway.balance.weighted_round_robin import WeightedRoundRobin
from gateway.breakers.gate import BreakerSettings
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.request import Outcome, Request
from gateway.retries.budget import RetryBudget
from gateway.retries.rules import REASONS, RetryCells, RetryRules
from gateway.telemetry.cells import Cells
from gateway.testing import ScriptedBackend
from gateway.upstreams.backend import Backend
from gateway.upstreams.caller import Caller
from gateway.upstreams.forward import dropped_fields
from gateway.upstreams.pool import Pool

DROPPED = dropped_fields(b"x-api-key")
GATE = BreakerSettings(failures=2, open_for=0.02, probes=1)
RETRIES = {reason: 900 + number for number, reason in enumerate(REASONS)}
DENIED, WASTED, SENT, WON, CANCELLED, HEDGES_DENIED = range(920, 926)
CELLS = RetryCells(RETRIES, DENIED, WASTED, SENT, WON, CANCELLED, HEDGES_DENIED)
DEAD = "dead"


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Scene:
    """A pool over scripted backends, and a caller."""

    def __init__(self, ports, limits):
        self.backends = []
        for number, port in enumerate(ports):
            backend = Backend(f"p/{number}", f"b{number}", Address("127.0.0.1", port), 1, GATE, limits)
            backend.series = number * 100
            self.backends.append(backend)
        self.budget = RetryBudget(0.0, 10.0, time.monotonic_ns())
        self.pool = Pool("p", tuple(self.backends), WeightedRoundRobin, 100, budget=self.budget)
        self.fd = Cells.create("test")
        self.cells = Cells(self.fd)
        self.rand = 0.5
        self.caller = Caller(self.cells, lambda: self.rand)

    def rules(self, attempts=2, on=("connect",), **more):
        return RetryRules(CELLS, attempts, frozenset(on), **{"backoff": 1_000_000, **more})

    def spend_all(self):
        """Leaves nothing of the budget for the next seconds."""
        self.budget = self.pool.budget = RetryBudget(0.0, 0.0, 0)

    def count(self, cell):
        return self.cells.values[cell]

    @property
    def retries(self):
        """By reason, without those there were none for."""
        return {reason: self.count(cell) for reason, cell in RETRIES.items() if self.count(cell)}

    async def ask(self, method=b"GET", seconds=30.0, rules="default", body=b"", fair=0, headers=()):
        request = Request(method, b"/x", b"/x", {b"host": b"a", **dict(headers)}, body, peer=b"10.0.0.9")
        deadline = time.monotonic_ns() + int(seconds * 1e9)
        rules = self.rules() if rules == "default" else rules
        return await self.caller.ask(self.pool, request, b"/x", deadline, rules, DROPPED, fair)

    def outcomes(self, number=0):
        return [self.cells.values[number * 100 + outcome] for outcome in Outcome]

    async def gone(self, number):
        """Waits until the backend sees that its connections have ended, as it does when an attempt is called off."""
        async with asyncio.timeout(30):
            while self.servers[number].open:
                await asyncio.sleep(0.001)

    def settled(self):
        """Nothing is held by anybody."""
        assert self.pool.inflight == 0
        assert self.pool.budget.waiting == 0
        for backend in self.backends:
            assert backend.inflight == 0
            assert not backend.gate._out
            assert not backend.connections.active
        return True


@contextlib.asynccontextmanager
async def scene(*scripts, limits=None):
    """Each script is one backend's, for all of its connections; DEAD is a port where nobody listens."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            None if script is DEAD else await stack.enter_async_context(ScriptedBackend(*script)) for script in scripts
        ]
        one = Scene([closed_port() if s is None else s.port for s in servers], limits or ClientLimits())
        one.servers = servers
        yield one
        assert one.settled()
        for backend in one.backends:
            backend.connections.close()
        os.close(one.fd)
