"""Requests for another protocol, as a backend sees them: what the client sends on waits for the backend's consent."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.errors import BadUpstreamResponse, ConnectionBroken
from gateway.http.client import ConnectionPool
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.request import Request
from gateway.stream import HIGH, Stream

pytestmark = pytest.mark.undisturbed

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: internal\r\n\r\n"


class Backend:
    """Says `answer` after each head (once `may` is set) and records everything it reads behind the first."""

    def __init__(self, answer):
        self.answer = answer
        self.may = asyncio.Event()
        self.may.set()
        self.heads = 0
        self.behind = b""
        self.ended = asyncio.Event()
        self.writer = None

    async def serve(self, reader, writer):
        self.writer = writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.heads += 1
            await self.may.wait()
            writer.write(self.answer)
            while data := await reader.read(65536):
                self.behind += data
        self.ended.set()
        writer.transport.abort()


class Tunnel:
    """A pool, the backend behind it, and the client's side of a tunnel."""

    def __init__(self, pool, backend):
        self.pool = pool
        self.backend = backend
        self.paused = []
        loop = asyncio.get_running_loop()
        self.client = Stream(loop, lambda: self.paused.append(True), lambda: self.paused.append(False))
        self.request = Request(b"GET", b"/ws", b"/ws", {b"host": b"a"})
        self.request.upgrade = b"websocket"
        self.request.stream = self.client

    async def ask(self, seconds=30.0):
        deadline = asyncio.get_running_loop().time() + seconds
        return await self.pool.ask(self.request, b"/ws", b"a", int(seconds * 1e9), frozenset(), deadline=deadline)


@contextlib.asynccontextmanager
async def tunnel(answer, **limits):
    backend = Backend(answer)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    pool = ConnectionPool(Address("127.0.0.1", server.sockets[0].getsockname()[1]), ClientLimits(**limits))
    try:
        yield Tunnel(pool, backend)
        assert not pool.active
    finally:
        pool.close()
        server.close()
        if backend.writer is not None:
            backend.writer.transport.abort()
        await asyncio.sleep(0.01)


async def test_what_follows_an_upgrade_waits_for_the_backends_consent():
    async with tunnel(SWITCHED) as one:
        one.backend.may.clear()
        one.client.feed(b"early")
        asking = asyncio.ensure_future(one.ask())
        await asyncio.sleep(0.02)
        assert (one.backend.heads, one.backend.behind) == (1, b"")
        one.backend.may.set()
        response = await asking
        assert response.status == 101
        one.client.feed(b" late")
        async with asyncio.timeout(30):
            while one.backend.behind != b"early late":
                await asyncio.sleep(0.001)
        one.client.end()
        await one.backend.ended.wait()
        assert await response.stream.read() == b""


async def test_it_waits_in_bounded_memory():
    async with tunnel(SWITCHED) as one:
        one.backend.may.clear()
        asking = asyncio.ensure_future(one.ask())
        for _ in range(5):
            one.client.feed(b"x" * (HIGH // 4))
        assert one.paused == [True]
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 426 Upgrade\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["400", "200", "426"],
)
async def test_without_consent_nothing_follows(answer):
    async with tunnel(answer) as one:
        one.client.feed(SMUGGLED)
        response = await one.ask()
        assert response.status == int(answer[9:12])
        one.client.feed(SMUGGLED)
        await asyncio.sleep(0.02)
        assert one.backend.behind == b""
        assert one.pool.idle == 1, "nothing was said on the connection but the head"


async def test_a_large_refusal_is_read_as_http():
    """Only a tunnel's bytes go past the parser."""
    chunks = b"".join(b"8000\r\n%b\r\n" % (b"x" * 0x8000) for _ in range(4))
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    async with tunnel(answer, whole=1000) as one:
        response = await one.ask()
        got = b""
        while data := await response.stream.read():
            got += data
        assert got == b"x" * 0x20000


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Connection: upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: web\r\nUpgrade: socket\r\n",
    ],
    ids=["nothing", "no protocol", "no Connection", "another", "one more", "in halves"],
)
async def test_a_101_must_name_what_was_asked_for(fields):
    async with tunnel(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\nhello") as one:
        one.client.feed(SMUGGLED)
        with pytest.raises(BadUpstreamResponse):
            await one.ask()
        await one.backend.ended.wait()
        assert one.backend.behind == b""


async def test_a_101_to_an_upload_is_refused():
    async with tunnel(SWITCHED) as one:
        one.request.upgrade = b""
        one.request.method = b"POST"
        with pytest.raises(BadUpstreamResponse):
            await one.ask()


async def test_a_tunnel_on_which_only_the_client_talks_is_not_silent():
    async with tunnel(SWITCHED, idle_stream=0.06) as one:
        response = await one.ask()
        for _ in range(15):
            one.client.feed(b"x")
            await asyncio.sleep(0.01)
        assert not response.stream.done
        async with asyncio.timeout(30):  # and once nobody does, it is
            await one.backend.ended.wait()
        assert one.backend.behind == b"x" * 15


async def test_an_upload_in_progress_keeps_its_answer_alive():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 0\n\n"
    async with tunnel(head, idle_stream=0.06) as one:
        one.request.upgrade = b""
        one.request.method = b"POST"
        response = await one.ask()
        for _ in range(15):
            one.client.feed(b"x")
            await asyncio.sleep(0.01)
        assert not response.stream.done
        response.discard()


async def test_the_backend_breaks_off_before_its_consent():
    async with tunnel(b"") as one:
        one.backend.may.clear()
        asking = asyncio.ensure_future(one.ask())
        await asyncio.sleep(0.01)
        one.backend.writer.transport.abort()
        with pytest.raises(ConnectionBroken):
            await asking
