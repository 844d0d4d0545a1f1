"""What befalls a backend, on a clock of ours: calls in and out of order, sweeps between them, exact transitions.

`loadtests/chaos_breaker.py` plays the same table on real processes.
"""

from __future__ import annotations

import heapq
import itertools

import pytest

from gateway.breakers.gate import BreakerSettings, Gate
from gateway.breakers.permit import ANSWERED, UNCLEAR, UNREACHED
from gateway.request import Outcome

MS = 1_000_000
S, F, I, D = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORE, Outcome.DROPPED  # noqa: E741

SETTINGS = BreakerSettings(
    failures=5, open_for=1.0, open_max=4.0, probes=1, error_rate=0.5, slow_rate=0.5, slow_after=0.1, min_calls=20
)
TIMEOUT = 1000

GOOD = (20, S, ANSWERED)
KILLED = (0, F, UNREACHED)
HUNG = (TIMEOUT, F, UNCLEAR)
SLOW = (200, S, ANSWERED)
BROKEN = (20, F, ANSWERED)
REFUSING = (1, D, ANSWERED)


class World:
    """One backend behind one gate, asked every 5 ms by clients who go elsewhere when it says no."""

    def __init__(self, settings=SETTINGS):
        self.gate = Gate(settings)
        self.now = 10_000
        self.events = []
        self.order = itertools.count()
        self.asked = self.passed = 0

    def play(self, ms, behaviour, every=5):
        """For so many ms a call `every` ms, answered as `behaviour(call number)` says; a sweep each 50 ms."""
        end = self.now + ms
        times = [(at, next(self.order), "call", None, None) for at in range(self.now, end, every)]
        times += [(at, next(self.order), "sweep", None, None) for at in range(self.now, end, 50)]
        for each in times:
            heapq.heappush(self.events, each)
        while self.events and self.events[0][0] < end:
            self.now, _, what, permit, answer = heapq.heappop(self.events)
            if what == "call":
                self.call(behaviour)
            elif what == "sweep":
                self.gate.sweep(self.now * MS)
            else:
                took, outcome, contact = answer
                self.gate.release(permit, outcome, self.now * MS, took * MS, contact)
        self.now = end

    def call(self, behaviour):
        self.asked += 1
        permit = self.gate.try_acquire(self.now * MS)
        if permit is None:
            return
        self.passed += 1
        answer = behaviour(self.passed) if callable(behaviour) else behaviour
        heapq.heappush(self.events, (self.now + answer[0], next(self.order), "answer", permit, answer))

    @property
    def transitions(self):
        return [event for _, event in self.gate.history]

    def at(self, event):
        """ms from the beginning of the trouble (10 s + 1 s) to the first such transition."""
        return next(at for at, each in self.gate.history if each == event) // MS - 11_000


def world(settings=SETTINGS):
    """One second of good service first."""
    it = World(settings)
    it.play(1000, GOOD)
    assert it.transitions == []
    return it


def test_killed_and_started_again():
    it = world()
    it.play(3100, KILLED)
    assert it.transitions == ["failures", "waited", "probe-failed", "waited", "probe-failed"]  # 1 s, then 2 s
    assert it.at("failures") == 35  # what was under way ends well until 15, then five calls, one each 5 ms
    it.play(4000, GOOD)
    assert it.transitions[5:] == ["waited", "probes-passed"]
    assert it.gate.state == "closed"


def test_blackhole():
    """Hung, while its connections are still accepted: half-open by silence, and open by the probe."""
    it = world()
    it.play(900, HUNG)
    assert it.transitions == ["silent", "probe-slow"], "calls in a row that are out too long would come later"
    assert it.gate.state == "open"
    assert it.gate.history[-1][0] // MS - 11_000 <= 350


def test_blackhole_with_little_traffic_and_nothing_configured():
    """Two calls a second, no slow_after: silence is three times the longest answer, or 500 ms."""
    it = World(BreakerSettings(failures=5, open_for=5.0))
    it.play(10_000, GOOD, every=500)
    before = it.passed
    it.play(3000, HUNG, every=500)
    assert it.transitions == ["silent", "probe-slow"]
    assert it.passed - before <= 3


def test_a_long_answer_is_no_silence_where_answers_are_long():
    it = World(BreakerSettings(failures=5, open_for=5.0))
    it.play(20_000, (3000, S, ANSWERED), every=500)
    assert it.transitions[-1:] != ["probe-slow"]
    quiet_from = len(it.transitions)
    it.play(20_000, (3000, S, ANSWERED), every=5000)
    assert len(it.transitions) == quiet_from


def test_ten_times_slower():
    it = world()
    it.play(1000, SLOW)
    assert it.gate.state == "open"
    assert it.transitions[0] in ("slow-row", "silent")
    it.play(9000, SLOW)
    assert set(it.transitions[2:]) <= {"waited", "probe-slow"}, "a slow probe does not close it"
    it.play(4000, GOOD)
    assert it.transitions[-2:] == ["waited", "probes-passed"]


