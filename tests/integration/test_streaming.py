"""Bodies that stream, events and tunnels, through the installed gateway to a real backend and back."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from demo.layout import GATEWAY
from demo.process import Child
from gateway.testing import RawClient
from loadtests.peers.processes import free_ports

CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
http: {{max_body: 1MiB, body_timeout: 1s, body_min_rate: 100KiB, write_timeout: 1s}}
access_log: {{path: "{log}"}}
pools:
  p: {{connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{backend}"}}], stream_above: 64KiB, stream_idle: 1s, max_response: 1GiB}}
limits: {{none-left: {{key: client, rate: 1/m, burst: 1}}}}
routes:
  - {{name: limited, match: {{path: "/limited"}}, pool: p, limits: [none-left], max_body: 1GiB}}
  - {{name: small, match: {{path: "/small"}}, pool: p, max_body: 1KiB}}
  - {{name: ws, match: {{path: "/ws"}}, pool: p, upgrade: [websocket]}}
  - {{name: all, match: {{path: "/*"}}, pool: p, timeout: 1s, buffer: 64KiB, max_body: 1GiB}}
"""
MB = 1024 * 1024
#: What Java's HttpClient sends along by itself.
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


class Origin:
    """A backend that says what it received, and sends as much and as slowly as it is asked."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.ended = asyncio.Event()
        self.port = 0

    async def start(self) -> web.AppRunner:
        app = web.Application(client_max_size=1 << 40)
        app.router.add_post("/digest", self.digest)
        app.router.add_post("/limited", self.digest)
        app.router.add_post("/small", self.digest)
        app.router.add_post("/early", self.early)
        app.router.add_post("/mirror", self.mirror)
        app.router.add_get("/bytes/{count}", self.bytes)
        app.router.add_get("/events", self.events)
        app.router.add_get("/silent", self.silent)
        app.router.add_get("/cut", self.cut)
        app.router.add_get("/ws", self.ws)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    async def digest(self, request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        try:
            async for data in request.content.iter_any():
                digest.update(data)
                size += len(data)
        except (OSError, aiohttp.ClientError, asyncio.CancelledError) as error:
            self.broken.append(type(error).__name__)
            self.ended.set()
            raise
        how = "chunked" if request.headers.get("transfer-encoding") else "stated"
        return web.json_response({"sha256": digest.hexdigest(), "size": size, "how": how})

    async def early(self, _request: web.Request) -> web.Response:
        return web.Response(status=403, text="no", headers={"connection": "close"})

    async def mirror(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async for data in request.content.iter_any():
            await answer.write(data)
        return answer

    async def bytes(self, request: web.Request) -> web.StreamResponse:
        count = int(request.match_info["count"])
        answer = web.StreamResponse(headers={} if "chunked" in request.query else {"content-length": str(count)})
        await answer.prepare(request)
        try:
            while count:
                size = min(count, 64 * 1024)
                await answer.write(b"x" * size)
                count -= size
        except (OSError, aiohttp.ClientError, asyncio.CancelledError) as error:
            self.broken.append(type(error).__name__)
            raise
        finally:
            self.ended.set()
        return answer

    async def events(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(5):
            await answer.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(0.15)
        return answer

    async def silent(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: 0\n\n")
        await asyncio.sleep(30)
        return answer

    async def cut(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-length": "200000"})
        await answer.prepare(request)
        await answer.write(b"x" * 100_000)
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return answer

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("a", "b"))
        await socket.prepare(request)
        try:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    await socket.send_str(message.data.upper())
                elif message.type == aiohttp.WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
        finally:
            self.ended.set()
        return socket


class Chain:
    """A client, the gateway and the origin behind it."""

    def __init__(self, origin: Origin, child: Child, port: int, admin: int, folder: Path) -> None:
        self.origin = origin
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.admin = f"http://127.0.0.1:{admin}"
        self.log = folder / "access.log"
        self._child = child

    def memory(self) -> int:
        """Resident bytes of the worker and its supervisor."""
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            if int(fields["PPid"]) == self._child.pid and "VmRSS" in fields and "python" in fields["Name"].lower():
                total += int(fields["VmRSS"].split()[0]) * 1024
        assert total > 10 * MB
        return total

    async def quiet(self) -> dict[str, object]:
        """Until nothing is under way; then the worker's account of its backend."""
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(30):
                while True:
                    async with session.get(f"{self.admin}/status") as answer:
                        worker = (await answer.json())["workers"][0]
                    if not worker["active_requests"] and not worker["backends"][0]["inflight"]:
                        return dict(worker["backends"][0])
                    await asyncio.sleep(0.02)


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    origin = Origin()
    runner = await origin.start()
    port, admin = free_ports(2)
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG.format(port=port, admin=admin, backend=origin.port, log=tmp_path / "access.log"))
    child = Child("gateway", [GATEWAY, "run", "-c", path], tmp_path / "log")
    child.start()
    try:
        ready = await asyncio.to_thread(child.wait_until, f"http://127.0.0.1:{admin}/readyz", 60)
        assert ready, (tmp_path / "log").read_text()
        yield Chain(origin, child, port, admin, tmp_path)
    finally:
        await asyncio.to_thread(child.stop, 10)
        await runner.cleanup()
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(read_bufsize=64 * 1024) as one:
        yield one


