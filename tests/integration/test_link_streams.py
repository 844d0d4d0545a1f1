"""Answers that stream over the link: a client, the installed gateway, and linkecho (go_infer's own link code)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from demo.layout import GATEWAY
from demo.process import Child
from gateway.processes import die_with_parent
from loadtests.bench_large import Memory
from loadtests.bench_peers import build_own
from loadtests.peers.processes import descendants, free_ports
from loadtests.peers.programs import BUILT, find_go

CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
http: {{max_body: 1GiB}}
access_log: {{path: "{log}"}}
pools:
  p: {{protocol: link, connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{backend}"}}], stream_idle: 3s, max_response: 1GiB}}
routes:
  - {{name: all, match: {{path: "/*"}}, pool: p, timeout: 1500ms, max_body: 1GiB}}
"""
MB = 1024 * 1024
CUT = (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)


class Chain:
    """The gateway and linkecho behind it, whose connection is a link."""

    def __init__(self, gateway: Child, echo: subprocess.Popen[bytes], ports: list[int], folder: Path) -> None:
        self.echo = echo
        self.base = f"http://127.0.0.1:{ports[0]}"
        self.admin = f"http://127.0.0.1:{ports[1]}"
        self.log = folder / "access.log"
        self._gateway = gateway

    def memory(self) -> Memory:
        [worker] = [
            pid for pid in descendants(self._gateway.pid) if b"app.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return Memory(worker)

    async def told(self, session: aiohttp.ClientSession) -> dict[str, int]:
        """What linkecho's handlers say."""
        async with session.get(f"{self.base}/stream/told") as answer:
            return dict(await answer.json())

    async def until(self, session: aiohttp.ClientSession, **wanted: int) -> None:
        async with asyncio.timeout(30):
            while not wanted.items() <= (await self.told(session)).items():
                await asyncio.sleep(0.02)

    async def backend(self, session: aiohttp.ClientSession) -> dict[str, object]:
        """Once nothing is under way, the worker's account of its backend."""
        async with asyncio.timeout(30):
            while True:
                async with session.get(f"{self.admin}/status") as answer:
                    worker = (await answer.json())["workers"][0]
                if not worker["active_requests"] and not worker["backends"][0]["inflight"]:
                    return dict(worker["backends"][0])
                await asyncio.sleep(0.02)

    async def logged(self, status: int) -> None:
        async with asyncio.timeout(30):
            while f'"status":{status}' not in self.log.read_text():
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def linkecho() -> str:
    BUILT.mkdir(parents=True, exist_ok=True)
    go = find_go()
    assert go is not None
    assert build_own(go, "linkecho") is None
    return str(BUILT / "linkecho")


@pytest.fixture
async def chain(linkecho: str, tmp_path: Path) -> AsyncIterator[Chain]:
    ports = free_ports(3)
    echo = subprocess.Popen(
        [linkecho, "-listen", f"127.0.0.1:{ports[2]}", "-drain", "2s"],
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl(2), no lock
    )
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG.format(port=ports[0], admin=ports[1], backend=ports[2], log=tmp_path / "access.log"))
    child = Child("gateway", [GATEWAY, "run", "-c", path], tmp_path / "log")
    child.start()
    try:
        ready = await asyncio.to_thread(child.wait_until, f"http://127.0.0.1:{ports[1]}/readyz", 60)
        assert ready, (tmp_path / "log").read_text()
        yield Chain(child, echo, ports, tmp_path)
    finally:
        await asyncio.to_thread(child.stop, 10)
        echo.kill()
        echo.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(read_bufsize=64 * 1024, connector=aiohttp.TCPConnector(limit=0)) as one:
        yield one


async def event(answer: aiohttp.ClientResponse) -> bytes:
    async with asyncio.timeout(30):
        return (await answer.content.readuntil(b"\n\n")).strip()


