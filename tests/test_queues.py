"""Policies in a small world of queues: what one slow backend, and backends that lose their capacity in turns, cost."""

from __future__ import annotations

import random
import statistics

import pytest

from gateway.balance.registry import Recipe
from loadtests.queues import Server, TwoChoices, World, antagonists, one_slow

pytestmark = pytest.mark.long


def policy(name):
    return TwoChoices if name == "two-choices" else lambda rand: Recipe(name, rand=rand)()


def hurt(name, count, factor=10):
    """How much worse p99 is with one slow backend, and what share of the requests it gets."""
    usual, hard = (one_slow(policy(name), count, 0.6, by) for by in (1, factor))
    return hard.percentile(0.99, 1) / usual.percentile(0.99, 1), hard.share(hard.servers[0], 1)


def p99(name, **world):
    return statistics.mean(antagonists(policy(name), seed=seed, **world).percentile(0.99, 1) for seed in (1, 2, 3))


@pytest.mark.parametrize(
    ("name", "count"), [("peak-ewma", 8), ("peak-ewma", 16), ("prequal", 8), ("prequal", 16), ("least-request", 16)]
)
def test_one_backend_ten_times_slower_is_hardly_noticed(name, count):
    worse, share = hurt(name, count)
    assert worse <= 1.3
    assert share < 0.01


@pytest.mark.parametrize("name", ["weighted-round-robin", "random"])
def test_who_does_not_look_is_hurt(name):
    worse, share = hurt(name, 8)
    assert worse > 50
    assert share == pytest.approx(1 / 8, abs=0.02)


@pytest.mark.parametrize("kind", ["slots", "service"])
@pytest.mark.parametrize(("gateways", "reports"), [(1, True), (2, True), (2, False)])
def test_prequal_under_antagonists(kind, gateways, reports):
    world = {"kind": kind, "gateways": gateways, "reports": reports}
    ours = p99("prequal", **world)
    assert ours <= p99("two-choices", **world)
    assert ours <= 0.5 * p99("weighted-round-robin", **world)


@pytest.mark.parametrize("name", ["prequal", "peak-ewma", "least-request"])
@pytest.mark.parametrize("kind", ["slots", "service"])
def test_a_backlog_is_worked_off(name, kind):
    """A line that is worked off must not look like a slow backend: then all others would get one in turn."""
    world = antagonists(policy(name), kind=kind, burst=300)
    assert world.percentile(0.99, 10) < 0.4


def test_the_world_keeps_its_books():
    """An M/M/1 queue at half load: sojourn times are exponential with mean 2 services (Little, Burke)."""
    server = Server(slots=1, service=0.01, latency=0.0)
    world = World([server], [policy("random")(random.Random(1).random)], 50.0, seed=4)
    world.run(400.0)
    took = [seconds for _, seconds, _ in world.visits]
    assert len(took) == pytest.approx(20_000, rel=0.02)
    assert statistics.mean(took) == pytest.approx(0.02, rel=0.06)
    assert world.percentile(0.99) == pytest.approx(0.02 * 4.605, rel=0.1)
    assert world.gateways[0].inflight == server.running + len(server.line) <= 10