def test_half_of_the_calls_fail():
    it = world()
    it.play(1000, lambda number: BROKEN if number % 2 else GOOD)
    assert it.transitions[0] == "error-rate"
    assert it.gate.history[0][0] // MS - 11_000 <= 600  # the last hundred calls: half a second at 200/s


def test_a_third_of_the_calls_fail():
    it = world()
    it.play(5000, lambda number: BROKEN if number % 3 == 0 else GOOD)
    assert it.transitions == []


def test_a_429_storm():
    it = world()
    it.play(10_000, REFUSING)
    assert it.transitions == []
    assert it.gate.dropped == 2000
    it.play(1000, lambda number: BROKEN)
    assert it.transitions == ["failures"], "and it has neither forgiven nor hidden anything"


def test_flapping():
    """A second good, a second bad: the open time grows, so the clients see less and less of it."""
    it = world()
    for _ in range(20):
        it.play(1000, KILLED)
        it.play(1000, GOOD)
    opened = [at for at, event in it.gate.history if event in ("failures", "probe-failed")]
    assert all(later - sooner >= 1000 * MS for sooner, later in itertools.pairwise(opened))
    assert it.gate.trips <= 14, "20 times down: 4 s of open time cover two of them"
    it.play(8000, GOOD)
    assert it.gate.state == "closed"


def test_a_steady_time_forgives():
    it = world()
    it.play(8000, KILLED)  # open time at its ceiling
    it.play(5000, GOOD)
    assert it.gate.state == "closed"
    it.play(5000, GOOD)  # 4 s and more
    it.play(1100, KILLED)
    assert it.transitions[-3:] == ["failures", "waited", "probe-failed"], "one second again"


def test_cancelled_probes_prove_nothing():
    it = world()
    it.play(100, KILLED)
    it.now += 1000
    permits = []
    for _ in range(50):
        permit = it.gate.try_acquire(it.now * MS)
        permits.append(permit)
        assert it.gate.try_acquire(it.now * MS) is None, "one probe at a time"
        it.gate.release(permit, I, it.now * MS)
    assert it.transitions == ["failures", "waited"]
    assert it.gate.state == "half-open"
    for permit in permits:
        it.gate.release(permit, S, it.now * MS)
    assert it.gate.state == "half-open", "and cannot be handed back again"


def test_late_results():
    """Calls of before the trip that end in every later state."""
    it = world()
    late = [it.gate.try_acquire(it.now * MS) for _ in range(30)]
    it.play(100, KILLED)
    assert it.transitions == ["failures"]
    for permit in late[:10]:
        it.gate.release(permit, S, it.now * MS)
    assert it.gate.state == "open"
    it.now += 1000
    probe = it.gate.try_acquire(it.now * MS)
    for permit in late[10:20]:
        it.gate.release(permit, F, it.now * MS)
    assert it.gate.state == "half-open"
    it.gate.release(probe, S, it.now * MS)
    for permit in late[20:]:
        it.gate.release(permit, F, it.now * MS)
    assert it.gate.state == "closed"
    assert it.gate.window.calls == 0
    assert it.transitions == ["failures", "waited", "probes-passed"]


class TestForce:
    def test_closed_never_opens_and_open_never_lets_through(self):
        it = world()
        it.gate.force("closed", it.now * MS)
        it.play(5000, KILLED)
        assert (it.gate.state, it.gate.trips) == ("closed", 0)
        passed = it.passed
        it.gate.force("open", it.now * MS)
        it.play(60_000, GOOD)
        assert it.passed == passed
        assert it.transitions == ["force-open"]

    def test_auto_after_open_begins_with_probes(self):
        it = world()
        it.gate.force("open", it.now * MS)
        it.gate.force("", it.now * MS)
        assert it.gate.state == "half-open"
        it.play(100, GOOD)
        assert it.transitions == ["force-open", "force-auto", "probes-passed"]

    def test_auto_after_closed_begins_anew(self):
        it = world()
        it.gate.force("closed", it.now * MS)
        it.play(1000, KILLED)
        it.gate.force("", it.now * MS)
        assert (it.gate.state, it.gate.window.calls) == ("closed", 0)
        it.play(20, KILLED)
        assert it.gate.state == "closed"
        it.play(20, KILLED)
        assert it.gate.state == "open"

    def test_for_a_time(self):
        it = world()
        it.gate.force("open", it.now * MS, (it.now + 2000) * MS)
        it.play(1990, GOOD)
        assert it.gate.forced == "open"
        it.play(1000, GOOD)
        assert (it.gate.forced, it.gate.state) == ("", "closed")

    def test_a_new_time_for_the_same_word(self):
        it = world()
        it.gate.force("open", it.now * MS, (it.now + 1000) * MS)
        it.gate.force("open", it.now * MS, (it.now + 5000) * MS)
        it.play(3000, GOOD)
        assert (it.gate.forced, it.transitions) == ("open", ["force-open"])

    @pytest.mark.parametrize("first", ["", "open", "closed"])
    @pytest.mark.parametrize("then", ["", "open", "closed"])
    def test_settings_and_hints_do_not_move_it(self, first, then):
        it = world()
        it.gate.force(first, it.now * MS)
        it.gate.force(then, it.now * MS)
        before = it.gate.state
        if then:
            it.gate.configure(SETTINGS)
            it.gate.hint_failing(it.now * MS)
            it.gate.hint_recovered(it.now * MS)
            it.gate.sweep((it.now + 100_000) * MS)
            assert it.gate.state == before == ("open" if then == "open" else "closed")


