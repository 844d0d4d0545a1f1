"""One link: a connection of this worker to one backend that carries many exchanges at once.

Contract: `docs/link.md`. `send` starts an exchange; its future gives the answer or an UpstreamError. Everything sent in
one turn of the event loop leaves in one write. What streams is decided as in `gateway.http.client`: an answer that is
larger than `whole`, or of unstated length and not there within `gather`.
Invariants: an exchange is forgotten only when the backend has said its last word on it, so a late answer can never
reach another; one that nobody waits for sends CANCEL at once and drops what still comes; credit for an answer that
streams is given when its reader has taken what came, so that a slow reader holds up its own exchange alone; a link that
is lost, silent or nonsensical fails every exchange on it, and says of each whether the backend can have seen it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
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
from gateway.http.client import NEVER, ClientLimits
from gateway.http.dial import tls_reason
from gateway.link import encoder, frames
from gateway.link.decoder import Decoder
from gateway.link.encoder import SentHeads
from gateway.link.frames import LoadReport, Receiver, RequestHead, Settings
from gateway.request import Header, Request, Response
from gateway.stream import Stream

#: What a backend must not say: framing, what concerns one connection, and what is for the gateway alone to say.
_UNSAID: Final = frozenset(
    (
        b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"degraded", b"ratelimit", b"ratelimit-policy", b"x-request-id",
    )
)  # fmt: skip
#: Request fields that differ each time: said beside the head, which is then the same for many requests.
_CHANGING: Final = (b"traceparent", b"tracestate", b"baggage", b"idempotency-key")
_PLAIN_CONNECTION: Final = (b"keep-alive", b"close", b"Keep-Alive")
_BODILESS: Final = frozenset((204, 304))
_MAX_ANSWER: Final = 16 * 1024  # bytes of the answer to the Upgrade
_MAX_PEERS: Final = 4096  # fields kept ready, one per client address
_MAX_DEADLINE: Final = 0xFFFFFFFF  # microseconds: 71 minutes
_MAX_WAITING: Final = 16 * 1024  # pieces that wait for a backend that does not read; 1,024 exchanges are a third of it
_MAX_DIGITS: Final = 18  # of a stated length
WINDOW: Final = 256 * 1024  # bytes of an answer that may come before its reader has taken any (as stream.HIGH)
_ID_START: Final = tuple(encoder.field(b"x-request-id", bytes(size).replace(b"\x00", b"-"))[:3] for size in range(256))


class NotStarted(ConnectFailed):
    """The backend never took the request up: it refused the stream, or was never told of it."""


class NotSpoken(ConnectFailed):
    """The backend answered the Upgrade as an ordinary request; `answered` is its status."""

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(detail)
        self.answered = status


class LinkLimits:
    """Seconds: how long a link with exchanges may be silent before it is asked, how long it may then take, how long the
    backend has to end what was cancelled (and our own last words to leave), and how often it hears from us at least.
    """

    __slots__ = ("last_word", "patience", "sign_of_life", "silence")

    def __init__(
        self, silence: float = 1.0, patience: float = 1.0, last_word: float = 5.0, sign_of_life: float = 30.0
    ) -> None:
        self.silence = silence
        self.patience = patience
        self.last_word = last_word
        self.sign_of_life = sign_of_life


class Exchange:
    """A request and its answer. `future` is None once it is done, or nobody waits for it; `answer` is there while an
    answer comes in pieces that somebody wants. `due` is when to look at it again, on the loop's clock.
    """

    __slots__ = ("answer", "body", "credit", "due", "future", "head_only", "number", "sent")

    def __init__(self, number: int, future: asyncio.Future[Response], deadline: float, *, head_only: bool) -> None:
        self.number = number
        self.future: asyncio.Future[Response] | None = future
        self.due = deadline
        self.head_only = head_only
        self.answer: Answer | None = None
        self.body = b""  # what is not sent yet begins at `sent`
        self.sent = 0
        self.credit = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the answer, or for more of it."""
        return self.future is not None or self.answer is not None


