"""The link's frames: bytes in, calls out, and back. A pure machine with no I/O and no clock.

Contract: `docs/link.md` (format, limits, and what each violation leads to). Both ends are here, so that each can be
tested against the other; the gateway uses the client's end only.
Invariants: nothing is taken in before its length is known to be allowed; what is remembered is bounded in count and
size; after a `LinkViolation` the decoder is dead and the connection must be closed.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from gateway.errors import LinkViolation
from gateway.request import Header

VERSION: Final = 1
PROTOCOL: Final = b"sluice-link/1"
MAGIC: Final = 0x4B4E4C53  # "SLNK", little-endian

# -- types; the high bit says that a receiver who does not know the type may pass over the frame ------------------

HELLO: Final = 1
REQUEST: Final = 2
RESPONSE: Final = 3
DATA: Final = 4
WINDOW: Final = 5
CANCEL: Final = 6
LOAD: Final = 7
DRAIN: Final = 8
PING: Final = 9
PONG: Final = 10
ERROR: Final = 11
OPTIONAL: Final = 0x80

END: Final = 0x01  # flag of REQUEST, RESPONSE, DATA: the last frame of this side of the stream

# -- codes of ERROR (the connection ends) and of CANCEL (the stream ends) -----------------------------------------

E_NONE: Final = 0
E_PROTOCOL: Final = 1
E_FLOW: Final = 2
E_SIZE: Final = 3
E_STREAM: Final = 4
E_HEAD: Final = 5
E_VERSION: Final = 6
E_TIMEOUT: Final = 7
E_INTERNAL: Final = 8

C_UNWANTED: Final = 1
C_DEADLINE: Final = 2
C_REFUSED: Final = 3
C_FAILED: Final = 4
C_TOO_LARGE: Final = 5

# -- limits -------------------------------------------------------------------------------------------------------

HEADER_SIZE: Final = 12
MIN_MAX_FRAME: Final = 256 * 1024  # extra, head and an inline body always fit one frame
MAX_MAX_FRAME: Final = 16 * 1024 * 1024
CHUNK: Final = 64 * 1024  # most body bytes in one frame we send: nobody waits long behind it
MAX_STREAM: Final = 0x7FFFFFFF
MAX_WINDOW: Final = 0x7FFFFFFF
MAX_REMEMBERED: Final = 4096  # bytes of a head that may be remembered
MAX_SLOTS: Final = 1024
MAX_FIELDS: Final = 128
MAX_TEXT: Final = 256  # bytes of an ERROR's text
MAX_CONTROL: Final = 1024  # bytes of any frame that is not REQUEST, RESPONSE or DATA

_HEADER: Final = struct.Struct("<IBBHI")  # payload length, type, flags, code, stream
_REQUEST: Final = struct.Struct("<IBBHIIHHHH")  # header; deadline us, slot, extra length, head length, 0
_REQUEST_REST: Final = struct.Struct("<IHHHH")
_RESPONSE: Final = struct.Struct("<IBBHIHHHH")  # header; slot, extra length, head length, 0
_RESPONSE_REST: Final = struct.Struct("<HHHH")
_SETTING: Final = struct.Struct("<HI")
_LOAD: Final = struct.Struct("<IIII")
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")

#: Names with a code of one byte, from 1. Only ever appended to: an index is part of the protocol.
FIELDS: Final = (
    b"accept", b"accept-encoding", b"accept-language", b"allow", b"authorization", b"baggage", b"cache-control",
    b"content-encoding", b"content-language", b"content-length", b"content-type", b"cookie", b"date", b"etag",
    b"host", b"idempotency-key", b"if-none-match", b"last-modified", b"location", b"origin", b"referer",
    b"retry-after", b"server", b"server-timing", b"set-cookie", b"traceparent", b"tracestate", b"user-agent",
    b"vary", b"www-authenticate", b"x-forwarded-for", b"x-request-id",
)  # fmt: skip
_CODES: Final = {name: bytes((code,)) for code, name in enumerate(FIELDS, 1)}

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET: Final = re.compile(rb"[!-~\x80-\xff]+")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]")


class Settings:
    """What one side allows the other; sizes in bytes. The defaults are what each side may assume of a silent HELLO."""

    __slots__ = ("connection_window", "max_frame", "max_head", "max_streams", "slots", "stream_window")

    def __init__(
        self,
        max_frame: int = MIN_MAX_FRAME,
        max_streams: int = 0,
        stream_window: int = 1024 * 1024,
        connection_window: int = 16 * 1024 * 1024,
        max_head: int = 65_535,
        slots: int = 256,
    ) -> None:
        self.max_frame = max_frame
        self.max_streams = max_streams
        self.stream_window = stream_window
        self.connection_window = connection_window
        self.max_head = max_head
        self.slots = slots

    def values(self) -> tuple[int, ...]:
        """In the order of their identifiers, from 1."""
        return (
            self.max_frame,
            self.max_streams,
            self.stream_window,
            self.connection_window,
            self.max_head,
            self.slots,
        )


#: Least and greatest value of each setting, in the order of `Settings.values`.
_BOUNDS: Final = (
    (MIN_MAX_FRAME, MAX_MAX_FRAME),
    (0, 65_535),
    (CHUNK, MAX_WINDOW),
    (CHUNK, MAX_WINDOW),
    (1024, 65_535),
    (0, MAX_SLOTS),
)


class RequestHead:
    """What a request says that the next one of its kind says again."""

    __slots__ = ("fields", "method", "target")

    def __init__(self, method: bytes, target: bytes, fields: list[Header]) -> None:
        self.method = method
        self.target = target
        self.fields = fields


class LoadReport:
    """How busy the other side is: requests waiting and running, how many run at a time, and seconds for one."""

    __slots__ = ("capacity", "queued", "running", "service")

    def __init__(self, queued: int = 0, running: int = 0, capacity: int = 0, service: float = 0.0) -> None:
        self.queued = queued
        self.running = running
        self.capacity = capacity
        self.service = service


class Receiver:
    """What a decoder calls, once per frame, in order. An implementation may raise LinkViolation."""

    def on_hello(self, settings: Settings) -> None:
        raise NotImplementedError

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
        raise NotImplementedError

    def on_response(
        self, stream: int, status: int, fields: list[Header], extra: list[Header] | None, body: bytes, end: bool
    ) -> None:
        """`fields` is the receiver's own list."""
        raise NotImplementedError

    def on_data(self, stream: int, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def on_window(self, stream: int, credit: int) -> None:
        raise NotImplementedError

    def on_cancel(self, stream: int, code: int) -> None:
        raise NotImplementedError

    def on_load(self, load: LoadReport) -> None:
        raise NotImplementedError

    def on_drain(self) -> None:
        raise NotImplementedError

    def on_ping(self, payload: bytes) -> None:
        raise NotImplementedError

    def on_pong(self, payload: bytes) -> None:
        raise NotImplementedError

    def on_error(self, code: int, text: bytes) -> None:
        raise NotImplementedError


class Decoder:
    """Takes the bytes of one direction of one connection. `client` says who receives: requests or responses are
    a violation accordingly. `mine` are the settings we sent; fields in `dropped` are left out of a response's head.
    """

    __slots__ = (
        "_client", "_dropped", "_greeted", "_have", "_max_frame", "_max_head", "_need", "_receiver", "_remembered",
        "_requests", "_rest", "_slots", "stopped",
    )  # fmt: skip

    def __init__(
        self, receiver: Receiver, mine: Settings, *, client: bool, dropped: frozenset[bytes] = frozenset()
    ) -> None:
        self._receiver = receiver
        self._dropped = dropped
        self._client = client
        self._max_frame = mine.max_frame
        self._max_head = mine.max_head
        self._slots = mine.slots
        self._remembered: dict[int, list[Header]] = {}
        self._requests: dict[int, RequestHead] = {}
        self._rest: list[bytes] = []
        self._have = 0  # bytes in `_rest`
        self._need = 0  # bytes that are wanted before it is worth looking again
        self._greeted = False
        self.stopped = False

    def feed(self, data: bytes) -> None:
        """Decodes every whole frame. Raises LinkViolation; what came before the fault has been handed over."""
        if self._have:
            self._rest.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._rest)
            self._rest = []
            self._have = 0
        receiver = self._receiver
        position = 0
        size = len(data)
        while size - position >= 12:
            if self.stopped:
                return
            length, kind, flags, code, stream = _HEADER.unpack_from(data, position)
            start = position + 12
            end = start + length
            if length > self._max_frame:
                raise LinkViolation(E_SIZE, f"a frame of {length} bytes; {self._max_frame} are allowed")
            if end > size:
                if kind not in (REQUEST, RESPONSE, DATA) and length > MAX_CONTROL:
                    raise LinkViolation(E_SIZE, f"a control frame of {length} bytes")
                self._need = end - position
                break
            if kind == RESPONSE and self._client and self._greeted:
                self._response(data, start, end, flags, code, stream)
            elif kind == DATA:
                self._stream_frame(stream, flags, code)
                if not length and not flags:
                    raise LinkViolation(E_PROTOCOL, "DATA with nothing in it")
                receiver.on_data(stream, data[start:end], flags == END)
            elif kind == REQUEST and not self._client and self._greeted:
                self._request(data, start, end, flags, code, stream)
            else:
                self._control(data[start:end], kind, flags, code, stream)
            position = end
        else:
            self._need = 12
        if position < size and not self.stopped:
            self._rest = [data[position:] if position else data]
            self._have = size - position

    def _stream_frame(self, stream: int, flags: int, code: int) -> None:
        if not self._greeted:
            raise LinkViolation(E_PROTOCOL, "the first frame is not HELLO")
        if not 0 < stream <= MAX_STREAM:
            raise LinkViolation(E_STREAM, f"stream {stream} cannot be")
        if flags > END or code:
            raise LinkViolation(E_PROTOCOL, f"flags {flags:#x}, code {code} in DATA")

    def _response(self, data: bytes, start: int, end: int, flags: int, status: int, stream: int) -> None:
        if flags > END or not 200 <= status <= 599:
            raise LinkViolation(E_PROTOCOL, f"flags {flags:#x}, status {status} in RESPONSE")
        if end - start < 8:
            raise LinkViolation(E_PROTOCOL, "RESPONSE is too short")
        slot, extra, head, zero = _RESPONSE_REST.unpack_from(data, start)
        start += 8
        body = start + extra + head
        if body > end or zero:
            raise LinkViolation(E_PROTOCOL, "RESPONSE contradicts its own lengths")
        if head > self._max_head:
            raise LinkViolation(E_HEAD, f"a head of {head} bytes")
        if head:
            fields = read_fields(data, start + extra, body)
            if self._dropped:
                fields = [one for one in fields if one[0] not in self._dropped]
            if slot:
                self._may_remember(slot, head)
                self._remembered[slot] = fields
                fields = fields.copy()
        elif slot:
            known = self._remembered.get(slot)
            if known is None:
                raise LinkViolation(E_HEAD, f"nothing is remembered in slot {slot}")
            fields = known.copy()
        else:
            fields = []
        more = read_fields(data, start, start + extra) if extra else None
        if not 0 < stream <= MAX_STREAM:
            raise LinkViolation(E_STREAM, f"stream {stream} cannot be")
        self._receiver.on_response(stream, status, fields, more, data[body:end], flags == END)

    def _request(self, data: bytes, start: int, end: int, flags: int, priority: int, stream: int) -> None:
        if flags > END or priority > 7:
            raise LinkViolation(E_PROTOCOL, f"flags {flags:#x}, priority {priority} in REQUEST")
        if end - start < 12:
            raise LinkViolation(E_PROTOCOL, "REQUEST is too short")
        deadline, slot, extra, length, zero = _REQUEST_REST.unpack_from(data, start)
        start += 12
        body = start + extra + length
        if body > end or zero:
            raise LinkViolation(E_PROTOCOL, "REQUEST contradicts its own lengths")
        if length > self._max_head:
            raise LinkViolation(E_HEAD, f"a head of {length} bytes")
        if length:
            head = self._request_head(data, start + extra, body)
            if slot:
                self._may_remember(slot, length)
                self._requests[slot] = head
        else:
            known = self._requests.get(slot) if slot else None
            if known is None:
                raise LinkViolation(E_HEAD, f"nothing is remembered in slot {slot}")
            head = known
        fields = read_fields(data, start, start + extra) if extra else []
        if not 0 < stream <= MAX_STREAM:
            raise LinkViolation(E_STREAM, f"stream {stream} cannot be")
        self._receiver.on_request(stream, priority, deadline, head, fields, data[body:end], flags == END)

    def _may_remember(self, slot: int, length: int) -> None:
        if slot > self._slots:
            raise LinkViolation(E_HEAD, f"slot {slot} of {self._slots}")
        if length > MAX_REMEMBERED:
            raise LinkViolation(E_HEAD, f"a head of {length} bytes is too large to be remembered")

    def _request_head(self, data: bytes, start: int, end: int) -> RequestHead:
        middle = start + 1 + data[start]
        if middle + 2 > end:
            raise LinkViolation(E_HEAD, "the method is longer than its head")
        method = data[start + 1 : middle]
        fields = middle + 2 + _U16.unpack_from(data, middle)[0]
        if fields > end:
            raise LinkViolation(E_HEAD, "the target is longer than its head")
        target = data[middle + 2 : fields]
        if _METHOD.fullmatch(method) is None or _TARGET.fullmatch(target) is None:
            raise LinkViolation(E_HEAD, "not a method and a target")
        return RequestHead(method, target, read_fields(data, fields, end))

    def _control(self, payload: bytes, kind: int, flags: int, code: int, stream: int) -> None:
        size = len(payload)
        if kind == HELLO:
            if self._greeted:
                raise LinkViolation(E_PROTOCOL, "a second HELLO")
            if flags or stream:
                raise LinkViolation(E_PROTOCOL, "HELLO is for the whole connection")
            settings = read_hello(payload, code)
            self._greeted = True
            self._receiver.on_hello(settings)
            return
        if kind == ERROR and not flags and not stream:
            self.stopped = True
            self._receiver.on_error(code, payload[:MAX_TEXT])
            return
        if not self._greeted:
            raise LinkViolation(E_PROTOCOL, "the first frame is not HELLO")
        if size > MAX_CONTROL:
            raise LinkViolation(E_SIZE, f"a control frame of {size} bytes")
        if kind & OPTIONAL:
            return
        if flags:
            raise LinkViolation(E_PROTOCOL, f"flags {flags:#x} in a frame of type {kind}")
        if kind == CANCEL:
            if not 0 < stream <= MAX_STREAM:
                raise LinkViolation(E_STREAM, f"stream {stream} cannot be")
            if size:
                raise LinkViolation(E_PROTOCOL, "CANCEL has no payload")
            self._receiver.on_cancel(stream, code)
            return
        if code:
            raise LinkViolation(E_PROTOCOL, f"code {code} in a frame of type {kind}")
        if kind == WINDOW:
            credit = _U32.unpack(payload)[0] if size == 4 else 0
            if stream > MAX_STREAM:
                raise LinkViolation(E_STREAM, f"stream {stream} cannot be")
            if not 0 < credit <= MAX_WINDOW:
                raise LinkViolation(E_FLOW, f"a credit of {credit} bytes")
            self._receiver.on_window(stream, credit)
            return
        if stream:
            raise LinkViolation(E_PROTOCOL, f"stream {stream} in a frame of type {kind}")
        if kind in (PING, PONG):
            if size != 8:
                raise LinkViolation(E_PROTOCOL, "PING and PONG have 8 bytes")
            if kind == PING:
                self._receiver.on_ping(payload)
            else:
                self._receiver.on_pong(payload)
        elif kind == LOAD and self._client:
            if size < 16:
                raise LinkViolation(E_PROTOCOL, "LOAD is too short")
            queued, running, capacity, service = _LOAD.unpack_from(payload)
            self._receiver.on_load(LoadReport(queued, running, capacity, service / 1e6))
        elif kind == DRAIN and self._client:
            if size:
                raise LinkViolation(E_PROTOCOL, "DRAIN has no payload")
            self._receiver.on_drain()
        else:
            raise LinkViolation(E_PROTOCOL, f"a frame of type {kind}")


