"""Shared buckets against a real Valkey that is stopped, killed and emptied."""

from __future__ import annotations

import asyncio
import os
import signal
import struct

import pytest
import redis

from gateway.errors import StoreError
from gateway.limits.bucket import BucketSpec
from gateway.limits.leases import Lease
from gateway.limits.limiter import Limiter
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import GlobalScope
from gateway.limits.verdict import ALONE, LimitVerdict, RouteLimits
from gateway.request import Request
from gateway.store.address import StoreAddress
from gateway.store.buckets import SCRIPT, SharedBuckets
from gateway.store.link import StoreLink, StoreTimes
from tests.conftest import Valkey
from tests.patience import GUARD

POLICY = LimitPolicy("p", spec=BucketSpec(0.001, 5.0))
TIMES = StoreTimes(deadline=10.0, connect_timeout=10.0, reconnect_min=0.005, reconnect_max=0.02)
LATE = StoreTimes(deadline=1.0, connect_timeout=10.0, reconnect_min=0.005, reconnect_max=0.02)  # to be waited for
HASTY = StoreTimes(deadline=0.1, connect_timeout=10.0, reconnect_min=0.005, reconnect_max=0.02)


def asks(*pairs, cost=1.0):
    """A verdict that asks for each (key, policy)."""
    limits = RouteLimits("r", [policy for _, policy in pairs], "gw")
    verdict = LimitVerdict(Limiter(None), limits, [key for key, _ in pairs], 0)
    verdict.costs = [cost] * len(pairs)
    return verdict


def ask(key, policy=POLICY):
    return asks((key, policy))


class Answer:
    """What came of one verdict."""

    def __init__(self, allowed, tokens):
        self.allowed, self.tokens = allowed, tokens


async def decision(verdict, asked):
    """The answers in the order asked; None: the store did not decide."""
    if not asked:
        return None
    await verdict.pending
    if verdict.by:
        return None
    return [Answer(flag == ord("1"), level) for flag, level in zip(verdict.flags, verdict.levels, strict=True)]


class Line:
    """Buckets with their link, as a worker has them."""

    def __init__(self, address, times=TIMES, **how):
        self.link = StoreLink(address, times, [SCRIPT])
        self.buckets = SharedBuckets(self.link, **how)

    def __getattr__(self, name):
        return getattr(self.buckets, name)

    def decide(self, verdict):
        return asyncio.ensure_future(decision(verdict, asked=self.buckets.take(verdict)))

    @property
    def up(self):
        return self.link.connection is not None


async def shared(path, times=TIMES, **how):
    one = Line(StoreAddress(unix_path=path), times, **how)
    one.link.start()
    assert await one.link.ready(GUARD)
    return one


@pytest.fixture
async def buckets(valkey):
    one = await shared(valkey)
    yield one
    await one.link.close()


@pytest.fixture
async def own(tmp_path, request):
    """A Valkey to be mistreated, and buckets in it."""
    server = Valkey(tmp_path)
    server.start()
    one = await shared(server.path, getattr(request, "param", TIMES))
    yield server, one
    await one.link.close()
    server.kill()


waits = pytest.mark.parametrize("own", [pytest.param(LATE, id="late")], indirect=True)


async def up(one, *, is_up=True):
    async with asyncio.timeout(30):
        while one.up != is_up:
            await asyncio.sleep(0.002)


async def decides_again(one):
    """Waits until it does: a hasty one gives up where the machine is busy, and is back a moment later."""
    async with asyncio.timeout(GUARD):
        while (taken := await one.decide(ask(b"fresh"))) is None:
            await asyncio.sleep(0.002)
    assert taken[0].allowed


async def test_all_decisions_of_a_tick_are_one_call(buckets):
    futures = [buckets.decide(ask(b"k%d" % (i % 10))) for i in range(100)]
    taken = await asyncio.gather(*futures)
    assert buckets.calls == 1
    assert [result[0].allowed for result in taken] == [True] * 50 + [False] * 50
    assert [result[0].tokens for result in taken[:50:10]] == pytest.approx([4, 3, 2, 1, 0], abs=0.01)


async def test_a_call_holds_a_bounded_number_of_buckets(valkey):
    buckets = await shared(valkey, max_keys=10)
    taken = await asyncio.gather(*(buckets.decide(ask(b"%d" % i)) for i in range(35)))
    assert buckets.calls == 4
    assert all(result[0].allowed for result in taken)
    await buckets.link.close()


