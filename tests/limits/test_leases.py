"""Tokens in advance: never more than the bucket gave, few calls, everything back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.bucket import BucketSpec, Taken, refill
from gateway.limits.leases import BUSY, HORIZON, LIFE, WINDOW, Lease, LeaseBook
from gateway.limits.limiter import Limiter
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import GlobalScope
from gateway.limits.verdict import LEASED, RouteLimits
from gateway.promise import Promise
from gateway.request import Request
from tests.limits.fakes import FakeStore

MS, S = 1_000_000, 1_000_000_000
SPEC = BucketSpec(1000.0, 400.0)
POLICY = LimitPolicy("hot", GlobalScope(), SPEC, mode="leased")
LIMITS = RouteLimits("r", [POLICY], "gw")
REQUEST = Request(b"GET", b"/", b"/", {}, peer=b"10.0.0.9")


class Bucket:
    """One bucket for several workers, in simulated time: answers `delay` after it was asked."""

    def __init__(self, spec=SPEC, delay=MS):
        self.spec, self.delay = spec, delay
        self.tokens, self.at = spec.burst, 0
        self.waiting = []
        self.calls = 0
        self.now = 0

    def level(self):
        self.tokens = refill(self.spec, self.tokens, (self.now - self.at) / 1e3)
        self.at = self.now
        return self.tokens

    def take(self, verdict):
        self.waiting.append((self.now + self.delay, self._take, verdict))
        verdict.pending = Promise(asyncio.AbstractEventLoop())  # which nobody awaits
        return True

    def _take(self, verdict):
        cost = verdict.costs[0]
        fits = self.level() >= cost
        self.tokens -= cost if fits else 0.0
        verdict.told([self.tokens], b"1" if fits else b"0")

    def lease(self, lease, want, to):
        self.waiting.append((self.now + self.delay, self._lease, (lease, want, to)))
        return True

    def _lease(self, asked):
        lease, want, to = asked
        granted = float(int(max(0.0, min(want, self.level()))))
        self.tokens -= granted
        to.granted(lease, granted, self.tokens)

    def adjust(self, key, spec, tokens):
        self.tokens = min(spec.burst, self.level() + tokens)
        return True

    def advance(self, now):
        self.now = now
        due = [one for one in self.waiting if one[0] <= now]
        self.waiting = [one for one in self.waiting if one[0] > now]
        self.calls += len({at for at, _, _ in due})  # what is asked in one tick is one call
        for _, do, what in due:
            do(what)


def play(rates, seconds, spec=SPEC, policy_cost=1.0):
    """Workers ask at these rates; returns (admitted, refused, bucket, workers, calls of each)."""
    stores = Bucket(spec)
    policy = LimitPolicy("hot", GlobalScope(), spec, mode="leased")
    limits = RouteLimits("r", [policy], "gw")
    workers = [Limiter(stores, len(rates)) for _ in rates]
    verdicts = []
    due = [0.0] * len(rates)
    now = 0
    while now < seconds * S:
        now += MS // 4
        stores.advance(now)
        for i, worker in enumerate(workers):
            if now % (250 * MS) == 0:
                worker.tick(now)
            due[i] += rates[i] * 0.00025
            while due[i] >= 1:
                due[i] -= 1
                verdicts.append(worker.begin(limits, REQUEST, now))
    stores.advance(now + S)
    return sum(v.allowed for v in verdicts), len(verdicts), stores, workers


@pytest.mark.parametrize("rates", [[2000], [300, 300], [3000, 1000, 50, 1], [5000] * 4])
def test_a_fleet_admits_what_the_bucket_allows_and_nearly_all_of_it(rates):
    seconds = 3
    admitted, asked, bucket, _ = play(rates, seconds)
    allowed = SPEC.burst + SPEC.rate * seconds
    assert admitted <= allowed + 1
    assert admitted >= min(asked, allowed) * 0.95
    assert bucket.calls <= asked * 0.05 + 100


def test_what_is_left_is_given_back_when_the_key_goes_quiet_and_when_the_worker_ends():
    _, _, bucket, workers = play([300, 300], 1)
    held = [sum(lease.tokens for lease in worker._leasing._book._leases.values()) for worker in workers]
    before = bucket.level()
    assert min(held) > 0
    workers[0].return_leases()
    assert bucket.tokens == pytest.approx(min(SPEC.burst, before + held[0]))
    bucket.now += LIFE
    workers[1].tick(bucket.now)
    assert (workers[0].leased_keys, workers[1].leased_keys) == (0, 0)


@settings(max_examples=60)
@given(
    st.lists(st.floats(1, 4000), min_size=1, max_size=4),
    st.floats(1, 5000),
    st.floats(1, 2000),
    st.sampled_from([0, MS, 30 * MS]),
)
def test_whatever_the_demand_no_more_is_admitted_than_burst_plus_rate_times_time(rates, rate, burst, delay):
    spec = BucketSpec(rate, burst)
    admitted, _, _, _ = play(rates, 0.6, spec)
    assert admitted <= burst + rate * 1.6 + 1e-6  # the last answers come a second later


def test_a_spent_lease_decides_at_once_and_says_what_is_left():
    bucket = Bucket()
    limiter = Limiter(bucket)
    first = [limiter.begin(LIMITS, REQUEST, 1) for _ in range(BUSY)]
    assert all(verdict.pending is not None for verdict in first)
    bucket.advance(2 * MS)
    verdict = limiter.begin(LIMITS, REQUEST, 3 * MS)
    assert verdict.pending is None
    assert (verdict.allowed, verdict.by) == (True, LEASED)
    left = int(verdict.left_header().partition(b";r=")[2].partition(b";")[0])
    assert SPEC.burst - BUSY - 1 <= left <= SPEC.burst - BUSY + 2  # here and in the bucket, with 2 ms of refill


def test_a_worker_refuses_by_itself_while_the_bucket_is_empty():
    bucket = Bucket(BucketSpec(10.0, 5.0))
    policy = LimitPolicy("hot", GlobalScope(), bucket.spec, mode="leased")
    limits = RouteLimits("r", [policy], "gw")
    limiter = Limiter(bucket)
    for _ in range(20):
        limiter.begin(limits, REQUEST, 0)
    bucket.advance(MS)
    while (verdict := limiter.begin(limits, REQUEST, 2 * MS)).allowed:
        pass
    assert (verdict.pending, verdict.allowed, verdict.by) == (None, False, LEASED)
    assert verdict.left_header() == b'"hot";r=0;t=1'
    assert verdict.retry_after() == 1
    assert limiter.begin(limits, REQUEST, 2 * S).pending is not None


def test_tokens_of_a_lost_answer_are_not_spent():
    store = FakeStore(Taken(True, 100.0))
    limiter = Limiter(store)
    lease = Lease(b"k", 1000.0, 400.0, 0)
    limiter._leasing.ask(lease)
    assert (lease.asked, lease.tokens) == (True, 0.0)
    limiter._leasing.lease_lost(lease)
    assert (lease.asked, lease.tokens) == (False, 0.0)


def test_a_grant_that_comes_after_the_lease_ended_is_given_back():
    store = FakeStore(Taken(True, 100.0))
    limiter = Limiter(store)
    limiter._leasing.granted(Lease(b"k", 1000.0, 400.0, 0), 7.0, 50.0)
    assert store.adjusted == [(b"k", 7.0)]


def test_a_grant_that_comes_late_is_spent_or_given_back():
    store = FakeStore(Taken(True, 100.0))
    limiter = Limiter(store)
    for now in range(BUSY):
        lease = limiter._leasing._book.find(b"k", 1000.0, 400.0, now)
    limiter._leasing.ask(lease)
    limiter._leasing.lease_lost(lease)
    limiter._leasing.granted_late(lease, 7.0)
    assert (lease.tokens, lease.asked, store.adjusted) == (7.0, False, [])
    limiter.return_leases()
    limiter._leasing.granted_late(lease, 5.0)
    assert store.adjusted == [(b"k", 7.0), (b"k", 5.0)]


def test_a_lease_ends():
    lease = Lease(b"k", 1000.0, 400.0, 0)
    lease.came(5.0, 10.0, 0)
    book = LeaseBook()
    book._leases[b"k"] = lease
    lease.spent_at = LIFE
    assert book.ended(LIFE) == []
    assert book.ended(LIFE + 1) == [lease]
    assert len(book) == 0


def test_the_size_follows_demand_and_is_bounded_by_a_share_of_the_burst():
    lease = Lease(b"k", 1000.0, 4000.0, 0)
    lease.demand = 1000.0
    assert lease.wanted(4) == 1000 * HORIZON
    lease.demand = 1e9
    assert lease.wanted(4) == 500
    lease.tokens = 100.0
    assert lease.wanted(4) == 400
    lease.demand, lease.tokens = 0.0, 0.0
    assert lease.wanted(4) == 1.0


def test_demand_rises_at_once_and_falls_slowly():
    lease = Lease(b"k", 1000.0, 4000.0, 0)
    for i in range(1000):
        lease.note(1.0, i * MS)
    assert 900 < lease.demand < 1100
    lease.note(1.0, 1000 * MS + 2 * WINDOW)
    assert 400 < lease.demand < 700


def test_the_number_of_leases_and_of_watched_keys_is_bounded():
    book = LeaseBook(most=10)
    for i in range(100_000):
        book.find(b"%d" % i, 10.0, 10.0, 0)
    assert len(book) == 0
    for i in range(20):
        for _ in range(BUSY):
            book.find(b"%d" % i, 10.0, 10.0, 2 * WINDOW)
    assert len(book) == 10


def test_a_route_with_an_exact_limit_too_asks_the_store_for_both():
    exact = LimitPolicy("exact", GlobalScope(), SPEC)
    assert LIMITS.leased
    assert not RouteLimits("r", [POLICY, exact], "gw").leased
    assert not RouteLimits("r", [POLICY, LimitPolicy("c", concurrent=4)], "gw").leased
