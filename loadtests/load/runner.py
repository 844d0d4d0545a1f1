"""One client at work: when its requests are due, over which connections they go, and a row for each one.

Contract: an open-loop request is begun when it is due whatever became of earlier ones; one that would exceed
``max_in_flight`` is a row ``unsent``, never a queue. Nothing is retried. Every request that was due ends as exactly
one row.
"""

from __future__ import annotations

import asyncio
import random
import time

from loadtests.load.connection import Connection, Exchange
from loadtests.load.model import Client, Outcome, render
from loadtests.load.samples import Kind, Samples
from loadtests.load.timer import Timer

# A closed-loop client whose connection failed waits this long, so that a dead server is not hammered.
PAUSE_AFTER_FAILURE = 0.01
# Arrivals sent in one go before the loop gets to read answers again, when the generator itself is late.
MOST_PER_WAKE = 64


class Runner:
    """Drives one :class:`Client` from ``start`` to ``finish``."""

    def __init__(self, client: Client, target: tuple[str, int], samples: Samples, origin: float) -> None:
        self.client = client
        self.in_flight = 0
        self._host, self._port = target
        self._samples = samples
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        name = f"{self._host}:{self._port}"
        self._wires = [(request, render(request, client, name)) for request in client.requests]
        self._turn = 0
        self._random = random.Random(client.seed)
        self._rate = client.rate or 0.0
        self._due = 0.0
        self._timer = Timer(self._loop, self._wake)
        self._running = False
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._connecting: dict[asyncio.Task[None], Exchange] = {}
        self._quiet = asyncio.Event()

    def start(self) -> None:
        """Begin; the first open-loop arrival is one gap from now."""
        self._running = True
        if self.client.connections is not None:
            for _ in range(self.client.connections):
                self._send(time.monotonic())
        else:
            self.set_rate(self._rate)

    def set_rate(self, rate: float) -> None:
        """From now on ``rate`` arrivals per second; 0 pauses. The gap under way is drawn anew."""
        if self.client.connections is not None:
            raise ValueError(f"client {self.client.name!r} is closed loop: it has no rate")
        if rate < 0:
            raise ValueError("a rate cannot be negative")
        self._rate = rate
        self._timer.cancel()
        if rate and self._running:
            self._due = time.monotonic() + self._gap()
            self._timer.set(self._due)

    def pause(self) -> None:
        """Send no more."""
        self._running = False
        self._timer.cancel()

    async def finish(self, patience: float) -> None:
        """Send no more, wait up to ``patience`` seconds for what is under way, abandon the rest, close everything."""
        self.pause()
        self._timer.close()
        if self.in_flight:
            self._quiet.clear()
            try:
                await asyncio.wait_for(self._quiet.wait(), patience)
            except TimeoutError:
                self._abandon()
        for connection in list(self._connections):
            connection.close()

    def _abandon(self) -> None:
        for task, exchange in list(self._connecting.items()):
            task.cancel()
            self._record(exchange, Outcome.ABANDONED)
        self._connecting.clear()
        for connection in list(self._connections):
            connection.abort(Outcome.ABANDONED)

    # Arrivals

    def _gap(self) -> float:
        return 1.0 / self._rate if self.client.arrivals == "constant" else self._random.expovariate(self._rate)

    def _wake(self) -> None:
        for _ in range(MOST_PER_WAKE):
            if not self._running or not self._rate:
                return
            if self._due > time.monotonic():
                break
            self._send(self._due)
            self._due += self._gap()
        self._timer.set(self._due)

    def _send(self, due: float) -> None:
        request, wire = self._wires[self._turn % len(self._wires)]
        self._turn += 1
        exchange = Exchange(request, wire, due)
        if self.in_flight >= self.client.max_in_flight:
            self._record(exchange, Outcome.UNSENT, was_in_flight=False)
            return
        self.in_flight += 1
        connection = self._idle_connection()
        if connection is not None:
            self._write(connection, exchange)
            return
        exchange.sent = time.monotonic()
        task = self._loop.create_task(self._connect(exchange))
        self._connecting[task] = exchange
        task.add_done_callback(lambda done: self._connecting.pop(done, None))

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    def _write(self, connection: Connection, exchange: Exchange, *, fresh: bool = False) -> None:
        now = time.monotonic()
        if not fresh:
            exchange.sent = now
        left = exchange.due + self.client.timeout - now
        exchange.timeout = self._loop.call_later(max(0.0, left), connection.abort, Outcome.TIMEOUT)
        connection.send(exchange)

    async def _connect(self, exchange: Exchange) -> None:
        left = exchange.due + self.client.timeout - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._ended, self._closed), self._host, self._port
                )
        except TimeoutError:
            self._failed(exchange, Outcome.TIMEOUT)
        except ConnectionRefusedError:
            self._failed(exchange, Outcome.CONNECT_REFUSED)
        except OSError:
            self._failed(exchange, Outcome.CONNECT_FAILED)
        else:
            self._connections.add(connection)
            if connection.reusable:
                self._write(connection, exchange, fresh=True)
            else:
                self._failed(exchange, Outcome.RESET)

    # Ends

    def _failed(self, exchange: Exchange, outcome: Outcome) -> None:
        self._record(exchange, outcome)
        self._next_of_closed_loop(PAUSE_AFTER_FAILURE)

    def _ended(self, connection: Connection, exchange: Exchange, outcome: Outcome) -> None:
        if exchange.timeout is not None:
            exchange.timeout.cancel()
        if outcome is Outcome.OK and not self._agreed(exchange):
            outcome = Outcome.WRONG
        self._record(exchange, outcome)
        if connection.reusable:
            self._idle.append(connection)
        answered = outcome in (Outcome.OK, Outcome.WRONG)
        self._next_of_closed_loop(0.0 if answered else PAUSE_AFTER_FAILURE)

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def _agreed(self, exchange: Exchange) -> bool:
        if self.client.check is None:
            return True
        try:
            return self.client.check(exchange.request, exchange.response)
        except Exception:  # a check that trips over an unexpected answer has found a wrong one
            return False

    def _next_of_closed_loop(self, pause: float) -> None:
        if not self._running or self.client.connections is None:
            return
        if pause:
            self._loop.call_later(pause, self._send_closed)
        else:
            self._loop.call_soon(self._send_closed)

    def _send_closed(self) -> None:
        if self._running:
            self._send(time.monotonic())

    def _record(self, exchange: Exchange, outcome: Outcome, *, was_in_flight: bool = True) -> None:
        now = time.monotonic()
        labels = tuple([exchange.headers.get(name) for name in self._samples.label_names])
        kind = Kind(self.client.name, outcome, exchange.status, labels)
        self._samples.add(kind, exchange.due - self._origin, now - exchange.due, max(0.0, exchange.sent - exchange.due))
        if was_in_flight:
            self.in_flight -= 1
            if not self.in_flight:
                self._quiet.set()
