"""`bucket.lua` in a real Valkey against the Python arithmetic it mirrors, and against a model of everything it does."""

from __future__ import annotations

import itertools

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.limits.policy import PLACES, SHADOW
from gateway.store import program
from gateway.store.buckets import SCRIPT
from tests.limits.script import CLOCKED, BucketSpec, Call, Model, limit

T = 1_700_000_000_000_000
MEMBER = b"worker-1" + b"\0" * 8


@pytest.fixture
def client(valkey):
    with redis.Redis(unix_socket_path=valkey) as client:
        yield client


def one(client, key, rate, burst, cost=1.0, now=None):
    """Asks one bucket once."""
    return Call().take([key], shape=[limit(rate, burst, cost)]).run(client, now)[0]


def test_the_clock_of_the_script_is_the_servers():
    assert SCRIPT.count(b"redis.call('TIME')") == 1
    assert CLOCKED != SCRIPT


def test_real_time_refills(client):
    assert one(client, "k", 1000.0, 1.0) == (True, 0.0)
    for _ in range(10_000):
        if one(client, "k", 1000.0, 1.0)[0]:
            return
    raise AssertionError("a token a millisecond never came")


def test_several_asks_of_one_key_in_one_call_share_its_tokens(client):
    got = Call().take(*[["k"]] * 5, shape=[limit(1.0, 3.0)]).run(client, T)
    assert got == [(True, 2.0), (True, 1.0), (True, 0.0), (False, 0.0), (False, 0.0)]
    assert one(client, "k", 1.0, 3.0, now=T) == (False, 0.0)


def test_a_request_is_admitted_by_all_of_its_limits_or_takes_from_none(client):
    both = [limit(1.0, 10.0), limit(1.0, 1.0)]
    got = Call().take(["wide", "narrow"], ["wide", "narrow"], shape=both).take(["wide"], shape=both[:1]).run(client, T)
    assert got == [(True, 9.0), (True, 0.0), (True, 9.0), (False, 0.0), (True, 8.0)]


def test_a_limit_in_shadow_never_refuses_and_takes_only_with_the_request(client):
    shape = [limit(1.0, 1.0, kind=SHADOW), limit(1.0, 2.0)]
    got = Call().take(*[["shadow", "real"]] * 3, shape=shape).run(client, T)
    assert got == [(True, 0.0), (True, 1.0), (False, 0.0), (True, 0.0), (False, 0.0), (False, 0.0)]


def test_costs_that_vary(client):
    got = Call().take((["k"], [2.5]), (["k"], [8.0]), (["k"], [7.5]), varies=1, shape=[limit(1.0, 10.0)]).run(client, T)
    assert got == [(True, 7.5), (False, 7.5), (True, 0.0)]
    assert one(client, "k2", 1.0, 10.0, cost=10.5, now=T) == (False, 10.0)


def test_places_are_held_until_they_are_released_or_run_out(client):
    shape = [limit(0.0, 2.0, kind=PLACES)]

    def hold(name, now=T, life=5e6):
        return Call().take((["k"], name.ljust(16, b"."), life), varies=2, shape=shape).run(client, now)[0]

    assert [hold(b"a"), hold(b"b"), hold(b"c")] == [(True, 1.0), (True, 0.0), (False, 0.0)]
    Call().each(program.RELEASE, ("k", b"a".ljust(16, b"."))).run(client, T)
    Call().each(program.RELEASE, ("k", b"a".ljust(16, b"."))).run(client, T)  # twice is no harm
    assert hold(b"c") == (True, 0.0)
    Call().each(program.RENEW, ("k", b"b".ljust(16, b".") + program.lifetime(60e6))).run(client, T)
    assert hold(b"d", T + 5_000_000) == (True, 0.0)  # c's worker died
    assert not hold(b"e", T + 5_000_001)[0]  # b was renewed
    assert client.pttl("k") > 50_000


def test_the_places_of_one_worker_are_forgotten_but_for_those_that_it_renews(client):
    shape = [limit(0.0, 4.0, kind=PLACES)]
    names = [b"worker-1" + b"%08d" % 1, b"worker-1" + b"%08d" % 2, b"worker-2" + b"%08d" % 1]
    for name in names:
        assert Call().take((["k"], name, 5e6), varies=2, shape=shape).run(client, T)[0][0]
    call = Call().each(program.FORGET, ("k", b"worker-1"), ("none", b"worker-1"))
    call.each(program.RENEW, ("k", names[1] + program.lifetime(5e6))).run(client, T)
    assert set(client.zrange("k", 0, -1)) == {names[1], names[2]}


def test_a_place_that_is_refused_by_a_bucket_is_not_held(client):
    shape = [limit(0.0, 1.0, kind=PLACES), limit(1.0, 1.0)]
    first = Call().take((["p", "b"], b"1" * 16, 9e6), (["p2", "b"], b"2" * 16, 9e6), varies=2, shape=shape)
    assert first.run(client, T) == [(True, 0.0), (True, 0.0), (True, 1.0), (False, 0.0)]
    assert (client.zcard("p"), client.zcard("p2")) == (1, 0)


