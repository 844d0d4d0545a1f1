"""A worker's own buckets while the store is away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.bucket import BucketSpec, refill
from gateway.limits.local import LocalBuckets

SPEC = BucketSpec(rate=10.0, burst=40.0)
LONG_AGO = -1e9  # the store was lost so long ago that every bucket has filled since


def spend(buckets, workers, now_us=0.0, key=b"k", spec=SPEC, alone_us=LONG_AGO):
    """Takes until refused; returns how many were admitted."""
    count = 0
    while buckets.take(key, spec, workers, now_us, alone_us).allowed:
        count += 1
    return count


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_worker_spends_its_share_of_burst_and_rate(workers):
    buckets = LocalBuckets()
    assert spend(buckets, workers) == 40 // workers
    assert spend(buckets, workers, now_us=4e6) == 40 // workers  # full again after burst / rate


def test_it_starts_from_the_last_level_the_store_told():
    buckets = LocalBuckets()
    buckets.learn(b"k", 12.0, -1e6)
    assert spend(buckets, 4, alone_us=0.0) == 3
    buckets.learn(b"k", 0.0, -10e6)  # what it gained until the loss may have been spent through another worker
    assert spend(buckets, 4, alone_us=0.0) == 0
    assert spend(buckets, 4, alone_us=0.0, now_us=2e6) == 5


def test_a_key_the_store_told_nothing_of_starts_with_one_request_and_fills_up():
    buckets = LocalBuckets()
    assert spend(buckets, 2, alone_us=0.0) == 1
    assert spend(LocalBuckets(), 2, alone_us=0.0, now_us=1e6) == 6
    assert spend(LocalBuckets(), 2, alone_us=0.0, now_us=60e6) == 20


def test_all_workers_together_spend_no_second_burst():
    fleet = [LocalBuckets() for _ in range(4)]
    for buckets in fleet:
        buckets.learn(b"k", 20.0, 0.0)
    assert sum(spend(buckets, 4) for buckets in fleet) == 20
    assert sum(spend(buckets, 4, now_us=1e6) for buckets in fleet) in (8, 10)  # whole requests per worker


def test_a_change_in_the_number_of_workers_keeps_the_fleets_level():
    buckets = LocalBuckets()
    for _ in range(10):
        assert buckets.take(b"k", SPEC, 2, 0.0, LONG_AGO).allowed  # 10 of this worker's 20 are left
    assert spend(buckets, 4) == 5


def test_a_share_below_one_request_still_admits_one_at_a_time():
    buckets = LocalBuckets()
    tiny = BucketSpec(rate=1.0, burst=1.0)
    assert spend(buckets, 8, spec=tiny) == 1
    assert spend(buckets, 8, now_us=7.9e6, spec=tiny) == 0
    assert spend(buckets, 8, now_us=16.1e6, spec=tiny) == 1


def test_keys_do_not_share():
    buckets = LocalBuckets()
    spend(buckets, 1, key=b"a")
    assert spend(buckets, 1, key=b"b") == 40


def test_memory_is_bounded_and_the_recent_survive():
    buckets = LocalBuckets(capacity=100)
    for number in range(1000):
        buckets.learn(b"%d" % number, 1.0, 0.0)
        assert len(buckets) <= 200
    buckets.learn(b"mine", 0.0, 0.0)
    for number in range(99):
        buckets.learn(b"other-%d" % number, 1.0, 0.0)
    assert not buckets.take(b"mine", SPEC, 1, 0.0, 0.0).allowed


# -- what the store is charged with afterwards ----------------------------------------------------------------------


def test_what_was_spent_alone_is_owed():
    buckets = LocalBuckets()
    buckets.learn(b"k", 40.0, 0.0)
    assert not buckets.owing
    assert spend(buckets, 4, alone_us=0.0) == 10
    assert buckets.owed(b"k", SPEC, 0.0) == 10
    assert buckets.owed(b"k", SPEC, 2e6) == 5, "our share gained 5 that the store could not: its was full"
    assert buckets.owed(b"k", SPEC, 60e6) == 0, "full again, as the store is"
    buckets.paid(b"k")
    assert buckets.owed(b"k", SPEC, 0.0) == 0


def test_what_comes_back_is_not_owed_and_what_is_charged_is():
    buckets = LocalBuckets()
    buckets.learn(b"k", 40.0, 0.0)
    buckets.take(b"k", SPEC, 2, 0.0, 0.0, 5.0)
    buckets.adjust(b"k", 2.0)
    assert buckets.owed(b"k", SPEC, 0.0) == 3
    buckets.adjust(b"k", -4.0)
    assert buckets.owed(b"k", SPEC, 0.0) == 7


def test_a_question_that_the_store_has_is_not_owed_for_it_may_have_taken_the_cost():
    buckets = LocalBuckets()
    buckets.learn(b"k", 40.0, 0.0)
    assert buckets.take(b"k", SPEC, 2, 0.0, 0.0, 5.0, asked=True).allowed
    assert buckets.take(b"k", SPEC, 2, 0.0, 0.0, 3.0).allowed
    assert buckets.owed(b"k", SPEC, 0.0) == 3


@given(
    st.floats(0, 40),
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 3e6), st.floats(0.5, 12.0)), max_size=60),
)
def test_a_fleet_that_pays_its_debts_admitted_what_one_bucket_would_have(level, asks):
    """However the asks fall on the workers: what is left when all have paid is what burst and rate left over, and
    never more.
    """
    fleet = [LocalBuckets() for _ in range(4)]
    for buckets in fleet:
        buckets.learn(b"k", level, 0.0)
    now = spent = 0.0
    for worker, gap, cost in asks:
        now += gap
        spent += cost * fleet[worker].take(b"k", SPEC, 4, now, 0.0, cost).allowed
    store = refill(SPEC, level, now)  # which saw nothing of it
    left = store - sum(buckets.owed(b"k", SPEC, now) for buckets in fleet)
    most = level + SPEC.rate * now / 1e6  # that can have been there since
    assert left <= most - spent + 1e-6
