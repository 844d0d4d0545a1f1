"""The front door: what the client connections of one worker share, and the sockets they come from.

Invariants: a connection counts from when it is admitted until it leaves; every deadline is kept by one sweep over the
connections instead of a timer per request. While nothing is read of a connection (`deaf`) the event loop cannot tell
that the client has gone, so the sweep asks the kernel. `ServerConnection` is one of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.errors import ProtocolError
from gateway.http.origin import Forwarding, Origin
from gateway.http.reader import ReadLimits
from gateway.http.response_writer import DateLine
from gateway.http.server_connection import ServerConnection
from gateway.request import BodyRules, Request, Response

Handler = Callable[[Request], Awaitable[Response]]
ErrorAnswer = Callable[[ProtocolError, bytes], Response]  # what was wrong, and the address of who said it


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Sizes in bytes, times in seconds, counts per worker."""

    read: ReadLimits = field(default_factory=ReadLimits)
    header_timeout: float = 10.0
    body_timeout: float = 30.0  # for a body, and one second more for each `body_min_rate` bytes of it that came
    body_min_rate: int = 1024
    idle_timeout: float = 75.0
    write_timeout: float = 30.0  # for a client that takes less than `write_min_rate` of what waits for it
    write_min_rate: int = 1024
    answer_half_closed: bool = False
    linger: float = 2.0  # a refused client is listened to, so that a reset does not overtake the answer (nginx: 5)
    sweep: float = 0.25  # between looks at the deadlines: a timeout is late by at most this
    handshake_timeout: float = 10.0
    max_connections: int = 10_000
    max_connections_per_address: int = 0  # 0: no bound; an IPv6 address counts as its /64
    max_requests_per_connection: int = 0  # 0: no bound
    max_pipelined: int = 32


@dataclass(slots=True)
class ServerStats:
    """Plain counts, read by the metrics."""

    accepted: int = 0
    refused: int = 0
    refused_address: int = 0  # of them: one address had too many
    handshake_failures: int = 0
    proxy_errors: int = 0
    request_limits: int = 0
    protocol_errors: int = 0
    timeouts: int = 0
    client_gone: int = 0


class Arriving(Protocol):
    """A connection of which something is awaited before HTTP begins."""

    deadline: float

    def timed_out(self) -> None: ...
    def abort(self) -> None: ...


class Server:
    """Everything the connections of one worker share.

    `handler` is awaited once per request and must not raise for expected failures; if it does raise, the
    client gets `crashed()` and the error is logged with its trace. `body_rules` says which bodies stream; without it
    all are held whole.
    """

    def __init__(
        self,
        handler: Handler,
        bad_request: ErrorAnswer,
        limits: ServerLimits,
        forwarding: Forwarding | None = None,
        body_rules: Callable[[Request], BodyRules] | None = None,
    ) -> None:
        self.handler = handler
        self.bad_request = bad_request
        self.body_rules = body_rules
        self.limits = limits
        self.forwarding = forwarding if forwarding is not None else Forwarding()
        self.stats = ServerStats()
        self.busy = 0  # requests that the handler has, but for those whose body or protocol streams
        self.connections: set[ServerConnection] = set()
        self.arriving: set[Arriving] = set()
        self.deaf: set[ServerConnection] = set()  # those that are not read now
        self.counts: dict[bytes, int] = {}  # connections by `Origin.group`
        self.draining = False
        self.date = DateLine()
        self._sweeper: asyncio.TimerHandle | None = None
        self._listeners: list[asyncio.Server] = []

    async def listen(self, sock: socket.socket, accept: Callable[[], Any] | None = None) -> None:
        """Starts accepting on a listening socket made by the supervisor. `accept` makes the protocol of a connection
        where something stands before HTTP.
        """
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_server(accept or self._accept, sock=sock, backlog=4096))
        if self._sweeper is None:
            self._sweeper = loop.call_later(self.limits.sweep, self._sweep, loop)

    def _accept(self) -> Any:
        return ServerConnection(self)

    def use(self, limits: ServerLimits, forwarding: Forwarding) -> None:
        """Takes new limits, and believes new proxies, also on the connections there are."""
        self.limits = limits
        self.forwarding = forwarding
        for connection in self.connections:
            connection.believe(forwarding)

    def admit(self, origin: Origin) -> bool:
        """Whether one more connection of this origin may be; if so it counts until `leave`, else the caller closes."""
        limits, stats = self.limits, self.stats
        if len(self.connections) + len(self.arriving) >= limits.max_connections:
            stats.refused += 1
            return False
        if origin.trusted:
            origin.group = b""  # everybody's connections come from a proxy
        group = origin.group
        if group:
            count = self.counts.get(group, 0)
            if 0 < limits.max_connections_per_address <= count:
                origin.group = b""
                stats.refused += 1
                stats.refused_address += 1
                return False
            self.counts[group] = count + 1
        stats.accepted += 1
        return True

    def leave(self, origin: Origin) -> None:
        """The end of a connection that was admitted."""
        group = origin.group
        if group:
            count = self.counts[group] - 1
            if count:
                self.counts[group] = count
            else:
                del self.counts[group]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.timed_out()
        if self.deaf:
            for connection in [c for c in self.deaf if c.client_has_gone()]:
                connection.abort()
        if self.arriving:
            for one in [one for one in self.arriving if one.deadline <= now]:
                one.timed_out()
        self._sweeper = loop.call_later(self.limits.sweep, self._sweep, loop)

    async def drain(self, *, idle: float, timeout: float) -> int:
        """Stops accepting, finishes what was begun, closes the rest.

        Connections with nothing to do are kept for `idle` seconds, so that a request already on its way is
        answered (with `Connection: close`) instead of reset. Returns how many were cut off at `timeout` seconds.
        """
        loop = asyncio.get_running_loop()
        self.draining = True
        await asyncio.sleep(0)  # one more round of accepts for what stands in the backlog
        for listener in self._listeners:
            listener.close()
        started = loop.time()
        while self.connections and loop.time() - started < timeout:
            if loop.time() - started >= idle:
                for connection in list(self.connections):
                    connection.close_if_idle()
            await asyncio.sleep(0.01)
        left = len(self.connections)
        for connection in list(self.connections):
            connection.abort()
        for one in list(self.arriving):
            one.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return left
