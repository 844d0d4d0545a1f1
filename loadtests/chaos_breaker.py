"""Breaks one of four backends in every way there is, and holds the breaker and the clients to what is said of them.

    python -m loadtests.chaos_breaker [--check] [--only kill,hang] [--rate 300]

Each row of the table is a run of its own: four backends of 8 slots x 20 ms behind the real gateway (one worker),
replayable requests in an open loop, some seconds of good service, the trouble, and good service again. Judged are:

* the transitions of the bad backend's breaker, as its own history tells them, against a regular expression over the
  events of `gateway/breakers/states.py`; the other three must not have moved;
* how long after the trouble began it was first left alone (open, or half-open with a probe out);
* errors the clients saw in the whole trouble and after it: anything but a whole 200;
* their p99 from one second after the trouble began, to the p99 before it.

The same table on a clock of ours is `tests/breakers/test_scenarios.py`. Everything is on loopback and ends by itself.

Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.store.embedded import EmbeddedStore
from loadtests import machine
from loadtests.bars import Bar, over, report
from loadtests.breaker_stand import BACKENDS, BREAKER, SERVICE_US, Gateway, standing
from loadtests.load import Client, Load, Request
from loadtests.load.report import aligned
from loadtests.peers.processes import NotUp
from loadtests.peers.programs import find_program
from loadtests.peers.slots import Slots

BAD = 0  # the index of the backend that gets into trouble
BEFORE, AFTER = 4.0, 6.0  # seconds of good service
ERRORS = 0.0001
P99_TIMES = 2.0
NOTICED = 1.0  # seconds

Trouble = Callable[[Slots, float], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """`events` is a regular expression over the events, each followed by a blank; `noticed`: it must be left alone."""

    name: str
    what: str
    trouble: Trouble
    events: str
    seconds: float = 6.0
    noticed: bool = True
    more: str = ""
    breaker: str = BREAKER


@dataclass
class Found:
    """Of one case. Latencies in ms."""

    case: Case
    events: list[tuple[float, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    offered: int = 0
    errors: int = 0
    before: float = math.nan
    after: float = math.nan
    warnings: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        return "".join(f"{event} " for _, event in self.events)

    @property
    def as_specified(self) -> bool:
        return re.fullmatch(self.case.events, self.told) is not None and not self.others

    @property
    def noticed(self) -> float:
        """Seconds until the first transition."""
        return self.events[0][0] if self.events else math.inf


# -- the table --------------------------------------------------------------------------------------------------


async def kill(backend: Slots, seconds: float) -> None:
    await asyncio.to_thread(backend.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(backend.start)


async def hang(backend: Slots, seconds: float) -> None:
    backend.pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        backend.resume()


def setting(good: dict[str, float], bad: dict[str, float]) -> Trouble:
    async def change(backend: Slots, seconds: float) -> None:
        await asyncio.to_thread(backend.set, **bad)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(backend.set, **good)

    return change


async def flap(backend: Slots, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.to_thread(backend.set, error_share=1.0)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(backend.set, error_share=0.0)
        await asyncio.sleep(1.0)


CLOSES = "(waited probe-(failed|slow) )*waited probes-passed "
CASES = (
    Case("kill", "SIGKILL, started again", kill, "failures " + CLOSES),
    Case("blackhole", "SIGSTOP", hang, "(failures |slow-row |slow-rate |silent probe-(slow|failed) )" + CLOSES),
    Case(
        "slow x10",
        "200 ms instead of 20",
        setting({"service_us": 20_000}, {"service_us": 200_000}),
        "(slow-row |slow-rate |silent probe-slow )" + CLOSES,
    ),
    Case("50 % errors", "every other answer is a 500", setting({"error_share": 0.0}, {"error_share": 0.5}),
         f"(failures |error-rate )({CLOSES}(failures |error-rate ))*{CLOSES}"),
    Case("all errors", "500s alone", setting({"error_share": 0.0}, {"error_share": 1.0}), "failures " + CLOSES),
    Case("resets", "connections torn instead of answers", setting({"reset_share": 0.0}, {"reset_share": 1.0}),
         "failures " + CLOSES),
    Case("429 storm", "429 at once, Retry-After: 1",
         setting({"refuse_share": 0.0}, {"refuse_share": 1.0, "refuse_status": 429, "retry_after": 1}), "",
         noticed=False),
    Case("flapping", "a second bad, a second good, six times", flap,
         f"failures ({CLOSES}failures |waited probe-failed )*({CLOSES})", seconds=12.0),
    # Of so many random errors five in a row come by chance in every fourth run or so.
    Case("20 % errors", "under the breaker's rate, over the pool's: ejected",
         setting({"error_share": 0.0}, {"error_share": 0.2}), "", noticed=False, seconds=8.0,
         breaker=BREAKER.replace("0.3", "0.5").replace("calls: 50", "calls: 100").replace("s: 5,", "s: 12,"),
        more="ejection: {interval: 1s, min_calls: 20, base: 5s}"),
)  # fmt: skip


async def play(case: Case, rate: float) -> Found:
    """One row, from nothing to nothing."""
    found = Found(case)
    with standing(case.breaker, case.more) as (gateway, backends):
        client = Client("client", rate=rate, requests=(Request("POST", "/v1/models/x:predict", b"{}"),), timeout=5.0)
        async with Load("127.0.0.1", gateway.port, [client], labels=["x-backend"], patience=5.0) as load:
            await asyncio.sleep(1.0)  # connections are made
            load.mark("before")
            await asyncio.sleep(BEFORE)
            began = time.monotonic_ns()
            at = load.mark("trouble")
            await case.trouble(backends[BAD], case.seconds)
            await asyncio.sleep(AFTER)
            end = load.now
            found.events = await asyncio.to_thread(gateway.transitions, BAD, began)
            for index in range(len(backends)):
                if index != BAD:
                    found.others += [event for _, event in await asyncio.to_thread(gateway.transitions, index)]
        whole, later = load.summary(since=at), load.summary(since=at + 1.0, until=end)
        found.offered = whole.offered
        found.errors = whole.offered - whole.statuses.get(200, 0)
        found.before, found.after = load.summary(phase="before").p99 * 1e3, later.p99 * 1e3
        found.warnings = load.warnings()
        if case.more:
            metrics = gateway.metrics().items()
            if not sum(value for name, value in metrics if name.startswith("gateway_backend_ejections_total")):
                found.others.append("not ejected")
    return found


# -- what needs a run of its own --------------------------------------------------------------------------------


@contextmanager
def troubled(breaker: str = BREAKER) -> Iterator[tuple[Gateway, list[Slots]]]:
    """A gateway whose bad backend answers nothing but 500."""
    with standing(breaker) as (gateway, backends):
        backends[BAD].set(error_share=1.0)
        yield gateway, backends


async def cancelled_probes() -> str:
    """Clients who leave within 30 ms, while the bad backend takes 60 ms for a probe; then patient ones."""
    with troubled() as (gateway, backends):
        began = time.monotonic_ns()
        await _offer(gateway, 200, 0.6, timeout=2.0)
        backends[BAD].set(error_share=0.0, service_us=60_000)
        await asyncio.sleep(1.0)
        for backend in backends:
            backend.set(service_us=60_000)
        await _offer(gateway, 100, 2.0, timeout=0.03)
        hurried = [event for _, event in gateway.transitions(BAD, began)]
        probes = backends[BAD].stats().received
        await _offer(gateway, 100, 1.0, timeout=2.0)
        patient = [event for _, event in gateway.transitions(BAD, began)]
    if hurried != ["failures", "waited"] or patient != [*hurried, "probes-passed"]:
        return f"transitions {hurried}, then {patient}"
    return "" if probes > 10 else f"only {probes} requests reached the backend"


async def operator() -> str:
    """`gateway breaker open` lets nothing through, `close` never opens, `auto` is the breaker's own rule again."""
    with troubled() as (gateway, backends):
        name = f"models/{gateway.names[BAD]}"

        async def say(*arguments: str) -> int:
            done = await asyncio.to_thread(
                subprocess.run, gateway.command(*arguments), capture_output=True, check=False
            )
            return done.returncode

        if await say("close", name):
            return "close failed"
        await _offer(gateway, 100, 1.0, timeout=2.0)
        if gateway.breaker(BAD)["breaker"] != "closed" or backends[BAD].stats().received < 20:
            return "forced closed, it did not let everything through"
        await say("open", name)
        before = backends[BAD].stats().received
        await _offer(gateway, 100, 1.5, timeout=2.0)
        if backends[BAD].stats().received != before:
            return "forced open, it let something through"
        if await say("open", "models/nobody") != 1:
            return "an unknown backend is no error"
        backends[BAD].set(error_share=0.0)
        await say("auto", name)
        await _offer(gateway, 100, 0.5, timeout=2.0)
        state = gateway.breaker(BAD)["breaker"]
    return "" if state == "closed" else f"auto, and it is {state}"


