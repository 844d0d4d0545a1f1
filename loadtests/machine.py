"""Whether this machine is fit to judge milliseconds on: how much of the time it runs far below its own speed.

    python -m loadtests.machine [--seconds 5]

A guest of a busy host can have no CPU stolen and yet run at a tenth of its speed for 80 ms every other second, since
others take the memory's bandwidth or the host looks through its pages: every p99 over a whole second is then the
host's. So one core reads bytes at random places of 64 MiB, over and over; where such reads took more than SLOW times
the usual for WINDOW, the machine was slow.

Contract: a probe takes one core for its seconds and touches nothing; it is None without numpy, which comes with
TensorFlow. Measure it while nothing of one's own runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

PLACES = 64 << 20  # bytes: more than a cache has
READS = 2000  # of a turn, about 0.05 ms
WINDOW = 0.01  # seconds
SLOW = 2.5  # times the usual
UNFIT = 0.01  # of the time: beyond, p99 is in it


@dataclass(frozen=True, slots=True)
class Probe:
    """The share of the time in which the machine was slow, and the longest such time in milliseconds."""

    slow: float
    longest_ms: float
    seconds: float

    @property
    def fit(self) -> bool:
        """False if what is slow of the time reaches the slowest hundredth of anything."""
        return self.slow <= UNFIT

    def __str__(self) -> str:
        return (
            f"with nothing of ours running the machine was at less than 1/{SLOW:g} of its speed for {self.slow:.1%} of "
            f"{self.seconds:g} s, {self.longest_ms:.0f} ms at the longest"
        )


def probe(seconds: float = 3.0) -> Probe | None:
    """Takes that long."""
    try:
        import numpy
    except ImportError:
        return None
    draw = numpy.random.default_rng(1)
    places = numpy.ones(PLACES, numpy.uint8)
    turns: list[tuple[float, float]] = []  # when it began, and what it took
    now = began = time.perf_counter()
    while now - began < seconds:
        places.take(draw.integers(0, PLACES, READS))
        before, now = now, time.perf_counter()
        turns.append((before - began, now - before))
    return judge(turns, seconds)


def judge(turns: list[tuple[float, float]], seconds: float) -> Probe:
    """What turns of equal work say that began at and took so many seconds."""
    usual = sorted(took for _, took in turns)[len(turns) // 2]
    windows: dict[int, list[float]] = {}
    for at, took in turns:
        windows.setdefault(int(at / WINDOW), []).append(took)
    slow = longest = running = 0.0
    previous = -1
    for number, each in windows.items():
        if sum(each) <= SLOW * usual * len(each):
            continue
        lasted = max(WINDOW, sum(each))  # a turn that stood still is longer than its window
        slow += lasted
        running = running + lasted if number == previous + 1 else lasted
        longest, previous = max(longest, running), int(number + lasted / WINDOW) - 1
    return Probe(min(1.0, slow / seconds), longest * 1e3, seconds)


def warn() -> None:
    """Says so, below a benchmark's figures, if the machine is not fit."""
    found = probe()
    if found and not found.fit:
        print(f"warning: {found}: a p99 over whole seconds is the machine's")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 if the machine is not fit."""
    parser = argparse.ArgumentParser("python -m loadtests.machine", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="(default: %(default)s)")
    options = parser.parse_args(argv)
    if not 0.1 <= options.seconds <= 600:
        parser.error("--seconds is 0.1 to 600")
    found = probe(options.seconds)
    if found is None:
        print("machine: numpy is needed: pip install numpy", file=sys.stderr)
        return 1
    print(f"{found}: {'fit' if found.fit else 'not fit'} to judge a p99 on")
    return 0 if found.fit else 1


if __name__ == "__main__":
    sys.exit(main())
