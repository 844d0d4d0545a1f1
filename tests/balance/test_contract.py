"""What every balancing policy owes; a new policy is held to it by being registered."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.balance.hashing import Hashing, Key
from gateway.balance.policy import Candidate
from gateway.balance.registry import BALANCERS, Settings
from gateway.balance.ring_hash import POINTS
from gateway.request import Request

PICKS = 10_000
NOW = 10**12
HASHING = ("maglev", "ring-hash")
POLICIES = sorted(BALANCERS)


def make(name, seed=1, **settings):
    """The policy as configured, with a seeded source of chance."""
    return BALANCERS[name](Settings(key=Key("header", b"key"), **settings), random.Random(seed).random)


def candidates(*weights):
    return [Candidate(b"10.0.0.%d:8501" % number, weight) for number, weight in enumerate(weights)]


def away(*members):
    for member in members:
        member.share = 0.0


def back(*members):
    for member in members:
        member.share = float(member.weight)


def asked(number):
    """A request of its own key, so that what is hashed differs from pick to pick."""
    return Request(b"GET", b"/", b"/", {b"key": b"user-%d" % number})


def shares(balancer, picks=PICKS, tried=(), first=0):
    counts = Counter(balancer.pick(asked(first + number), tried, 0, NOW) for number in range(picks))
    return {candidate: count / picks for candidate, count in counts.items()}


@pytest.fixture(params=POLICIES)
def name(request):
    return request.param


@pytest.mark.parametrize(
    "weights",
    [(1, 1), (3, 1), (5, 3, 2), (1,), (100, 1), (1000, 1, 1), (8, 7, 6, 5, 4, 3, 2, 1), (1,) * 40, (1, 2, 3, 4) * 10],
)
def test_shares_follow_the_weights(name, weights):
    members = candidates(*weights)
    balancer = make(name)
    balancer.settle(members)
    got = shares(balancer)
    for member in members:
        assert got.get(member, 0) == pytest.approx(member.weight / sum(weights), abs=0.01)


def test_shares_stay_right_while_two_of_eight_are_away_and_after_they_return(name):
    members = candidates(*(1 + number % 4 for number in range(8)))
    balancer = make(name)
    balancer.settle(members)
    shares(balancer)
    for out in (members[3:5], members[:2], []):
        back(*members)
        away(*out)
        balancer.settle(members)
        got = shares(balancer)
        up = [member for member in members if member not in out]
        assert set(got) == set(up)
        total = sum(member.weight for member in up)
        for member in up:
            # Who hashes gives the keys of those that are away to the others by weight, which is right to a key more.
            assert got[member] == pytest.approx(member.weight / total, abs=0.01)


def test_a_share_below_the_weight_is_what_counts(name):
    members = candidates(2, 2, 2, 2)
    members[0].share = 0.4
    balancer = make(name)
    balancer.settle(members)
    got = shares(balancer)
    assert got[members[0]] == pytest.approx(0.4 / 6.4, abs=0.02)


def test_nobody_without_share_and_nobody_who_was_tried_is_ever_returned(name):
    rand = random.Random(3)
    for size in (1, 2, 5, 20, 60):
        members = candidates(*(rand.choice((0, 1, 7)) for _ in range(size)))
        balancer = make(name)
        for _ in range(60):
            back(*members)
            away(*rand.sample(members, rand.randint(0, size)))
            for member in members:
                member.inflight = rand.randint(0, 9)
            balancer.settle(members)
            for number in range(8):
                tried = rand.sample(members, rand.randint(0, size))
                left = [member for member in members if member.share and member not in tried]
                total = sum(member.inflight for member in members)
                chosen = balancer.pick(asked(number), tried, total, NOW)
                assert (chosen in left) if left else chosen is None


def test_everybody_left_is_found_one_after_the_other(name):
    for size in (3, 30):
        members = candidates(*range(1, size + 1))
        balancer = make(name)
        balancer.settle(members)
        tried = []
        for _ in range(size):
            tried.append(balancer.pick(asked(1), tried, 0, NOW))
        assert set(tried) == set(members)
        assert balancer.pick(asked(1), tried, 0, NOW) is None


def test_an_empty_pool_has_nobody(name):
    balancer = make(name)
    balancer.settle([])
    assert balancer.pick(asked(1), (), 0, NOW) is None
    members = candidates(0, 0)
    balancer.settle(members)
    assert balancer.pick(asked(1), (), 0, NOW) is None


def test_shares_hold_across_a_reload(name):
    members = candidates(3, 2, 1)
    whole = Counter()
    for part in range(10):
        balancer = make(name, seed=part)
        balancer.settle(members)
        whole.update(balancer.pick(asked(number), (), 0, NOW) for number in range(part * 500, part * 500 + 500))
    for member in members:
        assert whole[member] / 5000 == pytest.approx(member.weight / 6, abs=0.015)


def test_the_point_of_a_request_is_a_fair_draw(name):
    balancer = make(name)
    balancer.settle(candidates(1, 1))
    points = [balancer.point(asked(number)) for number in range(4000)]
    assert 0 <= min(points) < max(points) < 1
    assert sum(point < 0.3 for point in points) / 4000 == pytest.approx(0.3, abs=0.03)
    again = [balancer.point(asked(number)) for number in range(4000)]
    assert (points == again) is isinstance(balancer, Hashing)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(POLICIES), st.lists(st.integers(0, 1000), min_size=1, max_size=24), st.integers(0, 2**32))
def test_odd_weights(name, weights, seed):
    members = candidates(*weights)
    balancer = make(name, seed)
    balancer.settle(members)
    total = sum(weights)
    counts = Counter(balancer.pick(asked(number), (), 0, NOW) for number in range(3000))
    if not total:
        assert set(counts) == {None}
        return
    for member in members:
        expected = member.weight / total
        spread = 5 * (max(expected, 0.001) * (1 - expected) / 3000) ** 0.5
        if name == "ring-hash":  # where its points happen to stand is chance, too
            points = next(points for size, points in POINTS if len(members) <= size)
            spread += 5 * expected / max(points * member.weight / max(weights), 1) ** 0.5
        assert counts[member] / 3000 == pytest.approx(expected, abs=max(spread, 0.01))
        assert member.weight or not counts[member]
