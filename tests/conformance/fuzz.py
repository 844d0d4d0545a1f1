"""Mutated bytes into both parsers, and what must hold whatever they are.

    python -m tests.conformance.fuzz --seed N --count 100000

* Nothing is raised but ProtocolError (requests) or UpstreamError (responses), and no input takes long.
* The result is the same however the bytes are cut.
* What is accepted is what `model`, a second reading of the RFC, makes of the same bytes: as many messages, the same
  bodies. What is sent on is one request that the recording origin reads as just that.
* A message that follows is read as if nothing had been before it.
* What is held stays within the limits.
The same seed makes the same inputs. Exit status 1 and the bytes, if something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gateway.errors import ProtocolError, UpstreamError
from gateway.http.reader import ReadLimits, RequestReader
from gateway.http.serialise import serialise
from gateway.http.upstream import ClientLimits, UpstreamConnection
from gateway.upstreams.forward import dropped_fields
from tests.conformance import model
from tests.conformance.case import MAX_BODY, MAX_HEADER_BYTES, MAX_HEADERS, MAX_REQUEST_LINE
from tests.conformance.origin import Fault, Origin
from tests.conformance.requests import CASES
from tests.conformance.responses import ANSWERS

LIMITS: Final = ReadLimits(MAX_REQUEST_LINE, MAX_HEADER_BYTES, MAX_HEADERS, MAX_BODY)
MAX_RESPONSE: Final = 4096
LARGEST: Final = 6_000  # bytes of an input
SLOW: Final = 0.25  # seconds of CPU for one input: thousands of times more than any needs
TOO_MUCH: Final = (413, 414, 431)
_DROPPED: Final = dropped_fields(b"x-api-key")

REQUESTS: Final = [case.raw for case in CASES if len(case.raw) <= LARGEST]
GOOD_REQUESTS: Final = [case.raw for case in CASES if case.forwards and len(case.raw) <= LARGEST]
_SAID: Final = [(case, b"".join(step for step in case.says if isinstance(step, bytes))) for case in ANSWERS]
RESPONSES: Final = [data for _, data in _SAID if len(data) <= LARGEST]
GOOD_RESPONSES: Final = [data for case, data in _SAID if case.body is not None and len(data) <= LARGEST]

WORDS: Final = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\xff", b":", b",", b";", b"=", b'"', b"-", b"+",
    b"0", b"1", b"f", b"ffffffffffffffff", b"00000000", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Host: b\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"chunked", b"identity",
    b"Expect: 100-continue\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.0",
    b"HTTP/1.1", b"HTTP/2.0", b"0\r\n\r\n", b"3\r\nabc\r\n", b"3;a=b\r\nabc\r\n", b"%2e", b"..", b"//", b"/", b"http://a/", b"POST ", b"A: b\r\n",
    b"\r\n ", b"\xc2\xa0", b"204", b"304", b"HEAD ", b"Connection: x-a\r\n", b"X-A: b\r\n",
)  # fmt: skip


def mutated(draw: random.Random, seeds: Sequence[bytes], good: Sequence[bytes]) -> bytes:
    """One to five small changes to an entry of the corpus, mostly to one that is fine; at times a second one behind."""
    data = bytearray(draw.choice(good if draw.randrange(4) else seeds))
    if not draw.randrange(4):
        data += draw.choice(good)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 5))):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(9)
        if kind == 0 and data:
            data[at - 1] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[at - 1] = draw.randrange(256)
        elif kind == 2:
            del data[at : at + draw.choice((1, 1, 2, 4, 16))]
        elif kind == 3:
            data[at:at] = data[at : at + draw.randrange(1, 40)]
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            other = draw.choice(seeds)
            data[at:] = other[draw.randrange(len(other) + 1) :]
        elif kind == 6:
            lines = bytes(data).split(b"\r\n")
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
            data = bytearray(b"\r\n".join(lines))
        else:
            data[at:at] = draw.choice(WORDS)
    return bytes(data[:LARGEST])


def pieces(draw: random.Random, data: bytes) -> Iterator[bytes]:
    """`data` cut anywhere; now and then into single bytes."""
    size = 1 if not draw.randrange(8) else draw.choice((3, 17, 100, 1000))
    at = 0
    while at < len(data):
        step = size if size == 1 else draw.randrange(1, size + 1)
        yield data[at : at + step]
        at += step


class Broken(AssertionError):
    """Something that must hold does not."""


# -- requests -----------------------------------------------------------------------------------------------------


def _read(parts: Iterator[bytes] | Sequence[bytes]) -> tuple[RequestReader, int | None]:
    reader = RequestReader(LIMITS, b"127.0.0.1")
    try:
        for part in parts:
            reader.feed(part)
            if sum(map(len, reader._headers.values())) > 2 * MAX_HEADER_BYTES or reader._size > MAX_BODY + len(part):
                raise Broken("more is held than the limits allow")
    except ProtocolError as error:
        if len(str(error)) > 200:
            raise Broken("an error as long as what it complains of") from None
        return reader, error.error_status
    return reader, None


def _facts(reader: RequestReader) -> list[tuple[Any, ...]]:
    return [
        (one.method, one.target, one.path, one.headers, one.body, one.minor, one.keep_alive) for one in reader.ready
    ]


def check_request(data: bytes, draw: random.Random) -> str:
    """Raises Broken; otherwise what became of it, for the summary."""
    reader, status = _read([data])
    cut, cut_status = _read(pieces(draw, data))
    whole, parts = _facts(reader), _facts(cut)
    if status in TOO_MUCH or cut_status in TOO_MUCH:  # what is too much may be seen sooner or later
        if parts != whole[: len(parts)] and whole != parts[: len(whole)]:
            raise Broken("cut in pieces it is another request")
    elif (whole, status) != (parts, cut_status) and b" RTSP/" not in data:  # refused, but not always for that first
        raise Broken(f"cut in pieces it is something else: {status}, {cut_status}")
    at = 0
    for one in reader.ready:
        try:
            told = model.request(data, at)
        except (model.Unclear, model.More) as unclear:
            raise Broken(f"accepted, and yet: {unclear!r}") from None
        if (told.start[0], told.body) != (one.method, one.body):
            raise Broken(f"the model reads {told}")
        at = told.end
        one.id = b"1"
        wire = serialise(one, one.target, b"origin", b"x-request-timeout: 1ms\r\n", _DROPPED)
        head, _, body = wire.partition(b"\r\n\r\n")
        try:
            length = Origin._check(head)
        except Fault as fault:
            raise Broken(f"sent on: {fault}") from None
        if (length or 0) != len(body) or body != one.body:
            raise Broken(f"sent on with another body: {wire!r}")
    if status is None and not (reader.in_head or reader.in_body) and all(one.keep_alive for one in reader.ready):
        if data[at:].strip(b"\r\n"):
            raise Broken("bytes that are nobody's")
        reader.feed(b"GET /canary HTTP/1.1\r\nHost: canary\r\nX-Mark: 1\r\n\r\n")
        want = (b"GET", b"/canary", b"/canary", {b"host": b"canary", b"x-mark": b"1"}, b"", 1, True)
        if _facts(reader)[len(whole) :] != [want]:
            raise Broken("what follows is not read as it stands")
    if status is not None:
        return f"refused with {status}"
    return "accepted" if reader.ready else "waits for more"


# -- responses ----------------------------------------------------------------------------------------------------


class _Transport:
    """Takes what is written, and is told to close."""

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


def _ask(
    connection: UpstreamConnection, parts: Iterator[bytes] | Sequence[bytes], *, head_only: bool, ends: bool
) -> Any:
    future = connection.send(b"x", head_only=head_only, deadline=0.0)
    for part in parts:
        connection.data_received(part)
        if not connection.usable and future.done():
            break
    if ends:
        connection.connection_lost(None)
    if not future.done():
        return None
    error = future.exception()
    if error is not None:
        if not isinstance(error, UpstreamError):
            raise Broken(f"raised {error!r}")
        return type(error).__name__
    answer = future.result()
    if len(answer.body) > MAX_RESPONSE:
        raise Broken("a body over the limit")
    return (answer.status, answer.headers, answer.body)


def _connection() -> UpstreamConnection:
    connection = UpstreamConnection(ClientLimits(max_response=MAX_RESPONSE, whole=MAX_RESPONSE, gather=9e9))
    connection.connection_made(_Transport())  # type: ignore[arg-type]
    return connection


def check_response(data: bytes, draw: random.Random) -> str:
    """Raises Broken; otherwise what became of it, for the summary."""
    head_only, ends = not draw.randrange(6), not draw.randrange(3)
    connection, cut = _connection(), _connection()
    answer = _ask(connection, [data], head_only=head_only, ends=ends)
    parts = _ask(cut, pieces(draw, data), head_only=head_only, ends=ends)
    if answer != parts:
        raise Broken(f"cut in pieces it is something else: {answer!r}, {parts!r}")
    if cut.usable and not connection.usable and not head_only:
        raise Broken("reused only if it comes in pieces")
    if not isinstance(answer, tuple):
        return answer or "waits for more"
    try:
        told = model.response(data, head_only=head_only)
    except (model.Unclear, model.More) as unclear:
        raise Broken(f"accepted, and yet: {unclear!r}") from None
    if (int(told.start[1]), told.body) != (answer[0], answer[2]):
        raise Broken(f"the model reads {told}")
    if connection.usable:
        if data[told.end :].strip(b"\r\n") or told.until_close:
            raise Broken("reused with bytes that are nobody's")
        if (head_only or answer[0] in (204, 304)) and (
            told.all(b"transfer-encoding") or any(int(value) for value in told.all(b"content-length"))
        ):
            raise Broken("reused although a body was announced that must not come")
        good = b"HTTP/1.1 200 OK\r\nX-Mark: 1\r\nContent-Length: 6\r\n\r\ncanary"
        if _ask(connection, [good], head_only=False, ends=False) != (200, [(b"x-mark", b"1")], b"canary"):
            raise Broken("what follows is not read as it stands")
        return "accepted, reused"
    return "accepted, not reused"


# -- the run ------------------------------------------------------------------------------------------------------


class Tally:
    """What became of the inputs."""

    def __init__(self) -> None:
        self.kinds: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self.broken: list[tuple[str, bytes, str]] = []


def _one(name: str, data: bytes, draw: random.Random, tally: Tally) -> None:
    began = time.process_time()
    try:
        kind = check_request(data, draw) if name == "request" else check_response(data, draw)
        tally.kinds[f"{name}: {kind}"] += 1
    except Broken as broken:
        tally.broken.append((name, data, str(broken)))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        tally.broken.append((name, data, f"raised {error!r}"))
    took = time.process_time() - began
    tally.slowest = max(tally.slowest, took)
    if took > SLOW:
        tally.broken.append((name, data, f"took {took:.1f} s"))


_KINDS: Final = (("request", REQUESTS, GOOD_REQUESTS), ("response", RESPONSES, GOOD_RESPONSES))


async def fuzz(seed: int, count: int, *, progress: bool = False) -> Tally:
    """`count` inputs, by turns a request and a response."""
    draw, tally, began = random.Random(seed), Tally(), time.perf_counter()
    for number in range(count):
        name, seeds, good = _KINDS[number % 2]
        _one(name, mutated(draw, seeds, good), draw, tally)
        if progress and (number + 1) % 10_000 == 0:
            took = time.perf_counter() - began
            print(f"{number + 1:>8} inputs, {took:5.1f} s, {len(tally.broken)} findings", flush=True)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutated bytes into both parsers.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    tally = asyncio.run(fuzz(options.seed, options.count, progress=True))
    for kind, number in sorted(tally.kinds.items(), key=lambda item: -item[1]):
        print(f"{number:>8} {kind}")
    print(f"slowest input: {tally.slowest * 1e3:.1f} ms; findings: {len(tally.broken)}")
    for name, data, why in tally.broken[:20]:
        print(f"\n{name}: {why}\n  {data!r}")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
