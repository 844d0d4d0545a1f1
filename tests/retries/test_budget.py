"""What is sent on top of the requests is a bounded share of them, in every second and in the long run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.retries import budget as module
from gateway.retries.budget import BURST, MINIMUM, NOTHING, SHARE, SLOT, RetryBudget

SECOND = 1_000_000_000
SHORT, LONG = (module.SECOND - 1) * SLOT, (module.SLOTS - 1) * SLOT  # at least this much is looked back upon


def allows(budget, now):
    """Whether one more could be sent."""
    paid = budget.reserve(now)
    if paid != NOTHING:
        budget.give_back(paid)
    return paid != NOTHING


def retry(budget, now):
    """One that is sent at once."""
    paid = budget.reserve(now)
    if paid != NOTHING:
        budget.spend(now)
    return paid


def drain(budget, now=0):
    count = 0
    while retry(budget, now):
        count += 1
    return count


def test_a_quiet_pool_has_a_second_of_the_minimum():
    assert drain(RetryBudget(0.2, 5.0, 0)) == 5
    assert drain(RetryBudget(0.2, 0.1, 0)) == 1
    assert drain(RetryBudget(0.2, 0.0, 0)) == 0


def test_requests_earn_their_share():
    budget = RetryBudget(0.2, 0.0, 0)
    for _ in range(9):
        budget.deposit(0)
    assert drain(budget) == 1
    budget.deposit(0)
    assert retry(budget, 0) == SHARE
    assert retry(budget, 0) == NOTHING
    assert budget.spent == 2


def test_without_requests_nothing_is_earned_whatever_was_saved():
    budget = RetryBudget(0.2, 0.0, 0)
    for _ in range(100):
        budget.deposit(0)
    assert drain(budget, SECOND) == 0


def test_what_was_saved_in_ten_seconds_is_spent_a_little_faster():
    budget = RetryBudget(0.2, 0.0, 0)
    for second in range(9):
        for _ in range(100):
            budget.deposit(second * SECOND)
    spent = []
    for second in range(9, 30):
        for _ in range(100):
            budget.deposit(second * SECOND)
        spent.append(drain(budget, second * SECOND))
    assert spent[0] == 20 * BURST
    assert sum(spent[:10]) == 200
    assert max(spent) <= 20 * BURST
    assert sum(spent) <= 600


def test_what_was_sent_is_forgotten_with_the_requests_of_its_time():
    budget = RetryBudget(0.5, 0.0, 0)
    for second in range(0, 100, 10):
        for _ in range(10):
            budget.deposit(second * SECOND)
        assert drain(budget, second * SECOND) == 5


def test_a_long_silence_forgets_everything():
    budget = RetryBudget(1.0, 0.0, 0)
    for _ in range(100):
        budget.deposit(0)
    drain(budget)
    assert not allows(budget, 10**6 * SECOND)
    assert repr(budget) == "<RetryBudget 0 on top of 0 a second, 0 waiting>"


def test_the_minimum_is_a_floor_and_comes_not_on_top():
    budget = RetryBudget(0.2, 10.0, 0)
    for _ in range(100):
        budget.deposit(0)
    assert drain(budget) == 20
    budget = RetryBudget(0.2, 10.0, 0)
    for _ in range(25):
        budget.deposit(0)
    assert drain(budget) == 10


def test_the_last_quarter_of_the_share_is_not_to_spare():
    budget = RetryBudget(0.2, 0.0, 0)
    for _ in range(100):
        budget.deposit(0)
    spared = 0
    while budget.reserve(0, spare=True) == SHARE:
        budget.spend(0)
        spared += 1
    assert (spared, drain(budget)) == (15, 5)
    quiet = RetryBudget(0.0, 1.0, 0)
    assert quiet.reserve(0, spare=True) == MINIMUM
    least = RetryBudget(0.0, 8.0, 0)
    spared = 0
    while least.reserve(0, spare=True) == MINIMUM:
        least.spend(0)
        spared += 1
    assert (spared, drain(least)) == (6, 2)


def test_time_earns_the_minimum():
    budget = RetryBudget(0.0, 2.0, 0)
    drain(budget)
    assert not allows(budget, SECOND - 1)  # two were sent in this second
    assert retry(budget, SECOND) == MINIMUM
    slow = RetryBudget(0.0, 0.25, 0)
    drain(slow)
    assert [retry(slow, second * SECOND) for second in range(1, 31)].count(MINIMUM) == 7


def test_what_waits_counts():
    budget = RetryBudget(0.0, 2.0, 0)
    first, second = budget.reserve(0), budget.reserve(0)
    assert (first, second, budget.waiting) == (MINIMUM, MINIMUM, 2)
    assert not allows(budget, 100 * SECOND)  # they wait still
    budget.spend(100 * SECOND)
    assert not allows(budget, 100 * SECOND)
    budget.give_back(second)
    assert budget.reserve(100 * SECOND) == MINIMUM


def test_what_is_given_back_was_never_taken():
    for paid, budget in ((MINIMUM, RetryBudget(0.0, 1.0, 0)), (SHARE, RetryBudget(0.1, 0.0, 0))):
        for _ in range(10):
            budget.deposit(0)
        for _ in range(5):
            assert budget.reserve(0) == paid
            assert not allows(budget, 0)
            budget.give_back(paid)
        assert allows(budget, 0)


def test_new_settings_count_what_was_counted():
    budget = RetryBudget(0.2, 0.0, 0)
    for _ in range(10):
        budget.deposit(0)
    assert drain(budget) == 2
    budget.configure(0.5, 0.0)
    assert drain(budget) == 3
    budget.configure(0.1, 0.0)
    assert drain(budget) == 0


class Bank:
    """Does as it is told and notes when what was sent, to be held against the bounds afterwards."""

    def __init__(self, ratio, minimum):
        self.ratio, self.minimum = ratio, minimum
        self.budget = RetryBudget(ratio, minimum, 0)
        self.now = 0
        self.requests, self.sent, self.held = [], [], []

    def step(self, what, gap):
        self.now += gap
        if what == "request":
            self.budget.deposit(self.now)
            self.requests.append(self.now)
        elif what == "retry":
            if retry(self.budget, self.now):
                self.sent.append(self.now)
        elif what == "wait":
            paid = self.budget.reserve(self.now)
            if paid:
                self.held.append(paid)
        elif self.held:
            paid = self.held.pop(0)
            if what == "send":
                self.budget.spend(self.now)
                self.sent.append(self.now)
            else:
                self.budget.give_back(paid)

    def within(self, times, begin, end):
        return sum(begin < each <= end for each in times)


steps = st.lists(
    st.tuples(
        st.sampled_from(["request", "request", "request", "retry", "retry", "wait", "send", "leave"]),
        st.one_of(st.just(0), st.integers(0, SECOND // 10), st.integers(0, 3 * SECOND)),
    ),
    max_size=300,
)


@given(st.floats(0, 1), st.floats(0, 20), steps)
def test_never_more_than_the_share_the_minimum_and_the_start(ratio, minimum, each):
    bank = Bank(ratio, minimum)
    for what, gap in each:
        bank.step(what, gap)
        earned = ratio * len(bank.requests) + minimum * bank.now / SECOND + (max(minimum, 1.0) if minimum else 0.0)
        assert len(bank.sent) + len(bank.held) <= earned + 1e-6
        assert bank.budget.waiting == len(bank.held)


@given(
    st.floats(0, 1),
    st.floats(0, 20),
    st.lists(st.tuples(st.sampled_from(["request", "retry"]), st.integers(0, SECOND // 4)), max_size=300),
)
def test_no_second_has_more_than_a_quarter_again_of_its_share_or_the_minimum(ratio, minimum, each):
    """Whatever was saved before it; and no ten seconds have more than their share and the minimum."""
    bank = Bank(ratio, minimum)
    for what, gap in each:
        bank.step(what, gap)
    floor = max(minimum, 1.0) if minimum else 0.0
    for end in bank.sent:
        on_top = bank.within(bank.sent, end - SHORT, end)
        requests = bank.within(bank.requests, end - SHORT - SLOT, end)
        assert on_top <= max(BURST * ratio * requests, floor) + 1e-6
        on_top = bank.within(bank.sent, end - LONG, end)
        requests = bank.within(bank.requests, end - LONG - SLOT, end)
        assert on_top <= ratio * requests + minimum * LONG / SECOND + floor + 1e-6
