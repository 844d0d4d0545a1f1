"""What is told, what is heeded, and what is not."""

from __future__ import annotations

import pytest

from gateway.breakers.gate import BreakerSettings, Gate
from gateway.breakers.hints import EVERY, Hints
from gateway.request import Outcome

KEY, LOCAL = "p/10.0.0.7:8501", "p/127.0.0.1:8501"
KNOWN = frozenset((KEY, LOCAL))


def test_heard_by_others_once_in_a_while():
    one, other = Hints(b"here"), Hints(b"there")
    message = one.tell(KEY, b"", 0)
    assert other.hear(message, KNOWN, 0) == (KEY, b"")
    assert other.hear(message, KNOWN, EVERY - 1) is None
    assert other.hear(message, KNOWN, EVERY) == (KEY, b"")
    assert (other.heeded, other.ignored) == (2, 1)


def test_told_once_in_a_while_for_each_gate():
    hints = Hints(b"here")
    assert hints.tell(KEY, b"", 0)
    assert hints.tell(KEY, b"m", 0)
    assert hints.tell(KEY, b"", EVERY - 1) is None
    assert hints.tell(KEY, b"", EVERY)
    assert hints.told == 3


@pytest.mark.parametrize("local", [LOCAL, "p/unix:/run/x.sock", "p/[::1]:80"])
def test_an_address_of_this_machine_means_nothing_on_another(local):
    message = Hints(b"here").tell(local, b"m\nx", 0)
    assert Hints(b"there").hear(message, frozenset((local,)), 0) is None
    assert Hints(b"here").hear(message, frozenset((local,)), 0) == (local, b"m\nx")


@pytest.mark.parametrize(
    "message",
    [
        b"", b"1", b"1\n\n\n", b"2\n\n" + KEY.encode() + b"\n", b"1\n\np/10.0.0.8:8501\n", b"\xff" * 50,
        b"1\n\n\xff\xfe\n", b"1\n\n" + KEY.encode(), b"1\n\n" + KEY.encode() + b"\n" + b"m" * 2000,
        b"1\n\n" + LOCAL.encode() + b"\n",  # a local address must say where
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_ignored(message):
    hints = Hints(b"here")
    assert hints.hear(message, KNOWN, 0) is None
    assert hints.ignored == 1


def test_memory_is_bounded():
    hints = Hints(b"here")
    for number in range(20_000):
        hints.tell(f"p/{number}", b"", 0)
    assert len(hints._told) <= 4096


class TestNoEcho:
    """Gates tell what they saw themselves."""

    SETTINGS = BreakerSettings(failures=2, open_for=1.0, silent_after=0.1)

    def gate(self):
        told = []
        return Gate(self.SETTINGS, on_trip=lambda event, _: told.append(event)), told

    def fail(self, gate, now, times=2):
        for _ in range(times):
            gate.release(gate.try_acquire(now), Outcome.FAILURE, now)

    def test_a_trip_is_told_and_its_failed_probes_are_not(self):
        gate, told = self.gate()
        self.fail(gate, 0)
        self.fail(gate, 1_000_000_000, 1)
        assert (gate.trips, told) == (2, ["failures"])

    def test_a_trip_after_a_hint_is_not_told_again(self):
        gate, told = self.gate()
        gate.hint_failing(0)
        self.fail(gate, 0, 1)
        assert (gate.state, told) == ("open", [])

    def test_a_trip_after_silence_is_told(self):
        gate, told = self.gate()
        gate.try_acquire(1)
        gate.sweep(100_000_001)
        assert gate.state == "half-open"
        self.fail(gate, 100_000_000, 1)
        assert told == ["probe-failed"]

    def test_a_hint_costs_a_good_backend_one_answer(self):
        gate, told = self.gate()
        gate.hint_failing(0)
        permit = gate.try_acquire(0)
        assert gate.try_acquire(0) is None
        gate.release(permit, Outcome.SUCCESS, 1)
        assert (gate.state, gate.recovered, told) == ("closed", 0, [])
        gate.hint_failing(1)
        gate.sweep(1_000_000_000)
        assert gate.state == "half-open"
        gate.sweep(1_000_000_002)
        assert gate.state == "closed"
