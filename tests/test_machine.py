"""What the probe of the machine makes of its turns."""

from __future__ import annotations

import pytest

from loadtests.machine import Probe, judge


def turns(slow: range, *, took: float = 1e-3, usual: float = 1e-4) -> list[tuple[float, float]]:
    """A second of turns; those that begin in these milliseconds take longer."""
    found, now = [], 0.0
    while now < 1.0:
        each = took if int(now * 1e3) in slow else usual
        found.append((now, each))
        now += each
    return found


def test_an_even_machine_is_fit() -> None:
    assert judge(turns(range(0)), 1.0) == Probe(0.0, 0.0, 1.0)
    assert judge(turns(range(0)), 1.0).fit


def test_slow_windows_are_counted_and_the_longest_is_told() -> None:
    found = judge([*turns(range(200, 240))], 1.0)
    assert found.slow == pytest.approx(0.04, abs=0.011)
    assert found.longest_ms == pytest.approx(40, abs=11)
    assert not found.fit


def test_a_turn_that_stood_still_counts_for_as_long_as_it_stood() -> None:
    found = judge(turns(range(500, 501), took=0.08), 1.0)
    assert found.longest_ms == pytest.approx(85, abs=12)
    assert found.slow == pytest.approx(0.085, abs=0.012)


def test_a_little_slower_is_not_slow() -> None:
    assert judge(turns(range(200, 240), took=2e-4), 1.0).fit
