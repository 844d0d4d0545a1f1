"""go_infer's batcher by itself: overload, batching against none, a target for the time of a Run, and the price.

    python -m loadtests.bench_batching [--seconds 5] [--rounds 3] [--only overload,leavers,...] [--check]

* overload: a model whose Runs take milliseconds (`heavy_model`), so that what is overloaded is the model and neither
  HTTP nor the load; what it can do (closed loop, 1.0 and 1.2 times that, open) and three times that, in turns of a
  second, by a generator that costs a few microseconds a request (`openload`). Goodput is held to the best of the other
  loads turn by turn: the machine drifts by more than the bar between one second and the next, and the best of several
  noisy figures is above what any of them can do. Refusals, all turns of a round together, from when they were sent
* leavers: the same with clients that have a tenth of a second, say so or just leave, and a queue that could hold them
  all: which Runs were for nobody, from the server's own counters
* batched: one digit a request, closed loop of `wrk`, with and without batching
* target: the same with `--batch_latency_target`: smaller batches, shorter Runs
* price: CPU of a request over the link beyond what bare TF_SessionRuns of the same sizes cost

Exit code 0; 1 if it cannot run, or with --check if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop

from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.link.pool import LinkPool
from loadtests import bench_link, machine, openload
from loadtests.bars import Bar, over, report
from loadtests.load import Client, Load, Request
from loadtests.openload import Offered
from loadtests.peers.processes import NotUp
from loadtests.serving.bare import bare_runs
from loadtests.serving.load import Load as Closed
from loadtests.serving.load import ask
from loadtests.serving.load import closed as closed_loop
from loadtests.serving.servers import ROOT, Running, Server, go_infer, running
from loadtests.serving.wire import Json
from loadtests.wrk import Failed

PATIENCE, SHORT = 1.0, 0.1  # seconds
BODIES = 256  # different requests in turn
CHECKED = 50  # digits whose labels are compared
WARM = 0.3  # seconds of a load that are not counted
FLOODING, CLOSED = 256, 48  # connections
HEAVY, BODY = "/v1/models/heavy:predict", b'{"instances":[[1,2,3,4,5,6,7,8]]}'
FACTORS = (1.0, 1.2, 3.0)  # the last is the overload
JSON = Json()
PARTS = ("overload", "leavers", "batched", "target", "price")
TARGETS = ("0", "1ms", "500us", "300us")

# The bars.
LACKING, REFUSED_MS, SPEEDUP, PRICE_US = 2.0, 5.0, 3.0, 12.0


class Stand:
    """The binary, the model, its held-out digits and a directory for what a round needs."""

    def __init__(self, binary: Path, models: Path, work: Path) -> None:
        self.binary = binary
        self.work = work
        self.models = models
        self.heldout = json.loads((models / "digits/heldout.json").read_text())
        self.bodies = [JSON.encode([row]) for row in self.heldout["instances"][:BODIES]]

    @contextmanager
    def heavy(self, *flags: str) -> Iterator[int]:
        """A server of the model whose Runs are long; its port."""
        model = self.work / "heavy"
        if not model.exists():
            making = [sys.executable, "-m", "loadtests.heavy_model", str(model)]
            done = subprocess.run(making, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"the heavy model cannot be made:\n{done.stderr[-500:]}")
        named = ("--model_name=heavy", f"--model_base_path={model}", "--max_batch=16", "--port=-1")
        command = (str(self.binary), "--rest_api_port={port}", *named, *flags)
        with running(Server("go_infer", command, (JSON,)), self.work) as server:
            yield server.http_port

    @contextmanager
    def server(self, *flags: str) -> Iterator[Running]:
        """A server with these flags that answers rightly."""
        with running(go_infer(self.binary, self.models, *flags), self.work) as server:
            labels = ask(server, JSON, self.heldout["instances"][:CHECKED])
            right = sum(a == b for a, b in zip(labels, self.heldout["labels"][:CHECKED], strict=True))
            if right < 0.97 * CHECKED:
                raise Failed(f"go_infer answers wrongly: {right} of {CHECKED} labels are right")
            yield server


def metrics(port: int) -> dict[str, float]:
    """Sums over models and versions, by name and the label that tells samples apart."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(go_infer_\w+)(?:\{(.*)\})? (\S+)$", page, re.MULTILINE):
        rest = re.sub(r'(model|version)="[^"]*",?', "", labels).rstrip(",")
        key = f"{name}{{{rest}}}" if rest else name
        found[key] = found.get(key, 0) + float(value)
    return found


