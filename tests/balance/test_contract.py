"""What every balancing policy owes; a new policy is held to it by being registered."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.balance.least_request import LeastRequest
from gateway.balance.registry import BALANCERS
from gateway.balance.weighted_round_robin import WeightedRoundRobin

PICKS = 10_000


class Candidate:
    def __init__(self, name, weight, inflight=0):
        self.name = name
        self.weight = weight
        self.inflight = inflight
        self.turn = 0


def make(name):
    """The policy as configured, with a seeded source of chance where it takes one."""
    return LeastRequest(random.Random(1).random) if name == "least-request" else BALANCERS[name]()


def shares(balancer, candidates, picks=PICKS):
    counts = Counter(balancer.pick(candidates).name for _ in range(picks))
    return {name: count / picks for name, count in counts.items()}


@pytest.fixture(params=sorted(BALANCERS))
def balancer(request):
    return make(request.param)


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (5, 3, 2), (1,), (100, 1), (8, 7, 6, 5, 4, 3, 2, 1)])
def test_shares_follow_the_weights(balancer, weights):
    candidates = [Candidate(str(i), weight) for i, weight in enumerate(weights)]
    got = shares(balancer, candidates)
    for candidate in candidates:
        assert got.get(candidate.name, 0) == pytest.approx(candidate.weight / sum(weights), abs=0.01)


def test_shares_stay_right_while_two_of_eight_are_away_and_after_they_return(balancer):
    backends = [Candidate(str(i), 1 + i % 4) for i in range(8)]
    for up in (backends, backends[:3] + backends[5:], backends):
        got = shares(balancer, up)
        assert set(got) == {candidate.name for candidate in up}
        total = sum(candidate.weight for candidate in up)
        for candidate in up:
            assert got[candidate.name] == pytest.approx(candidate.weight / total, abs=0.01)


def test_only_a_candidate_is_ever_returned(balancer):
    backends = [Candidate(str(i), 1 + i) for i in range(6)]
    rand = random.Random(3)
    for _ in range(2000):
        candidates = rand.sample(backends, rand.randint(1, 6))
        assert balancer.pick(candidates) in candidates


def test_round_robin_spreads_evenly():
    candidates = [Candidate("a", 3), Candidate("b", 1)]
    balancer = WeightedRoundRobin()
    assert "".join(balancer.pick(candidates).name for _ in range(12)) == "aabaaabaaaba"
    five_one_one = [Candidate("a", 5), Candidate("b", 1), Candidate("c", 1)]
    assert "".join(balancer.pick(five_one_one).name for _ in range(7)) == "aabacaa"  # nginx's own example


def test_round_robin_is_exact_over_a_round():
    candidates = [Candidate("a", 5), Candidate("b", 3), Candidate("c", 2)]
    counts = Counter(WeightedRoundRobin().pick(candidates).name for _ in range(1000))
    assert counts == {"a": 500, "b": 300, "c": 200}
    assert all(abs(candidate.turn) <= 10 for candidate in candidates)


def test_least_request_prefers_the_less_loaded():
    busy, idle = Candidate("busy", 1, inflight=10), Candidate("idle", 1)
    assert shares(make("least-request"), [busy, idle])["idle"] == pytest.approx(0.75, abs=0.02)


def test_least_request_weighs_the_load_by_weight():
    big, small = Candidate("big", 4, inflight=7), Candidate("small", 1, inflight=2)
    got = shares(make("least-request"), [big, small])
    assert got["big"] > 0.8  # 7/4 in flight per weight against 2
    big.inflight = 9
    assert shares(make("least-request"), [big, small])["big"] < 0.8


def test_least_request_levels_the_load():
    candidates = [Candidate(str(i), 1) for i in range(10)]
    balancer = make("least-request")
    for _ in range(1000):
        balancer.pick(candidates).inflight += 1
    assert max(c.inflight for c in candidates) - min(c.inflight for c in candidates) <= 8
