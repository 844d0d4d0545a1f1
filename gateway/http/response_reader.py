"""Bytes from a backend in, one answer at a time out: what an upstream connection reads, by llhttp (httptools).

Invariants: what is accepted is HTTP/1.0 or 1.1 with one framing, as llhttp (strict) reads it; the announcement of a
body where none may follow (HEAD, 204, 304) condemns the connection, for it could still come and be taken for the next
answer; an Upgrade is taken up only to the protocol that was asked for (RFC 9110 section 7.8). Nothing is waited for
here: when, and in which form, an answer is handed on is for the connection that owns the reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httptools

from gateway.errors import BadUpstreamResponse, ResponseTooLarge
from gateway.request import Header, Response

if TYPE_CHECKING:
    from gateway.http.upstream import UpstreamConnection

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
_BODILESS: Final = frozenset((204, 304))
_NOTHING: Final = frozenset((None, b"0"))  # framing that announces no body
# How an answer begins; anything else is looked at closer.
_USUAL: Final = (b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5", b"HTTP/1.1 3")
_INTERIM: Final = b"HTTP/1.1 1"
_OLD: Final = (b"HTTP/1.0 2", b"HTTP/1.0 4", b"HTTP/1.0 5", b"HTTP/1.0 3")


class ResponseReader:
    """Of one upstream connection. `max_response` bounds a body, in bytes."""

    __slots__ = (
        "_begun", "_fed", "_limit", "_limit_digits", "_line", "_named", "_no_body", "_old", "_owner", "_parser",
        "_protocol", "_started", "_wished", "chunks", "head_done", "headers", "length", "size", "status",
    )  # fmt: skip

    def __init__(self, owner: UpstreamConnection, max_response: int) -> None:
        self._owner = owner
        self._limit = max_response
        self._limit_digits = len(str(max_response))
        self._parser = httptools.HttpResponseParser(self)
        self._no_body = False
        self._started = False
        self.head_done = False
        self._old = False  # the answer is in HTTP/1.0
        self._line = b""  # how the answer begins, while that is too short to tell
        self.status = 0
        self._fed = 0  # bytes of the head, and then since the last progress
        self._begun = False  # these bytes end the head, or are of the body
        self.headers: list[Header] = []
        self.chunks: list[bytes] = []
        self.size = 0  # of the body so far
        self.length: bytes | None = None  # how the body is framed: its stated length, or "chunked"
        self._named = b""
        self._wished = b""  # the protocol that the request asks for
        self._protocol = b""  # what the answer says of it

    def expect(self, *, head_only: bool, upgrade: bytes) -> None:
        """An answer is to come: to HEAD, or to one that asks for the protocol `upgrade`."""
        self._no_body = head_only
        self._started = False
        self.head_done = False
        self._fed = 0
        self._wished = upgrade

    @property
    def untouched(self) -> bool:
        """Whether nothing of the answer has come."""
        return not self._started and not self._line and not self._fed

    def feed(self, data: bytes) -> None:
        """Reads `data`. What goes wrong ends the exchange and condemns the connection."""
        owner = self._owner
        try:
            if not self._started:
                if self._line or not data.startswith(_USUAL):
                    data = self._begin(data)
                    if not data:
                        return
                self._started = True
            self._parser.feed_data(data)
        except BadUpstreamResponse as error:
            owner.fail(error)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            owner.fail(cause if isinstance(cause, BadUpstreamResponse) else BadUpstreamResponse("unreadable response"))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not owner.waiting and owner.stream is None:
                owner.usable = False  # the answer was whole; what came after it was not asked for
            else:
                what = error.args[0] if error.args else "unreadable"
                owner.fail(BadUpstreamResponse(f"not an HTTP response: {what}"))
        if not self.head_done:
            self._fed += len(data)
            if self._fed > _MAX_HEAD:
                owner.fail(BadUpstreamResponse("the head of the response is larger than 64 KiB"))
        elif owner.waiting or owner.stream is not None:
            self._bound(len(data))
            if owner.waiting and not self._no_body:
                owner.stream_or_wait()
        elif self._no_body and not owner.waiting and not 0 <= data.find(b"\r\n\r\n") == len(data) - 4:
            owner.usable = False  # perhaps more came than the head, and would be taken for the next answer

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
                    switched = self._owner.stream
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

    def _bound(self, fed: int) -> None:
        """Bounds what frames a body and is none of it: trailers, a chunk's extensions, what llhttp holds of them."""
        if self._begun:
            self._begun = False  # there was progress in these bytes: how much of them is left over is not known
            self._fed = 0
            return
        self._fed += fed
        if self._fed > _MAX_HEAD:
            self._owner.fail(BadUpstreamResponse("the framing of the response is larger than 64 KiB"))

    # -- called by llhttp ---------------------------------------------------------------------------------------

    def take(self) -> Response:
        """The whole answer; what it is made of is not kept."""
        headers, self.headers = self.headers, []
        chunks, self.chunks = self.chunks, []
        return Response(self.status, headers, chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def on_message_begin(self) -> None:
        if self.headers or self.chunks:  # of an interim answer, or one that nobody took
            self.headers = []
            self.chunks = []
        self._named = b""
        self._protocol = b""
        self.size = 0
        self.head_done = False
        self.length = None
        if not self._owner.waiting:
            self._owner.usable = False
            if self._owner.stream is not None:
                raise BadUpstreamResponse("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:
            return  # a trailer
        name = name.lower()
        self.size += len(name) + len(value) + 4
        if self.size > _MAX_HEAD:
            raise BadUpstreamResponse("the head of the response is larger than 64 KiB")
        if name in _HOP_BY_HOP:
            if name == b"content-length":
                self.length = value
                if not self._no_body:
                    if len(value) >= self._limit_digits and int(value) > self._limit:
                        raise self._too_large()
                    return  # the answer to HEAD keeps it: nobody else knows it
            else:
                if name == b"transfer-encoding":
                    if self.length is not None or self._old or value.lower() != b"chunked":
                        raise BadUpstreamResponse("the response is framed by something else than one 'chunked'")
                    self.length = b"chunked"
                elif name == b"connection":
                    self._named += b"," + value.lower()
                elif name == b"upgrade":
                    self._protocol += b"," + value.strip().lower()
                return
        self.headers.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        self.head_done = True
        self.size = 0
        self._begun = True
        self.status = status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise BadUpstreamResponse(f"the response has the status {status}")
        if self._named not in _PLAIN_CONNECTION:
            named = {name.strip() for name in self._named.split(b",")}
            self.headers = [header for header in self.headers if header[0] not in named]
        if self._no_body and status >= 200:
            # llhttp cannot be told that the answer to HEAD has no body, so it is given a fresh start.
            if status == 204:  # RFC 9110 section 8.6
                self.headers = [header for header in self.headers if header[0] != b"content-length"]
            self._owner.finish(keep=self._parser.should_keep_alive() and self.length in _NOTHING)
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        stream = self._owner.stream
        if stream is None and not self._owner.waiting:
            self._owner.usable = False
            return
        self.size += len(data)
        self._begun = True
        if self.size > self._limit:
            raise self._too_large()
        if stream is not None:
            stream.feed(data)
        else:
            self.chunks.append(data)

    def _too_large(self) -> ResponseTooLarge:
        return ResponseTooLarge(f"the response is larger than the {self._limit} bytes allowed")

    def on_message_complete(self) -> None:
        owner = self._owner
        status = self.status
        if status >= 200:
            if status != 200 and status in _BODILESS and self.length not in _NOTHING:
                owner.usable = False
            if owner.stream is not None:
                if not self._parser.should_keep_alive():
                    owner.usable = False
                owner.abort_upload()
                owner.stream.end()
            elif owner.waiting:
                owner.finish(keep=self._parser.should_keep_alive())
        elif status == 101:
            if not self._wished:
                raise BadUpstreamResponse("the backend switched protocols without being asked")
            if self._protocol != b"," + self._wished or not self._parser.should_upgrade():
                raise BadUpstreamResponse("the backend switched to another protocol than it was asked for")
            owner.switched = True
            self.length = None
            owner.usable = False
            owner.hand_over(None)
        else:
            self.head_done = False  # an interim answer: the real one is still to come
