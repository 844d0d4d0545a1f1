"""What lives through a reload, and how workers share what is for all of them."""

from __future__ import annotations

from gateway.retries.budget import MINIMUM, RetryBudget
from gateway.retries.memory import Memory

SECOND = 1_000_000_000


def sent(budget: RetryBudget, seconds: int) -> list[int]:
    """How many may be sent in each second that a quiet pool asks for all it can have."""
    counts = []
    for second in range(seconds):
        count = 0
        for part in range(20):
            now = second * SECOND + part * SECOND // 20
            while (paid := budget.reserve(now)) == MINIMUM:
                budget.spend(now)
                count += 1
            assert paid != MINIMUM
        counts.append(count)
    return counts


def test_workers_share_the_minimum_of_a_pool():
    for workers in (1, 2, 5):
        memories = [Memory() for _ in range(workers)]
        budgets = [memory.budget("p", 0.1, 10.0, 0) for memory in memories]
        for memory in memories:
            memory.share(workers)
        each = [sent(budget, 6) for budget in budgets]
        assert max(map(sum, zip(*each, strict=True))) <= 10
        assert sum(map(sum, each)) >= 0.9 * 10 * 6


def test_a_worker_of_very_many_may_still_send_one():
    memory = Memory()
    memory.share(100)
    assert sum(sent(memory.budget("p", 0.1, 10.0, 0), 21)) == 3  # the first at once, then a tenth a second


def test_a_reload_keeps_what_was_spent_and_the_share():
    memory = Memory()
    memory.share(2)
    budget = memory.budget("p", 0.1, 10.0, 0)
    assert sent(budget, 1) == [5]
    assert memory.budget("p", 0.1, 20.0, 0) is budget
    assert sent(budget, 3)[2] == 10
    memory.share(4)
    assert sent(budget, 3)[2] <= 5
    memory.share(0)  # nobody knows: as before
    memory.retain(set(), set())
    assert memory.budget("p", 0.1, 10.0, 0) is not budget