async def hint() -> str:
    """What one gateway finds out, another one with the same store does not have to learn by failing.

    The other one has no traffic while the first finds out, so its doubt is over after a second: it must ask within it.
    """
    with TemporaryDirectory(prefix="hints-") as folder:
        workdir = Path(folder)
        store = EmbeddedStore()
        backends: list[Slots] = []
        try:
            await store.start()
            url = f"unix://{store.path}"
            for number in range(BACKENDS):
                backends.append(Slots(workdir, f"backend-{number}", slots=8, service_us=SERVICE_US))
            ports = [each.endpoint.port for each in backends]
            with Gateway(workdir, ports, store=url) as busy, Gateway(workdir, ports, store=url) as calm:
                await _offer(calm, 20, 0.5, timeout=2.0)
                backends[BAD].set(error_share=1.0)
                began = time.monotonic_ns()
                await _offer(busy, 200, 0.4, timeout=2.0)
                seen = backends[BAD].stats().errors
                await _offer(calm, 100, 0.5, timeout=2.0)
                learnt = backends[BAD].stats().errors - seen
                told = [event for _, event in busy.transitions(BAD, began)]
                heard = [event for _, event in calm.transitions(BAD, began)]
        finally:
            for each in backends:
                each.stop()
            await store.stop()
    if told[:1] != ["failures"] or heard[:2] != ["hint", "probe-failed"]:
        return f"told after {told}, heard {heard}"
    return "" if learnt <= 2 else f"{learnt} failures to learn it"


