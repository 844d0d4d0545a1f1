"""When a request is late enough."""

from __future__ import annotations

from gateway.retries.hedge import HedgeRules
from gateway.retries.latencies import ENOUGH, Latencies
from gateway.retries.memory import Memory

MS = 1_000_000


def test_after_a_fixed_time():
    assert HedgeRules(Latencies(0), after=20 * MS).delay(0) == 20 * MS


def test_after_a_percentile_once_enough_is_known():
    latencies = Latencies(0)
    rules = HedgeRules(latencies, share=0.95)
    assert rules.delay(0) == 0
    for _ in range(ENOUGH):
        latencies.add(20 * MS, 0)
    assert 20 * MS <= rules.delay(10**9) <= 22 * MS


def test_what_is_known_lives_through_a_reload():
    memory = Memory()
    budget, latencies = memory.budget("p", 0.2, 10.0, 0), memory.latencies("r", "p", 0)
    budget.deposit(0)
    assert memory.budget("p", 0.5, 0.0, 5) is budget
    assert repr(budget) == "<RetryBudget 0 on top of 1 a second, 0 waiting>"
    assert memory.latencies("r", "p", 5) is latencies
    assert memory.latencies("r", "q", 5) is not latencies
    memory.budget("q", 0.2, 10.0, 0)
    memory.retain({"r"}, {"p"})
    assert memory.budget("p", 0.5, 0.0, 5) is budget
    assert memory.latencies("r", "p", 5) is latencies
    memory.retain({"other"}, {"p"})
    assert memory.latencies("r", "p", 5) is not latencies
    memory.retain(set(), set())
    assert memory.budget("p", 0.5, 0.0, 5) is not budget
