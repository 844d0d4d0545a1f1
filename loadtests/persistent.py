"""Clients that do not take no for an answer: each asks again when it is refused, or has waited long enough.

Open loop: a client is due when it is due, whatever became of those before it, and then tries up to `tries` times. That
is how an overload feeds itself: the more fail, the more is asked.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from loadtests.load.connection import Connection, Exchange
from loadtests.load.model import Client, Outcome, Request, render

PAUSE = 0.1  # seconds between two tries, on average


@dataclass(slots=True)
class Served:
    """One client: when it was due, and whether it had its answer in the end. Seconds since the beginning."""

    due: float
    ended: float = 0.0
    good: bool = False
    tries: int = 0


class Persistent:
    """`rate` clients a second, each with `tries` tries of at most `timeout` seconds."""

    def __init__(self, port: int, request: Request, *, rate: float, tries: int, timeout: float, seed: int = 1) -> None:
        self.sent = 0  # requests, tries after the first included
        self.clients: list[Served] = []
        self.lag = 0.0  # seconds by which a client was late at the most: how far its load is our own
        self._port = port
        self._request = request
        self._wire = render(request, Client(rate=rate), f"127.0.0.1:{port}")
        self._rate, self._tries, self._timeout = rate, tries, timeout
        self._random = random.Random(seed)
        self._idle: list[Connection] = []
        self._waiting: dict[Connection, asyncio.Future[bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.origin = time.monotonic()

    @property
    def now(self) -> float:
        return time.monotonic() - self.origin

    async def run(self, seconds: float) -> None:
        """Offers for so long, and waits until the last client has ended."""
        due = 0.0
        while True:
            due += self._random.expovariate(self._rate)
            if due > seconds:
                break
            await asyncio.sleep(max(0.0, due - self.now))
            self.lag = max(self.lag, self.now - due)
            task = asyncio.create_task(self._client(Served(due)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)
        for connection in self._idle:
            connection.close()

    async def _client(self, client: Served) -> None:
        self.clients.append(client)
        while client.tries < self._tries and not client.good:
            if client.tries:
                await asyncio.sleep(self._random.uniform(0.0, 2 * PAUSE))
            client.tries += 1
            self.sent += 1
            client.good = await self._ask()
        client.ended = self.now

    async def _ask(self) -> bool:
        end = time.monotonic() + self._timeout
        connection = next((each for each in iter(self._pop, None) if each.reusable), None)
        try:
            async with asyncio.timeout(self._timeout):
                if connection is None:
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(
                        lambda: Connection(self._ended, self._closed), "127.0.0.1", self._port
                    )
                waiting = self._waiting[connection] = asyncio.get_running_loop().create_future()
                connection.send(Exchange(self._request, self._wire, end - self._timeout))
                good: bool = await waiting
        except (OSError, TimeoutError):
            if connection is not None:
                self._waiting.pop(connection, None)
                connection.abort(Outcome.TIMEOUT)
            return False
        return good

    def _pop(self) -> Connection | None:
        return self._idle.pop() if self._idle else None

    def _ended(self, connection: Connection, exchange: Exchange, outcome: Outcome) -> None:
        waiting = self._waiting.pop(connection, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome is Outcome.OK and exchange.status == 200)
        if outcome is Outcome.OK and connection.reusable:
            self._idle.append(connection)

    def _closed(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
