"""The gate as a table of steps on a clock of ours, and against a model under random interleavings."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.breakers.gate import STATES, BreakerSettings, Gate
from gateway.breakers.permit import LAST_RESORT
from gateway.request import Outcome
from gateway.testing import FakeClock

SETTINGS = BreakerSettings(failures=3, open_for=5.0, probes=2, open_max=5.0)
S, F, I, D = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORE, Outcome.DROPPED  # noqa: E741


@pytest.fixture
def clock():
    return FakeClock()


def attempt(gate, clock, outcome):
    permit = gate.try_acquire(clock.now)
    assert permit is not None
    gate.release(permit, outcome, clock.now)


def opened(clock, settings=SETTINGS):
    gate = Gate(settings)
    for _ in range(settings.failures):
        attempt(gate, clock, F)
    assert gate.state == "open"
    return gate


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ([], "closed"),
        ([F, F], "closed"),
        ([F, F, F], "open"),
        ([F, F, S, F, F], "closed"),  # in a row
        ([F, F, S, F, F, F], "open"),
        ([F, F, I, F], "open"),  # proves nothing, so it does not break the row
        ([F, F, D, F], "open"),
        ([I] * 50, "closed"),
        ([D] * 50, "closed"),
        ([S] * 50, "closed"),
    ],
)
def test_closed(clock, outcomes, state):
    gate = Gate(SETTINGS)
    for outcome in outcomes:
        attempt(gate, clock, outcome)
    assert gate.state == state
    assert gate.trips == (state == "open")


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ([S], "half-open"),
        ([S, S], "closed"),
        ([F], "open"),
        ([S, F], "open"),
        ([I, I, I, S], "half-open"),
        ([D, D, D, S], "half-open"),
        ([D, S, I, S], "closed"),
    ],
)
def test_half_open(clock, outcomes, state):
    gate = opened(clock)
    clock.advance(5)
    for outcome in outcomes:
        attempt(gate, clock, outcome)
    assert gate.state == state
    assert gate.trips == 1 + (state == "open")


def test_open_refuses_until_exactly_its_time_is_up(clock):
    gate = opened(clock)
    clock.advance(4.999999999)
    assert not gate.available(clock.now)
    assert gate.try_acquire(clock.now) is None
    clock.advance(0.000000001)
    assert gate.available(clock.now)
    assert gate.state == "open"  # asking changes nothing
    assert gate.try_acquire(clock.now) is not None
    assert gate.state == "half-open"


def test_exactly_the_probes_are_admitted_of_a_hundred_at_once(clock):
    gate = opened(clock)
    clock.advance(5)
    permits = [permit for _ in range(100) if (permit := gate.try_acquire(clock.now))]
    assert len(permits) == 2
    assert not gate.available(clock.now)
    gate.release(permits[0], I, clock.now)
    assert gate.available(clock.now)
    assert len([1 for _ in range(100) if gate.try_acquire(clock.now)]) == 1


def test_a_failed_probe_opens_for_the_whole_time_again(clock):
    gate = opened(clock)
    clock.advance(7)
    attempt(gate, clock, F)
    assert gate.urged_from == clock.now + LAST_RESORT
    clock.advance(4.9)
    assert gate.try_acquire(clock.now) is None
    clock.advance(0.1)
    assert gate.try_acquire(clock.now) is not None


def test_late_results_of_an_earlier_era_count_for_nothing(clock):
    gate = Gate(SETTINGS)
    late = [gate.try_acquire(clock.now) for _ in range(10)]
    for _ in range(3):
        attempt(gate, clock, F)
    gate.release(late[0], S, clock.now)
    assert gate.state == "open"
    clock.advance(5)
    probe = gate.try_acquire(clock.now)
    gate.release(late[1], F, clock.now)
    gate.release(late[2], S, clock.now)
    assert gate.state == "half-open"
    gate.release(probe, S, clock.now)
    attempt(gate, clock, S)
    assert gate.state == "closed"
    for permit in late[3:]:
        gate.release(permit, F, clock.now)
    assert gate.state == "closed"
    assert gate.trips == 1


def test_a_late_probe_frees_no_slot_of_a_later_era(clock):
    gate = opened(clock)
    clock.advance(5)
    first, second = gate.try_acquire(clock.now), gate.try_acquire(clock.now)
    gate.release(first, F, clock.now)
    clock.advance(5)
    assert gate.try_acquire(clock.now)
    assert gate.try_acquire(clock.now)
    gate.release(second, S, clock.now)
    assert gate.try_acquire(clock.now) is None


def test_a_probe_handed_back_twice_changes_nothing_the_second_time(clock):
    gate = opened(clock)
    clock.advance(5)
    first, second = gate.try_acquire(clock.now), gate.try_acquire(clock.now)
    gate.release(first, S, clock.now)
    gate.release(first, S, clock.now)
    assert gate.state == "half-open"
    gate.release(first, F, clock.now)
    assert gate.state == "half-open"
    assert gate.try_acquire(clock.now) is not None
    assert gate.try_acquire(clock.now) is None  # `second` is still out
    gate.release(second, S, clock.now)
    assert gate.state == "closed"


def test_a_hint_lets_an_open_gate_probe_at_once_and_changes_nothing_else(clock):
    gate = opened(clock)
    gate.hint_recovered(clock.now)
    assert gate.state == "open"
    attempt(gate, clock, F)
    assert gate.try_acquire(clock.now) is None  # the hint was wrong: wait again
    gate.hint_recovered(clock.now)
    attempt(gate, clock, S)
    gate.hint_recovered(clock.now)
    assert gate.state == "half-open"
    attempt(gate, clock, S)
    gate.hint_recovered(clock.now)
    assert gate.state == "closed"


def test_new_settings_keep_the_state(clock):
    gate = Gate(SETTINGS)
    attempt(gate, clock, F)
    attempt(gate, clock, F)
    gate.configure(BreakerSettings(failures=4, open_for=1.0, probes=1))
    attempt(gate, clock, F)
    assert gate.state == "closed"
    attempt(gate, clock, F)
    assert gate.state == "open"
    gate.configure(BreakerSettings(failures=4, open_for=60.0, probes=1))
    clock.advance(1)
    attempt(gate, clock, S)
    assert gate.state == "closed"


def test_repr_says_where_it_stands(clock):
    gate = opened(clock)
    assert repr(gate) == "<Gate open, 3 failures, 0 probes out, 1 trips>"
    clock.advance(5)
    gate.try_acquire(clock.now)
    assert repr(gate).startswith("<Gate half-open")
    assert "1 probes out" in repr(gate)


def test_failures_leave_no_memory_behind(clock):
    gate = Gate(BreakerSettings(failures=10**9))
    for _ in range(100):
        attempt(gate, clock, F)
    gc.collect()
    tracemalloc.start()
    for _ in range(3000):
        attempt(gate, clock, F)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50_000


class AgainstAModel(RuleBasedStateMachine):
    """Permits are acquired and released in any order; the model keeps plain counts."""

    def __init__(self):
        super().__init__()
        self.gate = Gate(SETTINGS)
        self.now = 0
        self.state = "closed"
        self.row = self.successes = self.era = 0
        self.until = 0
        self.out = []

    def move(self, state):
        self.state = state
        self.era += 1
        self.row = self.successes = 0
        if state == "open":
            self.until = self.now + 5_000_000_000

    @rule()
    def acquire(self):
        if self.state == "open" and self.now >= self.until:
            expected = True
        else:
            probes = sum(1 for era, _, _ in self.out if era == self.era)
            expected = self.state == "closed" or (self.state == "half-open" and probes < 2)
        assert self.gate.available(self.now) == expected
        permit = self.gate.try_acquire(self.now)
        assert (permit is not None) == expected
        if permit is not None:
            if self.state == "open":
                self.move("half-open")
            self.out.append((self.era, self.state, permit))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def release(self, data, outcome):
        era, _, permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.gate.release(permit, outcome, self.now)
        if era != self.era:
            return
        if self.state == "closed":
            if outcome is S:
                self.row = 0
            elif outcome is F:
                self.row += 1
                if self.row == 3:
                    self.move("open")
        elif outcome is F:
            self.move("open")
        elif outcome is S:
            self.successes += 1
            if self.successes == 2:
                self.move("closed")

    @rule(seconds=st.sampled_from([0.5, 2.5, 5.0]))
    def wait(self, seconds):
        self.now += round(seconds * 1e9)

    @rule()
    def hint(self):
        self.gate.hint_recovered(self.now)
        if self.state == "open":
            self.until = self.now

    @invariant()
    def same_state(self):
        assert self.gate.state == self.state
        assert self.state in STATES


TestAgainstAModel = AgainstAModel.TestCase