def since(before: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    return {key: value - before.get(key, 0) for key, value in now.items()}


def settled(port: int) -> dict[str, float]:
    """The counters when nothing is under way any more: a Run of who left ends after they did."""
    before: dict[str, float] = {}
    for _ in range(200):
        now = metrics(port)
        quiet = now["go_infer_batch_received_total"] == ended(now)[1] and now["go_infer_queue_rows"] == 0
        if quiet and all(before.get(key) == now[key] for key in now if key.startswith("go_infer_batch")):
            return now
        before = now
        time.sleep(0.1)
    raise SystemExit("requests are still under way after 20 s")


def ended(seen: dict[str, float]) -> tuple[dict[str, float], float]:
    """How requests ended, and how many did."""
    outcomes = ("answered", "failed", "refused", "expired", "cancelled")
    counts = {each: seen[f'go_infer_batch_ended_total{{outcome="{each}"}}'] for each in outcomes}
    return counts, sum(counts.values())


# -- open loop ----------------------------------------------------------------------------------------------------


async def _offer(port: int, client: Client, seconds: float) -> Load:
    async with Load("127.0.0.1", port, [client], labels=(), patience=1.0) as loading:
        await asyncio.sleep(seconds)
    return loading


def offer(port: int, seconds: float, *, rate: float | None, patience: float, says: bool = True) -> Load:
    """Requests of one row, at `rate` a second or, without one, from 16 connections in a closed loop."""
    headers = {"content-type": "application/json"}
    if says:
        headers["x-request-timeout"] = f"{patience * 1e3:g}ms"
    client = Client(
        "all", rate=rate, connections=None if rate else 48, requests=[Request("POST", HEAVY, BODY, headers)],
        timeout=patience, max_in_flight=4096,
    )  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_offer(port, client, seconds))


def capacity(port: int, seconds: float) -> float:
    """Answers a second in a closed loop."""
    closed = offer(port, seconds, rate=None, patience=PATIENCE)
    return sum(each.status == 200 for each in closed.samples("all")) / closed.seconds


def flood(stand: Stand, port: int, seconds: float, rate: float | None) -> Offered:
    """Requests of one row that have a second, at `rate` or, without one, from connections that keep batches full."""
    body = stand.work / "row.json"
    body.write_bytes(BODY)
    headers = {"content-type": "application/json", "x-request-timeout": f"{PATIENCE * 1e3:g}ms"}
    return openload.offer(
        port, HEAVY, body, headers, rate=rate, seconds=WARM + seconds, warm=WARM,
        connections=FLOODING if rate else CLOSED, also=(503, 504),
    )  # fmt: skip