def test_what_comes_back_never_fills_over_the_burst_and_what_is_charged_may_go_below_nothing(client):
    one(client, "k", 1.0, 10.0, cost=4.0, now=T)
    Call().each(program.ADJUST, ("k", program.triple(1.0, 10.0, 3.0))).run(client, T)
    assert one(client, "k", 1.0, 10.0, cost=0.0, now=T) == (True, 9.0)
    Call().each(program.ADJUST, ("k", program.triple(1.0, 10.0, 30.0))).run(client, T)
    assert one(client, "k", 1.0, 10.0, cost=0.0, now=T) == (True, 10.0)
    Call().each(program.ADJUST, ("k", program.triple(1.0, 10.0, -15.0))).run(client, T)
    assert one(client, "k", 1.0, 10.0, now=T + 5_500_000) == (False, 0.5)
    assert one(client, "k", 1.0, 10.0, now=T + 6_000_000) == (True, 0.0)


def test_a_lease_is_whole_tokens_and_never_more_than_there_are(client):
    def lease(want, now=T):
        return Call().each(program.LEASE, ("k", program.triple(1.0, 10.0, want))).run(client, now)[1][0]

    assert lease(4.9) == (4.0, 6.0)
    assert lease(100.0) == (6.0, 0.0)
    assert lease(1.0) == (0.0, 0.0)
    assert lease(5.0, T + 2_500_000) == (2.0, 0.5)
    assert one(client, "k", 1.0, 10.0, now=T + 2_500_000) == (False, 0.5)


def test_of_hints_and_what_the_store_has_the_lowest_counts(client):
    def hint(key, level):
        Call().each(program.HINT, (key, program.triple(1.0, 10.0, level))).run(client, T)
        return one(client, key, 1.0, 10.0, cost=0.0, now=T)

    assert hint("lost", 3.0) == (True, 3.0)
    assert hint("lost", 5.0) == (True, 3.0), "another worker knew less of it"
    assert hint("lost", 1.0) == (True, 1.0), "another worker knew more of it"
    assert hint("debt", -2.0) == (False, -2.0)
    one(client, "known", 1.0, 10.0, now=T)
    assert hint("known", 9.5) == (True, 9.0)
    Call().each(program.HINT, ("full", program.triple(1.0, 10.0, 50.0))).run(client, T)
    assert not client.exists("full")


def test_a_clock_that_went_backwards_adds_nothing_and_the_bucket_goes_on_from_there(client):
    one(client, "k", 1.0, 2.0, cost=2.0, now=T)
    back = T - 3_600_000_000
    assert one(client, "k", 1.0, 2.0, now=back) == (False, 0.0)
    assert one(client, "k", 1.0, 2.0, now=back + 999_999)[0] is False
    assert one(client, "k", 1.0, 2.0, now=back + 1_000_000) == (True, 0.0)


def test_a_clock_that_jumped_ahead_fills_once_and_not_more(client):
    one(client, "k", 1.0, 2.0, cost=2.0, now=T)
    assert one(client, "k", 1.0, 2.0, now=T + 10**12) == (True, 1.0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([0, 1, 900, 40_000, 700_000, 5_000_000, -1, -30_000, -700_000, -(10**10)]), max_size=40)
)
def test_a_clock_that_is_set_never_gives_more_than_its_ways_forward(client, moves):
    """However often it is set back: the same time, lived twice, gives twice; a step back gives nothing."""
    key, rate, burst, now, forward, admitted = f"set:{next(runs)}", 9.0, 4.0, T, 0, 0
    for move in moves:
        now += move
        forward += max(0, move) if admitted else 0
        admitted += one(client, key, rate, burst, now=now)[0]
        assert admitted <= burst + rate * forward / 1e6 + 1e-6


def test_a_refusal_writes_nothing(client):
    one(client, "k", 1.0, 2.0, cost=2.0, now=T)
    before = client.get("k")
    one(client, "k", 1.0, 2.0, now=T + 500_000)
    assert client.get("k") == before


def test_a_bucket_is_forgotten_soon_after_it_would_be_full(client):
    one(client, "k", 2.0, 10.0, cost=4.0)
    assert 2_900 <= client.pttl("k") <= 3_000  # two seconds to fill and one of grace
    one(client, "k", 2.0, 10.0, cost=6.0)
    assert 5_800 <= client.pttl("k") <= 6_000


def test_a_smaller_burst_after_a_reload_cuts_the_level_down(client):
    one(client, "k", 1.0, 100.0, now=T)
    assert one(client, "k", 1.0, 5.0, now=T) == (True, 4.0)


# -- everything at once, against the model ------------------------------------------------------------------------

SPECS = [BucketSpec(0.5, 1.0), BucketSpec(7.0, 13.0), BucketSpec(1000.0, 3.5), BucketSpec(90_000.0, 200_000.0)]
#: What a key is, is told by its name: all that ask for it say the same, as a policy's name is part of its keys.
BUCKETS = {f"b{i}{name}": spec for i, spec in enumerate(SPECS) for name in "xy"}
HALLS = {"h1": 1.0, "h3": 3.0}