def read_fields(data: bytes, start: int, end: int) -> list[Header]:
    """The fields in `data[start:end]`; LinkViolation if they are not."""
    fields: list[Header] = []
    while start < end:
        code = data[start]
        start += 1
        if code:
            if code > len(FIELDS):
                raise LinkViolation(E_HEAD, f"field code {code}")
            name = FIELDS[code - 1]
        else:
            if start >= end:
                raise LinkViolation(E_HEAD, "a field is cut off")
            after = start + 1 + data[start]
            name = data[start + 1 : after]
            if after > end or _NAME.fullmatch(name) is None:
                raise LinkViolation(E_HEAD, "not a field name in lower case")
            start = after
        if end - start < 2:
            raise LinkViolation(E_HEAD, "a field is cut off")
        after = start + 2 + _U16.unpack_from(data, start)[0]
        value = data[start + 2 : after]
        if after > end or _BAD_VALUE.search(value) is not None:
            raise LinkViolation(E_HEAD, "not a field value")
        fields.append((name, value))
        start = after
        if len(fields) > MAX_FIELDS:
            raise LinkViolation(E_HEAD, f"more than {MAX_FIELDS} fields")
    return fields


def read_hello(payload: bytes, version: int) -> Settings:
    """The other side's settings."""
    if version != VERSION:
        raise LinkViolation(E_VERSION, f"version {version}")
    if len(payload) > MAX_CONTROL or len(payload) % 6 != 4 or _U32.unpack_from(payload)[0] != MAGIC:
        raise LinkViolation(E_PROTOCOL, "not a HELLO")
    values = list(Settings().values())
    seen = 0
    for position in range(4, len(payload), 6):
        identifier, value = _SETTING.unpack_from(payload, position)
        if not 1 <= identifier <= len(_BOUNDS):
            continue  # of a later revision
        if seen >> identifier & 1:
            raise LinkViolation(E_PROTOCOL, f"setting {identifier} is said twice")
        seen |= 1 << identifier
        low, high = _BOUNDS[identifier - 1]
        if not low <= value <= high:
            raise LinkViolation(E_PROTOCOL, f"setting {identifier} is {value}; it must be {low} to {high}")
        values[identifier - 1] = value
    return Settings(*values)