class Answer:
    """An answer of which more is to come: held in `chunks`, or handed on as a `stream`."""

    __slots__ = (
        "_exchange", "_link", "allowed", "chunks", "fields", "gathering", "length", "size", "status", "stream",
    )  # fmt: skip

    def __init__(
        self,
        link: LinkConnection,
        exchange: Exchange,
        status: int,
        fields: list[Header],
        length: int | None,
    ) -> None:
        self._link = link
        self._exchange = exchange
        self.status = status
        self.fields = fields
        self.length = length  # as stated
        self.size = 0
        self.chunks: list[bytes] = []
        self.allowed = WINDOW  # bytes the backend may still send before more are granted
        self.gathering = False  # its length is not known, and it may be whole in a moment
        self.stream: Stream | None = None

    def hold(self) -> None:
        """Something waits for the reader: the backend's silence is not its own."""
        self._exchange.due = NEVER

    def go_on(self) -> None:
        """The reader has taken everything."""
        self._link.taken(self._exchange, self)

    def at_the_end(self, error: Exception | None) -> None:
        """The stream is over; if its reader has gone, the backend is told."""
        if error is not None and self._exchange.answer is self:
            self._link.cancel(self._exchange)


class LinkConnection(Receiver):
    """A protocol in asyncio's sense. `opened` is the future of the backend's HELLO; `on_gone` is called when no new
    exchange may start here any more, and again when the link is closed.
    """

    __slots__ = (
        "_allowed", "_at_once", "_credit", "_decoder", "_dropped", "_flush_due", "_flushed", "_gone", "_greeting",
        "_heads", "_heard", "_loop", "_mine", "_next", "_on_gone", "_on_load", "_out", "_owed", "_paused", "_pinged",
        "_quiet", "_served", "_skipped", "_spoke", "_stuck", "_suspect", "_sweeper", "_theirs", "_times", "_transport",
        "_upgrade", "_uploads", "_via", "idle_since", "limits", "load", "lost", "max_streams", "opened", "streams",
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
        self._loop = asyncio.get_running_loop()
        self._times = times
        self.limits = limits
        self._on_gone = on_gone
        self._on_load = on_load
        self._upgrade = b"GET /.sluice-link HTTP/1.1\r\nhost: %b\r\nconnection: Upgrade\r\nupgrade: %b\r\n\r\n" % (
            authority,
            frames.PROTOCOL,
        )
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._greeting: bytes | None = b""  # the answer to the Upgrade while it is not whole
        self._mine = Settings(stream_window=WINDOW)
        self._theirs = Settings()
        self._decoder = Decoder(self, self._mine, client=True, dropped=_UNSAID)
        self._heads = SentHeads(0)
        self._dropped: frozenset[bytes] = frozenset()
        self._skipped: frozenset[bytes] = frozenset()
        self._via: dict[bytes, bytes] = {}
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
        self._uploads: deque[Exchange] = deque()
        self._at_once = 0  # most bytes of body in a REQUEST
        self._credit = 0  # bytes of body the backend takes before it grants more
        self._allowed = self._mine.connection_window  # the same the other way
        self._owed = 0  # bytes taken in and not yet granted anew
        self._sweeper: asyncio.TimerHandle | None = None
        self._quiet = False  # nothing came since the last sweep
        self._heard = 0.0
        self._pinged = 0.0
        self._suspect = False
        self._spoke = 0.0  # when the backend had a sign of life from us, or something else
        self.idle_since = self._loop.time()

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
        headers = request.headers
        if dropped is not self._dropped:
            self._dropped = dropped
            self._skipped = dropped.union(_CHANGING)
        skipped = self._skipped
        named = headers.get(b"connection")
        if named is not None and named not in _PLAIN_CONNECTION:
            skipped = skipped.union([name.strip().lower() for name in named.split(b",")])
        method = request.method
        parts = [method, target, headers.get(b"host", authority)]
        for name, value in headers.items():
            if name not in skipped:
                parts.append(name)
                parts.append(value)
        key = b"\x00".join(parts)  # no part holds a NUL: the front door refuses it, and `_new_head` too
        slot = self._heads.find(key)
        if slot:
            head = b""
        else:
            head = self._new_head(parts)
            if len(head) <= frames.MAX_REMEMBERED:
                slot = self._heads.learn(key)

        via, number = request.via, request.id
        extra = (self._via.get(via) or self._vouch(via)) + _ID_START[len(number)] + number
        for name in _CHANGING:
            if name in headers and name not in dropped:
                extra += encoder.field(name, headers[name])
        if len(extra) > 65_535:
            raise ValueError("the fields are too large for the link")

        stream = self._next
        self._next = stream + 1
        exchange = Exchange(stream, self._loop.create_future(), deadline, head_only=method == b"HEAD")
        self.streams[stream] = exchange
        body = request.body
        size = len(body)
        if not size or (size <= self._at_once and size <= self._credit and not self._uploads):
            self._credit -= size
            start = encoder.request_start(
                stream, min(deadline_us, _MAX_DEADLINE), slot, len(extra), len(head), size, end=True
            )
            self._out += (start, extra, head, body)
        else:
            start = encoder.request_start(
                stream, min(deadline_us, _MAX_DEADLINE), slot, len(extra), len(head), 0, end=False
            )
            self._out += (start, extra, head)
            exchange.body = body
            exchange.credit = self._theirs.stream_window
            self._uploads.append(exchange)
            self._pump()
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        if self._sweeper is None:
            self._heard = self._spoke = self._loop.time()
            self._pinged = 0.0
            self._quiet = True
            self._suspect = False
            self._sweeper = self._loop.call_later(self.SWEEP, self._sweep)
        if stream >= frames.MAX_STREAM:
            self.finish()
        return exchange

    def _new_head(self, parts: list[bytes]) -> bytes:
        fields = [(b"host", parts[2])] + [(parts[i], parts[i + 1]) for i in range(3, len(parts), 2)]
        head = encoder.request_head(parts[0], parts[1], fields)
        if len(head) > self._theirs.max_head:
            raise ValueError("the head is too large for this backend")
        return head

    def _vouch(self, via: bytes) -> bytes:
        if len(self._via) >= _MAX_PEERS:
            self._via.clear()
        lines = [line.split(b": ", 1) for line in via.split(b"\r\n") if line]
        known = self._via[via] = b"".join([encoder.field(name, value) for name, value in lines])
        return known

    def cancel(self, exchange: Exchange, code: int = frames.C_UNWANTED) -> None:
        """Nobody waits any more. The backend is told, unless it has said its last word."""
        exchange.future = None
        answer, exchange.answer = exchange.answer, None
        exchange.body = b""
        if exchange.number in self.streams and not self.lost:
            exchange.due = self._loop.time() + self._times.last_word
            self._say(encoder.control(frames.CANCEL, code=code, stream=exchange.number))
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

    def _give_up(self, exchange: Exchange, code: int, error: UpstreamError) -> None:
        """Tells both who waits and the backend."""
        self._fail(exchange, error)
        self.cancel(exchange, code)

    # -- sending ------------------------------------------------------------------------------------------------

    def _say(self, frame: bytes) -> None:
        self._out.append(frame)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

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
        """Sends what credit allows of the bodies that did not fit, a piece of each in turn."""
        uploads = self._uploads
        stuck = 0
        while uploads and stuck < len(uploads) and not self._paused:
            exchange = uploads.popleft()
            if not exchange.wanted or exchange.number not in self.streams:
                continue
            left = len(exchange.body) - exchange.sent
            size = min(left, frames.CHUNK, exchange.credit, self._credit)
            if size == 0 and left:
                uploads.append(exchange)
                stuck += 1
                continue
            stuck = 0
            end = size == left
            piece = exchange.body[exchange.sent : exchange.sent + size]
            exchange.sent += size
            exchange.credit -= size
            self._credit -= size
            self._say(encoder.data_start(exchange.number, size, end=end) + piece)
            if not end:
                uploads.append(exchange)
            else:
                exchange.body = b""

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
        self._quiet = False
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
        head, end, rest = answer.partition(b"\r\n\r\n")
        if len(head) > _MAX_ANSWER:
            raise LinkViolation(frames.E_SIZE, "the answer to the Upgrade is too long")
        if not end:
            self._greeting = answer
            return b""
        line, *lines = head.split(b"\r\n")
        words = line.split(b" ", 2)
        if len(words) < 2 or words[0] not in (b"HTTP/1.1", b"HTTP/1.0") or not words[1].isdigit():
            raise LinkViolation(frames.E_PROTOCOL, "not an HTTP response to the Upgrade")
        status = int(words[1])
        chosen = [
            value.strip() for name, _, value in (each.partition(b":") for each in lines) if name.lower() == b"upgrade"
        ]
        if status != 101 or chosen != [frames.PROTOCOL]:
            refusal = NotSpoken(f"the backend does not speak {frames.PROTOCOL.decode()}: it answered {status}", status)
            self.drop(refusal, gently=True)
            return b""
        self._greeting = None
        assert self._transport is not None
        self._transport.write(encoder.hello(self._mine))
        return rest

    # -- the backend's frames -----------------------------------------------------------------------------------

    def on_hello(self, settings: Settings) -> None:
        self._theirs = settings
        self.max_streams = settings.max_streams
        self._credit = settings.connection_window
        self._at_once = min(frames.CHUNK, settings.stream_window)
        self._heads = SentHeads(settings.slots)
        self.idle_since = self._loop.time()
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
                if size and (size > self.limits.max_response or one.head_only or status in _BODILESS):
                    future.set_exception(_too_much(bodiless=size <= self.limits.max_response))
                else:
                    future.set_result(Response(status, fields, body))
            if self._gone and not self.streams:
                self._close()
        elif size > WINDOW:
            raise LinkViolation(frames.E_FLOW, f"stream {stream} is over its window")
        elif future is not None:
            self._begin(one, future, Answer(self, one, status, fields, _stated_length(extra)), body)

    def on_data(self, stream: int, data: bytes, end: bool) -> None:
        one = self.streams.get(stream)
        if one is None:
            raise LinkViolation(frames.E_STREAM, f"data on stream {stream}, which waits for none")
        self._take(len(data))
        answer = one.answer
        if answer is not None:
            self._more(one, answer, data, end=end)
        elif one.future is not None:
            raise LinkViolation(frames.E_STREAM, f"data before the answer on stream {stream}")
        elif end:  # of what was cancelled
            self._ended(one)

    # -- an answer that comes in pieces -------------------------------------------------------------------------

    def _begin(self, one: Exchange, future: asyncio.Future[Response], answer: Answer, body: bytes) -> None:
        """The head is there and the body is not whole: it streams, unless it is small or may be there in a moment."""
        one.answer = answer
        if one.head_only or answer.status in _BODILESS:
            if body:
                self._give_up(one, frames.C_TOO_LARGE, _too_much(bodiless=True))
                return
            if not future.done():
                future.set_result(Response(answer.status, answer.fields))
            self.cancel(one)
            return
        if answer.length is None:
            until = self._loop.time() + self.limits.gather
            if until < one.due:
                one.due = until
                answer.gathering = True
        self._more(one, answer, body, end=False)
        if answer.stream is None and one.answer is answer:
            if answer.length is None:
                if any(name == b"content-type" and value[:17] == b"text/event-stream" for name, value in answer.fields):
                    self._hand_over(one, answer)
            elif answer.length > self.limits.max_response:
                self._give_up(one, frames.C_TOO_LARGE, _too_much())
            elif answer.length > self.limits.whole:
                self._hand_over(one, answer)

    def _more(self, one: Exchange, answer: Answer, data: bytes, *, end: bool) -> None:
        size = len(data)
        answer.allowed -= size
        if answer.allowed < 0:
            raise LinkViolation(frames.E_FLOW, f"stream {one.number} is over its window")
        answer.size += size
        if end:
            self._ended(one)
        if answer.size > self.limits.max_response:
            self._give_up(one, frames.C_TOO_LARGE, _too_much())
            return
        length = answer.length
        if length is not None and (answer.size > length or (end and answer.size < length)):
            wrong = BadUpstreamResponse(f"the backend stated {length} bytes and sent {answer.size}")
            self._give_up(one, frames.C_UNWANTED, wrong)
            return
        stream = answer.stream
        if stream is not None:
            if end:
                one.answer = None
            else:
                one.due = self._loop.time() + self.limits.idle_stream
            stream.feed(data)
            if end:
                stream.end()
            return
        answer.chunks.append(data)
        if end:
            future, one.future = one.future, None
            one.answer = None
            if future is not None and not future.done():
                future.set_result(Response(answer.status, answer.fields, b"".join(answer.chunks)))
        elif answer.size > self.limits.whole:
            self._hand_over(one, answer)
        else:
            self._grant(one, answer)

    def _hand_over(self, one: Exchange, answer: Answer) -> None:
        """Gives the answer as a stream to whoever waits for it."""
        future, one.future = one.future, None
        if future is None or future.done():  # cancelled in this turn, of which we shall hear
            return
        answer.gathering = False
        one.due = self._loop.time() + self.limits.idle_stream
        response = Response(answer.status, answer.fields)
        # It is told of each piece, and when the reader has taken all there is: that is what grants are made of.
        stream = Stream(self._loop, answer.hold, answer.go_on, answer.length, high=0)
        response.stream = answer.stream = stream
        stream.then(answer.at_the_end)
        stream.feed(b"".join(answer.chunks))
        answer.chunks = []
        future.set_result(response)

    def taken(self, one: Exchange, answer: Answer) -> None:
        """The reader of an answer that streams has taken everything."""
        one.due = self._loop.time() + self.limits.idle_stream
        self._grant(one, answer)

    def _grant(self, one: Exchange, answer: Answer) -> None:
        """Opens the exchange's window again, in large pieces."""
        if 2 * answer.allowed <= WINDOW and not self.lost:
            self._say(encoder.window(one.number, WINDOW - answer.allowed))
            answer.allowed = WINDOW

    def _take(self, size: int) -> None:
        """Counts bytes of body against the connection's window, and grants them anew in large pieces."""
        self._allowed -= size
        if self._allowed < 0:
            raise LinkViolation(frames.E_FLOW, "the connection is over its window")
        self._owed += size
        if 2 * self._owed >= self._mine.connection_window:
            self._say(encoder.window(0, self._owed))
            self._allowed += self._owed
            self._owed = 0

    def _ended(self, one: Exchange) -> None:
        """The backend has said its last word."""
        del self.streams[one.number]
        self._served = True
        one.body = b""
        if self._gone and not self.streams:
            self._close()

    def on_window(self, stream: int, credit: int) -> None:
        if stream:
            one = self.streams.get(stream)
            if one is None:
                if stream >= self._next:
                    raise LinkViolation(frames.E_STREAM, f"credit for stream {stream}, which is not open")
                return  # it was under way when the stream ended
            one.credit += credit
            total = one.credit
        else:
            self._credit += credit
            total = self._credit
        if total > frames.MAX_WINDOW:
            raise LinkViolation(frames.E_FLOW, "more credit than can be")
        if self._uploads:
            self._pump()

    def on_cancel(self, stream: int, code: int) -> None:
        one = self.streams.get(stream)
        if one is None:
            raise LinkViolation(frames.E_STREAM, f"stream {stream} is cancelled, which is not open")
        self._ended(one)
        self._fail(one, _why(code, begun=one.answer is not None))

    def on_load(self, load: LoadReport) -> None:
        self.load = load
        if self._on_load is not None:
            self._on_load(load)

    def on_drain(self) -> None:
        self.finish()

    def on_ping(self, payload: bytes) -> None:
        self._say(encoder.control(frames.PONG, payload))

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
        now = self._loop.time()
        if not self._quiet:
            self._quiet = True
            self._heard = now
            self._pinged = 0.0
            self._suspect = False
        if self.lost:
            return
        if not self.streams:
            self.idle_since = now
            return
        for one in [one for one in self.streams.values() if one.due <= now]:
            answer = one.answer
            if answer is not None and answer.gathering:
                self._hand_over(one, answer)
            elif one.wanted:
                self._give_up(one, frames.C_DEADLINE, UpstreamTimeout("the backend did not answer in time"))
            else:
                self._stuck = True
                self._leave()
        if self._stuck and not any(one.wanted for one in self.streams.values()):
            self.drop(None)
            return
        if now - self._heard > self._times.silence:
            self._doubt(now)
        if now - self._spoke > self._times.sign_of_life:
            self._spoke = now  # who only listens to a stream has nothing else to say
            self._say(encoder.control(frames.PING, b"go on..."))
        if not self.lost:
            self._sweeper = self._loop.call_later(self.SWEEP, self._sweep)

    def _doubt(self, now: float) -> None:
        """The link is silent: asks, and gives up if there is no reply. A busy loop is given one more round to read."""
        if not self._pinged:
            self._pinged = now
            self._say(encoder.control(frames.PING, b"sweeping"))
        elif now - self._pinged > self._times.patience:
            if self._suspect:
                self.drop(ConnectionBroken("the backend does not answer a ping"))
            self._suspect = True

    def idle(self, now: float, longest: float) -> None:
        """Called every few seconds: asks an idle link whether it lives, and closes one that nobody needs."""
        if self.streams or self.lost:
            return
        if now - self.idle_since > longest:
            self.finish()
        elif self._pinged and self._quiet:
            self.drop(ConnectionBroken("the backend does not answer a ping"))
        else:
            self._pinged = now
            self._quiet = True
            self._say(encoder.control(frames.PING, b"are you?"))

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
            self._loop.call_later(self._times.last_word, self._transport.abort)

    def _loss(self, one: Exchange) -> UpstreamError:
        if one.number > self._flushed:
            return NotStarted("the link was lost before the request left")
        if one.answer is not None:
            return ConnectionBroken("the backend closed the link in the middle of its answer")
        kind = StaleConnection if self._served else ConnectionBroken
        return kind("the backend closed the link before it answered")


def _stated_length(extra: list[Header] | None) -> int | None:
    """How long the body is that comes in pieces, if the backend says so."""
    for name, value in extra or ():
        if name == b"content-length":
            if not value.isdigit() or len(value) > _MAX_DIGITS:
                raise LinkViolation(frames.E_HEAD, "a length that is no number")
            return int(value)
    return None


def _too_much(*, bodiless: bool = False) -> UpstreamError:
    what = "the answer has a body where none may be" if bodiless else "the response is larger than allowed"
    return BadUpstreamResponse(what)


def _why(code: int, *, begun: bool) -> UpstreamError:
    if code == frames.C_DEADLINE:
        return UpstreamTimeout("the backend ran out of time")
    if code == frames.C_TOO_LARGE:
        return BadUpstreamResponse("the backend found the request or its answer too large")
    if code == frames.C_REFUSED and not begun:
        return NotStarted("the backend takes no new requests on this link")
    what = "in the middle of its answer" if begun else "before it answered"
    return ConnectionBroken(f"the backend gave the exchange up {what}: {code}")
