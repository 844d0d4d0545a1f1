"""Bytes from a client in, `Request`s out: a pure machine on llhttp (httptools) with no I/O and no clock.

A request comes out once its body is whole; where its route says so (`rules`) a large one comes out before, with a
stream (`open_stream`) that is fed as the body arrives.

Invariants: what the reader accepts has exactly one meaning. llhttp (strict) refuses CL+TE, duplicate or
malformed Content-Length, bare CR or LF, obs-fold, NUL and white space before the colon; refused here are unknown
transfer codings, a missing or repeated Host, other protocols and versions than HTTP/1.0 and 1.1, and everything over
a limit. Fields that `Connection` names are gone before anybody decides on them; fields for the whole way cannot be
named (RFC 9110 section 7.6.1). Trailers are dropped (RFC 9112 section 7.1.2 allows it).
An error says where: the field it stands in or behind.
Precedents for the defaults: request line 8 KiB (nginx, Apache), header fields 32 KiB (nginx 4 x 8 KiB), 100 fields
(Apache).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httptools

from gateway.errors import ProtocolError
from gateway.http import other_protocol
from gateway.http.fields import PLAIN_CONNECTION, SINGLE, check_host, drop_named, quote, wrong_coding
from gateway.http.other_protocol import SPOKEN, OpenLine
from gateway.http.target import split_target
from gateway.request import BodyRules, Request
from gateway.stream import Stream

ALWAYS_WHOLE: Final = 16 * 1024  # bytes: for a body of up to this stated length no route is asked

# What llhttp knows of HTTP, without RTSP's and ICE's methods, the preface of HTTP/2, and TRACE, whose answer would tell
# the client what we added to its request (RFC 9110 section 9.3.8).
_METHODS: Final = frozenset(
    (
        b"ACL", b"BIND", b"CHECKOUT", b"COPY", b"DELETE", b"GET", b"HEAD", b"LINK", b"LOCK", b"M-SEARCH", b"MERGE",
        b"MKACTIVITY", b"MKCALENDAR", b"MKCOL", b"MOVE", b"NOTIFY", b"OPTIONS", b"PATCH", b"POST", b"PROPFIND",
        b"PROPPATCH", b"PURGE", b"PUT", b"QUERY", b"REBIND", b"REPORT", b"SEARCH", b"SUBSCRIBE", b"UNBIND", b"UNLINK",
        b"UNLOCK", b"UNSUBSCRIBE",
    )
)  # fmt: skip
_USUAL_LINE: Final = b" HTTP/1.1\r"  # how the first line of most requests ends
_NO_TRAILER: Final = frozenset((b"connection", b"proxy-connection"))  # llhttp would act on them

_STATUS: Final = {"Invalid HTTP version": 505}  # llhttp's words for what deserves another status than 400


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Sizes in bytes, and how strict to be where there is a choice."""

    request_line: int = 8 * 1024
    header_bytes: int = 32 * 1024
    header_count: int = 100
    body: int = 16 * 1024 * 1024
    plain_paths_only: bool = False  # refuse what would be normalised