async def panic() -> str:
    """Three of four backends slow beyond the threshold: the last one is not left alone with everybody's load."""
    with standing() as (gateway, backends):
        for backend in backends[:3]:
            backend.set(service_us=150_000)
        await _offer(gateway, 100, 4.0, timeout=3.0)
        before = [backend.stats().received for backend in backends]
        summary = await _offer(gateway, 100, 2.0, timeout=3.0)
        got = [backend.stats().received - old for backend, old in zip(backends, before, strict=True)]
        in_panic = gateway.metrics()['gateway_pool_panic_workers{pool="models"}']
    if summary != 1.0 or in_panic != 1 or min(got) < 10:
        return f"{summary:.1%} answered, panic {in_panic:.0f}, requests {got}"
    return ""


RUNS = (
    ("cancelled probes", "prove nothing and hold no slot", cancelled_probes),
    ("operator", "open, close, auto through the command", operator),
    ("hint", "a second gateway learns of it by one probe", hint),
    ("panic", "3 of 4 slow: all are used again", panic),
)


async def _offer(gateway: Gateway, rate: float, seconds: float, timeout: float) -> float:
    """The share of requests answered 200."""
    client = Client("client", rate=rate, requests=(Request("POST", "/v1/models/x:predict", b"{}"),), timeout=timeout)
    async with Load("127.0.0.1", gateway.port, [client], patience=timeout) as load:
        await asyncio.sleep(seconds)
    whole = load.summary()
    return whole.statuses.get(200, 0) / max(whole.offered, 1)