async def test_each_event_arrives_before_the_next_is_sent(chain: Chain, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{chain.base}/stream/events?count=4") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert await event(answer) == b"data: 0"
        await asyncio.sleep(1.7)  # longer than the route's timeout, which is for the beginning of an answer
        for number in range(1, 4):
            assert (await session.post(f"{chain.base}/stream/next")).status == 200
            assert await event(answer) == b"data: %d" % number
        assert await answer.content.read() == b""
    backend = await chain.backend(session)
    assert (backend["protocol"], backend["breaker"]) == ("sluice-link/1", "closed")


@pytest.mark.parametrize("query", ["", "?stated"])
async def test_a_large_answer_costs_no_memory_and_a_slow_reader_holds_up_nobody(
    chain: Chain, session: aiohttp.ClientSession, query: str
) -> None:
    size = 100 * MB
    await (await session.get(f"{chain.base}/stream/bytes/{4 * MB}")).read()  # warm
    memory = chain.memory()
    memory.begin()
    watching = asyncio.create_task(memory.watch())
    async with session.get(f"{chain.base}/stream/bytes/{size}{query}") as slow:
        assert slow.headers.get("content-length") == (str(size) if query else None)
        await slow.content.read(1)
        held = await chain.told(session)
        async with session.get(f"{chain.base}/stream/bytes/{size}{query}") as fast:
            got = 0
            async with asyncio.timeout(30):
                async for data in fast.content.iter_any():
                    got += len(data)
        assert got == size
        told = await chain.told(session)
        assert told["open"] == 1
        assert told["written"] - held["written"] < size + 16 * MB, "the slow one's handler is not held up"
        rest = 1
        async with asyncio.timeout(30):
            async for data in slow.content.iter_any():
                rest += len(data)
        assert rest == size
    watching.cancel()
    assert memory.growth <= 16, f"{memory.growth:.1f} MiB"
    assert (await chain.backend(session))["protocol"] == "sluice-link/1"


async def test_a_client_that_goes_away_ends_the_handler(chain: Chain, session: aiohttp.ClientSession) -> None:
    for path in ("events", f"bytes/{1000 * MB}"):
        before = (await chain.told(session))["cancelled"]
        async with session.get(f"{chain.base}/stream/{path}") as answer:
            await answer.content.readany()
            assert (await chain.told(session))["open"] == 1
        await chain.until(session, open=0, cancelled=before + 1)
    await chain.logged(499)
    assert (await chain.backend(session))["breaker"] == "closed"


async def test_a_stream_that_falls_silent_is_cut_and_its_handler_ends(
    chain: Chain, session: aiohttp.ClientSession
) -> None:
    with pytest.raises(CUT):
        async with session.get(f"{chain.base}/stream/events") as answer:
            assert await event(answer) == b"data: 0"
            async with asyncio.timeout(30):
                await answer.content.read()
    await chain.until(session, open=0, cancelled=1)
    await chain.logged(502)


async def test_a_backend_that_dies_in_the_middle_is_seen_by_the_client(
    chain: Chain, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{chain.base}/stream/events") as answer:
        assert await event(answer) == b"data: 0"
        chain.echo.kill()
        with pytest.raises(CUT):
            async with asyncio.timeout(30):
                await answer.content.read()
    await chain.logged(502)


async def test_a_backend_that_drains_finishes_its_streams(chain: Chain, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{chain.base}/stream/bytes/{16 * MB}?stated") as answer:
        got = len(await answer.content.readany())
        chain.echo.send_signal(signal.SIGTERM)
        async for data in answer.content.iter_any():
            got += len(data)
    assert got == 16 * MB
    assert await asyncio.to_thread(chain.echo.wait, 5) == 0


async def test_what_does_not_end_before_its_backend_has_drained_is_cut(
    chain: Chain, session: aiohttp.ClientSession
) -> None:
    async with session.get(f"{chain.base}/stream/events?count=2") as answer:
        assert await event(answer) == b"data: 0"
        chain.echo.send_signal(signal.SIGTERM)
        with pytest.raises(CUT):
            async with asyncio.timeout(30):
                await answer.content.read()
    await chain.logged(502)


async def test_a_streaming_upload_goes_beside_the_link(chain: Chain, session: aiohttp.ClientSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * MB

    async with session.post(f"{chain.base}/", data=pieces()) as answer:
        assert (answer.status, len(await answer.read())) == (200, 64)
    assert (await chain.backend(session))["idle_connections"] == 1  # of HTTP/1.1
