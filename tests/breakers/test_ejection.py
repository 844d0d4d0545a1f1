"""Outliers against their pool, on numbers of ours."""

from __future__ import annotations

import random

import pytest

from gateway.breakers.ejection import Counts, Ejection, EjectionSettings

SECOND = 1_000_000_000
SETTINGS = EjectionSettings(interval=10.0, min_calls=50, base=30.0, longest=100.0)


class Bench:
    """A pool whose backends each have a share of errors and a mean latency in ms."""

    def __init__(self, settings=SETTINGS, **weights):
        self.now = 0
        self.ejection = Ejection(settings, 0)
        self.weights = weights
        self.totals = {name: Counts(0, 0, 0, 0) for name in weights}
        self.ejection.judge(self.totals, weights, 10 * SECOND)
        self.now = 10 * SECOND

    def interval(self, calls=200, **behaviour):
        self.now += 10 * SECOND
        for name, (errors, ms) in behaviour.items():
            if name in self.ejection.out:
                continue
            was, failed = self.totals[name], round(calls * errors)
            self.totals[name] = Counts(
                was.successes + calls - failed,
                was.failures + failed,
                was.ended + calls,
                was.took_ns + int(calls * ms * 1e6),
            )
        return [(who, why) for who, why, _ in self.ejection.judge(self.totals, self.weights, self.now)]


@pytest.mark.parametrize(
    ("behaviour", "ejected"),
    [
        ({"a": (0, 5), "b": (0, 5), "c": (0, 5), "d": (0.10, 5)}, [("d", "success-rate")]),
        ({"a": (0, 5), "b": (0, 5), "c": (0, 5), "d": (0.04, 5)}, []),  # five points, at least
        ({"a": (0.5, 5), "b": (0.5, 5), "c": (0.5, 5), "d": (0.52, 5)}, []),  # all are bad: nobody is odd
        ({"a": (0.02, 5), "b": (0.0, 5), "c": (0.01, 5), "d": (1.0, 1)}, [("d", "success-rate")]),
        ({"a": (0, 5), "b": (0, 6), "c": (0, 5), "d": (0, 50)}, [("d", "latency")]),
        ({"a": (0, 5), "b": (0, 6), "c": (0, 5), "d": (0, 20)}, []),
        ({"a": (0, 0.1), "b": (0, 0.1), "c": (0, 0.1), "d": (0, 1)}, []),  # 5 ms later, at least
        ({"a": (0, 5), "b": (0.5, 5), "c": (0, 5), "d": (0.9, 5)}, [("d", "success-rate")]),  # the worse; the share
    ],
)
def test_who_is_odd(behaviour, ejected):
    assert Bench(a=1, b=1, c=1, d=1).interval(**behaviour) == ejected


def test_five_backends_and_one_bad_one():
    """A plain deviation contains the outlier, and never finds it there (Envoy's factor is 1.9, the most is 1.79)."""
    good = dict.fromkeys("abcd", (0.0, 5))
    assert Bench(a=1, b=1, c=1, d=1, e=1).interval(**good, e=(1.0, 5)) == [("e", "success-rate")]


def test_luck_is_no_outlier():
    """Equal backends at 20 % errors with 50 calls each: sampling error alone is 6 points."""
    draw = random.Random(5)
    ejected = 0
    for _ in range(300):
        bench = Bench(a=1, b=1, c=1, d=1, e=1)
        rates = {name: (sum(draw.random() < 0.2 for _ in range(50)) / 50, 5) for name in "abcde"}
        ejected += len(bench.interval(calls=50, **rates))
    assert ejected <= 15


def test_too_few_calls_or_backends_say_nothing():
    bad = {"a": (0, 5), "b": (0, 5), "c": (1.0, 5)}
    assert Bench(a=1, b=1, c=1).interval(calls=49, **bad) == []
    assert Bench(a=1, b=1, c=1).interval(calls=50, **bad) == [("c", "success-rate")]
    assert Bench(a=1, c=1).interval(a=(0, 5), c=(1.0, 5)) == []


def test_one_always_may_be_ejected_but_not_half_the_pool():
    assert Bench(a=1, b=1, c=1).interval(a=(0, 5), b=(0, 5), c=(1.0, 5)) == [("c", "success-rate")]
    assert Bench(a=1, b=1, c=3).interval(a=(0, 5), b=(0, 5), c=(1.0, 5)) == []


def test_longer_each_time_and_forgiven_for_good_behaviour():
    bench = Bench(a=1, b=1, c=1, d=1)
    good = dict.fromkeys("abc", (0, 5))
    times = []
    for _ in range(40):
        if bench.interval(**good, d=(1.0, 5)):
            times.append(round((bench.ejection.out["d"] - bench.now) / SECOND))
    assert times[:4] == [30, 60, 90, 100]
    while "d" in bench.ejection.out:
        bench.interval(**good)
    for _ in range(10):
        bench.interval(**good, d=(0, 5))
    assert bench.interval(**good, d=(1.0, 5)) == [("d", "success-rate")]
    assert round((bench.ejection.out["d"] - bench.now) / SECOND) == 30


def test_back_when_its_time_is_up_also_between_intervals():
    bench = Bench(a=1, b=1, c=1, d=1)
    bench.interval(a=(0, 5), b=(0, 5), c=(0, 5), d=(1.0, 5))
    bench.ejection.judge(bench.totals, bench.weights, bench.now + 30 * SECOND - 1)
    assert "d" in bench.ejection.out
    bench.ejection.judge(bench.totals, bench.weights, bench.now + 30 * SECOND)
    assert not bench.ejection.out


def test_a_backend_that_is_gone_is_forgotten():
    bench = Bench(a=1, b=1, c=1, d=1)
    bench.interval(a=(0, 5), b=(0, 5), c=(0, 5), d=(1.0, 5))
    del bench.weights["d"]
    bench.ejection.judge(bench.totals, bench.weights, bench.now)
    assert not bench.ejection.out