class TestBackOff:
    def open_times(self, settings, failures, rand=lambda: 0.0):
        gate, now, times = Gate(settings, rand=rand), 1, []
        for _ in range(settings.failures):
            gate.release(gate.try_acquire(now), F, now)
        for _ in range(failures):
            times.append((gate.ready_from - now) / 1e9)
            now = gate.ready_from
            gate.release(gate.try_acquire(now), F, now)
        return times

    def test_doubles_to_the_ceiling(self):
        assert self.open_times(BreakerSettings(open_for=1.0, open_max=5.0), 6) == [1, 2, 4, 5, 5, 5]
        assert self.open_times(BreakerSettings(open_for=5.0, open_max=1.0), 3) == [5, 5, 5]

    def test_jitter_is_only_ever_earlier(self):
        settings = BreakerSettings(open_for=1.0, open_max=4.0, jitter=0.2)
        assert self.open_times(settings, 4, rand=lambda: 0.5) == [0.9, 1.8, 3.6, 3.6]
        assert self.open_times(settings, 4, rand=lambda: 0.0) == [1, 2, 4, 4]

    def test_a_thousand_failures_overflow_nothing(self):
        assert self.open_times(BreakerSettings(open_for=1.0, open_max=3600.0), 1000)[-1] == 3600


class TestOverdue:
    """Calls that are out count as slow in good time, once, and as what they turn out to be."""

    def gate(self, **more):
        return Gate(BreakerSettings(failures=5, slow_rate=0.5, slow_after=0.1, silent_after=0.0, min_calls=4, **more))

    def test_counted_before_they_end_and_once(self):
        gate = self.gate()
        permits = [gate.try_acquire(1) for _ in range(3)]
        gate.sweep(100 * MS)
        assert gate.window.calls == 0
        gate.sweep(101 * MS)
        gate.sweep(500 * MS)
        assert (gate.window.calls, gate.window.slow) == (3, 3)
        gate.release(permits[0], S, 600 * MS)
        gate.release(permits[1], I, 600 * MS)
        gate.release(permits[2], D, 600 * MS)
        assert (gate.window.calls, gate.window.slow, gate.window.failures) == (2, 2, 0)

    def test_one_that_fails_in_the_end_is_a_failure_too(self):
        gate = self.gate(error_rate=0.9)
        permit = gate.try_acquire(1)
        gate.sweep(200 * MS)
        gate.release(permit, F, 300 * MS, contact=UNCLEAR)
        assert (gate.window.calls, gate.window.slow, gate.window.failures) == (1, 1, 1)

    def test_cancelled_calls_count_only_when_they_were_slow(self):
        gate = self.gate()
        for took in (50, 150):
            permit = gate.try_acquire(1)
            gate.release(permit, I, took * MS + 1)
        assert (gate.window.calls, gate.window.slow) == (1, 1)

    def test_a_body_that_takes_long_proves_nothing(self):
        gate = self.gate()
        permits = [gate.try_acquire(1) for _ in range(10)]
        for permit in permits:
            gate.heard(permit, 10 * MS)
        gate.sweep(60_000 * MS)
        for permit in permits:
            gate.release(permit, S, 60_000 * MS)
        assert (gate.window.calls, gate.window.slow, gate.state) == (10, 0, "closed")

    def test_enough_of_them_open_it(self):
        gate = self.gate()
        for _ in range(4):
            gate.try_acquire(1)
        gate.sweep(150 * MS)
        assert (gate.state, gate.tripped["slow-rate"]) == ("open", 1)

    def test_so_do_a_few_in_a_row(self):
        gate = self.gate(window_calls=100)
        for _ in range(90):
            gate.release(gate.try_acquire(1), S, 2, 1)
        for _ in range(3):
            permit = gate.try_acquire(1)
            gate.release(permit, S, 150 * MS, 150 * MS)
        gate.release(gate.try_acquire(1), S, 2, 1)  # one in good time breaks the row
        out = [gate.try_acquire(1) for _ in range(4)]
        gate.sweep(150 * MS)
        assert gate.state == "closed"
        gate.release(out[0], S, 160 * MS, 160 * MS)  # counted already
        assert gate.state == "closed"
        permit = gate.try_acquire(100 * MS)
        gate.sweep(200 * MS)
        assert (gate.state, gate.tripped["slow-row"]) == ("open", 1)
