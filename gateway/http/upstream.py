"""One connection to a backend: an HTTP/1.1 exchange at a time.

Invariants: bytes that nobody asked for condemn the connection; so does an answer before the end of its request; a
cancelled exchange closes it, so a late answer can never reach another request.
A backend sees what a client sends behind an Upgrade only once it has agreed to the protocol asked for: before that, or
without, those bytes would be read as requests nobody has checked (RFC 9110 section 7.8).
An answer that is larger than `whole`, or of unstated length and not there within `gather`, is handed on as a stream.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

from gateway.errors import BadUpstreamResponse, ConnectionBroken, StaleConnection, TlsAlert
from gateway.http.dial import ended_by_backend, tls_reason
from gateway.http.response_reader import ResponseReader
from gateway.promise import Promise
from gateway.request import Response
from gateway.stream import Stream

NEVER: Final = float("inf")
_LARGE: Final = 64 * 1024  # bytes: what a socket takes at once, or nearly


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
        "_alone", "_answered", "_ended", "_large", "_reader", "_settings", "_waiter", "deadline", "gathering",
        "idle_since", "loop", "reused", "stream", "switched", "transport", "usable", "writable",
    )  # fmt: skip

    def __init__(self, limits: ClientLimits) -> None:
        self._settings = limits
        self.loop = asyncio.get_running_loop()  # kept, for each look-up is a system call (getpid) in Python 3.11
        self._reader = ResponseReader(self, limits.max_response)
        self._waiter: Promise[Response] | None = None
        self._alone = False
        self._answered: Promise[Response] | None = None  # settled, and not told yet
        self.transport: asyncio.Transport | None = None
        self.usable = True
        self.reused = False
        self.idle_since = 0.0
        self.deadline = 0.0
        self._ended = False  # the backend has said that nothing more comes
        self._large = False  # a request was sent that may still be on its way when its answer comes
        self.switched = False  # to another protocol
        self.gathering = 0.0  # until when an answer of unstated length is waited for
        self.stream: Stream | None = None  # the answer's body, while it streams
        self.writable: asyncio.Future[None] | None = None  # while the backend takes nothing

    # -- one exchange -------------------------------------------------------------------------------------------

    def send(
        self, data: bytes, *, head_only: bool, deadline: float, upgrade: bytes = b"", alone: bool = False
    ) -> Promise[Response]:
        """Writes a request and returns the promise of its answer; it is broken with an UpstreamError.

        `upgrade` is the protocol asked for, in lower case: the answer to it is a 101 with a stream, or an ordinary one.
        `alone`: few others are about, and who waits is to go on as soon as the answer is there.
        """
        waiter: Promise[Response] = Promise(self.loop)
        self._waiter = waiter
        self._alone = alone
        self.deadline = deadline
        self._reader.expect(head_only=head_only, upgrade=upgrade)
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
        if waiter is not None:
            waiter.breach(error)
        if self.stream is not None:
            self.stream.fail(error)
        if self.transport is not None:
            self.transport.abort()

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for the answer's head."""
        return self._waiter is not None

    # -- transport ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        stream = self.stream
        if stream is not None:
            self.stir()
            if self.switched:
                stream.feed(data)
                return
        elif self._waiter is None:
            self.fail(BadUpstreamResponse("unasked-for bytes"))
            return
        try:
            self._reader.feed(data)
        finally:  # what was settled is told, whatever comes behind it
            if self._answered is not None:
                self._tell()

    def _tell(self) -> None:
        """The last thing to do: whoever waited may ask the next before this returns."""
        answered, self._answered = self._answered, None
        if answered is not None:
            answered.tell(now=self._alone)

    def eof_received(self) -> None:
        """Returning None closes the transport."""
        self._ended = self.transport is not None and ended_by_backend(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        reader = self._reader
        self.resume_writing()
        if self.stream is not None:
            if reader.length is None and self._ended and exc is None:
                self.stream.end()  # RFC 9112 section 6.3, and the end of a tunnel
            else:
                self.stream.fail(ConnectionBroken("the backend closed the connection in the middle of its answer"))
            return
        if self._waiter is None:
            return
        if reader.untouched:
            if isinstance(exc, ssl.SSLError) and not self.reused:
                self.fail(TlsAlert(f"the backend ended TLS before it answered: {tls_reason(exc)}"))
                return
            kind = StaleConnection if self.reused else ConnectionBroken
            self.fail(kind("the backend closed the connection before it answered"))
        elif reader.head_done and reader.length is None and self._ended and exc is None:
            self.finish()  # RFC 9112 section 6.3: such a body ends where the connection does
            self._tell()
        else:
            self.fail(ConnectionBroken("the backend closed the connection in the middle of its answer"))

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

    def stream_or_wait(self) -> None:
        """The head is there and the body is not whole: it streams, unless it is small or may be there in a moment."""
        length = self._reader.length
        if length is None or length == b"chunked":
            if not self.gathering:
                self.gathering = self.loop.time() + (0.0 if self._events() else self._settings.gather)
            if self._reader.size > self._settings.whole or self.gathering <= self.loop.time():
                self.hand_over(None)
        elif int(length) > self._settings.whole:
            self.hand_over(int(length))

    def _events(self) -> bool:
        return any(
            name == b"content-type" and value[:17] == b"text/event-stream" for name, value in self._reader.headers
        )

    def hand_over(self, length: int | None) -> None:
        """Gives the answer as a stream to whoever waits for it."""
        waiter, self._waiter = self._waiter, None
        self.gathering = 0.0
        if waiter is None or waiter.done():
            return
        reader = self._reader
        headers, reader.headers = reader.headers, []  # which is the answer's alone from now on
        response = Response(reader.status, headers)
        stream = response.stream = self.stream = Stream(self.loop, self._hold, self._want, length)
        for chunk in reader.chunks:
            stream.feed(chunk)
        reader.chunks = []
        self.deadline = NEVER if stream.paused else self.loop.time() + self._settings.idle_stream
        waiter.keep(response)

    def _hold(self) -> None:
        self.deadline = NEVER
        if self.transport is not None:
            self.transport.pause_reading()

    def _want(self) -> None:
        self.deadline = self.loop.time() + self._settings.idle_stream
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def finish(self, *, keep: bool = False) -> None:
        """The answer is whole, and to be told; `keep` the connection for another."""
        response = self._reader.take()
        if not keep:
            self.usable = False
        self.abort_upload()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and waiter.settle(response):
            self._answered = waiter

    def abort_upload(self) -> None:
        """After an answer before the end of the request: the rest must not be read as another request."""
        if self._large and self.transport is not None and self.transport.get_write_buffer_size():
            self.usable = False
            self.transport.abort()
