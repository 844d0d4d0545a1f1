"""Bodies on their way."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.stream import Abandoned, Stream


class Producer:
    def __init__(self, **how):
        self.calls = []
        self.ended = []
        self.stream = Stream(
            asyncio.get_running_loop(), lambda: self.calls.append("pause"), lambda: self.calls.append("go on"), **how
        )
        self.stream.then(self.ended.append)


async def test_bytes_come_in_order_and_then_the_end():
    one = Producer()
    one.stream.feed(b"a")
    one.stream.feed(b"")
    one.stream.feed(b"b")
    assert await one.stream.read() == b"ab"
    reading = asyncio.ensure_future(one.stream.read())
    await asyncio.sleep(0)
    assert not reading.done()
    one.stream.feed(b"c")
    assert await reading == b"c"
    one.stream.end()
    assert await one.stream.read() == await one.stream.read() == b""
    assert one.ended == [None]
    assert one.stream.total == 3


async def test_a_failure_comes_after_what_was_fed():
    one = Producer()
    one.stream.feed(b"a")
    one.stream.fail(ValueError("cut"))
    one.stream.end()
    one.stream.feed(b"late")
    assert await one.stream.read() == b"a"
    with pytest.raises(ValueError, match="cut"):
        await one.stream.read()
    assert [str(error) for error in one.ended] == ["cut"]


@pytest.mark.parametrize(("size", "calls"), [(10, []), (11, ["pause", "go on"])])
async def test_the_producer_is_paused_above_the_mark_and_not_at_it(size, calls):
    one = Producer(high=10)
    one.stream.feed(b"x" * size)
    one.stream.feed(b"")
    assert one.stream.paused == bool(calls)
    await one.stream.read()
    assert one.calls == calls


async def test_a_producer_that_has_ended_is_not_told_to_go_on():
    one = Producer(high=1)
    one.stream.feed(b"xx")
    one.stream.end()
    assert await one.stream.read() == b"xx"
    assert one.calls == ["pause"]


async def test_abandoning_is_told_and_drops_what_waits():
    one = Producer()
    one.stream.feed(b"x")
    one.stream.abandon()
    one.stream.abandon()
    assert [type(error) for error in one.ended] == [Abandoned]
    with pytest.raises(Abandoned):
        await one.stream.read()


async def test_who_asks_late_hears_at_once():
    one = Producer()
    one.stream.end()
    heard = []
    one.stream.then(heard.append)
    assert heard == [None]


async def test_a_cancelled_reader_loses_nothing():
    one = Producer()
    reading = asyncio.ensure_future(one.stream.read())
    await asyncio.sleep(0)
    reading.cancel()
    one.stream.feed(b"x")
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await one.stream.read() == b"x"


async def test_any_cut_of_the_bytes_arrives_whole():
    rand = random.Random(3)
    for _ in range(50):
        one = Producer(high=rand.choice([1, 100, 5000]))
        sent = rand.randbytes(rand.randrange(20_000))

        async def produce(one=one, sent=sent):
            at = 0
            while at < len(sent):
                size = rand.randrange(1, 3000)
                one.stream.feed(sent[at : at + size])
                at += size
                if one.stream.paused or rand.random() < 0.3:
                    await asyncio.sleep(0)
            one.stream.end()

        task = asyncio.ensure_future(produce())
        got = b""
        while data := await one.stream.read():
            got += data
        await task
        assert got == sent
        assert one.calls.count("pause") - one.calls.count("go on") in (0, 1)
