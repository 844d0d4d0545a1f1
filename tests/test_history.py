"""The checker of recorded histories finds what no sequential bucket does, and nothing else."""

from __future__ import annotations

import random

import pytest

from gateway.limits.bucket import BucketSpec, take
from loadtests.bench_limits import HAMMERED, bars, judge
from loadtests.clocks import STEP, Clocks
from loadtests.history import Asked, check_history
from loadtests.limit_worker import Told

RATE, BURST = 400.0, 50.0


def history(count=2000, seed=1, lose=0):
    """What workers record of a right bucket, in any order; `lose` takes of it are not recorded."""
    rand = random.Random(seed)
    tokens, clock, made = BURST, 1e6, []
    for _ in range(count):
        gap = rand.choice([0, 200, 900, 4000])
        clock += gap
        taken = take(BucketSpec(RATE, BURST), tokens, gap)
        tokens = taken.tokens
        made.append(Asked(0.0, 0.0, taken.allowed, tokens, clock, False, True, 0))
    lost = set(rand.sample([i for i, one in enumerate(made) if one.allowed and i > 100], lose))
    made = [one for i, one in enumerate(made) if i not in lost]
    rand.shuffle(made)
    return made


@pytest.mark.parametrize("seed", range(5))
def test_a_right_history_passes(seed):
    checked = check_history(history(seed=seed), RATE, BURST)
    assert (checked.decisions, checked.unobserved, checked.violations) == (2000, 0, [])


def test_takes_whose_answers_were_lost_are_counted():
    checked = check_history(history(lose=7), RATE, BURST)
    assert checked.violations == []
    assert 1 <= checked.unobserved <= 7


def test_what_came_back_is_not_from_nowhere_but_no_more_than_that():
    made = sorted(history(), key=lambda one: (one.clock, -one.level))
    last = next(i for i, one in enumerate(made) if i > 1000 and one.allowed)
    spare = [*made[:last], changed(made[last], level=made[last].level + 2.0)]
    assert check_history(spare, RATE, BURST, refunded=2.0).violations == []
    assert check_history(spare, RATE, BURST, refunded=1.0).violations


def changed(one, **fields):
    return Asked(*[fields.get(name, getattr(one, name)) for name in Asked.__slots__])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: changed(one, level=one.level + 3.0), "from nowhere"),
        (
            lambda one: changed(one, allowed=True, level=one.level - 0.5 * (not one.allowed)),
            "admitted with|from nowhere",
        ),
    ],
)
def test_a_wrong_decision_is_found(change, says):
    import re

    made = sorted(history(), key=lambda one: (one.clock, -one.level, not one.allowed))
    at = next(i for i, one in enumerate(made) if i > 500 and not one.allowed)
    made[at] = change(made[at])
    assert any(re.search(says, each) for each in check_history(made, RATE, BURST).violations)


def test_a_wrong_refusal_is_found():
    made = [Asked(0, 0, True, BURST - 1, 1.0, False, True, 0), Asked(0, 0, False, BURST - 1, 2.0, False, True, 0)]
    assert "refused with" in check_history(made, RATE, BURST).violations[0]


def test_a_second_burst_is_found():
    made = history()
    again = [changed(one, clock=one.clock + 1e7) for one in history(seed=2)][:100]
    assert check_history(made + again, RATE, BURST).violations == []  # 10 s fill it
    again = [
        changed(one, clock=max(o.clock for o in made) + i)
        for i, one in enumerate(sorted(history(seed=3), key=lambda o: o.clock)[:50])
    ]
    assert check_history(made + again, RATE, BURST).violations


def test_the_benchmark_adds_up_key_by_key_and_finds_what_is_too_much():
    one = Told(asked=10, admitted=6, keys={"0": [6, 100.0, 101.0]}, calls=1, waits_ms={"p99": 1.0})
    two = Told(asked=10, admitted=5, keys={"0": [5, 100.5, 102.0], "1": [0, 1.0, 1.0]}, calls=1, waits_ms={"p99": 2.0})
    row = judge("exact, 1 keys, 4 workers", [one, two], rate=3.0, burst=5.0, store_s=0.0, clocks=Clocks())
    assert (row.asked, row.admitted, row.allowed, row.over) == (20, 11, 11 + 5, 0)
    row = judge("x", [one, two], rate=2.9, burst=5.0, store_s=0.0, clocks=Clocks())
    assert row.over == 1
    assert "was set" not in row.clocks
    ahead = Clocks()
    ahead.note(100_000_000)
    row = judge("x", [one, two], rate=2.9, burst=5.0, store_s=0.0, clocks=ahead)
    assert row.over == 0, "the store's clock was set ahead, and the bucket was given that"
    assert "was set ahead by 100.0 ms" in row.clocks
    assert set(HAMMERED) == {1, 100, 100_000}
    assert callable(bars)


def test_what_a_clock_is_set_by_is_added_up_and_noise_is_not():
    clocks = Clocks()
    for offset in (STEP // 2, -STEP // 2, 0):
        clocks.note(offset)
    assert (clocks.ahead, clocks.back) == (0.0, 0.0)
    clocks.note(30_000_000)
    clocks.note(-10_000_000)
    assert (clocks.ahead, clocks.back) == pytest.approx((0.03, 0.04))
    for moved in range(1, 11):
        clocks.note(-10_000_000 + moved * STEP // 4)  # slewed
    assert clocks.ahead == pytest.approx(0.03 + 2 * STEP / 1e9)


def test_two_clocks_of_one_machine_are_read_together():
    with Clocks() as clocks:
        pass
    assert clocks.ahead < 1
