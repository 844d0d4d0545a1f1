"""What one entry of the corpus says: the bytes, the clause they break or stretch, and what must come of them.

`answers` are the final statuses the client must see, in order; `forwards` is what the backend must see, in order and
to the byte but for the request's id and the time left. An entry sends `sends` requests in the eyes of the client that
wrote it: the backend must never see more, whoever stands in between.
"""

from __future__ import annotations

from typing import NamedTuple

#: The gateway's limits in every run of the corpus; small, so that both sides of each limit are cheap to test.
MAX_REQUEST_LINE, MAX_HEADER_BYTES, MAX_HEADERS, MAX_BODY = 1024, 4096, 24, 4096

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"
SMUGGLED_CHUNK = b"%x\r\n%s\r\n" % (len(SMUGGLED), SMUGGLED)
ENDLESS = 1_000_000  # bytes: more than three reads of any event loop
CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"


_OWN = b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nvia: *\r\nx-request-id: *\r\nx-request-timeout: *\r\n"


class Once(NamedTuple):
    """A request as the backend must see it: `fields` between the gateway's own and the framing, whole lines."""

    line: bytes = b"GET / HTTP/1.1"
    fields: bytes = b""
    body: bytes | None = None
    host: bytes = b"a"

    def wire(self) -> bytes:
        """Its bytes, with the parts that differ each time replaced by a star."""
        framing = b"" if self.body is None else b"content-length: %d\r\n" % len(self.body)
        return b"%s\r\nhost: %s\r\n%s%s%s\r\n%s" % (
            self.line, self.host, _OWN, self.fields, framing, self.body or b"",
        )  # fmt: skip


class Case(NamedTuple):
    """One entry: see the module header."""

    id: str
    family: str
    raw: bytes
    clause: str
    answers: tuple[int, ...]
    forwards: tuple[Once, ...]
    closes: bool
    note: str
    sends: int = 1
    waits: bool = False  # the request is not whole: nothing happens before the deadline


def lines(*parts: bytes) -> bytes:
    """A head: each part on its line, and the empty line."""
    return b"\r\n".join(parts) + b"\r\n\r\n"


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: a") -> bytes:
    return lines(line, *(() if host is None else (host,)), *fields)


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST / HTTP/1.1") -> bytes:
    return get(*fields, line=line) + body


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A POST in chunks, as `body` spells them."""
    return post(CHUNKED, *fields, body=body)


class Family:
    """Collects the entries of one family."""

    def __init__(self, name: str, clause: str) -> None:
        self.name = name
        self.clause = clause
        self.cases: list[Case] = []

    def _add(self, id: str, raw: bytes, clause: str, **how) -> None:
        self.cases.append(Case(f"{self.name}/{id}", self.name, raw, clause or self.clause, **how))

    def refused(self, id: str, raw: bytes, note: str = "", status: int = 400, clause: str = "") -> None:
        """Answered once with `status`, closed, and nothing forwarded."""
        self._add(id, raw, clause, answers=(status,), forwards=(), closes=True, note=note)

    def passes(
        self,
        id: str,
        raw: bytes,
        *forwards: Once,
        note: str = "",
        closes: bool = False,
        status: int = 200,
        clause: str = "",
    ) -> None:
        """Forwarded exactly so, each request answered by the backend."""
        count = len(forwards)
        self._add(
            id, raw, clause, answers=(status,) * count, forwards=forwards, closes=closes, note=note, sends=count,
        )  # fmt: skip

    def then_refused(
        self, id: str, raw: bytes, *forwards: Once, note: str = "", status: int = 400, clause: str = ""
    ) -> None:
        """The good requests in front are answered, then one refusal, and the connection closes."""
        answers = (200,) * len(forwards) + (status,)
        self._add(
            id, raw, clause, answers=answers, forwards=forwards, closes=True, note=note, sends=len(forwards) + 1,
        )  # fmt: skip

    def waits(self, id: str, raw: bytes, note: str = "", clause: str = "") -> None:
        """Not a whole request: 408 at the deadline, nothing forwarded."""
        self._add(id, raw, clause, answers=(408,), forwards=(), closes=True, note=note, waits=True)
