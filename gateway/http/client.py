"""The pooled upstream client: HTTP/1.1 exchanges with one backend over keep-alive connections.

Invariants: one exchange at a time per connection; a connection returns to the pool only after a clean, complete,
persistent answer; bytes that nobody asked for condemn the connection; so does the announcement of a body where none
may follow (HEAD, 204, 304), for it could still come and be taken for the next answer; a cancelled exchange closes it,
so a late answer can never reach another request. What is accepted is HTTP/1.0 or 1.1 with one framing, as llhttp
(strict) reads it. The pool is LIFO, so that surplus connections grow old and are closed.
A backend sees what a client sends behind an Upgrade only once it has agreed to the protocol asked for: before that, or
without, those bytes would be read as requests nobody has checked (RFC 9110 section 7.8).
An answer that is larger than `whole`, or of unstated length and not there within `gather`, is handed on as a stream;
its connection returns to the pool when the stream ends well, and closes when it does not.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import httptools

from gateway.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    ConnectionBroken,
    GatewayError,
    PoolExhausted,
    StaleConnection,
    TlsAlert,
    TlsFailed,
    UpstreamTimeout,
)
from gateway.http.dial import Address, Tls, connect, ended_by_backend, tls_reason
from gateway.http.serialise import serialise
from gateway.request import Header, Request, Response
from gateway.stream import Stream

log = logging.getLogger(__name__)

NEVER: Final = float("inf")

# RFC 9110 section 7.6.1: these concern one connection only. Framing and the request's id are ours to say anew.
_HOP_BY_HOP: Final = frozenset(
    (
        b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade",
        b"degraded", b"ratelimit", b"ratelimit-policy", b"x-request-id",  # for the gateway alone to say
    )
)  # fmt: skip
_PLAIN_CONNECTION: Final = frozenset((b"", b",keep-alive", b",close"))
_MAX_HEAD: Final = 64 * 1024  # bytes (nginx's largest proxy_buffer_size in the field)
_LARGE: Final = 64 * 1024  # bytes: what a socket takes at once, or nearly
_BODILESS: Final = frozenset((204, 304))
_NOTHING: Final = frozenset((None, b"0"))  # framing that announces no body
# How an answer begins; anything else is looked at closer.
_USUAL: Final = (b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5", b"HTTP/1.1 3")
_INTERIM: Final = b"HTTP/1.1 1"
_OLD: Final = (b"HTTP/1.0 2", b"HTTP/1.0 4", b"HTTP/1.0 5", b"HTTP/1.0 3")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Times in seconds, sizes in bytes, counts per backend and worker."""

    max_connections: int = 256
    idle: float = 50.0
    connect_timeout: float = 10.0  # patient, where no configuration says less
    max_response: int = 64 * 1024 * 1024
    whole: int = 1024 * 1024  # an answer of a stated length up to this is waited for
    gather: float = 0.02  # an answer of unstated length is waited for so long, but for server-sent events
    idle_stream: float = 60.0  # an answer that streams may be silent for so long
    deadline_name: bytes = b"x-request-timeout: "  # how a backend is told the milliseconds it has; b"": it is not
    deadline_unit: bytes = b"ms\r\n"


