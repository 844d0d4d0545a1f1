"""Microseconds of each stage of a request, on the installed gateway; prints JSON. Run by `bench_stages`.

Run as a file with `python -P`, so that `gateway` is the installed, compiled one and not the sources beside it. Stages
are called on ready-made objects, made from the very configuration of the benchmark, with transports that drop what is
written: no system call, no event loop. Each figure is the least of several repeats.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from gateway.app import compile as compiled
from gateway.config.load import load
from gateway.http import reader as reader_module
from gateway.http.reader import ReadLimits, RequestReader
from gateway.http.serialise import serialise
from gateway.http.server import Server, ServerLimits
from gateway.http.server_connection import ServerConnection
from gateway.http.upstream import ClientLimits, UpstreamConnection
from gateway.limits.limiter import Limiter
from gateway.replies import bad_request
from gateway.request import Outcome, Request, Response
from gateway.store.address import StoreAddress
from gateway.store.buckets import SharedBuckets
from gateway.store.connection import StoreConnection
from gateway.store.link import StoreLink, StoreTimes
from gateway.telemetry.cells import Catalogue, Cells
from gateway.upstreams.caller import Caller
from gateway.upstreams.forward import dropped_fields
from gateway.upstreams.registry import BackendRegistry

LOOPS = 4_000
REPEATS = 9
BATCH = 8  # limits asked in one call of the store, as in a busy worker
ASKED = b"GET /v1/models/digits HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-API-Key: bench-key\r\n\r\n"
BODY = b'{"predictions": [[0.01, 0.02, 0.91, 0.01, 0.05]], "model": "x"}\n'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%s" % (len(BODY), BODY)
)


class Answering(asyncio.Transport):
    """A backend without a wire: answers whatever is written on the next turn of the loop."""

    def __init__(self, connection: UpstreamConnection) -> None:
        super().__init__()
        self._connection = connection

    def write(self, data: Any) -> None:
        self._connection.loop.call_soon(self._connection.data_received, ANSWER)

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Sink(asyncio.Transport):
    """Takes everything and sends nothing."""

    def write(self, data: Any) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 40000) if name == "peername" else default

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def least(once: Callable[[], object], each: int = 1) -> float:
    """Microseconds of one, the least of the repeats; `each` is how many one call is of."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(LOOPS // each):
            once()
        best = min(best, time.perf_counter() - began)
    return best / (LOOPS // each) / each * 1e6


async def _limits(limits: Any, request: Request) -> float:
    """The whole decision of a batch but for the store: asks, the packed call, the parsed reply, the verdicts."""
    link = StoreLink(StoreAddress("127.0.0.1", 1), StoreTimes())
    connection = StoreConnection(3600.0, lambda _: None)
    connection.connection_made(Sink())
    link.connection = connection
    limiter = Limiter(SharedBuckets(link))
    told = struct.pack(f"<{BATCH}d", *[9_999_999.0] * BATCH) + b"1" * BATCH
    reply = b"$%d\r\n%s\r\n" % (len(told), told)
    best = float("inf")
    loop = asyncio.get_running_loop()
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(LOOPS // BATCH):
            tasks = [loop.create_task(limiter.check(limits, request, time.monotonic_ns())) for _ in range(BATCH)]
            await asyncio.sleep(0)  # they ask, and the flush is due
            await asyncio.sleep(0)
            while not connection.waiting:
                await asyncio.sleep(0)
            connection.data_received(reply)
            await asyncio.gather(*tasks)
        best = min(best, time.perf_counter() - began)
    connection.lost = True
    return best / (LOOPS // BATCH * BATCH) * 1e6


async def _call(route: Any, request: Request, cells: Cells) -> float:
    """The whole call at a pool: pick, permit, serialise, send, parse, judge, settle, with two turns of the loop."""
    caller, dropped = Caller(cells), dropped_fields(b"x-api-key")
    for backend in route.pool.backends:
        connection = UpstreamConnection(ClientLimits())
        connection.connection_made(Answering(connection))
        connection.reused = True
        backend.connections._idle.append(connection)  # noqa: SLF001 - connected, for once, without a socket
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(LOOPS):
            deadline = time.monotonic_ns() + 10_000_000_000
            answer = await caller.ask(
                route.pool, request, request.target, deadline, route.retry, dropped, route.timeout_ns // 2
            )
            assert answer.response is not None
        best = min(best, time.perf_counter() - began)
    for backend in route.pool.backends:
        backend.connections._idle.clear()  # noqa: SLF001
    return best / LOOPS * 1e6


async def measure(config: Path) -> dict[str, float]:
    """Stage -> microseconds, in the order of the path."""
    catalogue, registry = Catalogue(), BackendRegistry()
    snapshot = compiled.snapshot(load(config), 1, catalogue, registry)
    cells = Cells(Cells.create("stages"))
    parse = RequestReader(ReadLimits(), b"127.0.0.1")

    def read() -> Request:
        parse.feed(ASKED)
        return parse.ready.popleft()

    request = read()
    request.id = b"0123456789-abcdef"
    route = snapshot.routes.find(request)
    assert route is not None
    pool = route.pool
    nobody: list[Any] = []

    def choose() -> None:
        now = time.monotonic_ns()
        backend = pool.pick(request, nobody, now)
        assert backend is not None
        permit = backend.gate.try_acquire(now)
        assert permit is not None
        backend.gate.release(permit, Outcome.SUCCESS, now)

    dropped = dropped_fields(b"x-api-key")
    upstream = UpstreamConnection(ClientLimits())
    upstream.connection_made(Sink())

    def answered() -> Response:
        waiter = upstream.send(b"", head_only=False, deadline=0.0)
        upstream.data_received(ANSWER)
        return waiter.result()

    response = answered()
    response.headers += [
        (b"ratelimit-policy", b'"per-client";q=10000000;w=10'), (b"ratelimit", b'"per-client";r=9999999;t=1'),
        (b"server-timing", b"limits;dur=0.40, upstream;dur=0.60"), (b"x-request-id", request.id),
    ]  # fmt: skip

    async def handler(_: Request) -> Response:
        return response

    front = ServerConnection(Server(handler, lambda error, _peer: bad_request(error), ServerLimits()))
    front.connection_made(Sink())
    await asyncio.sleep(0)

    async def serve_batch(count: int) -> None:
        front.data_received(ASKED * count)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    served = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(LOOPS // BATCH):
            await serve_batch(BATCH)
        served = min(served, (time.perf_counter() - began) / (LOOPS // BATCH * BATCH) * 1e6)

    def observe() -> None:
        cells.observe(route.cells.duration[200], 700_000)
        cells.observe(0, 600_000)
        cells.add(900)

    def admit() -> None:
        now = time.monotonic_ns()
        mark = pool.admission.enter(route.priority.of(request), now)
        pool.admission.release(mark, 700_000, Outcome.SUCCESS, now)

    found = {"parse request": least(read)}
    found["route"] = least(lambda: snapshot.routes.find(request))
    found["identify"] = least(lambda: snapshot.keys.identify(request))
    found["limiter: ask, reply, verdict"] = await _limits(route.limits, request)
    found["admission: enter, release"] = least(admit)
    found["pick and gate"] = least(choose)
    found["serialise"] = least(
        lambda: serialise(request, b"/v1/models/digits", b"127.0.0.1:9000", b"x-request-timeout: 9999ms\r\n", dropped)
    )
    found["send and parse answer"] = least(answered)
    found["(call: pick to settle, of which)"] = await _call(route, request, cells)
    found["serve: task, write answer"] = max(0.0, served - found["parse request"])
    found["observe"] = least(observe)
    front.abort()
    return found


if __name__ == "__main__":
    stages = uvloop.run(measure(Path(sys.argv[1])))
    print(json.dumps({"compiled": reader_module.__file__.endswith(".so"), "stages": stages}))