# -- making frames ------------------------------------------------------------------------------------------------


class SentHeads:
    """Which heads the other side remembers: a bounded table that both ends keep alike.

    A head is worth a slot when it is seen a second time, so that targets that never come again push nobody out.
    The oldest gives way.
    """

    __slots__ = ("_known", "_next", "_owners", "_seen", "_slots")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._known: dict[bytes, int] = {}
        self._owners: list[bytes] = []
        self._next = 0
        self._seen: set[int] = set()

    def find(self, key: bytes) -> int:
        """The slot of a head that is remembered, or 0."""
        return self._known.get(key, 0)

    def learn(self, key: bytes) -> int:
        """The slot to remember a head under that was not found, or 0 to send it just this once."""
        if not self._slots:
            return 0
        mark = hash(key)
        if mark not in self._seen:
            if len(self._seen) >= 4 * self._slots:
                self._seen.clear()
            self._seen.add(mark)
            return 0
        slot = self._next
        self._next = (slot + 1) % self._slots
        if slot < len(self._owners):
            del self._known[self._owners[slot]]
            self._owners[slot] = key
        else:
            self._owners.append(key)
        self._known[key] = slot + 1
        return slot + 1


def field(name: bytes, value: bytes) -> bytes:
    """One field. ValueError if it cannot be said on the link."""
    if len(value) > 65_535 or len(name) > 255 or _BAD_VALUE.search(value) is not None:
        raise ValueError("the field is not for the link")
    code = _CODES.get(name)
    if code is None:
        if _NAME.fullmatch(name) is None:
            raise ValueError("the field is not for the link")
        code = b"\x00%c%b" % (len(name), name)
    return code + _U16.pack(len(value)) + value