class UpstreamConnection:
    """One connection to a backend, an `asyncio.Protocol` by its methods."""

    __slots__ = (
        "_chunks", "_ended", "_fed", "_head_done", "_headers", "_large", "_length", "_limit", "_limit_digits", "_line",
        "_named", "_no_body", "_old", "_parser", "_protocol", "_settings", "_size", "_started", "_status", "_switched",
        "_waiter", "_wished", "deadline", "gathering", "idle_since", "loop", "reused", "stream", "transport", "usable",
        "writable",
    )  # fmt: skip

    def __init__(self, limits: ClientLimits) -> None:
        self._settings = limits
        self._limit = limits.max_response
        self._limit_digits = len(str(self._limit))
        self.loop = asyncio.get_running_loop()  # kept, for each look-up is a system call (getpid) in Python 3.11
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Response] | None = None
        self.transport: asyncio.Transport | None = None
        self.usable = True
        self.reused = False
        self.idle_since = 0.0
        self.deadline = 0.0
        self._no_body = False
        self._started = False
        self._head_done = False
        self._old = False  # the answer is in HTTP/1.0
        self._ended = False  # the backend has said that nothing more comes
        self._line = b""  # how the answer begins, while that is too short to tell
        self._status = 0
        self._fed = 0
        self._large = False  # a request was sent that may still be on its way when its answer comes
        self._headers: list[Header] = []
        self._chunks: list[bytes] = []
        self._length: bytes | None = None  # how the body is framed: its stated length, or "chunked"
        self._wished = b""  # the protocol that the request asks for
        self._protocol = b""  # what the answer says of it
        self._switched = False
        self.gathering = 0.0  # until when an answer of unstated length is waited for
        self.stream: Stream | None = None  # the answer's body, while it streams
        self.writable: asyncio.Future[None] | None = None  # while the backend takes nothing

    # -- one exchange -------------------------------------------------------------------------------------------

    def send(self, data: bytes, *, head_only: bool, deadline: float, upgrade: bytes = b"") -> asyncio.Future[Response]:
        """Writes a request and returns the future of its answer; it fails with an UpstreamError.

        `upgrade` is the protocol asked for, in lower case: the answer to it is a 101 with a stream, or an ordinary one.
        """
        self._waiter = waiter = self.loop.create_future()
        self.deadline = deadline
        self._no_body = head_only
        self._started = False
        self._head_done = False
        self._fed = 0
        self._wished = upgrade
        self.gathering = 0.0
        if len(data) > _LARGE:
            self._large = True
        assert self.transport is not None
        self.transport.write(data)
        return waiter

    def transport_done(self) -> None:
        """The client's side of a tunnel is at its end. Over TLS the backend cannot be told so and still be heard."""
        self.usable = False
        if self.transport is not None and not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def fail(self, error: Exception) -> None:
        """Ends the exchange with `error` and condemns the connection."""
        self.usable = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        if self.stream is not None:
            self.stream.fail(error)
        if self.transport is not None:
            self.transport.abort()

    @property
    def _answered(self) -> bool:
        return self._waiter is None

    # -- transport ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        stream = self.stream
        if stream is not None:
            self.stir()
            if self._switched:
                stream.feed(data)
                return
        elif self._waiter is None:
            self.fail(BadUpstreamResponse("unasked-for bytes"))
            return
        try:
            if not self._started:
                if self._line or not data.startswith(_USUAL):
                    data = self._begin(data)
                    if not data:
                        return
                self._started = True
            self._parser.feed_data(data)
        except BadUpstreamResponse as error:
            self.fail(error)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self.fail(cause if isinstance(cause, BadUpstreamResponse) else BadUpstreamResponse("unreadable response"))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._answered and stream is None:
                self.usable = False  # the answer was whole; what came after it was not asked for
            else:
                self.fail(BadUpstreamResponse(f"not an HTTP response: {error.args[0] if error.args else 'unreadable'}"))
        if not self._head_done:
            self._fed += len(data)
            if self._fed > _MAX_HEAD:
                self.fail(BadUpstreamResponse("the head of the response is larger than 64 KiB"))
        elif self._waiter is not None:
            if not self._no_body:
                self._stream_or_wait()
        elif self._no_body and self._answered and not 0 <= data.find(b"\r\n\r\n") == len(data) - 4:
            self.usable = False  # perhaps more came than the head, and would be taken for the next answer

    def eof_received(self) -> None:
        """Returning None closes the transport."""
        self._ended = self.transport is not None and ended_by_backend(self.transport)

    def pause_writing(self) -> None:
        if self.writable is None:
            self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # -- an answer that streams ---------------------------------------------------------------------------------

    def stir(self) -> None:
        """Bytes went either way: an answer that streams may be silent for its time again, unless it is held up."""
        if self.stream is not None and not self.stream.paused:
            self.deadline = self.loop.time() + self._settings.idle_stream

    def _stream_or_wait(self) -> None:
        """The head is there and the body is not whole: it streams, unless it is small or may be there in a moment."""
        length = self._length
        if length is None or length == b"chunked":
            if not self.gathering:
                self.gathering = self.loop.time() + (0.0 if self._events() else self._settings.gather)
            if self._size > self._settings.whole or self.gathering <= self.loop.time():
                self.hand_over(None)
        elif int(length) > self._settings.whole:
            self.hand_over(int(length))

    def _events(self) -> bool:
        return any(name == b"content-type" and value[:17] == b"text/event-stream" for name, value in self._headers)

    def hand_over(self, length: int | None) -> None:
        """Gives the answer as a stream to whoever waits for it."""
        waiter, self._waiter = self._waiter, None
        self.gathering = 0.0
        if waiter is None or waiter.done():
            return
        response = Response(self._status, self._headers)
        stream = response.stream = self.stream = Stream(self.loop, self._hold, self._want, length)
        for chunk in self._chunks:
            stream.feed(chunk)
        self._chunks = []
        self.deadline = NEVER if stream.paused else self.loop.time() + self._settings.idle_stream
        waiter.set_result(response)

    def _hold(self) -> None:
        self.deadline = NEVER
        if self.transport is not None:
            self.transport.pause_reading()

    def _want(self) -> None:
        self.deadline = self.loop.time() + self._settings.idle_stream
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _begin(self, data: bytes) -> bytes:
        """What to parse of an answer that begins unlike most; empty when it is not there yet, or never will be.

        llhttp would take RTSP, HTTP/2.0 and empty lines in front too. So each beginning is looked at, that behind an
        interim answer (RFC 9110 section 15.2) as well, and kept while it is too short to tell.
        """
        data = self._line + data
        self._line = b""
        at = 0
        while not data.startswith(_USUAL, at):
            if data.startswith(_INTERIM, at):
                end = data.find(b"\r\n\r\n", at) + 4
                size = (len(data) if end < 4 else end) - at
                if self._fed + size > _MAX_HEAD:
                    raise BadUpstreamResponse("the interim responses are larger than 64 KiB")
                if end < 4:
                    self._line = data[at:]
                    return b""
                self._fed += size
                try:
                    self._parser.feed_data(data[at:end])
                except httptools.HttpParserUpgrade:
                    switched = self.stream
                    if switched is None:
                        raise
                    switched.feed(data[end:])
                    return b""
                at = end
            elif data.startswith(_OLD, at):
                self._old = True
                break
            elif any(begun.startswith(data[at : at + len(begun)]) for begun in (*_USUAL, *_OLD, _INTERIM)):
                self._line = data[at:]
                return b""
            else:
                raise BadUpstreamResponse("the response does not begin with HTTP/1.1 or HTTP/1.0 and a status")
        return data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self.resume_writing()
        if self.stream is not None:
            if self._length is None and self._ended and exc is None:
                self.stream.end()  # RFC 9112 section 6.3, and the end of a tunnel
            else:
                self.stream.fail(ConnectionBroken("the backend closed the connection in the middle of its answer"))
            return
        if self._waiter is None:
            return
        if not self._started and not self._line and not self._fed:
            if isinstance(exc, ssl.SSLError) and not self.reused:
                self.fail(TlsAlert(f"the backend ended TLS before it answered: {tls_reason(exc)}"))
                return
            kind = StaleConnection if self.reused else ConnectionBroken
            self.fail(kind("the backend closed the connection before it answered"))
        elif self._head_done and self._length is None and self._ended and exc is None:
            self._finish()  # RFC 9112 section 6.3: such a body ends where the connection does
        else:
            self.fail(ConnectionBroken("the backend closed the connection in the middle of its answer"))

    # -- called by llhttp ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers = []
        self._chunks = []
        self._named = b""
        self._protocol = b""
        self._size = 0
        self._head_done = False
        self._length = None
        if self._waiter is None:
            self.usable = False
            if self.stream is not None:
                raise BadUpstreamResponse("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer
        name = name.lower()
        self._size += len(name) + len(value) + 4
        if self._size > _MAX_HEAD:
            raise BadUpstreamResponse("the head of the response is larger than 64 KiB")
        if name in _HOP_BY_HOP:
            if name == b"content-length":
                self._length = value
                if not self._no_body:
                    if len(value) >= self._limit_digits and int(value) > self._limit:
                        raise self._too_large()
                    return  # the answer to HEAD keeps it: nobody else knows it
            else:
                if name == b"transfer-encoding":
                    if self._length is not None or self._old or value.lower() != b"chunked":
                        raise BadUpstreamResponse("the response is framed by something else than one 'chunked'")
                    self._length = b"chunked"
                elif name == b"connection":
                    self._named += b"," + value.lower()
                elif name == b"upgrade":
                    self._protocol += b"," + value.strip().lower()
                return
        self._headers.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        self._head_done = True
        self._size = 0
        self._status = status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise BadUpstreamResponse(f"the response has the status {status}")
        if self._named not in _PLAIN_CONNECTION:
            named = {name.strip() for name in self._named.split(b",")}
            self._headers = [header for header in self._headers if header[0] not in named]
        if self._no_body and status >= 200:
            # llhttp cannot be told that the answer to HEAD has no body, so it is given a fresh start.
            if status == 204:  # RFC 9110 section 8.6
                self._headers = [header for header in self._headers if header[0] != b"content-length"]
            self._finish(keep=self._parser.should_keep_alive() and self._length in _NOTHING)
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        stream = self.stream
        if self._waiter is None and stream is None:
            self.usable = False
            return
        self._size += len(data)
        if self._size > self._limit:
            raise self._too_large()
        if stream is not None:
            stream.feed(data)
        else:
            self._chunks.append(data)

    def _too_large(self) -> BadUpstreamResponse:
        return BadUpstreamResponse(f"the response is larger than the {self._limit} bytes allowed")

    def on_message_complete(self) -> None:
        status = self._status
        if status >= 200:
            if status != 200 and status in _BODILESS and self._length not in _NOTHING:
                self.usable = False
            if self.stream is not None:
                if not self._parser.should_keep_alive():
                    self.usable = False
                self._abort_upload()
                self.stream.end()
            elif self._waiter is not None:
                self._finish(keep=self._parser.should_keep_alive())
        elif status == 101:
            if not self._wished:
                raise BadUpstreamResponse("the backend switched protocols without being asked")
            if self._protocol != b"," + self._wished or not self._parser.should_upgrade():
                raise BadUpstreamResponse("the backend switched to another protocol than it was asked for")
            self._switched = True
            self._length = None
            self.usable = False
            self.hand_over(None)
        else:
            self._head_done = False  # an interim answer: the real one is still to come

    def _finish(self, *, keep: bool = False) -> None:
        chunks = self._chunks
        response = Response(self._status, self._headers, chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if not keep:
            self.usable = False
        self._abort_upload()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def _abort_upload(self) -> None:
        """After an answer before the end of the request: the rest must not be read as another request."""
        if self._large and self.transport is not None and self.transport.get_write_buffer_size():
            self.usable = False
            self.transport.abort()


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
            return await connection.send(data, head_only=head_only, deadline=deadline)
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
                    return
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
        """Whether a kept connection can be used: the last of them."""
        idle = self._idle
        while idle:
            if idle[-1].usable:
                return True
            idle.pop()
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
