"""What may stand before HTTP on a connection: a PROXY header, then TLS. Plain listeners have no door.

Invariants: a connection counts (in all and for its address) before it may cost a handshake; a PROXY header is read only
where the listener asks for one, and there nothing is served without; a connection that does not get through is closed
without a byte in answer, and counted; the certificate of a handshake is the one in force when the handshake began.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final, cast

from gateway.http.origin import Origin, peer_address
from gateway.http.proxy_protocol import ProxyHeaderError, ProxyHeaderParser
from gateway.http.server import Server
from gateway.http.server_connection import ServerConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

NEVER: Final = float("inf")


class Door:
    """One listener. `tls` and `proxy` may be replaced: connections that come later get the new ones."""

    def __init__(self, server: Server, tls: ssl.SSLContext | None = None, *, proxy: bool = False) -> None:
        self.server = server
        self.tls = tls
        self.proxy = proxy

    def accept(self) -> Arrival | ServerConnection:
        """The protocol of one new connection."""
        plain = self.tls is None and not self.proxy
        return ServerConnection(self.server) if plain else Arrival(self)


class Arrival(asyncio.Protocol):
    """A connection on its way in; it becomes a `ServerConnection` or is dropped."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._server = door.server
        self._tls = door.tls
        self._parser = ProxyHeaderParser() if door.proxy else None
        self._raw = b""  # read before the TLS protocol was in place
        self._early: list[bytes] = []  # decrypted before the handshake's task has gone on
        self._origin: Origin | None = None
        self._transport: asyncio.Transport
        self._shaking: asyncio.Task[None] | None = None
        self._lost = False
        self.deadline = NEVER

    # -- transport ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._shaking is not None:
            return  # some event loop tells of the TLS transport as well
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        address = peer_address(transport.get_extra_info("peername"))
        if self._parser is None:
            self._admit(Origin(address, server.forwarding, secure=True), b"")
            return
        proxies = server.forwarding.proxies
        if len(server.connections) + len(server.arriving) >= server.limits.max_connections:
            server.stats.refused += 1
            self._transport.abort()
        elif proxies.any and not Origin(address, server.forwarding).trusted:
            server.stats.proxy_errors += 1
            self._transport.abort()
        else:
            server.arriving.add(self)
            self.deadline = asyncio.get_running_loop().time() + server.limits.header_timeout

    def data_received(self, data: bytes) -> None:
        if self._shaking is not None:
            if self._transport.get_protocol() is self:
                self._raw += data  # uvloop reads on although it was told to pause while it makes the connection
            else:
                self._early.append(data)
            return
        if self._parser is None or self not in self._server.arriving:
            return
        try:
            header = self._parser.feed(data)
        except ProxyHeaderError:
            self._server.stats.proxy_errors += 1
            self.abort()
            return
        if header is None:
            return
        rest, self._parser = self._parser.rest, None
        self._server.arriving.discard(self)
        forwarding, secure = self._server.forwarding, self._tls is not None
        if header.address:
            origin = Origin(header.address, forwarding, secure=secure, proxied=True)
        else:
            origin = Origin(peer_address(self._transport.get_extra_info("peername")), forwarding, secure=secure)
        self._admit(origin, rest)

    def eof_received(self) -> None:
        """A client that has closed its half is gone: returning None closes the transport."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._leave()

    # -- deadlines ----------------------------------------------------------------------------------------------

    def timed_out(self) -> None:
        """Called by the server's sweep: the PROXY header did not come in time. The handshake has its own clock."""
        self._server.stats.timeouts += 1
        self._server.stats.proxy_errors += 1
        self.abort()

    def abort(self) -> None:
        """Drops the connection."""
        if self._shaking is not None:
            self._shaking.cancel()
        self._transport.abort()
        self._leave()

    def _leave(self) -> None:
        self._server.arriving.discard(self)
        origin, self._origin = self._origin, None
        if origin is not None:
            self._server.leave(origin)

    # -- onwards ------------------------------------------------------------------------------------------------

    def _admit(self, origin: Origin, rest: bytes) -> None:
        """Counts the connection, then begins the handshake or hands over. `rest` was read behind the header."""
        if not self._server.admit(origin):
            self._transport.abort()
            return
        self._origin = origin
        if self._tls is None:
            self._hand_over(self._transport, [rest] if rest else [])
            return
        self._server.arriving.add(self)
        self.deadline = NEVER
        loop = asyncio.get_running_loop()
        self._transport.pause_reading()
        self._raw = rest
        self._shaking = loop.create_task(self._shake_hands(self._tls))
        # The task's first step pauses, puts the TLS protocol in place, and its start in the queue; what was read until
        # then comes right behind that start, and before anything else that is read.
        loop.call_soon(loop.call_soon, self._give_back)

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        limits = self._server.limits
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=limits.handshake_timeout,
                ssl_shutdown_timeout=limits.write_timeout,
            )
        except (OSError, ValueError):  # ssl.SSLError and timeouts are OSErrors
            transport = None
        self._shaking = None
        if transport is None or self._lost:
            self._server.stats.handshake_failures += 1
            self._transport.abort()
            self._leave()
            return
        self._server.arriving.discard(self)
        early, self._early = self._early, []
        self._hand_over(transport, early)

    def _give_back(self) -> None:
        """Shows the TLS protocol what was read before it was there, as if it came from the socket."""
        raw, self._raw = self._raw, b""
        protocol: Any = self._transport.get_protocol()
        if raw and not self._lost and protocol is not self:
            self._feed(protocol.get_buffer, protocol.buffer_updated, raw)

    @staticmethod
    def _feed(get_buffer: Callable[[int], Buffer], updated: Callable[[int], None], data: bytes) -> None:
        while data:
            room = memoryview(get_buffer(len(data)))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            updated(size)
            data = data[size:]

    def _hand_over(self, transport: asyncio.Transport, data: list[bytes]) -> None:
        origin, self._origin = self._origin, None
        connection = ServerConnection(self._server, origin)
        protocol = cast("asyncio.Protocol", connection)
        transport.set_protocol(protocol)
        connection.connection_made(transport)
        if data:
            connection.data_received(b"".join(data))
