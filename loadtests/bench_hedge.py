"""What a second attempt beside a late one does for the slowest answers, and what it costs (`make bench`).

    python -m loadtests.bench_hedge [--rounds 3] [--seconds 6] [--rate 800] [--check]

Four backends of 24 slots x 20 ms, one in twenty of their answers ten times slower; an open loop well below capacity.
Rows, in turn, each round in another order:

* not hedged;
* hedged after the 93rd percentile of the route's own recent latencies, a second backend being asked at most once;
* hedged after a fixed 50 ms.

Both with a budget of 4.9 % of the requests: that is what bounds the cost, whatever the percentile. It has to cover the
slow ones but for the last percent, and hedges that meet a slow answer again; how many are slow is left to chance, and
of too few requests it is too many now and then. The 95th would be a coin's toss where just
5 % are slow: of such a distribution it is both 20 and 200 ms.

Work is counted by the backends: what they started (got a slot) and what they finished for somebody, over the requests
that clients sent, beside the row that is not hedged. A backend does not stop what it has begun when its client leaves
(as a Run of TensorFlow does not), so what hedges cost is all in there: `for nobody` is what was finished for a client
that had left. Work is of the whole run, latency of what comes after two seconds; it counts from when a request was due.

Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import uvloop

from loadtests.bars import Bar, over, report
from loadtests.load import Client, Load, Request
from loadtests.load.report import aligned
from loadtests.peers.processes import NotUp
from loadtests.peers.programs import find_program
from loadtests.slot_stand import Stand, standing

BACKENDS, SLOTS, SERVICE_US = 4, 24, 20_000
SLOW_SHARE, SLOW_FACTOR = 0.05, 10.0
WARM_UP = 2.0  # seconds in which latencies are learnt
HALVED, MORE_WORK = 0.5, 1.05

PLAIN = "plain"
BUDGET = "retry_budget: {ratio: 0.049, min: 0/s}\n"
ROUTE = "timeout: 2s\nretry: {attempts: 1, replayable: true}\n"
ROWS = {
    PLAIN: ROUTE,
    "after p93": ROUTE + "hedge: {after: p93}\n",
    "after 50ms": ROUTE + "hedge: {after: 50ms}\n",
}


@dataclass(frozen=True, slots=True)
class Round:
    """Milliseconds; counts per request that was sent."""

    p50: float
    p99: float
    p999: float
    started: float
    finished: float
    wasted: float
    hedged: float
    failed: int


async def play(stand: Stand, rate: float, seconds: float, seed: int) -> Round:
    """One row of one round."""
    client = Client("c", rate=rate, requests=(Request("POST", "/v1/models/x:predict", b"{}"),), timeout=5.0, seed=seed)
    async with Load("127.0.0.1", stand.port, [client], patience=5.0) as load:
        await asyncio.sleep(WARM_UP)
        at = load.mark("measured")
        await asyncio.sleep(seconds)
        load.set_rate("c", 0.0)
        await asyncio.sleep(0.5)  # what was begun ends
        hedged = await asyncio.to_thread(stand.metric, 'gateway_hedges_total{http_route="all",result="sent"}')
    found = load.summary(since=at)
    requests = max(load.summary().offered, 1)
    started, finished, wasted = (each / requests for each in _counts(stand))
    failed = found.offered - found.statuses.get(200, 0)
    return Round(
        found.p50 * 1e3, found.p99 * 1e3, found.percentiles[99.9] * 1e3,
        started, finished, wasted, hedged / requests, failed,
    )  # fmt: skip


def _counts(stand: Stand) -> tuple[int, int, int]:
    stats = [each.stats() for each in stand.backends]
    return sum(s.started for s in stats), sum(s.finished for s in stats), sum(s.wasted for s in stats)


def text(found: Mapping[str, Sequence[Round]]) -> str:
    """Medians of the rounds."""
    rows: list[tuple[str, ...]] = [
        ("", "p50 ms", "p99 ms", "p99.9 ms", "hedged", "started", "finished", "for nobody", "failed")
    ]
    for name, each in found.items():

        def middle(field: str, each: Sequence[Round] = each) -> float:
            return statistics.median(float(getattr(one, field)) for one in each)

        rows.append((
            name, f"{middle('p50'):.1f}", f"{middle('p99'):.1f}", f"{middle('p999'):.1f}", f"{middle('hedged'):.2%}",
            f"{middle('started'):.4f}", f"{middle('finished'):.4f}", f"{middle('wasted'):.4f}",
            str(sum(one.failed for one in each)),
        ))  # fmt: skip
    return "\n".join(aligned(rows))


def bars(found: Mapping[str, Sequence[Round]]) -> list[Bar]:
    """Of the hedged rows, beside the plain one of the same round."""
    plain, made = found[PLAIN], []
    for name, each in found.items():
        if name == PLAIN:
            continue
        pairs = list(zip(each, plain, strict=True))
        made += [
            over(f"{name}: p99 to that without hedges", HALVED, [a.p99 / b.p99 for a, b in pairs], "x"),
            over(f"{name}: started, to that without", MORE_WORK, [a.started / b.started for a, b in pairs], "x"),
            over(f"{name}: finished, to that without", MORE_WORK, [a.finished / b.finished for a, b in pairs], "x"),
            over(f"{name}: failed requests", 0, [float(a.failed) for a, _ in pairs]),
        ]
    return made


def measure(rounds: int, seconds: float, rate: float) -> dict[str, list[Round]]:
    """The rounds of each row."""
    found: dict[str, list[Round]] = {name: [] for name in ROWS}
    names = list(ROWS)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with standing(
                BACKENDS, pool=BUDGET, route=ROWS[name], slots=SLOTS, service_us=SERVICE_US,
                slow_share=SLOW_SHARE, slow_factor=SLOW_FACTOR,
            ) as stand:  # fmt: skip
                found[name].append(uvloop.run(play(stand, rate, seconds, turn + 1)))
    return found


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_hedge", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=800.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    if not (1 <= options.rounds <= 50 and 1 <= options.seconds <= 60 and 50 <= options.rate <= 5000):
        parser.error("--rounds, --seconds or --rate out of range")
    if not find_program("slotserver"):
        print("bench_hedge: slotserver is needed: run `make bench-peers`", file=sys.stderr)
        return 1
    try:
        found = measure(options.rounds, options.seconds, options.rate)
    except (NotUp, OSError) as error:
        print(f"bench_hedge: {error}", file=sys.stderr)
        return 1
    print(
        f"open loop, {options.rate:g} requests/s, {SLOW_SHARE:.0%} of the answers {SLOW_FACTOR:g}x slower, one worker"
    )
    print(text(found))
    return report(bars(found), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