async def test_a_request_is_admitted_by_all_of_its_buckets_or_takes_from_none(buckets):
    narrow = LimitPolicy("n", spec=BucketSpec(0.001, 1.0))
    both = ((b"wide", POLICY), (b"narrow", narrow))
    first, second, third = await asyncio.gather(*map(buckets.decide, (asks(*both), asks(*both), ask(b"wide"))))
    assert [taken.allowed for taken in first] == [True, True]
    assert [taken.allowed for taken in second] == [True, False]
    assert third[0].tokens == pytest.approx(3.0, abs=0.01)


async def test_two_workers_share(valkey, buckets):
    other = await shared(valkey)
    both = [await one.decide(ask(b"k")) for one in (buckets, other) * 4]
    assert [taken[0].allowed for taken in both] == [True] * 5 + [False] * 3
    await other.link.close()


async def test_every_reply_reaches_its_own_waiter_even_when_others_are_cancelled(buckets):
    waiting = []
    for number in range(200):
        policy = LimitPolicy("p", spec=BucketSpec(0.001, float(number + 1)))
        waiting.append((number, buckets.decide(ask(b"k%d" % number, policy))))
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
    assert not one.take(ask(b"k"))
    one.link.start()
    assert not await one.link.ready(0.02)
    assert not one.take(ask(b"k"))
    await one.link.close()