def part_overload(stand: Stand, options: argparse.Namespace) -> list[Bar]:
    lacking, refusals, worst = [], [], 0.0
    heads = ("goodput/s", "p50 ms", "p99 ms", "refused/s", "p50 ms", "p99 ms", "failed", "generator")
    print(f"{'offered':>12}" + "".join(f"{head:>11}" for head in heads))
    for _ in range(options.rounds):
        turns: dict[float | None, list[Offered]] = {factor: [] for factor in (None, *FACTORS)}
        with stand.heavy("--max_queue=64") as port:
            able = flood(stand, port, 2.0, None).rate
            for _ in range(max(3, round(options.seconds))):
                for factor, seen in turns.items():
                    seen.append(flood(stand, port, 1.0, factor and factor * able))
        best = max((factor for factor in turns if factor != FACTORS[-1]), key=lambda each: mean(turns[each]))
        pairs = zip(turns[FACTORS[-1]], turns[best], strict=True)
        lacking.append(100 * (1 - statistics.median(most.rate / peak.rate for most, peak in pairs)))
        for factor, seen in turns.items():
            turned = sorted(each for one in seen for each in one.refused[503])
            broken = sum(one.broken + len(one.refused[504]) for one in seen)
            worst = max(worst, broken / (sum(one.good for one in seen) + len(turned) + broken))
            seconds = sum(one.seconds for one in seen)
            name = f"{factor:.1f}x {factor * able:.0f}/s" if factor else "closed"
            print(
                f"{name:>12}{mean(seen):>11.0f}{statistics.median(one.p50 for one in seen):>11.1f}"
                f"{statistics.median(one.p99 for one in seen):>11.1f}{len(turned) / seconds:>11.0f}"
                f"{at(turned, 50):>11.2f}{at(turned, 99):>11.2f}{broken:>11}"
                f"{statistics.mean(one.core for one in seen):>11.0%}",
                flush=True,
            )
        refusals.append(at(turned, 99))
    return [
        over("3x overload: goodput lacking to the peak", LACKING, lacking, " %"),
        over("3x overload: p99 of refusals", REFUSED_MS, refusals, " ms"),
        Bar("overload: neither answered nor refused", 0.1, 100 * worst, unit=" %"),
    ]


def mean(turns: Sequence[Offered]) -> float:
    """Goodput a second of all turns together."""
    return sum(each.good for each in turns) / sum(each.seconds for each in turns)


def at(ordered: Sequence[float], q: float) -> float:
    """Nearest-rank percentile of ascending values; NaN of none."""
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)] if ordered else math.nan


def part_leavers(stand: Stand, options: argparse.Namespace) -> list[Bar]:
    bars = []
    with stand.heavy("--max_queue=1000000") as port:
        able = capacity(port, options.seconds)
        for says, name in ((True, "say so"), (False, "just leave")):
            before = settled(port)
            offer(port, options.seconds, rate=3 * able, patience=SHORT, says=says)
            seen = since(before, settled(port))
            counts, total = ended(seen)
            ran, wasted = seen["go_infer_batch_rows_sum"], seen["go_infer_batch_wasted_rows_total"]
            told = ", ".join(f"{count:.0f} {outcome}" for outcome, count in counts.items())
            print(f"clients with {SHORT * 1e3:g} ms that {name}: {told}")
            print(f"  {ran:.0f} rows run, {wasted:.0f} of them for who left during the Run", flush=True)
            vain = abs(ran - wasted - counts["answered"] - counts["failed"])
            lost = abs(seen["go_infer_batch_received_total"] - total)
            bars += [
                Bar(f"3x, clients that {name}: rows run for who had left before", 0, vain),
                Bar(f"3x, clients that {name}: requests without an outcome", 0, lost),
            ]
    return bars


# -- closed loop of wrk -------------------------------------------------------------------------------------------


def closed(stand: Stand, options: argparse.Namespace, *flags: str) -> tuple[Closed, dict[str, float]]:
    with stand.server(*flags) as server:
        closed_loop(server, JSON, stand.bodies, 1, options.clients, 1.0, stand.work)
        before = metrics(server.http_port)
        outcome = closed_loop(server, JSON, stand.bodies, 1, options.clients, options.seconds, stand.work)
        return outcome, since(before, metrics(server.http_port))


def part_batched(stand: Stand, options: argparse.Namespace) -> list[Bar]:
    ratios = []
    for _ in range(options.rounds):
        rates = []
        for flags in ((), ("--enable_batching=false",)):
            outcome, _ = closed(stand, options, *flags)
            rates.append(outcome.rate)
            name = "without batching" if flags else "batched"
            timing = f"p50 {outcome.p50:.2f}  p99 {outcome.p99:.2f} ms"
            print(f"{name:<18}{rates[-1]:>9,.0f}/s  {timing}", flush=True)
        ratios.append(rates[1] / rates[0])
    return [over("unbatched over batched requests/s", 1 / SPEEDUP, ratios)]