class RequestReader:
    """Feed it bytes; take requests from `ready`. `in_head` and `in_body` tell which part is unfinished.

    `wants_continue` is set when the client waits for `100 Continue`; the owner answers and clears it.
    After a ProtocolError the reader is dead: the connection must be closed.
    """

    __slots__ = (
        "_allowed", "_asked", "_begun", "_behind", "_body", "_count", "_early", "_fed", "_head_size", "_headers",
        "_keep_alive", "_limits", "_line", "_method", "_minor", "_open_stream", "_others", "_parser", "_path", "_rules",
        "_size", "_stream", "_target", "_tunnel", "_upgrading", "_url", "_usual", "_whole", "in_body", "in_head",
        "peer", "ready", "wants_continue",
    )  # fmt: skip

    def __init__(
        self,
        limits: ReadLimits,
        peer: bytes = b"",
        rules: Callable[[Request], BodyRules] | None = None,
        open_stream: Callable[[int | None], Stream] | None = None,
    ) -> None:
        self._limits = limits
        self.peer = peer
        self._rules = rules
        self._open_stream = open_stream
        self._tunnel: Stream | None = None  # once the connection speaks another protocol
        self._parser = httptools.HttpRequestParser(self)
        self.ready: deque[Request] = deque()
        self.wants_continue = False
        self._upgrading = False
        self._asked = (b"", b"")
        self._line: OpenLine | None = None  # of the unfinished head, while it may still go on
        self._behind = b""  # the bytes in which a head may follow one whose request line is known
        self._others: frozenset[bytes] | None = None  # targets there that RTSP is spoken to; None: not looked for yet
        self._usual = False  # the next head to begin is in HTTP/1.1, as its line was seen to say
        self._reset()

    def _reset(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._body: list[bytes] | bytes = b""
        self._head_size = 0  # of the parsed fields
        self._count = 0
        self._size = 0  # of the body so far
        self._fed = 0  # since the last progress: bounds what llhttp holds of an unfinished field
        self._begun = True
        self._early: Request | None = None  # made before its body is whole
        self._stream: Stream | None = None  # where its body goes
        self._whole = 0  # bytes of body that are held before it streams
        self._allowed = self._limits.body
        self.in_head = False
        self.in_body = False

    @property
    def tunnelled(self) -> bool:
        """Whether the connection speaks another protocol now."""
        return self._tunnel is not None

    @property
    def body_left(self) -> int:
        """How many of the next bytes are body and nothing else, as far as that is known: 0 in a chunked one."""
        if self._tunnel is not None:
            return sys.maxsize
        length = self._headers.get(b"content-length") if self.in_body else None
        return 0 if length is None else int(length) - self._size

    def feed(self, data: bytes) -> None:
        """Parses `data`. Raises ProtocolError with the status to answer."""
        if self._tunnel is not None:
            self._tunnel.feed(data)
            return
        if self._line is not None and not self._line.follow(data):
            self._line = None
        fresh = not (self.in_head or self.in_body)
        rest: bytes | memoryview = data
        if self.in_body:  # which is not searched: most of it holds no request
            self._behind = data
            self._others = None
        elif fresh and (end := data.find(b"\n")) > 0 and data.endswith(_USUAL_LINE, 0, end):
            self._usual = True
            self._behind = data  # for requests that follow in the same bytes
            self._others = None
        elif SPOKEN in data:
            rest = self._past_other_protocol(data)
        while rest:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                if self.tunnelled:
                    self._early_stream().feed(bytes(rest))
                    return
                self._ignore_upgrade()
            except httptools.HttpParserCallbackError as error:
                cause = error.__context__
                raise cause if isinstance(cause, ProtocolError) else ProtocolError("malformed request") from error
            except httptools.HttpParserError as error:
                what = error.args[0] if error.args else "unreadable"
                other = other_protocol.refused(what, data if fresh else b"")
                if other is None:
                    other = ProtocolError(f"malformed request {self._where()}: {what}", _STATUS.get(what, 400))
                raise other from None
        if self.in_head:
            self._watch_line(data, fresh)
            self._bound(len(data))
        else:
            self._behind = b""
            if self.in_body:
                self._bound(len(data))

    def _past_other_protocol(self, data: bytes) -> bytes:
        """Looks closer where `data` speaks of RTSP; returns what is left to parse. llhttp would take it for HTTP."""
        done = 0
        found = data.find(SPOKEN)
        while found >= 0:
            start = data.rfind(b"\n", done, found) + 1
            if start > done:
                self.feed(data[done:start])
                done = start
            if self.in_body:  # it may end on this line, and a request begin
                self.feed(data[done:found])
                done = found
                if self.in_head:
                    raise other_protocol.refusal()
            elif not (self.in_head and self._url):
                raise other_protocol.refusal()
            found = data.find(SPOKEN, found + 1)
        return data[done:]

    def _other_targets(self) -> frozenset[bytes]:
        """Whom the bytes that a head began somewhere in speak RTSP to. Where it began is not known: of two for one
        target, the first is refused too. Looked for once, for thousands of heads may be in them.
        """
        others = self._others
        if others is None:
            others = self._others = other_protocol.targets(self._behind)
        return others

    def _watch_line(self, data: bytes, fresh: bool) -> None:
        """Notes whether the head that `data` left unfinished may still be in its request line."""
        if data[-1:] == b"\n" or self._headers:
            self._line = None
        elif self._begun:
            self._line = other_protocol.open_line(data, fresh=fresh)

    def _where(self) -> str:
        """The part of the request that an error was found in."""
        if self.in_body:
            return "in the body"
        if not self.in_head:
            return "behind a request"
        if not self._headers:
            return "in the request line or the first field"
        return f"behind the field {quote(next(reversed(self._headers)))}"

    def _bound(self, fed: int) -> None:
        """Bounds what llhttp holds by itself: an unfinished field of head or trailers, a chunk's extensions."""
        if self._begun:
            self._begun = False  # there was progress in these bytes: how much of them is left over is not known
            return
        self._fed += fed
        if self._fed > self._limits.header_bytes + self._limits.request_line:
            raise ProtocolError(
                f"the {'head' if self.in_head else 'framing'} of the request is larger than allowed", 431
            )

    def _ignore_upgrade(self) -> None:
        """RFC 9110 section 7.8: a server may ignore Upgrade. llhttp stops behind the head, so a fresh parser takes
        over; where a body follows it is first shown a head with the same framing.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._upgrading:
            name = b"content-length" if b"content-length" in self._headers else b"transfer-encoding"
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%s: %s\r\n\r\n" % (name, self._headers[name]))
            self._upgrading = False

    # -- called by llhttp ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._upgrading:
            return
        self._reset()
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.request_line:
            raise ProtocolError(f"the request target is longer than the {self._limits.request_line} bytes allowed", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:  # a trailer
            if name.lower() in _NO_TRAILER:
                raise ProtocolError(f"the field {quote(name.lower())} cannot be a trailer")
            return
        headers = self._headers
        name = name.lower()
        self._head_size += len(name) + len(value) + 4
        self._count += 1
        if name in headers:
            if name in SINGLE:
                raise ProtocolError(f"the field {quote(name)} is repeated")
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value.rstrip()
        if self._head_size > self._limits.header_bytes:
            raise ProtocolError(
                f"the fields up to {quote(name)} are larger than the {self._limits.header_bytes} bytes allowed", 431
            )
        if self._count > self._limits.header_count:
            raise ProtocolError(f"there are more header fields than the {self._limits.header_count} allowed", 431)

    def on_headers_complete(self) -> None:
        if self._upgrading:
            return
        parser, headers = self._parser, self._headers
        self.in_head = False
        self.in_body = True
        self._begun = True
        self._method = parser.get_method()
        if self._usual:
            self._usual = False
            self._minor = 1
        else:
            if self._behind and self._url in self._other_targets():
                raise other_protocol.refusal()
            version = parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise ProtocolError(f"HTTP/{version} is not spoken here; use HTTP/1.1", 505)
            self._minor = int(version == "1.1")
        if self._minor and b"host" not in headers:
            raise ProtocolError("the Host field is missing")
        if self._method not in _METHODS:
            raise ProtocolError(f"the method {self._method.decode()} is not supported", 501)
        self._keep_alive = parser.should_keep_alive()
        host = headers.get(b"host", b"")
        if self._asked != (host, self._url):  # a connection mostly asks for the same thing again
            check_host(host)
            if self._url == b"*" and self._method == b"OPTIONS":  # RFC 9112 section 3.2.4: of the server as a whole
                self._path = self._target = self._url
                self._asked = (b"", b"")
            else:
                self._path, self._target = split_target(self._url, host, plain_only=self._limits.plain_paths_only)
                self._asked = (host, self._url)
        length = headers.get(b"content-length")
        if length is not None:
            if self._rules is None and int(length) > self._limits.body:
                raise self._too_large()
        elif b"transfer-encoding" in headers and (
            self._minor == 0 or headers[b"transfer-encoding"].lower() != b"chunked"
        ):
            raise wrong_coding(headers[b"transfer-encoding"], self._minor)
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                raise ProtocolError("only 'Expect: 100-continue' is understood", 417)
            self.wants_continue = self._minor == 1
        named = headers.get(b"connection")
        if named is not None and named not in PLAIN_CONNECTION:
            self._keep_alive = not drop_named(headers, named) and self._keep_alive
        if b"upgrade" in headers and parser.should_upgrade():
            self._upgrading = b"transfer-encoding" in headers or int(length or 0) > 0
            if not self._upgrading:
                if self._rules is not None:
                    self._upgrade_or_not(self._rules)
                return
        if self._rules is not None and (length is not None or b"transfer-encoding" in headers):
            size = None if length is None else int(length)
            if size is None or size > ALWAYS_WHOLE or size > self._limits.body:
                self._begin_body(self._rules, size)

    def _begin_body(self, rules: Callable[[Request], BodyRules], size: int | None) -> None:
        """A body that may be large: its route says from where on it streams, and how large it may get."""
        request = self._early = self._request(b"")
        buffer, self._allowed, _ = rules(request)
        self._whole = buffer
        if size is not None and size > self._allowed:
            raise self._too_large()
        if (size is None and not buffer) or (size is not None and size > buffer):
            self._hand_over(request, size)

    def _hand_over(self, request: Request, size: int | None) -> Stream:
        assert self._open_stream is not None
        request.stream = self._stream = stream = self._open_stream(size)
        self.ready.append(request)
        return stream

    def _early_stream(self) -> Stream:
        assert self._early is not None
        assert self._early.stream is not None
        return self._early.stream

    def _upgrade_or_not(self, rules: Callable[[Request], BodyRules]) -> None:
        """RFC 9110 section 7.8: a request may ask for another protocol; the route says whether it may have it."""
        wished = self._headers[b"upgrade"].lower()
        if self._minor == 1 and self._method == b"GET":
            request = self._request(b"")
            if wished in rules(request).upgrade:
                assert self._open_stream is not None
                request.upgrade = wished
                request.stream = self._open_stream(None)
                self._early = request

    def _request(self, body: bytes) -> Request:
        return Request(
            self._method, self._target, self._path, self._headers, body, self.peer, self._minor, self._keep_alive
        )

    def _too_large(self) -> ProtocolError:
        return ProtocolError(f"the body is larger than the {self._allowed} bytes allowed", 413)

    def on_body(self, data: bytes) -> None:
        self._begun = True
        self._fed = 0
        body = self._body
        if self._stream is not None:
            self._stream.feed(data)
        elif body == b"":
            self._body = data
        elif isinstance(body, list):
            body.append(data)
        else:
            self._body = [body, data]
        self._size += len(data)
        if b"transfer-encoding" in self._headers:
            if self._size > self._allowed:
                raise self._too_large()
            if self._early is not None and self._stream is None and self._size > self._whole:
                stream = self._hand_over(self._early, None)
                held, self._body = self._body, b""
                stream.feed(held if isinstance(held, bytes) else b"".join(held))

    def on_message_complete(self) -> None:
        if self._upgrading:
            return  # only the head: the body follows
        body = self._body
        self.in_body = False
        self.wants_continue = False
        if self._stream is not None:
            self._stream.end()
            self._stream = None
        elif self._early is not None and self._early.upgrade:
            self._tunnel = self._early.stream
            self.ready.append(self._early)
        else:
            self.ready.append(self._request(body if isinstance(body, bytes) else b"".join(body)))