async def pieces(count: int, size: int = 64 * 1024, pause: float = 0.0) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 251]) * size
        if pause:
            await asyncio.sleep(pause)


async def digest_of(count: int, size: int = 64 * 1024) -> str:
    digest = hashlib.sha256()
    async for data in pieces(count, size):
        digest.update(data)
    return digest.hexdigest()


@pytest.mark.parametrize("how", ["stated", "chunked"])
async def test_an_upload_streams_and_arrives_whole(chain: Chain, session: aiohttp.ClientSession, how: str) -> None:
    count = 1600  # 100 MiB
    before = chain.memory()
    headers = {"content-length": str(count * 64 * 1024)} if how == "stated" else {}
    async with session.post(f"{chain.base}/digest", data=pieces(count), headers=headers) as answer:
        told = await answer.json()
    assert told == {"sha256": await digest_of(count), "size": count * 64 * 1024, "how": how}
    assert chain.memory() - before < 16 * MB
    assert (await chain.quiet())["breaker"] == "closed"


async def test_an_upload_to_a_route_that_holds_it_whole_states_its_length(
    chain: Chain, session: aiohttp.ClientSession
) -> None:
    async with session.post(f"{chain.base}/digest", data=pieces(1, 60_000)) as answer:
        assert (await answer.json())["how"] == "stated"  # chunked by the client, held and said anew


@pytest.mark.parametrize("query", ["", "?chunked"])
async def test_a_download_streams_at_the_pace_of_its_reader(
    chain: Chain, session: aiohttp.ClientSession, query: str
) -> None:
    count = 60 * MB
    before = chain.memory()
    async with session.get(f"{chain.base}/bytes/{count}{query}") as answer:
        assert answer.status == 200
        got = 0
        began = time.monotonic()
        async for data in answer.content.iter_any():
            got += len(data)
            if got < 3 * MB:
                await asyncio.sleep(0.02)  # slow at first: the rest waits at the origin
        assert time.monotonic() - began > 0.2
    assert got == count
    assert chain.memory() - before < 16 * MB
    assert (await chain.quiet())["idle_connections"] == 1


async def test_events_arrive_when_they_are_sent(chain: Chain, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{chain.base}/events") as answer:
        times = []
        async for line in answer.content:
            if line.startswith(b"data"):
                times.append(time.monotonic())
    assert len(times) == 5
    assert times[-1] - times[0] > 0.3, "they came one by one"


async def test_bytes_go_both_ways_at_once(chain: Chain, session: aiohttp.ClientSession) -> None:
    async with session.post(f"{chain.base}/mirror", data=pieces(10, 100_000, pause=0.05)) as answer:
        assert len(await answer.read()) == 1_000_000


async def test_an_answer_before_the_end_of_the_upload(chain: Chain) -> None:
    async with await RawClient.connect(chain.port) as client:
        client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 200_000)
        reply = await client.reply()
        assert (reply.status, reply.body, reply.header("connection")) == (403, b"no", "close")
    assert (await chain.quiet())["breaker"] == "closed"