def request_head(method: bytes, target: bytes, fields: list[Header]) -> bytes:
    """A request's head. ValueError if it cannot be said on the link."""
    if len(method) > 255 or len(target) > 65_535 or len(fields) > MAX_FIELDS:
        raise ValueError("the head is too large for the link")
    if _METHOD.fullmatch(method) is None or _TARGET.fullmatch(target) is None:
        raise ValueError("not a method and a target")
    parts = [b"%c%b%b%b" % (len(method), method, _U16.pack(len(target)), target)]
    parts += [field(name, value) for name, value in fields]
    head = b"".join(parts)
    if len(head) > 65_535:
        raise ValueError("the head is too large for the link")
    return head


def response_head(fields: list[Header]) -> bytes:
    """A response's head."""
    return b"".join([field(name, value) for name, value in fields])


def request(
    stream: int,
    deadline_us: int,
    head: bytes,
    *,
    slot: int = 0,
    extra: bytes = b"",
    body: bytes = b"",
    end: bool = True,
    priority: int = 0,
) -> bytes:
    """A whole REQUEST; an empty head refers to the slot."""
    length = 12 + len(extra) + len(head) + len(body)
    start = _REQUEST.pack(
        length, REQUEST, END if end else 0, priority, stream, deadline_us, slot, len(extra), len(head), 0
    )
    return start + extra + head + body


