"""What one policy does and another does not."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.balance.hashing import Key
from gateway.balance.latency import LEAST, PENALTY, PeakLatency, ServiceTime
from gateway.balance.least_request import LeastRequest
from gateway.balance.load import FRESH
from gateway.balance.maglev import Maglev
from gateway.balance.peak_ewma import PeakEwma
from gateway.balance.policy import Candidate
from gateway.balance.prequal import Prequal
from gateway.balance.ring_hash import RingHash
from gateway.balance.weighted_round_robin import WeightedRoundRobin
from gateway.request import Outcome, Request
from tests.balance.test_contract import NOW, asked, candidates, shares

SECOND = 10**9
MS = 10**6


def settled(policy, members):
    policy.settle(members)
    return policy


def seeded(policy, *weights, **settings):
    members = candidates(*weights)
    return settled(policy(random.Random(7).random, **settings), members), members


def sequence(balancer, members, picks):
    names = dict(zip(members, "abcdefgh", strict=False))
    return "".join(names[balancer.pick(asked(0), (), 0, NOW)] for _ in range(picks))


# -- weighted round-robin -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((3, 1), "aabaaaba"), ((5, 1, 1), "aaabcaaaaabc"), ((1, 1, 1), "abcabc"), ((4, 2), "abaabaaba"), ((2,), "aaa")],
)
def test_turns_are_spread_evenly(weights, expected):
    members = candidates(*weights)
    got = sequence(settled(WeightedRoundRobin(), members), members, len(expected))
    assert got == expected


def test_over_any_stretch_everybody_is_within_two_picks_of_the_exact_share():
    members = candidates(7, 3, 2, 1)
    balancer = settled(WeightedRoundRobin(), members)
    got = [balancer.pick(asked(0), (), 0, NOW) for _ in range(1300)]
    for start in range(0, 1200, 17):
        for length in (13, 26, 91):
            window = Counter(got[start : start + length])
            for member in members:
                assert abs(window[member] - length * member.weight / 13) < 2


def test_who_comes_back_does_not_catch_up():
    members = candidates(1, 1, 1)
    balancer = settled(WeightedRoundRobin(), members)
    sequence(balancer, members, 30)
    members[2].share = 0.0
    balancer.settle(members)
    assert "c" not in sequence(balancer, members, 300)
    members[2].share = 1.0
    balancer.settle(members)
    assert Counter(sequence(balancer, members, 30)) == {"a": 10, "b": 10, "c": 10}


def test_turns_go_on_over_a_reload_and_a_long_life():
    members = candidates(3, 1)
    got = "".join(sequence(settled(WeightedRoundRobin(), members), members, 3) for _ in range(40))
    assert abs(got.count("b") - 30) <= 1
    balancer = settled(WeightedRoundRobin(), members)
    for member in members:
        member.turn += 1e9
    balancer._clock += 1e9
    balancer.settle(members)
    assert all(member.turn < 3 for member in members)


# -- least-request --------------------------------------------------------------------------------------------------


def test_the_less_loaded_is_preferred():
    balancer, members = seeded(LeastRequest, 1, 1)
    members[0].inflight = 10
    assert shares(balancer)[members[1]] == 1.0


@pytest.mark.parametrize(
    ("big", "small", "expected"),
    [
        (1, 0, 100 / 101),  # 1 of 100 is no busier than 1 of 1 would be
        (50, 0, 100 / 101),
        (99, 0, 100 / 101),
        (100, 0, 0.0),  # now it is
        (101, 1, 100 / 101),
        (199, 1, 100 / 101),
        (200, 1, 0.0),
        (0, 1, 1.0),
    ],
)
def test_loads_are_weighed_with_the_request_itself(big, small, expected):
    balancer, members = seeded(LeastRequest, 100, 1)
    members[0].inflight, members[1].inflight = big, small
    assert shares(balancer).get(members[0], 0.0) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("size", "choices", "spread"), [(10, 32, 1), (40, 32, 6), (10, 2, 4), (40, 50, 1)])
def test_the_load_is_levelled(size, choices, spread):
    balancer, members = seeded(LeastRequest, *[1] * size, choices=choices)
    for _ in range(size * 100):
        balancer.pick(asked(0), (), 0, NOW).inflight += 1
    loads = [member.inflight for member in members]
    assert max(loads) - min(loads) <= spread


@pytest.mark.parametrize("size", [6, 36])
def test_the_load_is_levelled_by_weight(size):
    balancer, members = seeded(LeastRequest, *[1, 10] * (size // 2))
    for _ in range(size * 110):
        balancer.pick(asked(0), (), 0, NOW).inflight += 1
    for member in members:
        assert member.inflight / member.weight == pytest.approx(20, abs=3)


# -- peak EWMA ------------------------------------------------------------------------------------------------------


def seen(member, took, now=NOW, outcome=Outcome.SUCCESS):
    member.gauge.observe(member, outcome, took, 0, now)


@pytest.mark.parametrize("size", [4, 30])
def test_one_slow_answer_is_enough_and_time_heals(size):
    balancer, members = seeded(PeakEwma, *[1] * size, decay=5e9)
    for member in members:
        seen(member, 20 * MS)
    seen(members[0], 200 * MS)
    assert shares(balancer).get(members[0], 0) <= 1 / size**2  # drawn twice, at most
    for step in range(1, 13):  # the others go on answering, this one is left alone
        for member in members[1:]:
            seen(member, 20 * MS, NOW + step * SECOND)
    later = Counter(balancer.pick(asked(0), (), 0, NOW + 12 * SECOND) for _ in range(2000))
    assert later[members[0]] > 0


def test_differences_within_a_factor_of_two_are_noise_while_nothing_is_in_flight():
    balancer, members = seeded(PeakEwma, 3, 1)
    seen(members[0], 30 * MS)
    seen(members[1], 20 * MS)
    assert shares(balancer)[members[0]] == pytest.approx(0.75, abs=0.015)


def test_what_is_in_flight_counts_for_its_share():
    balancer, members = seeded(PeakEwma, 1, 1)
    for member in members:
        seen(member, 20 * MS)
    members[0].inflight = 3
    assert shares(balancer)[members[1]] == 1.0
    members[1].inflight = 2
    assert shares(balancer)[members[1]] == 1.0
    members[1].inflight = 3
    assert shares(balancer)[members[1]] == pytest.approx(0.5, abs=0.02)


def test_who_is_new_is_taken_to_be_like_the_others():
    balancer, members = seeded(PeakEwma, 1, 1, 1)
    for member in members[:2]:
        seen(member, 20 * MS)
    assert shares(balancer)[members[2]] == pytest.approx(1 / 3, abs=0.02)
    members[2].inflight = 4  # and has not answered one of them
    assert members[2] not in shares(balancer)


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.DROPPED])
def test_failing_fast_is_not_being_fast(outcome):
    balancer, members = seeded(PeakEwma, 1, 1)
    for member in members:
        seen(member, 20 * MS)
    seen(members[0], 1, outcome=outcome)
    assert members[0] not in shares(balancer)
    fresh = PeakLatency(5e9)
    fresh.observe(members[0], outcome, 1, 0, NOW)
    assert fresh.read(NOW) == PENALTY * LEAST


def test_failures_pile_up_to_a_bound_and_fade():
    gauge, member = PeakLatency(5e9), Candidate(b"a")
    for _ in range(60):
        gauge.observe(member, Outcome.FAILURE, MS, 0, NOW)
    assert gauge.read(NOW) == 60e9
    assert gauge.read(NOW + 60 * SECOND) == pytest.approx(60e9 * 2.718281828**-12, rel=1e-6)


def test_a_peak_counts_in_full_and_is_worn_down_by_answers():
    gauge, member = PeakLatency(5e9), Candidate(b"a")
    gauge.observe(member, Outcome.SUCCESS, 100 * MS, 0, NOW)
    assert gauge.read(NOW) == 100 * MS
    gauge.observe(member, Outcome.SUCCESS, 10 * MS, 0, NOW)
    assert gauge.read(NOW) == 100 * MS  # at the same moment nothing has worn down
    gauge.observe(member, Outcome.SUCCESS, 10 * MS, 0, NOW + 5 * SECOND)
    assert gauge.read(NOW + 5 * SECOND) == pytest.approx((10 + 90 / 2.718281828) * MS)


@pytest.mark.parametrize("make", [lambda: PeakLatency(5e9), ServiceTime])
def test_giving_up_proves_only_that_it_takes_longer(make):
    gauge, member = make(), Candidate(b"a")

    def read():
        return gauge.read(NOW) if isinstance(gauge, PeakLatency) else gauge.expect(0.0, 0.0, NOW)

    gauge.observe(member, Outcome.SUCCESS, 50 * MS, 0, NOW)
    gauge.observe(member, Outcome.IGNORE, MS, 0, NOW)
    assert read() == 50 * MS
    gauge.observe(member, Outcome.IGNORE, 500 * MS, 0, NOW)
    assert read() > 50 * MS


def test_what_is_remembered_survives_a_reload_and_takes_the_new_decay():
    _, members = seeded(PeakEwma, 1, 1, decay=5e9)
    seen(members[0], 70 * MS)
    gauge = members[0].gauge
    settled(PeakEwma(decay=1e9), members)
    assert members[0].gauge is gauge
    assert gauge.decay == 1e9
    settled(Prequal(), members)
    assert isinstance(members[0].gauge, ServiceTime)


# -- Prequal --------------------------------------------------------------------------------------------------------


def test_among_the_cold_the_fastest_wins():
    balancer, members = seeded(Prequal, 1, 1, 1)
    for member, took in zip(members, (30, 10, 20), strict=True):
        seen(member, took * MS)
    assert shares(balancer) == {members[1]: 1.0}


def test_the_hot_are_left_alone_however_fast():
    balancer, members = seeded(Prequal, 1, 1, 1)
    for member, took in zip(members, (1, 10, 20), strict=True):
        seen(member, took * MS)
    for load, picks in ((1, 1000), (9, 60)):  # what is usual is 1
        members[0].inflight = load
        members[1].inflight = members[2].inflight = 1
        got = shares(balancer, picks)
    assert got == {members[1]: 1.0}


def test_if_all_are_hot_the_least_loaded_wins():
    balancer, members = seeded(Prequal, 1, 1, 1)
    for member, took in zip(members, (1, 10, 20), strict=True):
        seen(member, took * MS)
    for member, load in zip(members, (12, 11, 10), strict=True):
        member.inflight = load
    assert balancer._limit < 10
    assert balancer.pick(asked(0), (), 33, NOW) is members[2]


def test_what_others_have_in_flight_counts_while_the_report_is_fresh():
    member = Candidate(b"a")
    member.inflight = 2
    member.load.hear(5.0, 4.0, 4.0, 0.0, 2, NOW)
    assert member.outstanding(NOW) == 9
    member.inflight = 5  # three more of ours since
    assert member.outstanding(NOW) == 12
    assert member.outstanding(NOW + FRESH) == 5
    member.load.hear(0.0, 1.0, 4.0, 0.0, 5, NOW)  # ours had not arrived yet
    assert member.outstanding(NOW) == 5


def test_a_latency_is_foretold_for_the_load():
    gauge, member = ServiceTime(), Candidate(b"a")
    assert gauge.expect(3.0, 4.0, NOW) == 0.0
    gauge.observe(member, Outcome.SUCCESS, 80 * MS, 7, NOW)
    assert gauge.expect(7.0, 0.0, NOW) == pytest.approx(10 * MS * (8 + 0.3 * 7))  # one at a time, as far as is known
    assert gauge.expect(0.0, 0.0, NOW) == pytest.approx(10 * MS)
    assert gauge.expect(0.0, 0.0, NOW + 10 * SECOND) == pytest.approx(10 * MS / 2.718281828)
    gauge, member.load.capacity = ServiceTime(), 4.0
    gauge.observe(member, Outcome.SUCCESS, 80 * MS, 7, NOW)  # it was the second at one of four places
    assert gauge.expect(0.0, 4.0, NOW) == pytest.approx(40 * MS)
    assert gauge.expect(2.0, 4.0, NOW) == pytest.approx(40 * MS * 1.15)
    assert gauge.expect(11.0, 4.0, NOW) == pytest.approx(40 * MS * (3 + 0.3 * 11 / 4))
    before = gauge.expect(0.0, 4.0, NOW)
    gauge.observe(member, Outcome.FAILURE, 1, 0, NOW)
    assert gauge.expect(0.0, 4.0, NOW) > before


def test_the_usual_load_is_learnt_and_forgotten():
    balancer, members = seeded(Prequal, 1, 1)
    for load, limit in ((9, 9), (2, 2), (300, 255)):
        for member in members:
            member.inflight = load
        for _ in range(3000):
            balancer.pick(asked(0), (), 0, NOW)
        assert balancer._limit == limit


# -- hashing --------------------------------------------------------------------------------------------------------


def homes(balancer, keys=4000):
    return [balancer.pick(asked(number), (), 0, NOW) for number in range(keys)]


@pytest.fixture(params=[RingHash, Maglev])
def policy(request):
    return request.param


def hashed(policy, *weights, **settings):
    return seeded(policy, *weights, key=Key("header", b"key"), **settings)


def test_a_key_has_one_home_in_every_worker_and_after_every_reload(policy):
    one, members = hashed(policy, 3, 2, 1, 1)
    before = homes(one)
    assert homes(one) == before
    other = policy(random.Random(99).random, Key("header", b"key"))
    other.settle(list(reversed(members)))
    assert homes(other) == before


def test_only_the_keys_of_who_is_away_move_and_they_come_back(policy):
    balancer, members = hashed(policy, *[1] * 8)
    before = homes(balancer)
    members[3].share = 0.0
    balancer.settle(members)
    during = homes(balancer)
    moved = [(a, b) for a, b in zip(before, during, strict=True) if a is not b]
    assert {a for a, _ in moved} == {members[3]}
    assert len({b for _, b in moved}) == 7  # to all the others, not to one neighbour
    members[3].share = 1.0
    balancer.settle(members)
    assert homes(balancer) == before


def test_a_member_that_is_added_or_removed_moves_little_besides_its_own(policy):
    balancer, members = hashed(policy, *[1] * 8)
    before = homes(balancer)
    balancer.settle(members[:-1])
    moved = [a for a, b in zip(before, homes(balancer), strict=True) if a is not b]
    others = sum(a is not members[-1] for a in moved) / len(before)
    assert others <= (0.03 if policy is Maglev else 0.0)
    balancer.settle(members)
    assert homes(balancer) == before


def test_a_hot_key_is_spread_once_its_home_has_its_bound(policy):
    balancer, members = hashed(policy, *[1] * 4, bound=1.25)
    for total in range(400):
        balancer.pick(asked(1), (), total, NOW).inflight += 1
    loads = sorted(member.inflight for member in members)
    assert loads[-1] <= 126  # 1.25 x 400 / 4, rounded up
    assert sum(loads) == 400


def test_the_bound_is_by_share(policy):
    balancer, members = hashed(policy, 3, 1, bound=1.0)
    for total in range(400):
        balancer.pick(asked(total), (), total, NOW).inflight += 1
    assert [member.inflight for member in members] == [pytest.approx(300, abs=2), pytest.approx(100, abs=2)]


def test_in_a_slow_start_a_member_has_a_part_of_its_own_keys(policy):
    balancer, members = hashed(policy, *[1] * 4)
    before = homes(balancer)
    parts = []
    for part in (0.1, 0.5, 1.0):
        members[0].share = part
        balancer.settle(members)
        parts.append({at for at, member in enumerate(homes(balancer)) if member is members[0]})
    own = {at for at, member in enumerate(before) if member is members[0]}
    assert parts[0] < parts[1] < parts[2] | own
    assert parts[2] == own
    assert len(parts[0] & own) / len(own) == pytest.approx(0.1, abs=0.04)
    for member in members:
        member.share = 0.1  # if all are in it, nobody is
    balancer.settle(members)
    assert homes(balancer) == before


def test_with_nearly_all_away_the_rest_still_answers(policy):
    balancer, members = hashed(policy, *[1] * 300)
    for member in members[2:]:
        member.share = 0.0
    balancer.settle(members)
    assert set(homes(balancer, 500)) == set(members[:2])


def test_a_request_without_the_key_is_drawn_by_lot(policy):
    balancer, members = hashed(policy, 1, 1)
    nobody = Request(b"GET", b"/", b"/", {})
    assert {balancer.pick(nobody, (), 0, NOW) for _ in range(50)} == set(members)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("client", b"", b"ada"), ("ip", b"", b"10.0.0.9"), ("path", b"", b"/v1/models/a"),
        ("header", b"x-user", b"7"), ("header", b"x-none", b""),
        ("cookie", b"session", b"s1"), ("cookie", b"ession", b""),
    ],
)  # fmt: skip
def test_keys(kind, name, expected):
    headers = {b"x-user": b"7", b"cookie": b"a=b; session=s1; session=s2"}
    request = Request(b"GET", b"/v1/models/a?x", b"/v1/models/a", headers, peer=b"10.0.0.9")
    request.client = b"ada"
    assert Key(kind, name).of(request) == expected
    request.client = b""
    assert Key("client").of(request) == b"10.0.0.9"


def test_a_reload_takes_the_table_over_unless_members_changed(policy):
    key = Key("header", b"key")
    one, members = hashed(policy, 3, 2, 1)
    table = one.find(1), homes(one)

    def reloaded(members):
        again = policy(random.Random(5).random, key)
        again.inherit(one)
        again.settle(members)
        return again

    for attribute in ("table", "points"):
        if hasattr(one, attribute):
            assert getattr(reloaded(members), attribute) is getattr(one, attribute)
            fewer = reloaded(members[:2])
            assert getattr(fewer, attribute) is not getattr(one, attribute)
            assert set(homes(fewer)) == set(members[:2])
    renewed = [*members[:2], Candidate(members[2].identity, members[2].weight)]
    assert set(homes(reloaded(renewed))) == set(renewed)
    assert (one.find(1), homes(one)) == table
    other = (RingHash if policy is Maglev else Maglev)(random.Random(5).random, key)
    other.inherit(one)
    other.settle(members)
    assert set(homes(other)) == set(members)


def test_second_tries_take_nobodys_turn_and_are_shared_by_weight():
    members = candidates(2, 2, 1, 1)
    balancer = settled(WeightedRoundRobin(), members)
    firsts, seconds = Counter(), Counter()
    for _ in range(1200):  # the first one never answers
        first = balancer.pick(asked(0), (), 0, NOW)
        firsts[first] += 1
        if first is members[0]:
            seconds[balancer.pick(asked(0), [first], 0, NOW)] += 1
    assert abs(firsts[members[0]] - 400) <= 3
    for member, share in zip(members[1:], (600, 300, 300), strict=True):
        assert abs(firsts[member] + seconds[member] - share) <= 3


@pytest.mark.parametrize("make", [lambda: PeakLatency(5e9), ServiceTime])
def test_what_was_up_to_the_client_is_no_latency(make):
    gauge, member = make(), Candidate(b"a")
    for outcome in (Outcome.SUCCESS, Outcome.IGNORE):
        gauge.observe(member, outcome, 0, 0, NOW)
    assert gauge.read(NOW) == 0 if isinstance(gauge, PeakLatency) else gauge.expect(0.0, 0.0, NOW) == 0
    gauge.observe(member, Outcome.FAILURE, 0, 0, NOW)
    assert gauge.read(NOW) > 0 if isinstance(gauge, PeakLatency) else gauge.expect(0.0, 0.0, NOW) > 0