def part_target(stand: Stand, options: argparse.Namespace) -> list[Bar]:
    print(f"{'target':>8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'rows a Run':>12}{'Runs over it':>14}")
    for target in TARGETS:
        outcome, seen = closed(stand, options, f"--batch_latency_target={target}")
        runs = seen["go_infer_run_duration_seconds_count"]
        bound = {"1ms": "0.001", "500us": "0.0005", "300us": "0.00025"}.get(target)
        within = seen.get(f'go_infer_run_duration_seconds_bucket{{le="{bound}"}}', 0)
        late = f"{1 - within / runs:.1%}" if bound else ""
        name = "none" if target == "0" else target
        print(
            f"{name:>8}{outcome.rate:>12,.0f}{outcome.p50:>9.2f}{outcome.p99:>9.2f}"
            f"{seen['go_infer_batch_rows_sum'] / runs:>12.1f}{late:>14}",
            flush=True,
        )
    return []


# -- the price ----------------------------------------------------------------------------------------------------


def part_price(stand: Stand, options: argparse.Namespace) -> list[Bar]:
    beyond = []
    body = json.dumps({"instances": [[0.0] * 64]}).encode()
    for _ in range(options.rounds):
        runs = bare_runs(stand.models, ROOT / "build/bin")
        with stand.server() as server:
            before = metrics(server.http_port)
            cpu, asked = uvloop.run(_over_link(server, body, options))
            seen = since(before, metrics(server.http_port))
        alone, below = 0.0, 0.0
        for rows, cost in runs.items():  # sizes are what batches are padded to, and the histogram's bounds
            upto = seen[f'go_infer_batch_rows_bucket{{le="{rows}"}}']
            alone += (upto - below) * cost
            below = upto
        requests = seen['go_infer_batch_ended_total{outcome="answered"}']
        beyond.append(cpu / asked - alone / requests)
        print(
            f"{asked:.0f} requests over the link, {requests / seen['go_infer_run_duration_seconds_count']:.1f} a Run: "
            f"{cpu / asked:.1f} us CPU each, bare Runs {alone / requests:.1f}, beyond {beyond[-1]:.1f} us",
            flush=True,
        )
    return [over("CPU of a request over the link beyond bare TF_SessionRun", PRICE_US, beyond, " us")]


async def _over_link(server: Running, body: bytes, options: argparse.Namespace) -> tuple[float, int]:
    """Microseconds of the server's CPU, for how many requests."""
    pool = LinkPool(Address("127.0.0.1", server.http_port), ClientLimits(max_connections=1024), required=True)
    bench = bench_link.Bench(pool, body, 200)
    await bench.run(options.clients, 0.3)
    bench.done = 0
    began = server.cpu_seconds()
    await bench.run(options.clients, options.seconds)
    used = server.cpu_seconds() - began
    pool.close()
    if bench.wrong:
        raise SystemExit(f"{bench.wrong} answers over the link were not 200")
    return used * 1e6, bench.done


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_batching", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each part (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=64, help="of closed loops (default: %(default)s)")
    parser.add_argument("--only", default=",".join(PARTS), help="(default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    parser.add_argument("--binary", type=Path, default=ROOT / "build/bin/go_infer")
    parser.add_argument("--models", type=Path, default=ROOT / "build/models")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",")
    if not 1 <= options.seconds <= 60 or not 1 <= options.rounds <= 20 or not set(wanted) <= set(PARTS):
        parser.error("--seconds, --rounds or --only out of range")
    if not options.binary.exists() or not (options.models / "digits/heldout.json").exists():
        print("bench_batching: build first: python -m demo.prepare", file=sys.stderr)
        return 1
    parts = dict(zip(PARTS, (part_overload, part_leavers, part_batched, part_target, part_price), strict=True))
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="batching-") as work:
        stand = Stand(options.binary.resolve(), options.models.resolve(), Path(work))
        try:
            for name in PARTS:
                if name in wanted:
                    print(f"\n{name}", flush=True)
                    bars += parts[name](stand, options)
        except (NotUp, Failed, RuntimeError) as error:
            print(f"bench_batching: {error}", file=sys.stderr)
            return 1
    print()
    machine.warn()
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