def request_start(
    stream: int, deadline_us: int, slot: int, extra: int, head: int, body: int, *, end: bool, priority: int = 0
) -> bytes:
    """The first 24 bytes of a REQUEST whose extra fields, head and body have these lengths and follow."""
    return _REQUEST.pack(
        12 + extra + head + body, REQUEST, END if end else 0, priority, stream, deadline_us, slot, extra, head, 0
    )


def response(
    stream: int,
    status: int,
    head: bytes = b"",
    *,
    slot: int = 0,
    extra: bytes = b"",
    body: bytes = b"",
    end: bool = True,
) -> bytes:
    """A whole RESPONSE; an empty head refers to the slot, if there is one."""
    length = 8 + len(extra) + len(head) + len(body)
    start = _RESPONSE.pack(length, RESPONSE, END if end else 0, status, stream, slot, len(extra), len(head), 0)
    return start + extra + head + body


def data_start(stream: int, length: int, *, end: bool) -> bytes:
    """The header of a DATA frame."""
    return _HEADER.pack(length, DATA, END if end else 0, 0, stream)


def control(kind: int, payload: bytes = b"", *, code: int = 0, stream: int = 0) -> bytes:
    """Any frame without flags."""
    return _HEADER.pack(len(payload), kind, 0, code, stream) + payload


def hello(settings: Settings) -> bytes:
    """The first frame of each side."""
    pairs = [_SETTING.pack(number, value) for number, value in enumerate(settings.values(), 1)]
    return control(HELLO, _U32.pack(MAGIC) + b"".join(pairs), code=VERSION)


def window(stream: int, credit: int) -> bytes:
    """Allows the other side `credit` more bytes of body."""
    return control(WINDOW, _U32.pack(credit), stream=stream)


def load(report: LoadReport) -> bytes:
    """How busy we are."""
    return control(LOAD, _LOAD.pack(report.queued, report.running, report.capacity, round(report.service * 1e6)))


def error(code: int, text: str) -> bytes:
    """The last frame of a side that gives the connection up."""
    return control(ERROR, text.encode()[:MAX_TEXT], code=code)
