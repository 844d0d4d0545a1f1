"""When a backend is suspected to be full, and when not."""

import random

import pytest

from gateway.admission.onset import FULL, LATEST, SOONEST, Onset

MS = 1_000_000


def fed(onset, took, levels, each=8, now=0):
    """The level at which it is suspected; `took(level)` in ms."""
    for level in levels:
        for _ in range(each):
            if onset.seen(level, int(took(level) * MS), now):
                return level
    return None


def test_a_backend_with_room_is_not():
    chance = random.Random(1)
    assert fed(Onset(), lambda _: 20 * chance.uniform(0.8, 1.2), range(1, 300)) is None


def test_one_that_is_full_is_at_once():
    onset = Onset()
    level = fed(onset, lambda level: 20 * max(1, level / 4), range(1, 300))
    assert level <= 16
    assert 4 <= onset.enough <= 8


def test_twice_as_much_in_twice_the_time_is_full_and_half_of_that_is_not():
    for grows, full in ((1.0, True), (0.5, False)):
        assert (fed(Onset(), lambda level, g=grows: 10 * level**g, (8, 16, 32, 64)) is not None) == full


def test_the_elasticity_that_is_certainly_too_little():
    """On both sides of `FULL`, without any noise."""
    for off, full in ((-0.02, True), (0.02, False)):
        grows = 1 - FULL - off
        assert (fed(Onset(), lambda level, g=grows: 10 * level**g, (8, 32)) is not None) == full


def test_what_differs_a_thousandfold_is_certain_of_nothing():
    chance = random.Random(2)
    assert fed(Onset(), lambda _: chance.choice((2, 2000)), range(1, 200)) is None


def test_longer_work_of_more_clients_is_no_queue():
    """2 ms with up to 8, 2 s with 64: a queue does not grow faster than its length."""
    assert fed(Onset(), lambda level: 2 if level <= 8 else 2000, (1, 2, 4, 8, 64)) is None


def test_throughput_is_that_of_the_upper_level():
    onset = Onset()
    assert fed(onset, lambda level: 5 * level, (8, 16)) == 16
    assert onset.throughput == pytest.approx(-15.42, abs=0.01), "ln(200/s), per nanosecond"


def test_after_an_unfounded_suspicion_it_waits_for_longer_each_time():
    onset, now = Onset(), 0
    for pause in (SOONEST, 2 * SOONEST, 4 * SOONEST):
        assert fed(onset, lambda level: level, (8, 16), now=now)
        onset.unfounded(now)
        assert not onset.listens(now + pause - 1)
        assert fed(onset, lambda level: level, (8, 16), now=now + pause - 1) is None
        now += pause
        assert onset.listens(now)
    for _ in range(10):
        onset.unfounded(now)
        now += LATEST
        assert onset.listens(now)
    onset.founded()
    onset.unfounded(now)
    assert onset.listens(now + SOONEST)
