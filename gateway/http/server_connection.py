"""One client connection of the front door: an `asyncio.Protocol` and one task.

Invariants: answers leave in the order the requests came; one request of a connection is handled at a time;
a connection whose client has gone cancels the work it was waiting for; after a protocol error the connection
answers once and closes; a body that streams is read no faster than it is taken. Every phase (head, body, idle, write)
has a deadline, kept by the server's sweep; a body and an answer must keep a pace too. What one connection sends at once
is parsed in pieces and answered a few at a time, so that the others wait for it no longer than some milliseconds.
A client that closes its half has gone, unless `answer_half_closed`: then what it asked for whole is answered first. The
two look alike on the wire; most clients that give up an inference just close (nginx and Envoy take it so, too).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import time
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError, ProtocolError
from gateway.http.origin import Forwarding, Origin, peer_address
from gateway.http.reader import RequestReader
from gateway.http.response_writer import response_bytes
from gateway.promise import FEW, Promise
from gateway.request import Request, Response
from gateway.stream import Stream

if TYPE_CHECKING:
    from gateway.http.server import Server

log = logging.getLogger(__name__)

NEVER: Final = float("inf")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LARGE: Final = 64 * 1024  # bytes: a waiting body of this size stops the reading ahead
_MUCH: Final = 16 * 1024  # bytes read at once that are parsed in pieces: there may be hundreds of requests in them
_PIECE: Final = 8 * 1024  # bytes
_TURN: Final = 0.001  # seconds after which no other piece is begun in this turn of the loop
_IN_A_ROW: Final = 32  # requests answered before the loop has a turn
_NOTHING: Final = memoryview(b"")


class ServerConnection:
    """One client connection, an `asyncio.Protocol` by its methods; see the module header for what holds."""

    __slots__ = (
        "_body_from", "_busy", "_closing", "_failed", "_got", "_half_closed", "_in_body", "_in_head", "_loop",
        "_origin", "_paused", "_reader", "_rest", "_served", "_server", "_soon", "_stalled", "_stream", "_task",
        "_transport", "_unsent", "_waiter", "_writable", "deadline",
    )  # fmt: skip

    def __init__(self, server: Server, origin: Origin | None = None) -> None:
        """`origin` of a connection that has been admitted already."""
        self._server = server
        self._origin = origin
        self._served = 0
        self._loop = asyncio.get_running_loop()
        self._busy = False  # a request is being handled
        self._closing = False
        self._paused = False
        self._in_head = True  # the clock of the head runs; from the start, for a client that sends nothing
        self._in_body = False  # the clock of a body that is held whole runs
        self._half_closed = False  # the client sends no more, and is answered all the same
        self._failed: ProtocolError | None = None
        self._waiter: Promise[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._rest = _NOTHING  # was read, and is parsed in a later turn of the loop
        self._soon = False  # that turn is asked for
        self._unsent = 0  # bytes that waited to be written when the write deadline was last looked at
        self._stream: Stream | None = None  # the body that is coming in
        self._got = 0  # bytes of a body that is held whole
        self._body_from = 0.0  # when the body began, put forward by the time it was not wanted
        self._stalled = 0.0  # since when it is not wanted
        self.deadline = NEVER

    # -- transport ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        origin = self._origin
        if origin is None:
            origin = self._origin = Origin(peer_address(transport.get_extra_info("peername")), server.forwarding)
            if not server.admit(origin):
                transport.abort()  # type: ignore[attr-defined]
                self._closing = True
                return
        server.connections.add(self)
        self._reader = RequestReader(
            server.limits.read,
            origin.address,
            server.body_rules,
            None if server.body_rules is None else self._open_stream,
        )
        self.deadline = self._loop.time() + server.limits.header_timeout
        self._task = self._loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._closing or self._failed is not None:
            return
        if self._rest or (len(data) > _MUCH and len(data) > self._reader.body_left):
            self._rest = memoryview(self._rest.tobytes() + data)
            self._take_rest()
        else:
            self._take(data)

    def _take_rest(self) -> None:
        """Takes of `_rest` what one turn of the loop allows. Nothing more is read until there is none."""
        self._soon = False
        if self._closing or self._failed is not None:
            self._rest = _NOTHING
        end = time.monotonic() + _TURN
        while self._rest and not self._held:
            size = max(_PIECE, self._reader.body_left)
            piece, self._rest = self._rest[:size].tobytes(), self._rest[size:]
            self._take(piece)
            if self._closing or self._failed is not None:
                self._rest = _NOTHING
            if time.monotonic() >= end:
                break
        if self._closing:
            return
        if self._rest:
            self._stop_listening()
        if not self._held:
            self._listen()

    @property
    def _held(self) -> bool:
        """Whether more than what was taken is not wanted now."""
        return self._paused or (self._stream is not None and self._stream.paused)

    def _take(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
        except ProtocolError as error:
            self._failed = error
            self._server.stats.protocol_errors += 1
            if self._stream is not None:
                self._stream.fail(error)
            self._wake()
            return
        ready = reader.ready
        stream = self._stream
        if stream is not None:
            if stream.done:
                self._stream = None
                self.deadline = NEVER
                if stream.paused:
                    self._listen()
            elif not stream.paused:
                self._watch_body(stream)
        if ready:
            if self._busy or len(ready) > 1:
                self._note_arrival()
            if not self._paused and (
                len(ready) >= self._server.limits.max_pipelined or (self._busy and len(ready[-1].body) > _LARGE)
            ):
                self._paused = True
                self._stop_listening()
            waiter = self._waiter
            if waiter is not None:
                self._waiter = None
                if self._server.busy <= FEW:  # the last thing to do: it may be answered before this returns
                    waiter.keep_now(None)
                else:
                    waiter.keep(None)
        elif not self._busy and self._writable is None:
            self._go_on_reading(len(data))

    def _note_arrival(self) -> None:
        """Requests that wait for those before them: what they have to be answered in runs from now."""
        now = time.monotonic_ns()
        for request in reversed(self._reader.ready):
            if request.received:
                break
            request.received = now

    # -- a body that streams ------------------------------------------------------------------------------------

    def _open_stream(self, length: int | None) -> Stream:
        """Called by the reader: the body comes in this from now on."""
        reader = self._reader
        wanted = None
        if reader.wants_continue:
            reader.wants_continue = False
            wanted = self._say_continue
        self._body_from = self._loop.time()
        self._stream = stream = Stream(self._loop, self._hold_body, self._want_body, length, wanted=wanted)
        self._watch_body(stream)
        return stream

    def _say_continue(self) -> None:
        self._transport.write(_CONTINUE)

    def _watch_body(self, stream: Stream) -> None:
        """The more has come, the longer it may take (after Apache's mod_reqtimeout); a tunnel may be silent."""
        limits = self._server.limits
        if not self._reader.tunnelled:
            self.deadline = self._body_from + limits.body_timeout + stream.total / limits.body_min_rate

    def _hold_body(self) -> None:
        self._stalled = self._loop.time()
        self.deadline = NEVER
        self._stop_listening()

    def _want_body(self) -> None:
        self._body_from += self._loop.time() - self._stalled
        if not self._closing:
            self._listen()
            if self._stream is not None:
                self._watch_body(self._stream)

    # -- reading on ---------------------------------------------------------------------------------------------

    def _stop_listening(self) -> None:
        self._server.deaf.add(self)
        self._transport.pause_reading()

    def _listen(self) -> None:
        if self._rest and not self._closing:
            if not self._soon:
                self._soon = True
                self._loop.call_soon(self._take_rest)
            return
        self._server.deaf.discard(self)
        self._transport.resume_reading()

    def _go_on_reading(self, size: int = 0) -> None:
        """Nothing is being answered: the unfinished request, of which `size` bytes came, may take its time, and is told
        to go on if it asked.
        """
        if self._reader.wants_continue:
            self._reader.wants_continue = False
            self._transport.write(_CONTINUE)
        reader, limits = self._reader, self._server.limits
        if reader.in_body:
            if not self._in_body:
                self._in_body = True
                self._got = 0
                self._body_from = self._loop.time()
            self._got += size
            self.deadline = self._body_from + limits.body_timeout + self._got / limits.body_min_rate
        elif reader.in_head and not self._in_head:
            # Only the first byte starts this clock: a client that trickles gains nothing.
            self._in_head = True
            self.deadline = self._loop.time() + limits.header_timeout

    def connection_lost(self, exc: Exception | None) -> None:
        server = self._server
        if self not in server.connections:
            return
        server.connections.discard(self)
        server.deaf.discard(self)
        if self._origin is not None:
            server.leave(self._origin)
        self._closing = True
        self.deadline = NEVER
        if self._busy:
            server.stats.client_gone += 1
        if self._stream is not None:
            self._stream.fail(ProtocolError("the client has gone"))
            self._stream = None
        self._task.cancel()

    def eof_received(self) -> bool:
        """The client has closed its half, or all: returning False closes the transport."""
        if not self._server.limits.answer_half_closed or self._closing or not self._transport.can_write_eof():
            return False  # TLS has no half-closed connections
        stream = self._stream
        if stream is not None:
            if self._reader.tunnelled:
                stream.end()
            else:
                stream.fail(ProtocolError("the client closed the connection in the middle of the body"))
        elif not self._busy and not self._reader.ready and self._failed is None:
            return False  # nothing that could be answered
        self._half_closed = True
        self._server.deaf.add(self)
        return True

    def client_has_gone(self) -> bool:
        """Asks the kernel, which knows although nothing is read: a reset, or the end of what the client sends."""
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        watch = select.poll()
        watch.register(sock.fileno(), 0 if self._server.limits.answer_half_closed else select.POLLRDHUP)
        return bool(watch.poll(0))

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def believe(self, forwarding: Forwarding) -> None:
        """Decides anew whether the peer is a trusted proxy."""
        if self._origin is not None:
            self._origin.decide(forwarding)

    # -- deadlines and drain ------------------------------------------------------------------------------------

    def timed_out(self) -> None:
        """Called by the sweep once `deadline` has passed."""
        reader = self._reader
        if self._writable is not None and not self._closing:
            limits = self._server.limits
            taken = self._unsent - self._transport.get_write_buffer_size()
            if taken >= limits.write_timeout * limits.write_min_rate:
                self._watch_writing()
                return
        if self._closing or self._writable is not None:
            self._server.stats.timeouts += not self._closing
            self.abort()
            return
        if self._stream is not None and not self._stream.done:
            self._server.stats.timeouts += 1
            self.deadline = NEVER
            self._failed = ProtocolError("the body of the request did not arrive in time", 408)
            self._stream.fail(self._failed)
            return
        if self._busy or reader.ready:
            return  # a request came in the last moment
        self._server.stats.timeouts += 1
        if reader.in_head or reader.in_body:
            self.deadline = NEVER
            part = "body" if reader.in_body else "head"
            self._failed = ProtocolError(f"the {part} of the request did not arrive in time", 408)
            self._wake()
        else:
            self._close()

    def _close(self) -> None:
        """Closes once what was written has left; a client that does not read is cut off at the write deadline."""
        self._closing = True
        self.deadline = self._loop.time() + self._server.limits.write_timeout
        self._transport.close()

    def close_if_idle(self) -> None:
        """Closes a connection that holds no request, whole or in part."""
        reader = self._reader
        begun = self._busy or reader.ready or reader.in_head or reader.in_body or self._rest
        if not (begun or self._failed or self._closing):
            self._close()
            # The end of TLS is a word and its answer, and an idle client may not be listening.
            self.deadline = self._loop.time() + self._server.limits.linger

    def abort(self) -> None:
        """Drops the connection without flushing."""
        self._transport.abort()

    # -- the task -----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.keep(None)

    async def _serve(self) -> None:
        server, reader = self._server, self._reader
        limits, handler, ready = server.limits, server.handler, reader.ready
        origin = self._origin
        assert origin is not None
        counted = 0  # of the request that is being handled, in `server.busy`
        row = 0  # requests answered since there was none to take
        try:
            while not self._closing:
                if not ready:
                    if self._failed is not None:
                        self._write(server.bad_request(self._failed, reader.peer), None)
                        break
                    if self._half_closed:
                        break
                    row = 0
                    self._waiter = Promise(self._loop)
                    await self._waiter
                    continue
                row += 1
                if row > _IN_A_ROW:
                    row = 0
                    await asyncio.sleep(0)
                    continue
                request = ready.popleft()
                if self._paused and len(ready) < max(1, limits.max_pipelined // 2):
                    self._paused = False
                    self._listen()
                self._busy = True
                upload = request.stream
                if upload is None:
                    server.busy += 1
                    counted = 1
                if upload is None or request.upgrade:
                    self.deadline = NEVER
                origin.introduce(request)
                self._served += 1
                try:
                    response = await handler(request)
                except Exception:
                    log.exception("unhandled error while answering %r", request)
                    response = _CRASHED
                server.busy -= counted
                counted = 0
                keep = request.keep_alive and not response.close and not server.draining
                if self._half_closed and not ready:
                    keep = False
                if keep and self._served == limits.max_requests_per_connection:
                    keep = False
                    server.stats.request_limits += 1
                if upload is not None or response.stream is not None:
                    keep = await self._answer_in_parts(response, request, upload, keep=keep)
                else:
                    self._write(response, request, keep=keep)
                self._busy = False
                if self._writable is not None:
                    self._watch_writing()
                    await self._writable
                if not keep:
                    break
                self.deadline = self._loop.time() + server.limits.idle_timeout
                self._in_head = self._in_body = False
                if not ready and (reader.in_head or reader.in_body):
                    self._go_on_reading()
            if (self._failed is not None or self._stream is not None) and not (self._closing or self._half_closed):
                self._linger()
            else:
                self._close()
        except asyncio.CancelledError:
            self.abort()
        except Exception:
            log.exception("a connection failed")
            self.abort()
        finally:
            server.busy -= counted  # it ended in the middle of a request

    def _watch_writing(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._loop.time() + self._server.limits.write_timeout

    async def _answer_in_parts(
        self, response: Response, request: Request, upload: Stream | None, *, keep: bool
    ) -> bool:
        """Writes an answer whose body, or whose request's body, streams. Returns whether the connection goes on."""
        stream = response.stream
        sent = 0
        error: BaseException | None = None
        try:
            if stream is None:
                keep = keep and (upload is None or upload.done)
                self._write(response, request, keep=keep)
                sent = len(response.body)
            else:
                chunked = stream.length is None and request.minor == 1 and response.status != 101
                keep = keep and (upload is None or upload.done) and (chunked or stream.length is not None)
                self._write(response, request, keep=keep, chunked=chunked)
                while data := await stream.read():
                    self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                    sent += len(data)
                    if self._writable is not None:
                        self._watch_writing()
                        await self._writable
                        self.deadline = NEVER
                        if self._stream is not None and not self._stream.paused:
                            self._watch_body(self._stream)
                if chunked:
                    self._transport.write(b"0\r\n\r\n")
        except GatewayError as broken:
            error = broken
            self.abort()  # the client must not take what it got for all there is
            keep = False
        except asyncio.CancelledError as gone:
            error = gone
            raise
        finally:
            if stream is not None and not stream.done:
                stream.abandon()
            if upload is not None and not upload.done:
                upload.abandon()
            if response.on_end is not None:
                response.on_end(sent, error)
        return keep

    def _linger(self) -> None:
        """Says that no more will come, and drops what the client still sends until it closes or the time is up.

        Closing with unread bytes would reset the connection and could take the answer with it (RFC 9112 section 9.6).
        """
        self._closing = True
        self.deadline = self._loop.time() + self._server.limits.linger
        self._listen()
        if self._transport.can_write_eof():  # TLS has no half-closed connections
            with contextlib.suppress(OSError):
                self._transport.write_eof()

    def _write(self, response: Response, request: Request | None, *, keep: bool = False, chunked: bool = False) -> None:
        self._transport.write(response_bytes(response, request, self._server.date, keep=keep, chunked=chunked))


_CRASHED: Final = Response(
    500,
    [(b"content-type", b"application/problem+json")],
    b'{"type":"about:blank","title":"Internal error","status":500,"detail":"The gateway failed; its log says why."}',
    close=True,
)
