"""What a breaker costs a request: asking the gate, telling it the outcome, and the window behind it.

    python -m loadtests.bench_breakers [--check]

One call is `try_acquire` and `release` of the installed, compiled gate on a clock of ours, the least of several
repeats; every row is another state of affairs that requests meet. The figures stand beside what Python itself needs
for an empty call, so that one can tell the machine from the code. The bar is of the dearest row of them.

Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOPS = 20_000
REPEATS = 15
MOST_US = 2.0
CLAIM = "gate and window, the dearest case"


def least(once: Callable[[], object], each: int = 1) -> float:
    """Microseconds of one of the `each` calls that `once` makes; the least of the repeats."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(LOOPS // each):
            once()
        best = min(best, time.perf_counter() - began)
    return best / (LOOPS // each) / each * 1e6


def measure() -> dict[str, object]:
    """Rows of the table; run on the installed package."""
    from gateway.breakers import gate as module
    from gateway.breakers.gate import Gate
    from gateway.breakers.models import ModelGate, model_of, own_settings
    from gateway.breakers.permit import AnyGate, BreakerSettings
    from gateway.request import Outcome

    success, failure, dropped = Outcome.SUCCESS, Outcome.FAILURE, Outcome.DROPPED
    plain = BreakerSettings()
    rates = BreakerSettings(error_rate=0.5)
    timed = BreakerSettings(error_rate=0.5, slow_rate=0.5, slow_after=0.2)
    wide = BreakerSettings(failures=1000, error_rate=0.9, slow_rate=0.9, slow_after=0.2, window_calls=1000)
    clock = [1_000_000_000]

    def calls(gate: AnyGate, outcomes: list[Outcome]) -> Callable[[], None]:
        def once() -> None:
            now = clock[0]
            for outcome in outcomes:
                now += 1_000_000
                permit = gate.try_acquire(now)
                assert permit is not None
                gate.release(permit, outcome, now + 20_000, 20_000)
            clock[0] = now

        return once

    held = Gate(timed)
    for _ in range(200):
        held.try_acquire(clock[0])

    def sweep() -> None:
        held.sweep(clock[0])

    per_model = BreakerSettings(error_rate=0.5, per_model=True)
    own = Gate(own_settings(per_model))
    model = ModelGate(own, Gate(per_model))
    rows = {
        "an empty loop": least(lambda: None),
        "failures in a row alone": least(calls(Gate(plain), [success] * 20), 20),
        "with error rate (default)": least(calls(Gate(rates), [success] * 20), 20),
        "with error and slow rate": least(calls(Gate(timed), [success] * 20), 20),
        "the same, every tenth fails": least(calls(Gate(timed), [success] * 9 + [failure]), 10),
        "the same, every other fails": least(calls(Gate(wide), [success, failure] * 10), 20),
        "the same, every other is a 429": least(calls(Gate(timed), [success, dropped] * 10), 20),
        "a gate for each model over it": least(calls(model, [success] * 20), 20),
    }
    beside = {
        "model_of('/v1/models/digits/versions/3:predict')": least(
            lambda: model_of(b"/v1/models/digits/versions/3:predict")
        ),
        "one sweep, 200 calls out, none overdue": least(sweep),
    }
    return {"compiled": module.__file__.endswith(".so"), "rows": rows, "beside": beside}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_breakers", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit 1 if the bar is missed")
    options = parser.parse_args(argv)
    from loadtests.bars import Bar, report
    from loadtests.load.report import aligned

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__))],
        capture_output=True, text=True, check=False, timeout=120, env={**environment, "BENCH_BREAKERS": "1"}, cwd="/",
    )  # fmt: skip
    if done.returncode:
        print(f"bench_breakers: {done.stderr.strip()[-600:]}", file=sys.stderr)
        return 1
    found = json.loads(done.stdout)
    if not found["compiled"]:
        print("warning: this gateway is not compiled: run `make run` with a C compiler", file=sys.stderr)
    print("one request through the breaker: try_acquire and release, microseconds")
    print("\n".join(aligned([("", "us"), *((name, f"{us:.3f}") for name, us in found["rows"].items())])))
    print("beside it")
    print("\n".join(aligned([("", "us"), *((name, f"{us:.3f}") for name, us in found["beside"].items())])))
    return report([Bar(CLAIM, MOST_US, max(found["rows"].values()), unit=" us")], check=options.check)


if __name__ == "__main__":
    if os.environ.get("BENCH_BREAKERS"):
        print(json.dumps(measure()))
    else:
        sys.exit(main())
