"""One exchange on a link, and its answer while that comes in pieces.

What streams is decided as in `gateway.http.upstream`: an answer that is larger than `whole`, or of unstated length and
not there within `gather`.
Invariants: an answer is as long as was stated, within `max_response`, and never over its window; credit for one that
streams is given when its reader has taken what came, so that a slow reader holds up its own exchange alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    ConnectionBroken,
    LinkViolation,
    ResponseTooLarge,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.http.upstream import NEVER
from gateway.link import encoder
from gateway.link.frames import C_DEADLINE, C_REFUSED, C_TOO_LARGE, C_UNWANTED, E_FLOW, E_HEAD
from gateway.request import Header, Response
from gateway.stream import Stream

if TYPE_CHECKING:
    from gateway.link.connection import LinkConnection

WINDOW: Final = 256 * 1024  # bytes of an answer that may come before its reader has taken any (as stream.HIGH)
BODILESS: Final = frozenset((204, 304))
_MAX_DIGITS: Final = 18  # of a stated length


class NotStarted(ConnectFailed):
    """The backend never took the request up: it refused the stream, or was never told of it."""


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
    """An answer of which more is to come: held in `_chunks`, or handed on as a `stream`."""

    __slots__ = (
        "_allowed", "_chunks", "_exchange", "_fields", "_length", "_link", "_size", "_status", "gathering", "stream",
    )  # fmt: skip

    def __init__(
        self, link: LinkConnection, exchange: Exchange, status: int, fields: list[Header], length: int | None
    ) -> None:
        self._link = link
        self._exchange = exchange
        self._status = status
        self._fields = fields
        self._length = length  # as stated
        self._size = 0
        self._chunks: list[bytes] = []
        self._allowed = WINDOW  # bytes the backend may still send before more are granted
        self.gathering = False  # its length is not known, and it may be whole in a moment
        self.stream: Stream | None = None

    def begin(self, future: asyncio.Future[Response], body: bytes) -> None:
        """The head is there and the body is not whole: it streams, unless it is small or may be there in a moment."""
        link, one = self._link, self._exchange
        one.answer = self
        if one.head_only or self._status in BODILESS:
            if body:
                link.give_up(one, C_TOO_LARGE, too_much(bodiless=True))
                return
            if not future.done():
                future.set_result(Response(self._status, self._fields))
            link.cancel(one)
            return
        if self._length is None:
            until = link.loop.time() + link.limits.gather
            if until < one.due:
                one.due = until
                self.gathering = True
        self.more(body, end=False)
        if self.stream is None and one.answer is self:
            if self._length is None:
                if any(name == b"content-type" and value[:17] == b"text/event-stream" for name, value in self._fields):
                    self.hand_over()
            elif self._length > link.limits.max_response:
                link.give_up(one, C_TOO_LARGE, too_much())
            elif self._length > link.limits.whole:
                self.hand_over()

    def more(self, data: bytes, *, end: bool) -> None:
        """The next piece."""
        link, one = self._link, self._exchange
        size = len(data)
        self._allowed -= size
        if self._allowed < 0:
            raise LinkViolation(E_FLOW, f"stream {one.number} is over its window")
        self._size += size
        if end:
            link.ended(one)
        if self._size > link.limits.max_response:
            link.give_up(one, C_TOO_LARGE, too_much())
            return
        length = self._length
        if length is not None and (self._size > length or (end and self._size < length)):
            wrong = BadUpstreamResponse(f"the backend stated {length} bytes and sent {self._size}")
            link.give_up(one, C_UNWANTED, wrong)
            return
        stream = self.stream
        if stream is not None:
            if end:
                one.answer = None
            else:
                one.due = link.loop.time() + link.limits.idle_stream
            stream.feed(data)
            if end:
                stream.end()
            return
        self._chunks.append(data)
        if end:
            future, one.future = one.future, None
            one.answer = None
            if future is not None and not future.done():
                future.set_result(Response(self._status, self._fields, b"".join(self._chunks)))
        elif self._size > link.limits.whole:
            self.hand_over()
        else:
            self._grant()

    def hand_over(self) -> None:
        """Gives the answer as a stream to whoever waits for it."""
        link, one = self._link, self._exchange
        future, one.future = one.future, None
        if future is None or future.done():  # cancelled in this turn, of which we shall hear
            return
        self.gathering = False
        one.due = link.loop.time() + link.limits.idle_stream
        response = Response(self._status, self._fields)
        # It is told of each piece, and when the reader has taken all there is: that is what grants are made of.
        stream = Stream(link.loop, self._hold, self._go_on, self._length, high=0)
        response.stream = self.stream = stream
        stream.then(self._at_the_end)
        stream.feed(b"".join(self._chunks))
        self._chunks = []
        future.set_result(response)

    def _hold(self) -> None:
        """Something waits for the reader: the backend's silence is not its own."""
        self._exchange.due = NEVER

    def _go_on(self) -> None:
        """The reader has taken everything."""
        self._exchange.due = self._link.loop.time() + self._link.limits.idle_stream
        self._grant()

    def _at_the_end(self, error: Exception | None) -> None:
        """The stream is over; if its reader has gone, the backend is told."""
        if error is not None and self._exchange.answer is self:
            self._link.cancel(self._exchange)

    def _grant(self) -> None:
        """Opens the exchange's window again, in large pieces."""
        if 2 * self._allowed <= WINDOW and not self._link.lost:
            self._link.say(encoder.window(self._exchange.number, WINDOW - self._allowed))
            self._allowed = WINDOW


def stated_length(extra: list[Header] | None) -> int | None:
    """How long the body is that comes in pieces, if the backend says so."""
    for name, value in extra or ():
        if name == b"content-length":
            if not value.isdigit() or len(value) > _MAX_DIGITS:
                raise LinkViolation(E_HEAD, "a length that is no number")
            return int(value)
    return None


def too_much(*, bodiless: bool = False) -> UpstreamError:
    """What is wrong with an answer that is larger than it may be."""
    if bodiless:
        return BadUpstreamResponse("the answer has a body where none may be")
    return ResponseTooLarge("the response is larger than allowed")


def cancelled(code: int, *, begun: bool) -> UpstreamError:
    """What the backend's CANCEL means to who waits; `begun`: part of the answer was there."""
    if code == C_DEADLINE:
        return UpstreamTimeout("the backend ran out of time")
    if code == C_TOO_LARGE:
        return BadUpstreamResponse("the backend found the request or its answer too large")
    if code == C_REFUSED and not begun:
        return NotStarted("the backend takes no new requests on this link")
    what = "in the middle of its answer" if begun else "before it answered"
    return ConnectionBroken(f"the backend gave the exchange up {what}: {code}")
