"""Frames of a link as bytes, and the heads that the other side remembers.

Contract: `docs/link.md`. What both sides send is here: the gateway sends a client's frames, and tests answer with a
backend's.
"""

from __future__ import annotations

from gateway.link.frames import (
    BAD_VALUE,
    CODES,
    DATA,
    END,
    ERROR,
    HEADER,
    HELLO,
    LOAD,
    LOAD_REPORT,
    MAGIC,
    MAX_FIELDS,
    MAX_TEXT,
    METHOD,
    NAME,
    REQUEST,
    REQUEST_START,
    RESPONSE,
    RESPONSE_START,
    SETTING,
    TARGET,
    U16,
    U32,
    VERSION,
    WINDOW,
    LoadReport,
    Settings,
)
from gateway.request import Header


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
    if len(value) > 65_535 or len(name) > 255 or BAD_VALUE.search(value) is not None:
        raise ValueError("the field is not for the link")
    code = CODES.get(name)
    if code is None:
        if NAME.fullmatch(name) is None:
            raise ValueError("the field is not for the link")
        code = b"\x00%c%b" % (len(name), name)
    return code + U16.pack(len(value)) + value


def request_head(method: bytes, target: bytes, fields: list[Header]) -> bytes:
    """A request's head. ValueError if it cannot be said on the link."""
    if len(method) > 255 or len(target) > 65_535 or len(fields) > MAX_FIELDS:
        raise ValueError("the head is too large for the link")
    if METHOD.fullmatch(method) is None or TARGET.fullmatch(target) is None:
        raise ValueError("not a method and a target")
    parts = [b"%c%b%b%b" % (len(method), method, U16.pack(len(target)), target)]
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
    start = REQUEST_START.pack(
        length, REQUEST, END if end else 0, priority, stream, deadline_us, slot, len(extra), len(head), 0
    )
    return start + extra + head + body


def request_start(
    stream: int, deadline_us: int, slot: int, extra: int, head: int, body: int, *, end: bool, priority: int = 0
) -> bytes:
    """The first 24 bytes of a REQUEST whose extra fields, head and body have these lengths and follow."""
    return REQUEST_START.pack(
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
    start = RESPONSE_START.pack(length, RESPONSE, END if end else 0, status, stream, slot, len(extra), len(head), 0)
    return start + extra + head + body


def data_start(stream: int, length: int, *, end: bool) -> bytes:
    """The header of a DATA frame."""
    return HEADER.pack(length, DATA, END if end else 0, 0, stream)


def control(kind: int, payload: bytes = b"", *, code: int = 0, stream: int = 0) -> bytes:
    """Any frame without flags."""
    return HEADER.pack(len(payload), kind, 0, code, stream) + payload


def hello(settings: Settings) -> bytes:
    """The first frame of each side."""
    pairs = [SETTING.pack(number, value) for number, value in enumerate(settings.values(), 1)]
    return control(HELLO, U32.pack(MAGIC) + b"".join(pairs), code=VERSION)


def window(stream: int, credit: int) -> bytes:
    """Allows the other side `credit` more bytes of body."""
    return control(WINDOW, U32.pack(credit), stream=stream)


def load(report: LoadReport) -> bytes:
    """How busy we are."""
    return control(LOAD, LOAD_REPORT.pack(report.queued, report.running, report.capacity, round(report.service * 1e6)))


def error(code: int, text: str) -> bytes:
    """The last frame of a side that gives the connection up."""
    return control(ERROR, text.encode()[:MAX_TEXT], code=code)
