"""Whether a stall outlives its cause: all backends stand still under clients that ask again and again (`make chaos`).

    python -m loadtests.chaos_recovery [--stall 30] [--rate 300] [--rows sluicegate,naive,paused] [--check]

Four backends of one slot x 20 ms (200 requests a second together), three quarters of that offered by clients who are
due in an open loop and try up to four times each, a second at the most and a tenth of a second apart. For 30 s no
backend answers anything. The retries of all those who are refused add up to four times the load: whether the backends
get to see it decides how long the trouble lasts (Bronson et al., "Metastable Failures in Distributed Systems", HotOS
2021).

* sluicegate: retries with a time per try, the breakers, the budget and everything else as it comes by default.
* naive: the same gateway without breaker and budget: what the bars are for, and the proof that they can be missed.
* paused: as the first, but the backends are stopped by SIGSTOP: the kernel goes on accepting for them, and when they
  go on they find it all waiting.

Counted second by second: what clients sent to the gateway, and what reached the backends (by their own counts; a paused
one cannot be asked, so there its whole time is one figure). Served is who had an answer in the end, of those who
were due in that second. Recovered is when, after the end of the stall, 98 % and more are served for good.

Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass, field

import uvloop

from loadtests.bars import Bar, report
from loadtests.load.model import Request
from loadtests.load.report import aligned
from loadtests.peers.processes import NotUp
from loadtests.peers.programs import find_program
from loadtests.persistent import Persistent, Served
from loadtests.slot_stand import Stand, standing

BACKENDS, SLOTS, SERVICE_US = 4, 1, 20_000
TRIES, TIMEOUT = 4, 1.0
BEFORE, AFTER = 5.0, 12.0  # seconds of good service
STEP = 0.25  # seconds between two looks at who is served
LAG = 0.2  # seconds by which the generator may be late before its figures are its own
GOOD, RECOVERED, ATTEMPTS = 0.98, 3.0, 1.2

RETRY = "timeout: 2s\nretry: {attempts: 3, on: [connect, reset, 502, 503], replayable: true, per_try: 250ms}\n"
NO_POLICY = "breaker: {failures: 1000, open_for: 10ms, open_max: 10ms}\nretry_budget: {ratio: 1, min: 10000/s}\n"
ROWS = {"sluicegate": ("", RETRY), "naive": (NO_POLICY, RETRY), "paused": ("", RETRY)}


@dataclass(slots=True)
class Second:
    """One second, or a paused stall: when it began, what clients sent, and what reached the backends."""

    at: float
    sent: int
    reached: int

    @property
    def ratio(self) -> float:
        return self.reached / max(self.sent, 1)


@dataclass(slots=True)
class Found:
    """A row. Times in seconds since its beginning."""

    stall: tuple[float, float]
    seconds: list[Second] = field(default_factory=list)
    clients: list[Served] = field(default_factory=list)
    wasted: int = 0  # served by a backend for nobody
    lag: float = 0.0  # of the generator, at the most

    def served(self, begin: float, end: float) -> float:
        """The share of those due in [begin, end) that had an answer."""
        due = [each for each in self.clients if begin <= each.due < end]
        return sum(each.good for each in due) / max(len(due), 1)

    @property
    def recovered(self) -> float:
        """Seconds after the stall from which on every second is a good one; as long as was looked if there is none."""
        end, last = self.stall[1], max(each.due for each in self.clients)
        found = last - end
        for number in range(int((last - 1.0 - end) / STEP), -1, -1):
            at = end + number * STEP
            if self.served(at, at + 1.0) < GOOD:
                break
            found = at - end
        return found

    @property
    def worst(self) -> Second:
        """The second with the most attempts to a request, from the beginning of the stall."""
        return max((each for each in self.seconds if each.at >= self.stall[0] - 1.0), key=lambda each: each.ratio)


async def play(stand: Stand, stall: float, rate: float, *, paused: bool) -> Found:
    """One row."""
    load = Persistent(
        stand.port, Request("POST", "/v1/models/x:predict", b"{}"), rate=rate, tries=TRIES, timeout=TIMEOUT
    )
    found = Found((BEFORE, BEFORE + stall))
    end = BEFORE + stall + AFTER
    offering = asyncio.create_task(load.run(end))
    counting = asyncio.create_task(_count(stand, load, found, end))
    await asyncio.sleep(BEFORE - load.now)
    if paused:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
        at, sent, reached = load.now, load.sent, await asyncio.to_thread(_reached, stand)
    for backend in stand.backends:
        backend.pause() if paused else await asyncio.to_thread(backend.set, stall=True)
    await asyncio.sleep(BEFORE + stall - load.now)
    for backend in stand.backends:
        backend.resume() if paused else await asyncio.to_thread(backend.set, stall=False)
    found.stall = (found.stall[0], load.now)
    if paused:
        await asyncio.sleep(1.0)
        found.seconds.append(Second(at, load.sent - sent, await asyncio.to_thread(_reached, stand) - reached))
        counting = asyncio.create_task(_count(stand, load, found, end))
    await asyncio.gather(offering, counting)
    found.clients, found.lag = load.clients, load.lag
    found.wasted = sum(each.stats().wasted for each in stand.backends)
    return found


def _reached(stand: Stand) -> int:
    return sum(each.stats().received for each in stand.backends)


async def _count(stand: Stand, load: Persistent, found: Found, end: float) -> None:
    """Second by second until `end`. Asking takes a moment, in the middle of which is what was sent."""
    at = load.now
    sent, reached = await _both(stand, load)
    while at + 1.0 < end:
        await asyncio.sleep(at + 1.0 - load.now)
        now_sent, now_reached = await _both(stand, load)
        found.seconds.append(Second(at, now_sent - sent, now_reached - reached))
        at, sent, reached = at + 1.0, now_sent, now_reached


async def _both(stand: Stand, load: Persistent) -> tuple[int, int]:
    before = load.sent
    reached = await asyncio.to_thread(_reached, stand)
    return (before + load.sent) // 2, reached


def text(rows: dict[str, Found]) -> str:
    """A line for each row, and the seconds around both ends of the stall of the first."""
    lines: list[tuple[str, ...]] = [("", "served before", "in the stall", "2nd second after", "recovered after s",
                                   "attempts to requests, worst second", "over all", "served for nobody")]  # fmt: skip
    for name, one in rows.items():
        begin, end = one.stall
        sent, reached = sum(each.sent for each in one.seconds), sum(each.reached for each in one.seconds)
        lines.append((
            name, f"{one.served(0.0, begin - 1.0):.1%}", f"{one.served(begin, end - 2.0):.1%}",
            f"{one.served(end + 1.0, end + 2.0):.1%}", f"{one.recovered:.2f}",
            f"{one.worst.ratio:.2f} ({one.worst.reached}/{one.worst.sent})", f"{reached / sent:.2f}", str(one.wasted),
        ))  # fmt: skip
    return "\n".join(aligned(lines))


def bars(rows: dict[str, Found]) -> list[Bar]:
    """Of all rows but the naive one."""
    made = []
    for name, one in rows.items():
        if name != "naive":
            worst = one.worst.ratio
            made.append(
                Bar(f"{name}: {GOOD:.0%} goodput after the end of the stall", RECOVERED, one.recovered, unit=" s")
            )
            made.append(Bar(f"{name}: attempts to requests in the worst second", ATTEMPTS, worst, unit="x"))
    return made


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.chaos_recovery", description=__doc__.partition("\n")[0])
    parser.add_argument("--stall", type=float, default=30.0, help="seconds (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=150.0, help="clients a second (default: %(default)s)")
    parser.add_argument("--rows", default=",".join(ROWS), help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of the gateway (default: %(default)s)")
    parser.add_argument("--seconds", action="store_true", help="print every second, too")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    names = options.rows.split(",")
    if not (1 <= options.stall <= 120 and 20 <= options.rate <= 1000) or set(names) - ROWS.keys():
        parser.error("--stall, --rate or --rows out of range")
    if not find_program("slotserver"):
        print("chaos_recovery: slotserver is needed: run `make bench-peers`", file=sys.stderr)
        return 1
    rows: dict[str, Found] = {}
    try:
        for name in names:
            pool, route = ROWS[name]
            with standing(
                BACKENDS, pool=pool, route=route, workers=options.workers, slots=SLOTS, service_us=SERVICE_US
            ) as stand:
                rows[name] = uvloop.run(play(stand, options.stall, options.rate, paused=name == "paused"))
    except (NotUp, OSError) as error:
        print(f"chaos_recovery: {error}", file=sys.stderr)
        return 1
    capacity = BACKENDS * SLOTS * 1e6 / SERVICE_US
    print(f"{options.rate:g} clients/s, {TRIES} tries each; capacity {capacity:g}/s; a stall of {options.stall:g} s")
    print(text(rows))
    for name, one in rows.items():
        if one.lag > LAG:
            print(f"warning: in the row {name} the generator was late by up to {one.lag * 1e3:.0f} ms")
    if options.seconds:
        for name, one in rows.items():
            print(f"{name}: stalled from {one.stall[0]:.1f} to {one.stall[1]:.1f} s")
            for each in one.seconds:
                served = f"{one.served(each.at, each.at + 1.0):.1%}"
                print(f"  {each.at:5.1f} s  sent {each.sent:5}  reached {each.reached:5}  {each.ratio:.2f}  {served}")
    return report(bars(rows), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
