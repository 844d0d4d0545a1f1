"""The pooled upstream client: HTTP/1.1 exchanges with one backend over keep-alive connections.

Invariants: a connection returns to the pool only after a clean, complete, persistent answer, and when one that streams
has ended well. The pool is LIFO, so that surplus connections grow old and are closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final

from gateway.errors import (
    ConnectFailed,
    ConnectionBroken,
    GatewayError,
    PoolExhausted,
    TlsFailed,
    UpstreamTimeout,
)
from gateway.http.dial import Address, Tls, connect
from gateway.http.serialise import serialise
from gateway.http.upstream import NEVER, ClientLimits, UpstreamConnection
from gateway.promise import FEWEST
from gateway.request import Request, Response
from gateway.stream import Stream

log = logging.getLogger(__name__)


class ConnectionPool:
    """The keep-alive connections of one worker to one backend.

    `repr` shows what tests assert on. Time is the loop's clock, in seconds.
    """

    __slots__ = (
        "_closed", "_connecting", "_idle", "_insecure", "_sweeper", "active", "address", "asks", "limits", "tls",
    )  # fmt: skip

    SWEEP: Final = 0.01  # seconds between looks at running exchanges: a deadline is late by at most this

    def __init__(self, address: Address, limits: ClientLimits, tls: Tls | None = None) -> None:
        self.address = address
        self.limits = limits
        self.tls = tls  # may be replaced by an equal one
        self.asks = b""  # whole lines to say to the backend with every request
        self._insecure = ""  # why TLS fails at present
        self._idle: list[UpstreamConnection] = []
        self._connecting = 0
        self._closed = False
        self._sweeper: asyncio.TimerHandle | None = None
        self.active: set[UpstreamConnection] = set()

    def __repr__(self) -> str:
        return f"<ConnectionPool {self.address} [{len(self.active)} active, {len(self._idle)} idle]>"

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def protocol(self) -> str:
        """What is spoken now."""
        return "http/1.1"

    def ask(
        self,
        request: Request,
        target: bytes,
        authority: bytes,
        left_ns: int,
        dropped: frozenset[bytes],
        *,
        deadline: float,
        fresh: bool = False,
    ) -> Coroutine[Any, Any, Response]:
        """One attempt: `request` at `target` without the fields in `dropped`, and `left_ns` nanoseconds to answer.

        What callers use, whatever the protocol: `gateway.link.pool.LinkPool` has it too. Errors as `exchange`.
        """
        if request.stream is not None:
            return self._upload(request, request.stream, target, authority, left_ns / 1e9, dropped, deadline)
        if fresh or not self._at_hand():
            return self._ask_anew(request, target, authority, dropped, deadline)
        data = serialise(request, target, authority, self._say_left(left_ns), dropped)
        return self.exchange(data, head_only=request.method == b"HEAD", deadline=deadline)

    def _say_left(self, left_ns: int) -> bytes:
        """The line that tells a backend how long its answer is waited for, and what else it is told."""
        limits = self.limits
        if not limits.deadline_name:
            return self.asks
        line = limits.deadline_name + b"%d" % ((left_ns + 999_999) // 1_000_000) + limits.deadline_unit
        return line + self.asks if self.asks else line

    async def _ask_anew(
        self, request: Request, target: bytes, authority: bytes, dropped: frozenset[bytes], deadline: float
    ) -> Response:
        """On a new connection. Making it took time: what is left is counted, and said, once it is there."""
        connection = await self._connect(deadline)
        left_ns = int(deadline * 1e9) - time.monotonic_ns()
        if left_ns <= 0:
            self._release(connection)
            raise UpstreamTimeout(f"{self.address}: no time was left to ask")
        data = serialise(request, target, authority, self._say_left(left_ns), dropped)
        return await self.exchange(data, head_only=request.method == b"HEAD", deadline=deadline, on=connection)

    async def exchange(
        self,
        data: bytes,
        *,
        head_only: bool,
        deadline: float,
        fresh: bool = False,
        on: UpstreamConnection | None = None,
    ) -> Response:
        """Sends one serialised request and returns the whole answer; `fresh` asks for a new connection, `on` is one.

        Raises ConnectFailed (nothing was sent), StaleConnection (replay is safe once the request may be replayed),
        ConnectionBroken, BadUpstreamResponse or UpstreamTimeout.
        """
        connection = on
        if connection is None and not fresh:
            connection = self._take()
        if connection is None:
            connection = await self._connect(deadline)
        self.active.add(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(self.SWEEP, self._sweep, connection.loop)
        try:
            alone = len(self.active) <= FEWEST
            return await connection.send(data, head_only=head_only, deadline=deadline, alone=alone)
        except asyncio.CancelledError:
            connection.fail(ConnectionBroken("cancelled"))
            raise
        finally:
            if connection.stream is None:
                self._release(connection)
            else:
                connection.stream.then(_Release(self, connection).at_the_end)

    def _release(self, connection: UpstreamConnection) -> None:
        connection.stream = None
        self.active.discard(connection)
        if connection.usable and not self._closed:
            connection.reused = True
            connection.idle_since = connection.loop.time()
            self._idle.append(connection)
        elif connection.transport is not None:
            connection.transport.close()

    async def _upload(
        self,
        request: Request,
        body: Stream,
        target: bytes,
        authority: bytes,
        patience: float,
        dropped: frozenset[bytes],
        deadline: float,
    ) -> Response:
        """As `exchange`, for a request whose body streams: `patience` seconds run from its end, and for every stall."""
        connection = await self._connect(deadline)  # a fresh one: what went into a stale one could not be said again
        data = serialise(request, target, authority, self._say_left(int(patience * 1e9)), dropped)
        self.active.add(connection)
        loop = connection.loop
        if self._sweeper is None:
            self._sweeper = loop.call_later(self.SWEEP, self._sweep, loop)
        pump: asyncio.Task[None] | None = None
        upgrade = request.upgrade
        try:
            answer = connection.send(
                data,
                head_only=request.method == b"HEAD",
                deadline=loop.time() + patience if upgrade else NEVER,
                upgrade=upgrade,
            )
            if not upgrade:
                pump = loop.create_task(self._pump(connection, body, patience, tunnel=False))
            response = await answer
            if response.status == 101:
                pump = loop.create_task(self._pump(connection, body, patience, tunnel=True))
            return response
        except asyncio.CancelledError:
            connection.fail(ConnectionBroken("cancelled"))
            raise
        finally:
            stream = connection.stream
            if stream is None:
                if pump is not None and not pump.done():  # answered, or broken, before all was sent
                    connection.usable = False
                    pump.cancel()
                self._release(connection)
            else:
                stream.then(_Release(self, connection, pump).at_the_end)

    async def _pump(self, connection: UpstreamConnection, body: Stream, patience: float, *, tunnel: bool) -> None:
        """Sends a body as it comes. What goes wrong ends the exchange."""
        loop, transport = connection.loop, connection.transport
        assert transport is not None
        chunked = body.length is None and not tunnel
        try:
            while data := await body.read():
                if transport.is_closing():
                    return  # whoever waits for the answer hears why
                transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                connection.stir()
                if connection.writable is not None:
                    if connection.stream is None:
                        connection.deadline = loop.time() + patience
                    await connection.writable
                    connection.stir()
                    if connection.stream is None:
                        connection.deadline = NEVER
            if tunnel:
                connection.transport_done()
                return
            if transport.is_closing():  # uvloop raises where a closed one is written to
                return
            if chunked:
                transport.write(b"0\r\n\r\n")
            if connection.stream is None:
                connection.deadline = loop.time() + patience
        except GatewayError as error:
            connection.fail(error)
        except OSError as error:
            connection.fail(ConnectionBroken(f"the backend took no more: {error.strerror or error}"))

    def _take(self) -> UpstreamConnection | None:
        return self._idle.pop() if self._at_hand() else None

    def _at_hand(self) -> bool:
        """Whether a kept connection can be used: the last of them. What was condemned since it came back is closed."""
        idle = self._idle
        while idle:
            if idle[-1].usable:
                return True
            condemned = idle.pop().transport
            if condemned is not None:
                condemned.close()
        return False

    async def _connect(self, deadline: float) -> UpstreamConnection:
        limits = self.limits
        taken = len(self.active) + self._connecting
        if taken >= limits.max_connections:
            raise PoolExhausted(f"all {limits.max_connections} connections to {self.address} are in use")
        while self._idle and taken + len(self._idle) >= limits.max_connections:  # a fresh one was asked for
            oldest = self._idle.pop(0)
            if oldest.transport is not None:
                oldest.transport.close()
        connection = UpstreamConnection(limits)
        left = deadline - connection.loop.time()
        self._connecting += 1
        try:
            await connect(self.address, self.tls, connection, max(min(limits.connect_timeout, left), 0.001))
        except ConnectFailed as error:
            if left < limits.connect_timeout and isinstance(error.__cause__, TimeoutError):
                raise UpstreamTimeout(f"{self.address}: no time was left to connect") from None
            if isinstance(error, TlsFailed):
                self._tell_tls(str(error))
            raise
        finally:
            self._connecting -= 1
        if self._insecure:
            self._tell_tls("")
        return connection

    def _tell_tls(self, why: str) -> None:
        """A change of state is logged once."""
        if why != self._insecure:
            self._insecure = why
            log.warning("backend %s", why or f"{self.address}: TLS works again")

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = None
        if not self.active:
            return
        now = loop.time()
        for connection in [c for c in self.active if c.deadline <= now]:
            connection.fail(UpstreamTimeout(f"{self.address} did not answer in time"))
        for connection in [c for c in self.active if 0 < c.gathering <= now]:
            connection.hand_over(None)
        self._sweeper = loop.call_later(self.SWEEP, self._sweep, loop)

    def expire(self, now: float) -> None:
        """Closes connections that have been idle too long; called every few seconds."""
        oldest = now - self.limits.idle
        kept = []
        for connection in self._idle:
            if connection.usable and connection.idle_since > oldest:
                kept.append(connection)
            elif connection.transport is not None:
                connection.transport.close()
        self._idle = kept

    def close(self) -> None:
        """Closes idle connections and refuses to keep more; running exchanges finish."""
        self._closed = True
        self.expire(float("inf"))


class _Release:
    """Gives a connection back when the answer that streams on it has ended, well or not."""

    __slots__ = ("_connection", "_pool", "_pump")

    def __init__(
        self, pool: ConnectionPool, connection: UpstreamConnection, pump: asyncio.Task[None] | None = None
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._pump = pump

    def at_the_end(self, error: Exception | None) -> None:
        connection, pump = self._connection, self._pump
        if pump is not None and not pump.done():
            connection.usable = False
            pump.cancel()
        transport = connection.transport
        if error is not None:
            connection.usable = False
            if transport is not None:
                transport.abort()
        elif connection.stream is not None and connection.stream.paused and connection.usable and transport is not None:
            transport.resume_reading()
        self._pool._release(connection)  # noqa: SLF001 - its other half