async def test_a_hung_store_costs_one_deadline_and_then_nothing(own):
    server, _ = own
    one = await shared(server.path, HASTY)
    os.kill(server.process.pid, signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    start = loop.time()
    taken = await asyncio.gather(*(one.decide(ask(b"%d" % i)) for i in range(50)))
    assert loop.time() - start < 50 * HASTY.deadline / 2
    assert taken == [None] * 50
    assert not one.take(ask(b"k"))
    await asyncio.sleep(0.05)
    assert not one.take(ask(b"k"))  # it accepts connections while it hangs, and is still away
    os.kill(server.process.pid, signal.SIGCONT)
    await decides_again(one)
    await one.link.close()


@waits
async def test_a_store_that_hiccups_costs_one_deadline_and_no_connection(own):
    server, one = own
    connection = one.link.connection
    os.kill(server.process.pid, signal.SIGSTOP)
    assert await one.decide(ask(b"k")) is None
    assert one.link.connection is None
    os.kill(server.process.pid, signal.SIGCONT)
    await up(one)
    assert one.link.connection is connection
    assert (one.link.losses, one.link.doubts) == (0, 1)
    assert (await one.decide(ask(b"k")))[0].tokens == pytest.approx(POLICY.spec.burst - 2, abs=0.5), "it took both"


async def test_a_killed_store_is_found_again(own):
    server, one = own
    await one.decide(ask(b"k"))
    server.kill()
    await up(one, is_up=False)
    assert not one.take(ask(b"k"))
    server.start()
    await up(one)
    taken = await one.decide(ask(b"k"))
    assert taken[0].allowed


async def test_a_forgotten_script_is_loaded_again(own):
    server, one = own
    with redis.Redis(unix_socket_path=server.path) as client:
        client.script_flush()
    assert await one.decide(ask(b"k")) is None
    await up(one)
    assert (await one.decide(ask(b"k")))[0].allowed
    assert one.failures >= 1


async def test_a_store_that_refuses_every_call_is_not_asked_in_a_frenzy(own, caplog):
    server, one = own
    with redis.Redis(unix_socket_path=server.path) as client:
        client.set("k", "not a bucket")
        for _ in range(50):
            assert await one.decide(ask(b"k")) is None
            await asyncio.sleep(0.001)
        assert one.calls < 20
        client.delete("k")
    await up(one)
    assert (await one.decide(ask(b"k")))[0].allowed


async def test_what_is_pending_when_it_closes_is_answered(valkey):
    one = await shared(valkey)
    pending = [one.decide(ask(b"k")), one.decide(ask(b"l"))]
    await asyncio.sleep(0)
    await one.link.close()
    async with asyncio.timeout(30):
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


# -- everything else that rides along -----------------------------------------------------------------------------


class Holder:
    def __init__(self):
        self.came = []

    def granted(self, lease, tokens, level):
        self.came.append((lease.key, tokens, level))

    def lease_lost(self, lease):
        self.came.append((lease.key, None))

    def granted_late(self, lease, tokens):
        self.came.append((lease.key, tokens, "late"))


async def test_what_comes_back_and_leases_ride_along_with_the_decisions_of_their_tick(buckets):
    holder = Holder()
    assert buckets.adjust(b"a", POLICY.spec, -3.0)
    assert buckets.lease(Lease(b"b", *POLICY.spec, 0), 4.9, holder)
    a, b = buckets.decide(ask(b"a")), buckets.decide(ask(b"b"))
    a, b = await asyncio.gather(a, b)
    assert buckets.calls == 1
    assert a[0].tokens == pytest.approx(1.0, abs=0.01)  # charged before it was asked
    assert b[0].tokens == pytest.approx(4.0, abs=0.01)  # the lease came last
    assert holder.came == [(b"b", 4.0, pytest.approx(0.0, abs=0.01))]


async def test_a_hint_comes_before_the_ask(buckets):
    buckets.hint(b"k", POLICY.spec, 1.0)
    both = await asyncio.gather(buckets.decide(ask(b"k")), buckets.decide(ask(b"k")))
    assert [one[0].allowed for one in both] == [True, False]


async def test_places_through_the_whole_store(buckets):
    policy = LimitPolicy("busy", concurrent=2)
    limits = RouteLimits("r", [policy, POLICY], "gw")

    def enter(number):
        verdict = LimitVerdict(Limiter(None), limits, [b"hall", b"bucket"], 0)
        verdict.member, verdict.life_ns = b"%016d" % number, 10**9
        return buckets.decide(verdict)

    entered = await asyncio.gather(*map(enter, range(3)))
    assert [[one.allowed for one in verdict] for verdict in entered] == [[True, True], [True, True], [False, True]]
    assert entered[2][1].tokens == pytest.approx(3.0, abs=0.01)
    buckets.release(b"hall", b"%016d" % 0)
    assert (await enter(3))[0].allowed
    buckets.renew(b"hall", b"%016d" % 1, 10**10)
    assert not (await enter(4))[0].allowed
    buckets.renew(b"hall", b"%016d" % 1, 10**10)
    buckets.forget(b"hall", b"%08d" % 0)  # in one call, and this first
    assert [(await enter(number))[0].allowed for number in (5, 6)] == [True, False]


async def test_many_of_everything_is_cut_into_calls_of_a_bounded_size(valkey):
    one = await shared(valkey, max_keys=10)
    holder = Holder()
    mixed = LimitPolicy("n", spec=BucketSpec(0.001, 3.0))
    pending = []
    for i in range(23):
        one.adjust(b"a%d" % i, POLICY.spec, -1.0)
        one.lease(Lease(b"l%d" % i, *POLICY.spec, 0), 2.0, holder)
        pending.append(one.decide(ask(b"a%d" % i)))
        pending.append(one.decide(asks((b"x%d" % i, POLICY), (b"y%d" % i, mixed))))
    answers = await asyncio.gather(*pending)
    assert one.calls == 12  # 115 keys
    assert [answer[0].tokens for answer in answers[::2]] == pytest.approx([3.0] * 23, abs=0.01)
    assert [(a.tokens, b.tokens) for a, b in answers[1::2]] == [pytest.approx((4.0, 2.0), abs=0.01)] * 23
    async with asyncio.timeout(30):
        while len(holder.came) < 23:
            await asyncio.sleep(0.001)
    assert {tokens for _, tokens, _ in holder.came} == {2.0}
    await one.link.close()


async def test_a_lost_lease_is_told(own):
    server, _ = own
    one = await shared(server.path, HASTY)
    holder = Holder()
    os.kill(server.process.pid, signal.SIGSTOP)
    assert one.lease(Lease(b"k", *POLICY.spec, 0), 2.0, holder)
    async with asyncio.timeout(30):
        while not holder.came:
            await asyncio.sleep(0.002)
    assert holder.came == [(b"k", None)]
    assert not one.lease(Lease(b"k", *POLICY.spec, 0), 2.0, holder)
    assert not one.adjust(b"k", POLICY.spec, 1.0) or not one.link.open.lost, "nobody waits for what comes back"
    os.kill(server.process.pid, signal.SIGCONT)
    await one.link.close()


async def test_a_store_that_comes_back_empty_is_noticed(own):
    server, one = own
    await one.link.close()
    marked = Line(StoreAddress(unix_path=server.path))
    marked.link = StoreLink(StoreAddress(unix_path=server.path), TIMES, [SCRIPT], marker=b"gw:era")
    marked.link.start()
    await up(marked)
    assert not marked.link.forgot
    marked.link.connection.drop(StoreError("test"))
    await up(marked, is_up=False)
    await up(marked)
    assert not marked.link.forgot
    server.kill()
    await up(marked, is_up=False)
    server.start()
    await up(marked)
    assert marked.link.forgot
    await marked.link.close()


async def test_what_was_spent_on_a_question_that_never_left_is_owed(own):
    _, one = own
    limiter = Limiter(one.buckets)
    limits = RouteLimits("r", [LimitPolicy("p", GlobalScope(), POLICY.spec)], "gw")
    verdict = limiter.begin(limits, Request(b"GET", b"/", b"/", {}), 0)
    calls = one.calls
    one.link.connection.drop(StoreError("test"))  # before the turn in which it would have been sent
    await verdict.pending
    assert (verdict.by, verdict.allowed, one.calls) == (ALONE, True, calls)
    assert limiter.owed == 1.0


# -- what a store that was late turns out to have done ---------------------------------------------------------


def level_of(server, key):
    with redis.Redis(unix_socket_path=server.path) as client:
        return struct.unpack("<dd", client.get(key))[0]


async def asked_too_late(server, one, limiter, limits, count=1):
    """What became of `count` requests about which a stopped store was asked."""
    os.kill(server.process.pid, signal.SIGSTOP)
    verdicts = [limiter.begin(limits, Request(b"GET", b"/", b"/", {}), 0) for _ in range(count)]
    for verdict in verdicts:
        await verdict.pending
    assert {verdict.by for verdict in verdicts} == {ALONE}
    return verdicts


async def settled(server, one):
    """The store runs again, and everything it was told has arrived."""
    os.kill(server.process.pid, signal.SIGCONT)
    await up(one)
    await asyncio.sleep(0)
    await one.link.connection.call("PING")
    await one.link.connection.call("PING")


@waits
@pytest.mark.parametrize(("mode", "left"), [("closed", 5), ("open", 2), ("local", 4)])
async def test_what_it_took_is_given_back_unless_it_pays_for_what_was_admitted(own, mode, left):
    server, one = own
    limiter = Limiter(one.buckets)
    limits = RouteLimits("r", [LimitPolicy("p", GlobalScope(), POLICY.spec, on_store_failure=mode)], "gw")
    verdicts = await asked_too_late(server, one, limiter, limits, 3)
    assert [verdict.allowed for verdict in verdicts].count(True) == 5 - left
    await settled(server, one)
    assert level_of(server, verdicts[0].keys[0]) == pytest.approx(left, abs=0.01)
    assert limiter.refunded == 3 - (5 - left)


@waits
async def test_a_place_that_nobody_took_is_free_at_once(own):
    server, one = own
    limiter = Limiter(one.buckets)
    busy = LimitPolicy("busy", GlobalScope(), concurrent=1, on_store_failure="closed")
    (verdict,) = await asked_too_late(server, one, limiter, RouteLimits("r", [busy], "gw"))
    await settled(server, one)
    with redis.Redis(unix_socket_path=server.path) as client:
        assert client.zcard(verdict.keys[0]) == 0


@waits
async def test_a_place_given_back_while_the_store_is_late_is_free_when_it_is_not(own):
    server, one = own
    limiter = Limiter(one.buckets)
    request = Request(b"GET", b"/", b"/", {})
    limits = RouteLimits("r", [LimitPolicy("busy", GlobalScope(), concurrent=2)], "gw")
    before = await limiter.check(limits, request, 0)
    (meanwhile,) = await asked_too_late(server, one, limiter, limits)
    for verdict in (before, meanwhile):
        limiter.end(verdict, request, sent=True)
    await settled(server, one)
    with redis.Redis(unix_socket_path=server.path) as client:
        assert client.zcard(before.keys[0]) == 0


@waits
async def test_a_lease_that_comes_late_is_told(own):
    server, one = own
    holder = Holder()
    os.kill(server.process.pid, signal.SIGSTOP)
    assert one.lease(Lease(b"k", *POLICY.spec, 0), 2.0, holder)
    await up(one, is_up=False)
    await settled(server, one)
    assert holder.came == [(b"k", None), (b"k", 2.0, "late")]
