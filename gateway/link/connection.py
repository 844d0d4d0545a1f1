"""One link: a connection of this worker to one backend that carries many exchanges at once.

Contract: `docs/link.md`. `send` starts an exchange; its future gives the answer or an UpstreamError. Everything sent in
one turn of the event loop leaves in one write.
Invariants: an exchange is forgotten only when the backend has said its last word on it, so a late answer can never
reach another; one that nobody waits for sends CANCEL at once and drops what still comes; a link that is lost, silent or
nonsensical fails every exchange on it, and says of each whether the backend can have seen it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from gateway.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    ConnectionBroken,
    LinkViolation,
    StaleConnection,
    TlsAlert,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.http.dial import tls_reason
from gateway.http.upstream import ClientLimits
from gateway.link import encoder, frames
from gateway.link.decoder import Decoder
from gateway.link.exchange import BODILESS, WINDOW, Answer, Exchange, NotStarted, cancelled, stated_length, too_much
from gateway.link.frames import LoadReport, Receiver, RequestHead, Settings
from gateway.link.pulse import ASK, DEAD, LinkLimits, Pulse
from gateway.link.request_encoder import RequestEncoder
from gateway.link.upgrade import NotSpoken, read_answer, upgrade_request
from gateway.link.uploads import Uploads
from gateway.request import Header, Request, Response

#: What a backend must not say: framing, what concerns one connection, and what is for the gateway alone to say.
_UNSAID: Final = frozenset(
    (
        b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"degraded", b"ratelimit", b"ratelimit-policy", b"x-request-id",
    )
)  # fmt: skip
_MAX_WAITING: Final = 16 * 1024  # pieces that wait for a backend that does not read; 1,024 exchanges are a third of it
_SILENT: Final = Settings(stream_window=0, connection_window=0, slots=0)  # before the backend has said what it allows


class LinkConnection(Receiver):
    """A protocol in asyncio's sense. `opened` is the future of the backend's HELLO; `on_gone` is called when no new
    exchange may start here any more, and again when the link is closed.
    """

    __slots__ = (
        "_allowed", "_decoder", "_flush_due", "_flushed", "_gone", "_greeting", "_mine", "_next", "_on_gone",
        "_on_load", "_out", "_owed", "_paused", "_pulse", "_requests", "_served", "_stuck", "_sweeper", "_times",
        "_transport", "_upgrade", "_uploads", "idle_since", "limits", "load", "loop", "lost", "max_streams", "opened",
        "streams",
    )  # fmt: skip

    SWEEP: Final = 0.01  # seconds between looks at running exchanges: a deadline is late by at most this

    def __init__(
        self,
        authority: bytes,
        times: LinkLimits,
        limits: ClientLimits,
        on_gone: Callable[[LinkConnection], None],
        on_load: Callable[[LoadReport], None] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._times = times
        self.limits = limits
        self._on_gone = on_gone
        self._on_load = on_load
        self._upgrade = upgrade_request(authority)
        self.opened: asyncio.Future[None] = self.loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._greeting: bytes | None = b""  # the answer to the Upgrade while it is not whole
        self._mine = Settings(stream_window=WINDOW)
        self._decoder = Decoder(self, self._mine, client=True, dropped=_UNSAID)
        self._requests = RequestEncoder(_SILENT)
        self._uploads = Uploads(_SILENT)
        self._pulse = Pulse(times)
        self.streams: dict[int, Exchange] = {}
        self.max_streams = 0
        self.load = LoadReport()
        self.lost = False  # closed, or about to be
        self._gone = False  # takes no new exchange
        self._stuck = False  # the backend owes the last word on something that was cancelled long ago
        self._next = 1
        self._served = False  # has answered something
        self._out: list[bytes] = []
        self._flush_due = False
        self._flushed = 0  # the last stream whose REQUEST was given to the transport
        self._paused = False
        self._allowed = self._mine.connection_window  # bytes of body the backend may send before more are granted
        self._owed = 0  # bytes taken in and not yet granted anew
        self._sweeper: asyncio.TimerHandle | None = None
        self.idle_since = self.loop.time()

    def __repr__(self) -> str:
        state = "lost" if self.lost else "going" if self._gone else "open" if self.opened.done() else "opening"
        return f"<LinkConnection {state}, {len(self.streams)} streams>"

    # -- one exchange -------------------------------------------------------------------------------------------

    def send(
        self,
        request: Request,
        target: bytes,
        authority: bytes,
        deadline_us: int,
        dropped: frozenset[bytes],
        deadline: float,
    ) -> Exchange:
        """Starts an exchange; fields in `dropped` are not sent. ValueError: this request cannot be said on a link."""
        stream = self._next
        body = request.body
        size = len(body)
        whole = self._uploads.fits(size)
        self._requests.encode(
            self._out, stream, request, target, authority, deadline_us, dropped, size if whole else 0, end=whole
        )
        self._next = stream + 1
        exchange = Exchange(stream, self.loop.create_future(), deadline, head_only=request.method == b"HEAD")
        self.streams[stream] = exchange
        if whole:
            self._uploads.spend(size)
            self._out.append(body)
        else:
            self._uploads.add(exchange, body)
            self._pump()
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)
        if self._sweeper is None:
            self._pulse.begin(self.loop.time())
            self._sweeper = self.loop.call_later(self.SWEEP, self._sweep)
        if stream >= frames.MAX_STREAM:
            self.finish()
        return exchange

    def cancel(self, exchange: Exchange, code: int = frames.C_UNWANTED) -> None:
        """Nobody waits any more. The backend is told, unless it has said its last word."""
        exchange.future = None
        answer, exchange.answer = exchange.answer, None
        exchange.body = b""
        if exchange.number in self.streams and not self.lost:
            exchange.due = self.loop.time() + self._times.last_word
            self.say(encoder.control(frames.CANCEL, code=code, stream=exchange.number))
        if answer is not None and answer.stream is not None:
            answer.stream.abandon()

    def _fail(self, exchange: Exchange, error: UpstreamError) -> None:
        """Tells who waits for the answer, or reads it, that there will be no more."""
        future, exchange.future = exchange.future, None
        answer, exchange.answer = exchange.answer, None
        if future is not None and not future.done():
            future.set_exception(error)
        elif answer is not None and answer.stream is not None:
            answer.stream.fail(error)

    def give_up(self, exchange: Exchange, code: int, error: UpstreamError) -> None:
        """Tells both who waits and the backend."""
        self._fail(exchange, error)
        self.cancel(exchange, code)

    # -- sending ------------------------------------------------------------------------------------------------

    def say(self, frame: bytes) -> None:
        self._out.append(frame)
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Writes everything of this turn at once. What a full transport cannot take waits here; credit bounds it."""
        self._flush_due = False
        if self._paused or self.lost or not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._flushed = self._next - 1
        assert self._transport is not None
        self._transport.write(data)

    def _pump(self) -> None:
        """Sends what credit allows of the bodies that did not fit."""
        if not self._paused:
            for frame in self._uploads.pump(self.streams):
                self.say(frame)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()
        self._flush()

    # -- the transport ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.write(self._upgrade)

    def data_received(self, data: bytes) -> None:
        self._pulse.quiet = False
        try:
            if self._greeting is not None:
                data = self._handshake(self._greeting + data)
            if data:
                self._decoder.feed(data)
            if self._paused and len(self._out) > _MAX_WAITING:
                raise LinkViolation(frames.E_FLOW, "the backend does not read")
        except LinkViolation as violation:
            self._out.append(encoder.error(violation.code, str(violation)))
            self._flush()
            self.drop(BadUpstreamResponse(f"the link's other end: {violation}"), gently=True)

    def eof_received(self) -> None:
        """Nothing more will come: asyncio closes the transport."""

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError) and not self.opened.done():
            self.drop(TlsAlert(f"the backend ended TLS instead of opening a link: {tls_reason(exc)}"))
        else:
            self.drop(None)

    def _handshake(self, answer: bytes) -> bytes:
        """Reads the answer to the Upgrade; what follows its head is returned."""
        try:
            rest = read_answer(answer)
        except NotSpoken as refusal:
            self.drop(refusal, gently=True)
            return b""
        if rest is None:
            self._greeting = answer
            return b""
        self._greeting = None
        assert self._transport is not None
        self._transport.write(encoder.hello(self._mine))
        return rest

    # -- the backend's frames -----------------------------------------------------------------------------------

    def on_hello(self, settings: Settings) -> None:
        self.max_streams = settings.max_streams
        self._requests = RequestEncoder(settings)
        self._uploads = Uploads(settings)
        self.idle_since = self.loop.time()
        if not self.opened.done():
            self.opened.set_result(None)

    def on_response(
        self, stream: int, status: int, fields: list[Header], extra: list[Header] | None, body: bytes, end: bool
    ) -> None:
        one = self.streams.get(stream)
        if one is None or one.answer is not None:
            raise LinkViolation(frames.E_STREAM, f"an answer on stream {stream}, which waits for none")
        size = len(body)
        if size:
            self._take(size)
        if extra is not None:
            kept = _UNSAID if not one.head_only else _UNSAID - {b"content-length"}
            fields += [each for each in extra if each[0] not in kept]
        future = one.future
        if end:
            del self.streams[stream]
            self._served = True
            if future is not None and not future.done():
                if size and (size > self.limits.max_response or one.head_only or status in BODILESS):
                    future.set_exception(too_much(bodiless=size <= self.limits.max_response))
                else:
                    future.set_result(Response(status, fields, body))
            if self._gone and not self.streams:
                self._close()
        elif size > WINDOW:
            raise LinkViolation(frames.E_FLOW, f"stream {stream} is over its window")
        elif future is not None:
            Answer(self, one, status, fields, stated_length(extra)).begin(future, body)

    def on_data(self, stream: int, data: bytes, end: bool) -> None:
        one = self.streams.get(stream)
        if one is None:
            raise LinkViolation(frames.E_STREAM, f"data on stream {stream}, which waits for none")
        self._take(len(data))
        answer = one.answer
        if answer is not None:
            answer.more(data, end=end)
        elif one.future is not None:
            raise LinkViolation(frames.E_STREAM, f"data before the answer on stream {stream}")
        elif end:  # of what was cancelled
            self.ended(one)

    def _take(self, size: int) -> None:
        """Counts bytes of body against the connection's window, and grants them anew in large pieces."""
        self._allowed -= size
        if self._allowed < 0:
            raise LinkViolation(frames.E_FLOW, "the connection is over its window")
        self._owed += size
        if 2 * self._owed >= self._mine.connection_window:
            self.say(encoder.window(0, self._owed))
            self._allowed += self._owed
            self._owed = 0

    def ended(self, one: Exchange) -> None:
        """The backend has said its last word."""
        del self.streams[one.number]
        self._served = True
        one.body = b""
        if self._gone and not self.streams:
            self._close()

    def on_window(self, stream: int, credit: int) -> None:
        one = None
        if stream:
            one = self.streams.get(stream)
            if one is None:
                if stream >= self._next:
                    raise LinkViolation(frames.E_STREAM, f"credit for stream {stream}, which is not open")
                return  # it was under way when the stream ended
        self._uploads.grant(one, credit)
        self._pump()

    def on_cancel(self, stream: int, code: int) -> None:
        one = self.streams.get(stream)
        if one is None:
            raise LinkViolation(frames.E_STREAM, f"stream {stream} is cancelled, which is not open")
        self.ended(one)
        self._fail(one, cancelled(code, begun=one.answer is not None))

    def on_load(self, load: LoadReport) -> None:
        self.load = load
        if self._on_load is not None:
            self._on_load(load)

    def on_drain(self) -> None:
        self.finish()

    def on_ping(self, payload: bytes) -> None:
        self.say(encoder.control(frames.PONG, payload))

    def on_pong(self, payload: bytes) -> None:
        """That something came is what counts."""

    def on_error(self, code: int, text: bytes) -> None:
        self.drop(BadUpstreamResponse(f"the backend gave the link up: {code} {text.decode('ascii', 'replace')}"))

    def on_request(
        self,
        stream: int,
        priority: int,
        deadline_us: int,
        head: RequestHead,
        extra: list[Header],
        body: bytes,
        end: bool,
    ) -> None:
        raise LinkViolation(frames.E_PROTOCOL, "a request from a backend")

    # -- time ---------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.loop.time()
        self._pulse.look(now)
        if self.lost:
            return
        if not self.streams:
            self.idle_since = now
            return
        for one in [one for one in self.streams.values() if one.due <= now]:
            answer = one.answer
            if answer is not None and answer.gathering:
                answer.hand_over()
            elif one.wanted:
                self.give_up(one, frames.C_DEADLINE, UpstreamTimeout("the backend did not answer in time"))
            else:
                self._stuck = True
                self._leave()
        if self._stuck and not any(one.wanted for one in self.streams.values()):
            self.drop(None)
            return
        state = self._pulse.doubt(now)
        if state == ASK:
            self.say(encoder.control(frames.PING, b"sweeping"))
        elif state == DEAD:
            self.drop(ConnectionBroken("the backend does not answer a ping"))
        if self._pulse.owes_sign(now):  # who only listens to a stream has nothing else to say
            self.say(encoder.control(frames.PING, b"go on..."))
        if not self.lost:
            self._sweeper = self.loop.call_later(self.SWEEP, self._sweep)

    def idle(self, now: float, longest: float) -> None:
        """Called every few seconds: asks an idle link whether it lives, and closes one that nobody needs."""
        if self.streams or self.lost:
            return
        if now - self.idle_since > longest:
            self.finish()
        elif self._pulse.doubt_idle(now) == DEAD:
            self.drop(ConnectionBroken("the backend does not answer a ping"))
        else:
            self.say(encoder.control(frames.PING, b"are you?"))

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Takes no new exchange; closes when those under way are done."""
        self._leave()
        if not self.streams:
            self._close()

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._on_gone(self)

    def _close(self) -> None:
        if not self.lost:
            self._flush()
            self.lost = True
            self._decoder.stopped = True
            self._shut()

    def drop(self, error: UpstreamError | None, *, gently: bool = False) -> None:
        """Ends the link: everything on it fails with `error`, or with what a lost connection means to it.

        `gently`: what was written may still leave.
        """
        if self.lost and not self.streams and self.opened.done():
            self._gone = True
            self._on_gone(self)
            return
        self.lost = True
        self._decoder.stopped = True
        self._uploads.clear()
        if not self.opened.done():
            self.opened.set_exception(
                error or ConnectFailed("the backend closed the connection instead of opening a link")
            )
        streams, self.streams = self.streams, {}
        self._leave()
        for one in streams.values():
            self._fail(one, error or self._loss(one))
        if gently:
            self._shut()
        elif self._transport is not None:
            self._transport.abort()

    def _shut(self) -> None:
        """Closes when what was written has left; a backend that does not read has a few seconds for it."""
        if self._transport is not None:
            self._transport.close()
            self.loop.call_later(self._times.last_word, self._transport.abort)

    def _loss(self, one: Exchange) -> UpstreamError:
        if one.number > self._flushed:
            return NotStarted("the link was lost before the request left")
        if one.answer is not None:
            return ConnectionBroken("the backend closed the link in the middle of its answer")
        kind = StaleConnection if self._served else ConnectionBroken
        return kind("the backend closed the link before it answered")
