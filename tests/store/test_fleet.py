"""Workers that tell each other things through a real Valkey, and count each other."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import redis

from gateway.store import fleet as fleet_module
from gateway.store.address import StoreAddress
from gateway.store.fleet import FORGET, MAX_MESSAGE, MAX_UNANSWERED, Fleet, Membership
from gateway.store.link import StoreTimes
from tests.conftest import Valkey
from tests.patience import GUARD

TIMES = StoreTimes(deadline=10.0, connect_timeout=10.0, reconnect_min=0.005, reconnect_max=0.02)


# -- arithmetic -------------------------------------------------------------------------------------------------


def test_others_count_until_they_have_been_silent_for_too_long():
    members = Membership()
    members.heard(b"a", 4, 10.0)
    members.heard(b"b", 2, 12.0)
    assert members.workers(13.0) == 6
    assert members.workers(10.0 + FORGET) == 6
    assert members.workers(10.0 + FORGET + 0.01) == 2
    members.heard(b"b", 3, 14.0)
    assert members.workers(14.0) == 3


def test_a_gateway_that_says_it_ends_is_gone_at_once():
    members = Membership()
    members.heard(b"a", 4, 10.0)
    members.heard(b"a", 0, 10.1)
    members.heard(b"never-known", 0, 10.1)
    assert members.workers(10.1) == 0


def test_while_nobody_can_be_heard_nobody_is_forgotten_and_afterwards_all_have_their_time_again():
    members = Membership()
    members.heard(b"a", 4, 10.0)
    members.away(11.0)
    members.away(500.0)
    assert members.workers(1000.0) == 4
    members.back(1000.0)
    assert members.workers(1000.0 + FORGET) == 4
    assert members.workers(1000.1 + FORGET) == 0


# -- over a real server -----------------------------------------------------------------------------------------


async def until(condition, seconds=GUARD):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def server(tmp_path):
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


async def listening(server, count, channel="gw:fleet:trips"):
    """Waits until so many workers are subscribed."""
    with redis.Redis(unix_socket_path=server.path) as client:
        await until(lambda: client.pubsub_numsub(channel)[0][1] == count)


@pytest.fixture
async def join(server):
    """Makes workers of a fleet."""
    made = []

    async def one(gateway=b"g", prefix="gw", workers=1):
        fleet = Fleet(StoreAddress(unix_path=server.path), TIMES, prefix, gateway)
        fleet.set_own(workers)
        fleet.start()
        made.append(fleet)
        await until(lambda: fleet.connected)
        return fleet

    yield one
    for fleet in made:
        await fleet.close()


async def test_a_message_reaches_every_other_worker_that_listens_and_not_its_sender(server, join):
    a, b, c = await join(b"1"), await join(b"1"), await join(b"2")
    heard = []
    for name, each in (("a", a), ("b", b), ("c", c)):
        each.listen(b"trips", lambda message, name=name: heard.append((name, message)))
    await listening(server, 3)
    a.tell(b"trips", b"\x00\xff open")
    a.tell(b"nobody", b"x")
    await until(lambda: len(heard) == 2)
    assert sorted(heard) == [("b", b"\x00\xff open"), ("c", b"\x00\xff open")]
    assert a.dropped == 0


async def test_another_prefix_hears_and_counts_nothing(server, join):
    a, stranger = await join(b"1"), await join(b"2", prefix="other")
    heard = []
    stranger.listen(b"t", heard.append)
    await listening(server, 1, "other:fleet:t")
    a.tell(b"t", b"x")
    await asyncio.sleep(0.1)
    assert heard == []
    assert (a.members, stranger.members) == (1, 1)


async def test_all_workers_of_all_gateways_are_counted_soon_after_one_joins(join):
    a = await join(b"1", workers=2)
    b = await join(b"1", workers=2)
    c = await join(b"2", workers=4)
    await until(lambda: (a.members, b.members, c.members) == (6, 6, 6))
    c.set_own(3)
    await until(lambda: (a.members, b.members, c.members) == (5, 5, 5))
    await c.close()
    await until(lambda: (a.members, b.members) == (2, 2))


async def test_a_worker_is_told_of_each_change_once(server):
    told = []
    fleet = Fleet(StoreAddress(unix_path=server.path), TIMES, "gw", b"1", told.append)
    fleet.set_own(1)
    fleet.set_own(4)
    fleet.set_own(4)
    fleet.set_own(2)
    assert told == [4, 2]
    await fleet.close()


async def test_what_was_heard_stays_in_force_while_the_store_is_away(server, join, monkeypatch):
    a, b = await join(b"1"), await join(b"2", workers=3)
    await until(lambda: a.members == 4)
    server.kill()
    await until(lambda: not a.connected)
    monkeypatch.setattr(fleet_module, "FORGET", 0.05)
    await asyncio.sleep(0.15)
    a._count()
    assert a.members == 4
    a.tell(b"t", b"lost")
    assert a.dropped >= 1
    monkeypatch.undo()
    server.start()
    await until(lambda: a.connected and b.connected)
    heard = []
    b.listen(b"t", heard.append)
    await listening(server, 1, "gw:fleet:t")
    a.tell(b"t", b"again")
    await until(lambda: heard == [b"again"])
    await until(lambda: (a.members, b.members) == (4, 4))


async def test_a_hung_store_costs_nobody_anything_and_what_is_sent_is_bounded(server, join):
    a = await join(b"1")
    os.kill(server.process.pid, signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(MAX_UNANSWERED * 3):
        a.tell(b"t", b"x" * 100)
    assert loop.time() - began < 10  # nobody waited for an answer
    assert a.dropped >= MAX_UNANSWERED
    os.kill(server.process.pid, signal.SIGCONT)
    await until(lambda: a._unanswered == 0 and a.connected)


async def test_what_strangers_publish_on_our_channels_is_no_harm(server, join):
    a = await join(b"1")
    heard = []

    def angry(message):
        heard.append(message)
        raise ValueError

    a.listen(b"t", angry)
    await listening(server, 1, "gw:fleet:t")
    with redis.Redis(unix_socket_path=server.path) as client:
        for junk in (
            b"",
            b"short",
            b"x" * (MAX_MESSAGE + 1),
            b"12345678=x y",
            b"12345678=99999999 z",
            b"12345678",
            b"\xff" * 40,
        ):
            client.publish("gw:fleet:alive", junk)
        client.publish("gw:fleet:t", b"short")
        client.publish("gw:fleet:t", b"12345678first")
        client.publish("gw:fleet:t", b"12345678second")
    await until(lambda: heard == [b"first", b"second"])
    assert a.members == 1
    assert a.connected


async def test_a_message_that_is_too_large_is_dropped(join):
    a = await join(b"1")
    a.tell(b"t", b"x" * MAX_MESSAGE)
    assert a.dropped == 1