async def test_a_body_over_the_limit_is_refused(chain: Chain) -> None:
    for head, body in (
        (b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n", b"x" * 1025),
        (b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", b""),
        (b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"401\r\n" + b"x" * 1025 + b"\r\n"),
        (b"POST /small HTTP/1.1\r\nHost: a\r\n" + H2C + b"Content-Length: 100000000000\r\n\r\n", b""),
        (
            b"POST /small HTTP/1.1\r\nHost: a\r\n" + H2C + b"Transfer-Encoding: chunked\r\n\r\n",
            b"401\r\n" + b"x" * 1025 + b"\r\n",
        ),
    ):
        async with await RawClient.connect(chain.port) as client:
            client.send(head + body)
            assert (await client.reply()).status == 413
    async with await RawClient.connect(chain.port) as client:
        client.send(b"POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024)
        assert (await client.reply()).status == 200


async def test_who_is_refused_is_not_asked_for_the_body(chain: Chain) -> None:
    head = b"POST /limited HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
    async with await RawClient.connect(chain.port) as client:
        client.send(head)
        assert (await client.reply()).status == 100
        client.send(b"x" * 2_000_000)
        assert (await client.reply()).status == 200
        client.send(head)
        assert (await client.reply()).status == 429


async def test_a_client_that_goes_away_ends_the_work(chain: Chain) -> None:
    async with await RawClient.connect(chain.port) as client:
        client.send(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 300_000)
        await asyncio.sleep(0.1)
    async with asyncio.timeout(30):
        await chain.origin.ended.wait()
    chain.origin.ended.clear()
    async with await RawClient.connect(chain.port) as client:
        client.send(b"GET /bytes/500000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
    async with asyncio.timeout(30):
        await chain.origin.ended.wait()
    assert len(chain.origin.broken) == 2
    assert (await chain.quiet())["breaker"] == "closed"


async def test_a_backend_that_breaks_off_is_seen_by_the_client(chain: Chain, session: aiohttp.ClientSession) -> None:
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        async with session.get(f"{chain.base}/cut") as answer:
            assert answer.status == 200
            await answer.read()
    await chain.quiet()
    async with asyncio.timeout(30):
        while '"status":502' not in chain.log.read_text():
            await asyncio.sleep(0.05)


async def test_a_stream_that_falls_silent_is_cut(chain: Chain, session: aiohttp.ClientSession) -> None:
    began = time.monotonic()
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        async with session.get(f"{chain.base}/silent") as answer:
            await answer.read()
    assert time.monotonic() - began > 0.8


@pytest.mark.parametrize(("rate", "status"), [(20_000, 408), (400_000, 200)])
async def test_an_upload_must_keep_a_pace(chain: Chain, rate: int, status: int) -> None:
    async with await RawClient.connect(chain.port) as client:
        client.send(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: 800000\r\n\r\n")
        reply = asyncio.ensure_future(client.reply())
        for _ in range(800_000 // (rate // 20)):
            if reply.done():
                break
            client.send(b"x" * (rate // 20))
            await asyncio.sleep(0.05)
        assert (await reply).status == status


async def test_a_client_that_does_not_read_is_cut_off(chain: Chain) -> None:
    async with await RawClient.connect(chain.port) as client:
        client.send(b"GET /bytes/500000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(30):
            await chain.origin.ended.wait()
    await chain.quiet()


async def test_a_websocket(chain: Chain, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"{chain.base}/ws", protocols=("b",)) as socket:
        assert socket.protocol == "b"
        await socket.send_str("hello")
        assert (await socket.receive_str(timeout=30)) == "HELLO"
        data = bytes(range(256)) * 2000
        await socket.send_bytes(data)
        assert (await socket.receive_bytes(timeout=30)) == data
        await asyncio.sleep(0.5)
        await socket.send_str("still there")
        assert (await socket.receive_str(timeout=30)) == "STILL THERE"
    async with asyncio.timeout(30):
        await chain.origin.ended.wait()
    await chain.quiet()


async def test_a_tunnel_whose_client_vanishes_ends(chain: Chain, session: aiohttp.ClientSession) -> None:
    socket = await session.ws_connect(f"{chain.base}/ws")
    await socket.send_str("hello")
    await socket.receive_str(timeout=30)
    connection = socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()
    async with asyncio.timeout(30):
        await chain.origin.ended.wait()
    await chain.quiet()


async def test_where_no_upgrade_is_allowed_it_is_ignored(chain: Chain, session: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(f"{chain.base}/events")
