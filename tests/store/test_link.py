"""A store that is late for a moment is not a store that is lost."""

from __future__ import annotations

import asyncio

import pytest

from gateway.store.address import StoreAddress
from gateway.store.link import STEADY, StoreLink, StoreTimes
from tests.patience import GUARD

TIMES = StoreTimes(deadline=0.02, connect_timeout=0.4, reconnect_min=0.005, reconnect_max=0.02)


class Slow:
    """A server that says +PONG to everything, `delay` seconds late; None: never."""

    def __init__(self):
        self.delay = 0.0
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        loop, due = asyncio.get_running_loop(), 0.0
        try:
            while data := await reader.read(65536):
                if self.delay is not None:
                    due = max(due + 1e-3, loop.time() + self.delay)  # nothing overtakes what came before it
                    loop.call_at(due, writer.write, b"+PONG\r\n" * data.count(b"PING"))
        finally:
            writer.close()


@pytest.fixture
async def scene(tmp_path):
    slow, turns = Slow(), []
    server = await asyncio.start_unix_server(slow.serve, str(tmp_path / "s"))
    link = StoreLink(StoreAddress(unix_path=str(tmp_path / "s")), TIMES, turned=turns.append)
    link.start()
    assert await link.ready(1)
    yield slow, link, turns
    await link.close()
    server.close()


async def until(condition):
    async with asyncio.timeout(GUARD):
        while not condition():
            await asyncio.sleep(0.002)


async def test_late_once_it_is_used_again_on_the_same_connection(scene, caplog):
    slow, link, turns = scene
    first, slow.delay = link.connection, 0.05
    heard = []
    first.send(b"*1\r\n$4\r\nPING\r\n", heard.append)
    await until(lambda: heard)
    assert link.connection is None, "nobody waits for it now"
    slow.delay = 0.0
    await until(lambda: link.connection is first)
    assert (link.losses, link.doubts, slow.connections) == (0, 1, 1)
    assert turns == [first, None, first]
    assert "lost" not in caplog.text


async def test_one_that_stays_late_is_kept_and_nobody_waits_meanwhile(scene, caplog):
    slow, link, turns = scene
    first, slow.delay = link.connection, 0.1
    first.send(b"*1\r\n$4\r\nPING\r\n", lambda _: None)
    await asyncio.sleep(0.6)
    assert link.connection is None
    assert not first.lost
    assert turns == [first, None]
    assert caplog.text.count("store is late") == 1
    slow.delay = 0.0
    await until(lambda: link.connection is first)
    assert slow.connections == 1


@pytest.mark.parametrize("delay", [None, 1.5])
async def test_one_that_says_nothing_is_lost(scene, delay):
    slow, link, _ = scene
    slow.delay = delay
    link.connection.send(b"*1\r\n$4\r\nPING\r\n", lambda _: None)
    await until(lambda: link.losses == 1)
    assert link.doubts == 0


async def test_the_more_often_it_was_late_the_more_pings_it_must_answer_in_time(scene):
    slow, link, _ = scene
    asked = []
    for _ in range(3):
        slow.delay = 0.05
        link.connection.send(b"*1\r\n$4\r\nPING\r\n", lambda _: None)
        await until(lambda: link.connection is None)
        slow.delay = 0.0
        await until(lambda: link.connection is not None)
        asked.append(link._pings)
    assert asked == [1, 2, 4]
    link._doubt_ended -= STEADY
    slow.delay = 0.05
    link.connection.send(b"*1\r\n$4\r\nPING\r\n", lambda _: None)
    await until(lambda: link.connection is None)
    assert link._pings == 1
    slow.delay = 0.0
    await until(lambda: link.connection is not None)


async def test_closing_in_doubt_leaves_nothing_behind(scene):
    slow, link, _ = scene
    first, slow.delay = link.connection, None
    first.send(b"*1\r\n$4\r\nPING\r\n", lambda _: None)
    await until(lambda: link.connection is None)
    await link.close()
    assert first.lost


@pytest.mark.parametrize(
    ("said", "address", "scripts"),
    [
        pytest.param(b"", {"password": "p"}, [], id="logging in"),
        pytest.param(b"", {}, [], id="first ping"),
        pytest.param(b"+PONG\r\n", {}, [b"return 1"], id="loading the scripts"),
        pytest.param(b"+PONG\r\n", {"db": 1}, [], id="choosing the database"),
    ],
)
async def test_closing_while_it_connects_leaves_no_connection_open(tmp_path, said, address, scripts):
    asked, left = asyncio.Event(), asyncio.Event()

    async def serve(reader, writer):
        """Answers the first command with `said`, and nothing after it."""
        await reader.read(65536)
        if said:
            writer.write(said)
            await reader.read(65536)
        asked.set()
        while await reader.read(65536):
            pass
        left.set()
        writer.close()

    times = StoreTimes(deadline=GUARD, connect_timeout=GUARD)
    server = await asyncio.start_unix_server(serve, str(tmp_path / "s"))
    link = StoreLink(StoreAddress(unix_path=str(tmp_path / "s"), **address), times, scripts)
    link.start()
    async with asyncio.timeout(GUARD):
        await asked.wait()
        await link.close()
        await left.wait()
    server.close()
