"""`bucket.lua` in a real Valkey against the Python arithmetic it mirrors."""

from __future__ import annotations

import random

import pytest
import redis

from gateway.limits.bucket import BucketSpec, take
from gateway.store.buckets import SCRIPT

SPEC = BucketSpec(rate=7.0, burst=13.0)
#: The same script under a clock of ours: seconds and microseconds are the last two arguments.
CLOCKED = SCRIPT.replace(b"redis.call('TIME')", b"{ARGV[#ARGV - 1], ARGV[#ARGV]}")


@pytest.fixture
def client(valkey):
    with redis.Redis(unix_socket_path=valkey) as client:
        yield client


def asks(*groups):
    """Each group a list of (key, spec, cost); returns keys and arguments."""
    keys, argv = [], []
    for number, group in enumerate(groups):
        for key, spec, cost in group:
            keys.append(key)
            argv += [repr(spec.rate), repr(spec.burst), repr(cost), number]
    return keys, argv


def call(client, *groups, now=None):
    keys, argv = asks(*groups)
    script = SCRIPT if now is None else CLOCKED
    clock = [] if now is None else [now // 1_000_000, now % 1_000_000]
    reply = client.eval(script, len(keys), *keys, *argv, *clock)
    return [(reply[i] == 1, float(reply[i + 1])) for i in range(0, len(reply), 2)]


def test_the_clock_of_the_script_is_the_servers():
    assert SCRIPT.count(b"redis.call('TIME')") == 1
    assert CLOCKED != SCRIPT


def test_it_agrees_with_the_python_arithmetic_over_many_calls(client):
    rand = random.Random(7)
    now, tokens = 1_700_000_000_000_000, SPEC.burst
    admitted, start = 0.0, now
    for _ in range(1500):
        gap = rand.choice([0, 1, 137, 20_000, 142_857, 500_000])
        cost = rand.choice([1.0, 1.0, 2.5])
        now += gap
        taken = take(SPEC, tokens, gap, cost)
        allowed, tokens = taken.allowed, taken.tokens
        ((got, left),) = call(client, [("k", SPEC, cost)], now=now)
        assert got == allowed
        assert left == pytest.approx(tokens, abs=2e-6)
        admitted += cost if got else 0
    assert admitted <= SPEC.burst + SPEC.rate * (now - start) / 1e6 + 1e-6
    assert admitted >= SPEC.rate * (now - start) / 1e6 * 0.8  # it admits, too


def test_real_time_refills(client):
    spec = BucketSpec(rate=1000.0, burst=1.0)
    assert call(client, [("k", spec, 1.0)]) == [(True, 0.0)]
    for _ in range(10_000):
        if call(client, [("k", spec, 1.0)])[0][0]:
            return
    raise AssertionError("a token a millisecond never came")


def test_several_asks_of_one_key_in_one_call_share_its_tokens(client):
    spec = BucketSpec(rate=1.0, burst=3.0)
    got = call(client, *([[("k", spec, 1.0)]] * 5), now=10**15)
    assert [allowed for allowed, _ in got] == [True, True, True, False, False]
    assert [left for _, left in got] == [2.0, 1.0, 0.0, 0.0, 0.0]
    assert call(client, [("k", spec, 1.0)], now=10**15) == [(False, 0.0)]


def test_a_group_is_admitted_by_all_or_takes_from_none(client):
    wide, narrow = BucketSpec(1.0, 10.0), BucketSpec(1.0, 1.0)
    both = [("wide", wide, 1.0), ("narrow", narrow, 1.0)]
    got = call(client, both, both, [("wide", wide, 1.0)], now=10**15)
    assert got == [(True, 9.0), (True, 0.0), (True, 9.0), (False, 0.0), (True, 8.0)]
    assert call(client, [("wide", wide, 0.0)], now=10**15)[0][1] == 8.0


def test_a_refusal_in_the_first_bucket_spares_the_second(client):
    wide, narrow = BucketSpec(1.0, 10.0), BucketSpec(1.0, 1.0)
    call(client, [("narrow", narrow, 1.0)], now=10**15)
    assert call(client, [("narrow", narrow, 1.0), ("wide", wide, 1.0)], now=10**15) == [(False, 0.0), (True, 10.0)]


def test_an_overdrawn_cost_is_refused_for_ever(client):
    assert call(client, [("k", SPEC, 14.0)], now=10**15) == [(False, 13.0)]


def test_a_clock_that_went_backwards_adds_nothing_and_keeps_the_stamp(client):
    spec = BucketSpec(1.0, 2.0)
    call(client, [("k", spec, 2.0)], now=10**15)
    assert call(client, [("k", spec, 1.0)], now=10**15 - 5_000_000) == [(False, 0.0)]
    assert call(client, [("k", spec, 1.0)], now=10**15 + 1_000_000) == [(True, 0.0)]


def test_a_refusal_writes_nothing(client):
    spec = BucketSpec(1.0, 2.0)
    call(client, [("k", spec, 2.0)], now=10**15)
    before = client.get("k")
    call(client, [("k", spec, 1.0)], now=10**15 + 500_000)
    assert client.get("k") == before


def test_a_bucket_is_forgotten_soon_after_it_would_be_full(client):
    spec = BucketSpec(2.0, 10.0)
    call(client, [("k", spec, 4.0)])
    assert 2_900 <= client.pttl("k") <= 3_000  # two seconds to fill and one of grace
    call(client, [("k", spec, 6.0)])
    assert 5_800 <= client.pttl("k") <= 6_000


def test_a_smaller_burst_after_a_reload_cuts_the_level_down(client):
    call(client, [("k", BucketSpec(1.0, 100.0), 1.0)], now=10**15)
    assert call(client, [("k", BucketSpec(1.0, 5.0), 1.0)], now=10**15) == [(True, 4.0)]
