"""The arithmetic of a token bucket, on both sides of every bound."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.bucket import BucketSpec, Taken, full_s, refill, take, wait_s

SPEC = BucketSpec(rate=10.0, burst=20.0)

rates = st.floats(0.01, 1e5)
bursts = st.floats(1, 1e6)


@given(rates, bursts, st.lists(st.tuples(st.integers(0, 3_000_000), st.sampled_from([0.5, 1.0, 3.0])), max_size=80))
def test_no_more_is_admitted_than_burst_plus_rate_times_time(rate, burst, steps):
    spec = BucketSpec(rate, burst)
    tokens, admitted, elapsed = burst, 0.0, 0
    for gap, cost in steps:
        elapsed += gap
        taken = take(spec, tokens, gap, cost)
        allowed, tokens = taken.allowed, taken.tokens
        admitted += cost if allowed else 0.0
        assert 0.0 <= tokens <= burst
        assert admitted <= burst + rate * elapsed / 1e6 + 1e-6 * burst


@given(rates, bursts, st.floats(0, 1), st.floats(-1e9, 0))
def test_a_clock_that_goes_backwards_adds_nothing(rate, burst, share, elapsed):
    assert refill(BucketSpec(rate, burst), burst * share, elapsed) == burst * share


@pytest.mark.parametrize(
    ("tokens", "elapsed_us", "cost", "expected"),
    [
        (1.0, 0, 1.0, Taken(True, 0.0)),
        (0.999, 0, 1.0, Taken(False, 0.999)),
        (0.0, 100_000, 1.0, Taken(True, 0.0)),
        (0.0, 99_000, 1.0, Taken(False, 0.99)),
        (20.0, 10**12, 1.0, Taken(True, 19.0)),  # never over the burst
        (20.0, 0, 20.0, Taken(True, 0.0)),
        (20.0, 0, 20.5, Taken(False, 20.0)),
    ],
)
def test_both_sides_of_the_bound(tokens, elapsed_us, cost, expected):
    taken = take(SPEC, tokens, elapsed_us, cost)
    assert taken.allowed == expected.allowed
    assert taken.tokens == pytest.approx(expected.tokens)


@given(rates, bursts, st.floats(0, 1))
def test_after_the_wait_it_is_admitted_and_just_before_it_is_not(rate, burst, share):
    spec, tokens = BucketSpec(rate, burst), min(share, 0.99)
    wait = wait_s(spec, tokens)
    assert take(spec, tokens, wait * 1e6 * (1 + 1e-9) + 1).allowed
    assert not take(spec, tokens, wait * 1e6 * (1 - 1e-6) - 1).allowed


def test_waiting_for_more_than_the_bucket_holds_is_for_ever():
    assert wait_s(SPEC, 20.0, 20.5) == math.inf
    assert wait_s(SPEC, 20.0, 20.0) == 0.0


def test_full():
    assert full_s(SPEC, 0.0) == 2.0
    assert full_s(SPEC, 20.0) == 0.0
    assert full_s(SPEC, 25.0) == 0.0
