"""The link's frames: their types, codes, limits and layout, what each side allows the other, and what a frame says.

Contract: `docs/link.md`. `decoder.py` reads frames and calls a `Receiver`; `encoder.py` makes them.
"""

from __future__ import annotations

import re
import struct
from typing import Final

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

HEADER: Final = struct.Struct("<IBBHI")  # payload length, type, flags, code, stream
REQUEST_START: Final = struct.Struct("<IBBHIIHHHH")  # header; deadline us, slot, extra length, head length, 0
REQUEST_REST: Final = struct.Struct("<IHHHH")
RESPONSE_START: Final = struct.Struct("<IBBHIHHHH")  # header; slot, extra length, head length, 0
RESPONSE_REST: Final = struct.Struct("<HHHH")
SETTING: Final = struct.Struct("<HI")
LOAD_REPORT: Final = struct.Struct("<IIII")
U16: Final = struct.Struct("<H")
U32: Final = struct.Struct("<I")

#: Names with a code of one byte, from 1. Only ever appended to: an index is part of the protocol.
FIELDS: Final = (
    b"accept", b"accept-encoding", b"accept-language", b"allow", b"authorization", b"baggage", b"cache-control",
    b"content-encoding", b"content-language", b"content-length", b"content-type", b"cookie", b"date", b"etag",
    b"host", b"idempotency-key", b"if-none-match", b"last-modified", b"location", b"origin", b"referer",
    b"retry-after", b"server", b"server-timing", b"set-cookie", b"traceparent", b"tracestate", b"user-agent",
    b"vary", b"www-authenticate", b"x-forwarded-for", b"x-request-id",
)  # fmt: skip
CODES: Final = {name: bytes((code,)) for code, name in enumerate(FIELDS, 1)}

NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
TARGET: Final = re.compile(rb"[!-~\x80-\xff]+")
BAD_VALUE: Final = re.compile(rb"[\x00\r\n]")


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
BOUNDS: Final = (
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