# -- the report -------------------------------------------------------------------------------------------------


def text(found: list[Found]) -> str:
    rows = [("trouble", "noticed s", "requests", "errors", "p99 before", "p99 after 1 s", "ratio", "as specified")]
    for each in found:
        noticed = f"{each.noticed:.2f}" if each.events else "-"
        rows.append(
            (
                f"{each.case.name}: {each.case.what}", noticed, str(each.offered), str(each.errors),
                f"{each.before:.1f} ms", f"{each.after:.1f} ms", f"{each.after / each.before:.2f}",
                "yes" if each.as_specified else "NO",
            )
        )  # fmt: skip
    lines = list(aligned(rows))
    lines += [f"  {each.case.name}: {_with_times(each)}" for each in found]
    return "\n".join(lines)


def _with_times(found: Found) -> str:
    events = " ".join(f"{event}@{at:.2f}" for at, event in found.events) or "no transition"
    return events + (f"; and: {' '.join(found.others)}" if found.others else "")


def bars(found: list[Found], runs: dict[str, str]) -> list[Bar]:
    wrong = [each.case.name for each in found if not each.as_specified] + [name for name, bad in runs.items() if bad]
    claim = "rows of the table whose transitions are not as specified"
    judged = [Bar(claim + (f" ({', '.join(wrong)})" if wrong else ""), 0, float(len(wrong)))]
    if found:
        offered, errors = sum(each.offered for each in found), sum(each.errors for each in found)
        judged.append(Bar("errors of replayable requests, all rows", ERRORS * 100, errors / offered * 100, unit=" %"))
        worst = max(found, key=lambda each: each.after / each.before)
        ratio = worst.after / worst.before
        judged.append(
            Bar(f"p99 from 1 s after to before, the worst row ({worst.case.name})", P99_TIMES, ratio, unit="x")
        )
        judged.append(over("p99 from 1 s after to before", P99_TIMES, [x.after / x.before for x in found], "x"))
        late = [each.noticed for each in found if each.case.noticed]
        if late:
            judged.append(Bar("the bad backend is left alone within", NOTICED, max(late), unit=" s"))
    return judged


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.chaos_breaker", description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--only", help="rows by the beginning of their names, separated by commas")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    if not 50 <= options.rate <= 1000:
        parser.error("--rate out of range")
    if not find_program("slotserver"):
        print("chaos_breaker: slotserver is needed: run `make bench-peers`", file=sys.stderr)
        return 1
    wanted = tuple(options.only.split(",")) if options.only else ("",)
    found: list[Found] = []
    runs: dict[str, str] = {}
    try:
        for case in CASES:
            if case.name.startswith(wanted):
                found.append(asyncio.run(play(case, options.rate)))
        for name, _, run in RUNS:
            if name.startswith(wanted):
                runs[name] = asyncio.run(run())
    except (NotUp, OSError) as error:
        print(f"chaos_breaker: {error}", file=sys.stderr)
        return 1
    print(f"one of four backends in trouble, {options.rate:.0f} replayable requests/s, one worker")
    if found:
        print(text(found))
    for name, what, _ in RUNS:
        if name in runs:
            print(f"{name}: {what}: {runs[name] or 'yes'}")
    for warning in sorted({warning for each in found for warning in each.warnings}):
        print(f"warning: {warning}")
    if found:
        print(f"median p99 ratio {statistics.median(each.after / each.before for each in found):.2f}")
    machine.warn()
    return report(bars(found, runs), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
