"""The limiter over a store that answers now, later, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from gateway.limits.bucket import BucketSpec, Taken
from gateway.limits.limiter import Limiter, RouteLimits
from gateway.limits.policy import LimitPolicy
from gateway.request import Request

WIDE = LimitPolicy("wide", "client", BucketSpec(10.0, 20.0))
NARROW = LimitPolicy("narrow", "route", BucketSpec(1.0, 2.0))


class FakeStore:
    """Answers with `reply`: a list, None at once, or "later" (None from an awaitable)."""

    def __init__(self, reply):
        self.reply = reply
        self.asked = []

    def take(self, asks):
        self.asked.append(asks)
        if self.reply is None:
            return None
        future = asyncio.get_running_loop().create_future()
        future.set_result(None if self.reply == "later" else self.reply)
        return future


def request():
    request = Request(b"GET", b"/", b"/", {}, peer=b"10.0.0.9")
    request.client = b"alice"
    return request


def limits(*policies):
    return RouteLimits("digits", policies, "gw")


async def test_it_asks_for_every_limit_of_the_route_at_once():
    store = FakeStore([Taken(True, 19.0), Taken(True, 1.0)])
    limiter = Limiter(store)
    verdict = await limiter.check(limits(WIDE, NARROW), request(), 0)
    assert [(ask.key, ask.cost) for ask in store.asked[0]] == [(b"gw:wide:alice", 1.0), (b"gw:narrow:digits", 1.0)]
    assert verdict.allowed
    assert verdict.shared
    assert verdict.refused_by is None


async def test_the_first_bucket_that_refuses_is_named():
    verdict = await Limiter(FakeStore([Taken(True, 19.0), Taken(False, 0.5)])).check(limits(WIDE, NARROW), request(), 0)
    assert not verdict.allowed
    assert verdict.refused_by is NARROW
    assert verdict.left == [Taken(True, 19.0), Taken(False, 0.5)]


@pytest.mark.parametrize("away", [None, "later"])
async def test_without_the_store_it_decides_alone_from_the_last_shared_level(away):
    store = FakeStore([Taken(True, 4.0)])
    limiter = Limiter(store, workers=2)
    await limiter.check(limits(WIDE), request(), 0)
    store.reply = away
    verdicts = [await limiter.check(limits(WIDE), request(), 0) for _ in range(4)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, False, False]  # half of what was left
    assert not any(verdict.shared for verdict in verdicts)
    assert verdicts[-1].refused_by is WIDE


@pytest.mark.parametrize(("mode", "allowed"), [("open", True), ("closed", False)])
async def test_open_and_closed(mode, allowed):
    policy = LimitPolicy("l", "client", BucketSpec(1.0, 1.0), on_store_failure=mode)
    limiter = Limiter(FakeStore(None))
    for _ in range(5):
        verdict = await limiter.check(limits(policy), request(), 0)
        assert verdict.allowed is allowed
        assert (verdict.refused_by is None) is allowed


async def test_the_number_of_workers_is_read_at_each_decision():
    limiter = Limiter(FakeStore(None), workers=1)
    assert (await limiter.check(limits(NARROW), request(), 0)).allowed
    limiter.workers = 4  # one of two tokens is left to the fleet, a quarter of one to us
    assert not (await limiter.check(limits(NARROW), request(), 0)).allowed


def test_what_is_constant_is_built_once():
    assert limits(WIDE, NARROW).policy_header == b'"wide";q=20;w=2, "narrow";q=2;w=2'
    assert limits(WIDE).legacy is None