costs = st.sampled_from([0.0, 0.25, 1.0, 1.0, 2.0, 9.5])
amounts = st.sampled_from([-20.0, -1.0, 0.5, 3.0, 1e6])
members = st.integers(0, 30)
bucket_asks = st.tuples(st.sampled_from(sorted(BUCKETS)), st.sampled_from([0, SHADOW]), costs)
hall_asks = st.tuples(st.sampled_from(sorted(HALLS)), st.sampled_from([PLACES, PLACES | SHADOW]), st.just(1.0))
requests = st.lists(
    st.one_of(bucket_asks, bucket_asks, hall_asks), min_size=1, max_size=3, unique_by=lambda ask: ask[0]
)
operations = st.one_of(
    st.tuples(st.just("take"), requests, members, st.sampled_from([1e5, 4e6])),
    st.tuples(st.just("take"), requests, members, st.sampled_from([1e5, 4e6])),
    st.tuples(st.just("adjust"), st.sampled_from(sorted(BUCKETS)), amounts),
    st.tuples(st.just("lease"), st.sampled_from(sorted(BUCKETS)), st.sampled_from([1.0, 4.5, 1e5])),
    st.tuples(st.just("hint"), st.sampled_from(sorted(BUCKETS)), st.sampled_from([-3.0, 0.0, 0.75, 1e9])),
    st.tuples(st.just("release"), st.sampled_from(sorted(HALLS)), members),
    st.tuples(st.just("renew"), st.sampled_from(sorted(HALLS)), members, st.sampled_from([1e5, 9e6])),
)
#: Each call: how far the clock moves first (it may go back), and what is in the call.
gaps = st.sampled_from([0, 1, 137, 20_000, 142_857, 3_000_000, -5, -2_000_000])
histories = st.lists(st.tuples(gaps, st.lists(operations, min_size=1, max_size=6)), min_size=1, max_size=12)
runs = itertools.count()


def carry_out(call, model, operation, now, run):
    """Puts one operation into the call and does it in the model; what the model expects of the reply."""
    kind, *what = operation
    name = f"{run}:{what[0]}" if kind != "take" else ""
    spec = BUCKETS.get(what[0]) if kind != "take" else None
    if kind == "take":
        asks, _, life = what
        member = b"member-%09d" % len(model.members)  # no two requests have the same
        model.members.append(member)
        rows = [
            (f"{run}:{key}", kind, BUCKETS.get(key) or BucketSpec(0.0, HALLS[key]), cost) for key, kind, cost in asks
        ]
        shape = [limit(spec.rate, spec.burst, 0.0, kind) for _, kind, spec, _ in rows]
        call.take(([row[0] for row in rows], [row[3] for row in rows], member, life), varies=3, shape=shape)
        return model.take(rows, now, member, life), []
    if kind == "adjust":
        call.each(program.ADJUST, (name, program.triple(*spec, what[1])))
        model.adjust(name, spec, what[1], now)
    elif kind == "lease":
        call.each(program.LEASE, (name, program.triple(*spec, what[1])))
        return [], [model.lease(name, spec, what[1], now)]
    elif kind == "hint":
        call.each(program.HINT, (name, program.triple(*spec, what[1])))
        model.hint(name, spec, what[1], now)
    elif not model.members:
        return None
    elif kind == "release":
        member = model.members[what[1] % len(model.members)]
        call.each(program.RELEASE, (name, member))
        model.places.get(name, {}).pop(member, None)
    else:
        member = model.members[what[1] % len(model.members)]
        call.each(program.RENEW, (name, member + program.lifetime(what[2])))
        model.places.setdefault(name, {})[member] = now + what[2]
    return [], []


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories)
def test_any_history_is_that_of_the_model(client, history):
    run, model, now = next(runs), Model(), T
    for gap, operations in history:
        now += gap
        # Within a call a key is looked up once: what may change it behind that comes first, here in calls of its own.
        late = [op for op in operations if op[0] not in ("release", "renew", "hint")]
        early = [op for op in operations if op[0] in ("release", "renew", "hint")]
        for batch in ([op] for op in early):
            call = Call()
            if carry_out(call, model, batch[0], now, run) is not None:
                call.run(client, now)
        if not late:
            continue
        call, asked, leased, out = Call(), [], [], []
        for operation in late:
            told, granted = carry_out(call, model, operation, now, run)
            asked += told
            leased += granted
            out += [level for _, level in told] + [number for pair in granted for number in pair]
        got = reply_in_order(client, call, now)
        assert got[0] == pytest.approx(out, abs=1e-6, rel=1e-12)
        assert got[1] == [fits for fits, _ in asked]


def reply_in_order(client, call, now):
    """All numbers in the order of the operations (a call of the gateway has its leases last), and the flags."""
    reply = client.eval(CLOCKED, len(call.keys), *call.keys, b"".join(call.parts), now // 1_000_000, now % 1_000_000)
    doubles = call.asks + 2 * call.leases
    return list(program.numbers(reply, doubles)), [flag == ord("1") for flag in reply[doubles * 8 :]]
