"""One pipelined connection: every reply to its own waiter, or everybody told at once."""

from __future__ import annotations

import asyncio
import contextlib

import hiredis
import pytest

from gateway.errors import StoreError
from gateway.store.connection import StoreConnection
from tests.patience import GUARD


class Echo(asyncio.Protocol):
    """A server that says what the test wants said."""

    def __init__(self, peers):
        self.peers = peers

    def connection_made(self, transport):
        self.transport = transport
        self.received = b""
        self.peers.append(self)

    def data_received(self, data):
        self.received += data


class Line:
    """A StoreConnection and the other end of it."""

    @classmethod
    async def open(cls, path, deadline=GUARD, on_late=None):
        line = cls()
        line.peers, line.lost = [], []
        loop = asyncio.get_running_loop()
        line.server = await loop.create_unix_server(lambda: Echo(line.peers), path)
        _, line.connection = await loop.create_unix_connection(
            lambda: StoreConnection(deadline, line.lost.append, on_late=on_late), path
        )
        while not line.peers:
            await asyncio.sleep(0)
        line.replies = []
        return line

    def send(self, name):
        self.connection.send(hiredis.pack_command((name,)), lambda reply: self.replies.append((name, reply)))

    def say(self, data):
        self.peers[0].transport.write(data)

    async def until(self, count):
        async with asyncio.timeout(30):
            while len(self.replies) < count:
                await asyncio.sleep(0.001)

    def close(self):
        self.connection.drop(StoreError("over"))
        self.peers[0].transport.abort()
        self.server.close()


@contextlib.asynccontextmanager
async def hasty(tmp_path):
    """One whose replies are overdue after 30 ms."""
    line = await Line.open(str(tmp_path / "s"), 0.03)
    try:
        yield line
    finally:
        line.close()


@pytest.fixture
async def line(tmp_path):
    line = await Line.open(str(tmp_path / "s"))
    yield line
    line.close()


async def test_replies_go_to_the_commands_in_their_order(line):
    for name in ("a", "b", "c"):
        line.send(name)
    assert line.connection.waiting == 3
    line.say(b"+1\r\n:2\r\n$1")
    await line.until(2)
    line.say(b"\r\n3\r\n")
    await line.until(3)
    assert line.replies == [("a", b"1"), ("b", 2), ("c", b"3")]
    assert line.connection.waiting == 0


@pytest.mark.undisturbed
async def test_one_overdue_reply_drops_everybody_at_once(tmp_path):
    async with hasty(tmp_path) as line:
        line.send("a")
        await asyncio.sleep(0.015)
        line.send("b")
        await line.until(1)
        assert [name for name, reply in line.replies if isinstance(reply, StoreError)] == ["a", "b"]
        assert line.lost == [line.connection]
        with contextlib.suppress(RuntimeError):  # uvloop's word for a connection that is closed by now
            line.say(b"+late\r\n")
        await asyncio.sleep(0.01)
        assert len(line.replies) == 2


@pytest.mark.undisturbed
async def test_what_is_answered_in_time_is_never_overdue(tmp_path):
    async with hasty(tmp_path) as line:
        line.send("a")
        line.say(b"+1\r\n")
        await line.until(1)
        await asyncio.sleep(0.04)
        assert line.replies == [("a", b"1")]
        assert not line.connection.lost


@pytest.mark.undisturbed
async def test_an_answered_command_does_not_spare_the_next(tmp_path):
    async with hasty(tmp_path) as line:
        line.send("a")
        await asyncio.sleep(0.02)
        line.send("b")
        line.say(b"+1\r\n")
        await asyncio.sleep(0.02)
        assert line.replies == [("a", b"1")]  # the deadline of `a` has passed, that of `b` has not
        await line.until(2)
        assert isinstance(line.replies[1][1], StoreError)


@pytest.mark.parametrize("said", [b"nonsense\r\n", b"+1\r\n+2\r\n"], ids=["nonsense", "too many"])
async def test_a_store_that_breaks_the_protocol_is_dropped(line, said):
    line.send("a")
    line.say(said)
    async with asyncio.timeout(30):
        while not line.lost:
            await asyncio.sleep(0.001)
    assert line.connection.waiting == 0


async def test_when_the_store_closes_everybody_is_told(line):
    line.send("a")
    line.send("b")
    line.peers[0].transport.close()
    await line.until(2)
    assert all(isinstance(reply, StoreError) for _, reply in line.replies)


async def test_a_lost_connection_answers_soon_and_never_hangs(line):
    line.connection.drop(StoreError("x"))
    line.connection.drop(StoreError("x"))
    assert line.lost == [line.connection]
    line.send("a")
    assert line.replies == []
    await line.until(1)
    assert isinstance(line.replies[0][1], StoreError)
    with pytest.raises(StoreError):
        await line.connection.call("PING")


async def test_an_error_reply_is_raised_by_call_and_passed_to_a_waiter(line):
    line.send("a")
    line.say(b"-ERR no\r\n")
    await line.until(1)
    assert isinstance(line.replies[0][1], hiredis.ReplyError)
    calling = asyncio.ensure_future(line.connection.call("PING"))
    await asyncio.sleep(0)
    line.say(b"-ERR no\r\n")
    with pytest.raises(StoreError, match="ERR no"):
        await calling


async def test_dropping_in_the_middle_of_a_batch_of_replies_tells_each_waiter_once(line):
    seen = []

    def first(reply):
        seen.append(reply)
        line.connection.drop(StoreError("first says so"))

    line.connection.send(b"x", first)
    line.send("b")
    line.say(b"+1\r\n+2\r\n")
    await line.until(1)
    await asyncio.sleep(0.005)
    assert seen == [b"1"]
    assert [name for name, _ in line.replies] == ["b"]
    assert isinstance(line.replies[0][1], StoreError)


async def test_one_that_is_kept_tells_late_replies_to_those_who_ask_and_goes_on(tmp_path):
    line = await Line.open(str(tmp_path / "s"), 0.03, lambda _: True)
    line.send("a")
    late = []
    line.connection.send(b"b", lambda reply: line.replies.append(("b", reply)), late.append)
    await line.until(2)
    assert [type(reply) for _, reply in line.replies] == [StoreError, StoreError]
    assert not line.connection.lost
    line.send("c")
    line.say(b"+1\r\n")
    await asyncio.sleep(0.005)
    assert (len(line.replies), late) == (2, [])
    line.say(b"+2\r\n+3\r\n")
    await line.until(3)
    assert line.replies[2] == ("c", b"3")
    assert late == [b"2"]
    assert line.lost == []
    line.close()


async def test_a_reply_that_never_came_is_told_once(tmp_path):
    line = await Line.open(str(tmp_path / "s"), 0.03, lambda _: True)
    late = []
    line.connection.send(b"a", lambda reply: line.replies.append(("a", reply)), late.append)
    await line.until(1)
    line.connection.drop(StoreError("over"))
    assert (len(line.replies), late) == (1, [])
    line.close()
