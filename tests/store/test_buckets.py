"""Shared buckets against a real Valkey that is stopped, killed and emptied."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import redis

from gateway.limits.bucket import BucketSpec
from gateway.limits.limiter import Ask
from gateway.limits.policy import LimitPolicy
from gateway.store.address import StoreAddress
from gateway.store.buckets import SCRIPT, SharedBuckets
from gateway.store.link import StoreLink, StoreTimes
from tests.conftest import Valkey

POLICY = LimitPolicy("p", "client", BucketSpec(0.001, 5.0))
TIMES = StoreTimes(deadline=0.03, reconnect_min=0.005, reconnect_max=0.02)


def ask(key, cost=1.0, policy=POLICY):
    return [Ask(key, policy, cost)]


class Line:
    """Buckets with their link, as a worker has them."""

    def __init__(self, address, times=TIMES, **how):
        self.link = StoreLink(address, times, [SCRIPT])
        self.buckets = SharedBuckets(self.link, **how)

    def __getattr__(self, name):
        return getattr(self.buckets, name)

    @property
    def up(self):
        return self.link.connection is not None


async def shared(path, times=TIMES, **how):
    one = Line(StoreAddress(unix_path=path), times, **how)
    one.link.start()
    assert await one.link.ready(2)
    return one


@pytest.fixture
async def buckets(valkey):
    one = await shared(valkey)
    yield one
    await one.link.close()


@pytest.fixture
async def own(tmp_path):
    """A Valkey to be mistreated, and buckets in it."""
    server = Valkey(tmp_path)
    server.start()
    one = await shared(server.path)
    yield server, one
    await one.link.close()
    server.kill()


async def up(one, *, is_up=True):
    async with asyncio.timeout(2):
        while one.up != is_up:
            await asyncio.sleep(0.002)


async def test_all_decisions_of_a_tick_are_one_call(buckets):
    futures = [buckets.take(ask(b"k%d" % (i % 10))) for i in range(100)]
    taken = await asyncio.gather(*futures)
    assert buckets.calls == 1
    assert [result[0].allowed for result in taken] == [True] * 50 + [False] * 50
    assert [result[0].tokens for result in taken[:50:10]] == pytest.approx([4, 3, 2, 1, 0], abs=0.01)


async def test_a_call_holds_a_bounded_number_of_buckets(valkey):
    buckets = await shared(valkey, max_asks=10)
    taken = await asyncio.gather(*(buckets.take(ask(b"%d" % i)) for i in range(35)))
    assert buckets.calls == 4
    assert all(result[0].allowed for result in taken)
    await buckets.link.close()


async def test_a_request_is_admitted_by_all_of_its_buckets_or_takes_from_none(buckets):
    narrow = LimitPolicy("n", "client", BucketSpec(0.001, 1.0))
    both = [*ask(b"wide"), *ask(b"narrow", policy=narrow)]
    first, second, third = await asyncio.gather(buckets.take(both), buckets.take(both), buckets.take(ask(b"wide")))
    assert [taken.allowed for taken in first] == [True, True]
    assert [taken.allowed for taken in second] == [True, False]
    assert third[0].tokens == pytest.approx(3.0, abs=0.01)


async def test_two_workers_share(valkey, buckets):
    other = await shared(valkey)
    both = [await one.take(ask(b"k")) for one in (buckets, other) * 4]
    assert [taken[0].allowed for taken in both] == [True] * 5 + [False] * 3
    await other.link.close()


async def test_every_reply_reaches_its_own_waiter_even_when_others_are_cancelled(buckets):
    waiting = []
    for number in range(200):
        policy = LimitPolicy("p", "client", BucketSpec(0.001, float(number + 1)))
        waiting.append((number, asyncio.ensure_future(buckets.take(ask(b"k%d" % number, policy=policy)))))
        if number % 7 == 0:
            await asyncio.sleep(0)
        if number % 3 == 0:
            waiting[-1][1].cancel()
    for number, future in waiting:
        if number % 3 == 0:
            assert future.cancelled() or future.done()
            continue
        assert (await future)[0].tokens == pytest.approx(number, abs=0.01)
    assert buckets.up


async def test_before_it_is_connected_nobody_waits(tmp_path):
    one = Line(StoreAddress(unix_path=str(tmp_path / "nothing")))
    assert one.take(ask(b"k")) is None
    one.link.start()
    assert not await one.link.ready(0.02)
    assert one.take(ask(b"k")) is None
    await one.link.close()


async def test_a_hung_store_costs_one_deadline_and_then_nothing(own):
    server, one = own
    os.kill(server.process.pid, signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    start = loop.time()
    taken = await asyncio.gather(*(one.take(ask(b"%d" % i)) for i in range(50)))
    assert loop.time() - start < TIMES.deadline + 0.05
    assert taken == [None] * 50
    assert one.take(ask(b"k")) is None
    await asyncio.sleep(0.05)
    assert one.take(ask(b"k")) is None  # it accepts connections while it hangs, and is still away
    os.kill(server.process.pid, signal.SIGCONT)
    await up(one)
    assert (await one.take(ask(b"fresh")))[0].allowed


async def test_a_killed_store_is_found_again(own):
    server, one = own
    await one.take(ask(b"k"))
    server.kill()
    await up(one, is_up=False)
    assert one.take(ask(b"k")) is None
    server.start()
    await up(one)
    taken = await one.take(ask(b"k"))
    assert taken[0].allowed


async def test_a_forgotten_script_is_loaded_again(own):
    server, one = own
    with redis.Redis(unix_socket_path=server.path) as client:
        client.script_flush()
    assert await one.take(ask(b"k")) is None
    await up(one)
    assert (await one.take(ask(b"k")))[0].allowed
    assert one.failures >= 1


async def test_a_store_that_refuses_every_call_is_not_asked_in_a_frenzy(own, caplog):
    server, one = own
    with redis.Redis(unix_socket_path=server.path) as client:
        client.set("k", "not a bucket")
        for _ in range(50):
            pending = one.take(ask(b"k"))
            assert pending is None or await pending is None
            await asyncio.sleep(0.001)
        assert one.calls < 20
        client.delete("k")
    await up(one)
    assert (await one.take(ask(b"k")))[0].allowed


async def test_what_is_pending_when_it_closes_is_answered(valkey):
    one = await shared(valkey)
    pending = [one.take(ask(b"k")), one.take(ask(b"l"))]
    await one.link.close()
    async with asyncio.timeout(1):
        for answered in await asyncio.gather(*pending):  # whichever was first: the reply or the end
            assert answered is None or answered[0].allowed


async def test_a_wrong_password_is_a_store_that_is_away(valkey, caplog):
    one = Line(StoreAddress(unix_path=valkey, password="wrong"))
    one.link.start()
    assert not await one.link.ready(0.05)
    await one.link.close()
    assert "wrong" not in caplog.text.replace("WRONGPASS", "")


def test_an_address_never_shows_its_password():
    assert "secret" not in str(StoreAddress("h", 1, password="secret"))
    assert str(StoreAddress("h", 1)) == "h:1/0"
    assert str(StoreAddress(unix_path="/s")) == "/s"
