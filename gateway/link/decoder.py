"""Bytes of a link in, calls out: a pure machine with no I/O and no clock.

Contract: `docs/link.md` (format, limits, and what each violation leads to). Both sides of a link can be received: the
gateway is a client, and tests read what it sends.
Invariants: nothing is taken in before its length is known to be allowed; what is remembered is bounded in count and
size; after a `LinkViolation` the decoder is dead and the connection must be closed.
"""

from __future__ import annotations

from gateway.errors import LinkViolation
from gateway.link.frames import (
    BAD_VALUE,
    BOUNDS,
    CANCEL,
    DATA,
    DRAIN,
    E_FLOW,
    E_HEAD,
    E_PROTOCOL,
    E_SIZE,
    E_STREAM,
    E_VERSION,
    END,
    ERROR,
    FIELDS,
    HEADER,
    HELLO,
    LOAD,
    LOAD_REPORT,
    MAGIC,
    MAX_CONTROL,
    MAX_FIELDS,
    MAX_REMEMBERED,
    MAX_STREAM,
    MAX_TEXT,
    MAX_WINDOW,
    METHOD,
    NAME,
    OPTIONAL,
    PING,
    PONG,
    REQUEST,
    REQUEST_REST,
    RESPONSE,
    RESPONSE_REST,
    SETTING,
    TARGET,
    U16,
    U32,
    VERSION,
    WINDOW,
    LoadReport,
    Receiver,
    RequestHead,
    Settings,
)
from gateway.request import Header


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
            length, kind, flags, code, stream = HEADER.unpack_from(data, position)
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
        slot, extra, head, zero = RESPONSE_REST.unpack_from(data, start)
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
        deadline, slot, extra, length, zero = REQUEST_REST.unpack_from(data, start)
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
        fields = middle + 2 + U16.unpack_from(data, middle)[0]
        if fields > end:
            raise LinkViolation(E_HEAD, "the target is longer than its head")
        target = data[middle + 2 : fields]
        if METHOD.fullmatch(method) is None or TARGET.fullmatch(target) is None:
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
            credit = U32.unpack(payload)[0] if size == 4 else 0
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
            queued, running, capacity, service = LOAD_REPORT.unpack_from(payload)
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
            if after > end or NAME.fullmatch(name) is None:
                raise LinkViolation(E_HEAD, "not a field name in lower case")
            start = after
        if end - start < 2:
            raise LinkViolation(E_HEAD, "a field is cut off")
        after = start + 2 + U16.unpack_from(data, start)[0]
        value = data[start + 2 : after]
        if after > end or BAD_VALUE.search(value) is not None:
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
    if len(payload) > MAX_CONTROL or len(payload) % 6 != 4 or U32.unpack_from(payload)[0] != MAGIC:
        raise LinkViolation(E_PROTOCOL, "not a HELLO")
    values = list(Settings().values())
    seen = 0
    for position in range(4, len(payload), 6):
        identifier, value = SETTING.unpack_from(payload, position)
        if not 1 <= identifier <= len(BOUNDS):
            continue  # of a later revision
        if seen >> identifier & 1:
            raise LinkViolation(E_PROTOCOL, f"setting {identifier} is said twice")
        seen |= 1 << identifier
        low, high = BOUNDS[identifier - 1]
        if not low <= value <= high:
            raise LinkViolation(E_PROTOCOL, f"setting {identifier} is {value}; it must be {low} to {high}")
        values[identifier - 1] = value
    return Settings(*values)
