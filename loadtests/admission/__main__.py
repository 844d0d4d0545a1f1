"""Overload in virtual time: our limit beside AIMD, Vegas, gradient2, a BBR-like one and Envoy's, on many backends.

python -m loadtests.admission [--seconds 15] [--factor 3]

Every line is the same load (open loop, Poisson, clients give up after 500 ms) at a multiple of what the backend can do,
held from 4 s on: goodput as a share of the capacity, and p99 of what was served over the usual service time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

from gateway.admission.admission import Admission
from loadtests.admission.rivals import RIVALS
from loadtests.admission.sim import MS, Backend, Batches, Shared, Slots, Stream, World, learning
from loadtests.load.report import aligned

SETTLED = 4.0


class Kind(NamedTuple):
    """A backend, what it can do a second, and its service time in ms."""

    name: str
    make: Callable[[World], Backend]
    capacity: float
    service: float


KINDS = (
    Kind("1 slot x 20 ms", lambda w: Slots(w, 1), 50, 20),
    Kind("4 slots x 20 ms", Slots, 200, 20),
    Kind("64 slots x 20 ms", lambda w: Slots(w, 64), 3200, 20),
    Kind("4 slots, exponential", lambda w: Slots(w, 4, kind="exp"), 200, 20),
    Kind("16 slots, exponential", lambda w: Slots(w, 16, kind="exp"), 800, 20),
    Kind("16 slots, 5 % take 10x", lambda w: Slots(w, 16, kind="bimodal"), 16 / 0.029, 29),
    Kind("4 cores, shared", Shared, 200, 20),
    Kind("4 slots, refuses over 12", lambda w: Slots(w, 4, most=12), 200, 20),
    Kind("batches of 32: 5 + 0.1 ms each", lambda w: Batches(w, 5 * MS, 0.1 * MS), 32 / 0.0082, 8.2),
    Kind("batches of 8: 20 + 5 ms each", lambda w: Batches(w, 20 * MS, 5 * MS, 8), 8 / 0.06, 60),
)


def cell(kind: Kind, workers: list[Admission], factor: float, seconds: float) -> str:
    world = World(kind.make, workers, [Stream("all", kind.capacity * factor)])
    world.run(seconds)
    seen = world.seen(SETTLED, seconds)
    return f"{seen.goodput / kind.capacity:4.0%} {seen.p(99) / kind.service:5.1f}x"


def main() -> int:
    parser = argparse.ArgumentParser("python -m loadtests.admission", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="virtual (default: %(default)s)")
    parser.add_argument("--factor", type=float, default=3.0, help="of capacity (default: %(default)s)")
    options = parser.parse_args()
    rows = [("backend", "ours", "ours, 2 workers", *(rival.name for rival in RIVALS))]
    for kind in KINDS:
        rows.append(
            (
                kind.name,
                cell(kind, learning(), options.factor, options.seconds),
                cell(kind, learning(2), options.factor, options.seconds),
                *(cell(kind, [rival.worker()], options.factor, options.seconds) for rival in RIVALS),
            )
        )
    print(f"offered {options.factor:g} x capacity: goodput of capacity, p99 of served over the service time")
    print("\n".join(aligned(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
