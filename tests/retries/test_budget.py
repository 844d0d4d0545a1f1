"""Retries are a bounded share of the requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.retries.budget import HORIZON, RetryBudget

SECOND = 1_000_000_000


def drain(budget, now=0):
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


def test_it_starts_with_a_second_of_savings():
    assert drain(RetryBudget(0.2, 5.0, 0)) == 5
    assert drain(RetryBudget(0.2, 0.0, 0)) == 1


def test_requests_earn_their_share():
    budget = RetryBudget(0.2, 0.0, 0)
    drain(budget)
    for _ in range(4):
        budget.deposit()
    assert not budget.withdraw(0)
    budget.deposit()
    budget.deposit()  # 1.2, clear of rounding
    assert budget.withdraw(0)
    assert not budget.withdraw(0)
    assert budget.spent == 2
    assert budget.exhausted == 3


def test_time_earns_the_minimum():
    budget = RetryBudget(0.0, 2.0, 0)
    drain(budget)
    assert not budget.withdraw(SECOND // 2 - 1)
    assert budget.withdraw(SECOND // 2)
    assert drain(budget, 3 * SECOND) == 5


def test_savings_are_capped():
    budget = RetryBudget(0.5, 3.0, 0)
    for _ in range(100_000):
        budget.deposit()
    assert drain(budget, 3600 * SECOND) == int(3.0 * HORIZON)


@given(
    st.floats(0, 1),
    st.floats(0, 10),
    st.lists(st.tuples(st.booleans(), st.integers(0, SECOND)), max_size=200),
)
def test_never_more_than_the_share_the_minimum_and_the_start(ratio, minimum, steps):
    budget = RetryBudget(ratio, minimum, 0)
    now = requests = 0
    for is_request, gap in steps:
        now += gap
        if is_request:
            requests += 1
            budget.deposit()
        else:
            budget.withdraw(now)
        assert budget.spent <= ratio * requests + minimum * now / SECOND + max(minimum, 1.0) + 1e-6
