"""Percentiles of what was recent, never too low and hardly too high."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retries.latencies import ENOUGH, FILLED, FRESH, HALF, Latencies, bucket, edge

MS = 1_000_000


def of(durations, now=0):
    one = Latencies(now)
    for each in durations:
        one.add(each, now)
    return one


@given(st.integers(0, (1 << 42) - 1))
def test_a_bucket_holds_what_is_at_most_a_sixteenth_below_its_edge(took):
    above = edge(bucket(took))
    assert took < above
    assert above <= max(took * 17 / 16 + 1024, 1024)


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62))
def test_buckets_are_in_order(a, b):
    assert (bucket(a) <= bucket(b)) == (a <= b) or bucket(a) == bucket(b)


def test_every_bucket_begins_where_the_one_before_it_ends():
    assert all(bucket(edge(number)) == number + 1 for number in range(bucket(1 << 42)))
    assert bucket(-5) == 0


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_a_percentile_is_never_below_the_true_one_and_a_sixteenth_above_at_most(share):
    draw = random.Random(7)
    durations = [int(draw.lognormvariate(0, 1) * 5 * MS) for _ in range(5000)]
    true = sorted(durations)[int(share * len(durations)) - 1]
    assert true <= of(durations).percentile(share, 0) <= true * 17 / 16 + 1024


def test_of_few_nothing_is_known():
    assert of([MS] * (ENOUGH - 1)).percentile(0.5, 0) == 0
    assert of([MS] * ENOUGH).percentile(0.5, 0) >= MS


def test_one_in_twenty_is_above_the_95th():
    known = of([20 * MS] * 96 + [200 * MS] * 4).percentile(0.95, 0)
    assert 20 * MS <= known <= 22 * MS
    assert of([20 * MS] * 94 + [200 * MS] * 6).percentile(0.95, 0) >= 200 * MS


def test_what_is_old_is_forgotten_once_there_is_enough_that_is_new():
    one = of([200 * MS] * 500)
    now = HALF
    for _ in range(FILLED):
        one.add(20 * MS, now)
    assert one.percentile(0.5, now) >= 200 * MS  # 500 of the half before, 200 of this one
    now += HALF
    for _ in range(FILLED):
        one.add(20 * MS, now)
    assert one.percentile(0.99, now) <= 22 * MS


def test_a_quiet_route_keeps_what_it_knows():
    one = of([20 * MS] * ENOUGH)
    for hour in range(1, 50):
        one.add(20 * MS, hour * 3600 * 1000 * MS)
    assert one.percentile(0.5, 50 * 3600 * 1000 * MS) <= 22 * MS
    assert repr(one) == f"<Latencies of 0 + {ENOUGH + 49}>"


def test_a_percentile_is_not_worked_out_for_every_request():
    one = of([20 * MS] * ENOUGH)
    before = one.percentile(0.5, 0)
    for _ in range(1000):
        one.add(200 * MS, 0)
    assert one.percentile(0.5, FRESH - 1) == before
    assert one.percentile(0.9, FRESH - 1) >= 200 * MS  # another one is
    assert one.percentile(0.5, 2 * FRESH) >= 200 * MS
