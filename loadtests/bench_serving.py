"""go_infer beside Flask + gunicorn, FastAPI + uvicorn and Python gRPC: one model, one machine, one run.

    python -m loadtests.bench_serving [--seconds 5] [--curve-seconds 4] [--rounds 3] [--servers go_infer,Flask]
                                       [--quick] [--check]

The digits CNN (`build/models/digits/2`) behind each server in turn, the only one running, in rounds: each round has all
servers, every other one in the opposite order, and bars are medians of the rounds' ratios. Every server gets the same
held-out digits: as JSON and as binary, one in a request and 32. The load generators run on the same cores, equally for
each. Labels are checked before and after each server's measurements; a run with any other answer than a 200 is void.

* saturation, closed loop: requests/s, p50 and p99 at CLIENTS (64) clients with one row, 16 with 32 rows; CPU of one
  inference (the server's processes, per row), and of the load generator beside it, which is not the limit while both
  together keep all cores busy; resident memory after it (PSS: shared pages count once)
  and cores that something else was busy on: such a run is taken again, up to three times, and the quietest counts
* latency curve in the first round, open loop: p50 and p99 at shares of each server's own saturation, counted from when
  a request was due, the medians of windows that are short enough for a machine's stalls to miss most of them; at last
  go_infer's at the highest place of each other's curve, which is what a client sees who changes the server and nothing
  else

Writes `build/bench/serving.json` and `serving.svg`.
Exit code 0; 1 if something cannot run or, with --check, a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loadtests import machine
from loadtests.bars import Bar, at_least, over, report
from loadtests.peers.processes import NotUp, machine_seconds
from loadtests.peers.programs import find_program
from loadtests.serving.load import Load, ask, closed, paced
from loadtests.serving.servers import ROOT, Running, Server, running, servers
from loadtests.serving.wire import Encoding
from loadtests.wrk import Failed

HELDOUT = "digits/heldout.json"
BODIES = 256  # different requests in turn
CHECKED = 50  # digits whose labels are compared, before and after
WRONG = 2  # of 32 labels may differ from the truth: the model is right in 97 %
CLIENTS = {1: 64, 32: 16}  # rows in a request: clients
SHARES = (0.1, 0.3, 0.5, 0.7, 0.85)  # of saturation
QUIET, TRIES = 0.15, 3  # cores busy with something else before a run is taken again, and how often at most
MIN_WINDOW, MIN_GRPC_WINDOW = 0.5, 1.0  # seconds; h2load counts whole ones
WINDOW_REQUESTS = 200  # in a window at least
WARM_SECONDS = 1.0  # nobody's first second counts

OURS, UNBATCHED = "go_infer", "go_infer, unbatched"
FLASK = ("Flask + gunicorn", "Flask + gunicorn, threads")


@dataclass(frozen=True)
class Saturated:
    """One server, encoding and size at saturation. Milliseconds, megabytes, microseconds."""

    server: str
    encoding: str
    rows: int
    clients: int
    rate: float
    p50: float
    p99: float
    memory: float
    cpu: float  # of one inference, that is, of one row
    others: float = 0.0  # cores that something else was busy on
    load_cpu: float = 0.0  # of the load generator, for one row
    round: int = 0


@dataclass(frozen=True)
class Point:
    """One place on a latency curve."""

    server: str
    encoding: str
    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Beside:
    """go_infer at the very rate of the last place of another's curve."""

    theirs: Point
    ours: Point

    def __str__(self) -> str:
        of, ours, theirs = f"{self.ours.rate:,.0f}/s of {self.ours.encoding}", self.ours, self.theirs
        return (
            f"at {of}, the last place of {theirs.server}: p50 {ours.p50:.2f} ms to {theirs.p50:.2f}, "
            f"p99 {ours.p99:.2f} ms to {theirs.p99:.2f} (1/{theirs.p99 / ours.p99:.0f})"
        )


@dataclass
class Results:
    """Everything that was measured, and what could not be."""

    saturated: list[Saturated] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)
    same: list[Beside] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Taken:
    """One run, the CPU seconds of the server and of the load, and the cores that something else was busy on."""

    load: Load
    cpu: float
    others: float
    load_cpu: float


def windows(rate: float, seconds: float, least: float) -> int:
    """Into how many windows a run is divided: of `least` seconds or more, and of enough requests for a p99."""
    return max(1, int(seconds / max(least, WINDOW_REQUESTS / rate)))


def quietest(up: Running, run: Callable[[], Load]) -> Taken:
    """The run during which the machine did least besides; it is repeated while that is more than QUIET."""
    taken: list[Taken] = []
    while len(taken) < TRIES and not (taken and taken[-1].others <= QUIET):
        before, machine, ours, began = up.cpu_seconds(), sum(machine_seconds()), _own_seconds(), time.monotonic()
        load = run()
        cpu, seconds = up.cpu_seconds() - before, time.monotonic() - began
        generating = _own_seconds() - ours
        others = sum(machine_seconds()) - machine - cpu - generating
        taken.append(Taken(load, cpu, max(0.0, others) / seconds, generating))
    return min(taken, key=lambda one: one.others)


def _own_seconds() -> float:
    """CPU of this process and of the load generators it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Bench:
    """The digits, and the options of the run."""

    def __init__(self, heldout: dict[str, Any], options: argparse.Namespace, work: Path) -> None:
        self.rows: list[list[int]] = heldout["instances"]
        self.truth: list[int] = heldout["labels"]
        self.options = options
        self.work = work
        self.round = 0

    def bodies(self, encoding: Encoding, rows: int) -> list[bytes]:
        """Different requests, each of so many rows."""
        turn = [self.rows[(i + j) % len(self.rows)] for i in range(BODIES) for j in range(rows)]
        return [encoding.encode(turn[i : i + rows]) for i in range(0, len(turn), rows)]

    def right(self, server: Running, encoding: Encoding, start: int) -> None:
        """``Failed`` if too many labels are wrong, alone or in one request."""
        rows, truth = self.rows[start : start + CHECKED], self.truth[start : start + CHECKED]
        alone = [label for row in rows[:8] for label in ask(server, encoding, [row])]
        for labels, right in ((alone, truth[:8]), (ask(server, encoding, rows[:32]), truth[:32])):
            if len(labels) != len(right) or sum(a != b for a, b in zip(labels, right, strict=True)) > WRONG:
                raise Failed(f"labels are wrong: {labels} instead of {right}")

    def measure(self, server: Server, results: Results) -> None:
        """Every encoding and size of one server."""
        with running(server, self.work) as up:
            for encoding in server.speaks:
                try:
                    self.right(up, encoding, 0)
                except Failed as error:
                    results.missing.append(f"{server.name}, {encoding.name}: {error}")
                    print(f"{server.name:<28}{encoding.name:<8} not measured: {error}", flush=True)
                    continue
                for rows in self.options.rows:
                    self._saturate(up, server, encoding, rows, results)
                self.right(up, encoding, CHECKED)

    def _saturate(self, up: Running, server: Server, encoding: Encoding, rows: int, results: Results) -> None:
        bodies, clients = self.bodies(encoding, rows), CLIENTS[rows]
        closed(up, encoding, bodies, rows, clients, WARM_SECONDS, self.work)
        taken = quietest(up, lambda: closed(up, encoding, bodies, rows, clients, self.options.seconds, self.work))
        load, each = taken.load, 1e6 / taken.load.requests / rows
        row = Saturated(
            server.name, encoding.name, rows, clients, load.rate, load.p50, load.p99, up.memory_mb(), taken.cpu * each,
            taken.others, taken.load_cpu * each, self.round,
        )  # fmt: skip
        results.saturated.append(row)
        print(line(row), flush=True)
        if rows == 1 and self.round == 0 and server.keeps_alive and server.name != UNBATCHED and not self.options.quick:
            for share in SHARES:
                self._pace(up, server, encoding, bodies[0], load, share, results)

    def _pace(
        self, up: Running, server: Server, encoding: Encoding, body: bytes, full: Load, share: float, results: Results
    ) -> None:
        rate = full.rate * share
        try:
            load = self._paced(up, encoding, body, rate)
        except Failed as error:
            results.missing.append(f"{server.name}, {encoding.name} at {share:.0%}: {error}")
            print(f"    at {share:>4.0%} not measured: {error}", flush=True)
            return
        results.curve.append(Point(server.name, encoding.name, rate, load.p50, load.p99))
        print(f"    at {share:>4.0%}, {rate:>8,.0f}/s: p50 {load.p50:8.2f} ms, p99 {load.p99:8.2f} ms", flush=True)

    def _paced(self, up: Running, encoding: Encoding, body: bytes, rate: float) -> Load:
        count = windows(rate, self.options.curve_seconds, MIN_GRPC_WINDOW if encoding.grpc else MIN_WINDOW)
        seconds = self.options.curve_seconds / count

        def run() -> Load:
            each = [paced(up, encoding, body, 1, rate, seconds, self.work) for _ in range(count)]
            p50, p99 = (statistics.median(getattr(load, q) for load in each) for q in ("p50", "p99"))
            return Load(statistics.fmean(load.rate for load in each), p50, p99, sum(load.requests for load in each))

        return quietest(up, run).load

    def at_their_load(self, ours: Server, results: Results) -> None:
        """go_infer at the rate of the last place of every other server's curve, in the same encoding."""
        last = {(p.server, p.encoding): p for p in results.curve if p.server != OURS}
        encodings = {encoding.name: encoding for encoding in ours.speaks}
        with running(ours, self.work) as up:
            for other in last.values():
                if other.encoding not in encodings:
                    continue
                encoding = encodings[other.encoding]
                body = self.bodies(encoding, 1)[0]
                self._paced(up, encoding, body, other.rate)  # the first warms up
                load = self._paced(up, encoding, body, other.rate)
                results.same.append(Beside(other, Point(OURS, encoding.name, other.rate, load.p50, load.p99)))
                print(results.same[-1], flush=True)


COLUMNS = (
    ("requests/s", 12), ("rows/s", 10), ("p50 ms", 9), ("p99 ms", 9), ("PSS MB", 8), ("CPU us/row", 12), ("load us", 9),
    ("others", 8),
)  # fmt: skip
HEADER = f"{'server':<28}{'as':<8}{'rows':>5}{'clients':>9}" + "".join(f"{name:>{width}}" for name, width in COLUMNS)


def line(m: Saturated) -> str:
    """One row of the table."""
    rates = f"{m.rate:>12,.0f}{m.rate * m.rows:>10,.0f}{m.p50:>9.2f}{m.p99:>9.2f}"
    return (
        f"{m.server:<28}{m.encoding:<8}{m.rows:>5}{m.clients:>9}{rates}{m.memory:>8.0f}{m.cpu:>12.1f}"
        f"{m.load_cpu:>9.1f}{m.others:>8.2f}"
    )


def bars(results: Results) -> list[Bar]:
    """What go_infer's JSON has to reach at one row and 64 clients: medians of the rounds' ratios.

    None where a server was not measured.
    """
    rows = {(m.round, m.server, m.encoding): m for m in results.saturated if m.rows == 1}
    rounds = sorted({m.round for m in results.saturated})

    def ratios(server: str, encoding: str, what: str) -> list[float]:
        pairs = [(rows.get((number, OURS, "JSON")), rows.get((number, server, encoding))) for number in rounds]
        return [getattr(ours, what) / getattr(other, what) for ours, other in pairs if ours and other]

    def beside(server: str) -> list[float]:
        return [
            one.ours.p99 / one.theirs.p99
            for one in results.same
            if (one.theirs.server, one.theirs.encoding) == (server, "JSON")
        ]

    found: list[Bar] = []
    for name in FLASK:
        found += [
            at_least(f"JSON requests/s, times {name}", 20, ratios(name, "JSON", "rate")),
            over(f"p99 at each one's own saturation, times {name}", 1 / 20, ratios(name, "JSON", "p99")),
            over(f"resident memory, times {name}", 1 / 3, ratios(name, "JSON", "memory")),
        ]
        if beside(name):
            found.append(over(f"p99 at the same load, times {name}", 1 / 20, beside(name)))
    found.append(at_least("JSON requests/s, times Python gRPC", 8, ratios("Python gRPC", "gRPC", "rate")))
    found.append(at_least("requests/s, times unbatched", 3, ratios(UNBATCHED, "JSON", "rate")))
    return found


def typical(saturated: Sequence[Saturated]) -> list[Saturated]:
    """Of each server, encoding and size the round with the median rate."""
    groups: dict[tuple[str, str, int], list[Saturated]] = {}
    for m in saturated:
        groups.setdefault((m.server, m.encoding, m.rows), []).append(m)
    return [sorted(group, key=lambda m: m.rate)[len(group) // 2] for group in groups.values()]


def problem(chosen: Sequence[Server], quick: bool) -> str | None:
    """What is missing before these servers can be measured."""
    encodings = [encoding for server in chosen for encoding in server.speaks]
    programs = ["wrk"] + (["h2load"] if any(encoding.grpc for encoding in encodings) else [])
    for program in programs + ([] if quick else ["openload"]):
        if not find_program(program):
            return f"{program} is not here: run 'make bench-peers' first"
    for module in sorted({module for server in chosen for module in server.needs}):
        if find_spec(module) is None:
            return f"{module} is not installed in {sys.prefix}: run 'pip install -e .[models,bench]' there"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each saturation (default: %(default)s)")
    parser.add_argument(
        "--curve-seconds", type=float, default=4.0, help="of each place on a curve (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of all servers (default: %(default)s)")
    parser.add_argument("--servers", help="beginnings of names, comma separated (default: all)")
    parser.add_argument("--quick", action="store_true", help="no latency curves")
    parser.add_argument("--rows", default="1,32", help="rows in a request: 1, 32 or both (default: %(default)s)")
    parser.add_argument("--binary", type=Path, default=ROOT / "build/bin/go_infer")
    parser.add_argument("--models", type=Path, default=ROOT / "build/models")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench", help="for serving.json and serving.svg")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(arguments)
    options.binary, options.models = options.binary.absolute(), options.models.absolute()
    try:
        options.rows = [int(text) for text in options.rows.split(",")]
    except ValueError:
        options.rows = [0]
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if not set(options.rows) <= set(CLIENTS):
        parser.error(f"--rows takes {' and '.join(map(str, CLIENTS))}")
    for needed, how in ((options.binary, "backends.build"), (options.models / HELDOUT, "backends.models.digits")):
        if not needed.exists():
            return _fail(f"{needed} does not exist: run 'python -m {how}' first")
    wanted = tuple(name.strip() for name in options.servers.split(",")) if options.servers else ("",)
    chosen = [server for server in servers(options.binary, options.models) if server.name.startswith(wanted)]
    if not chosen:
        return _fail(f"no server's name begins with {options.servers!r}")
    missing = problem(chosen, options.quick)
    return _fail(missing) if missing else compare(chosen, options)


def compare(chosen: Sequence[Server], options: argparse.Namespace) -> int:
    """Measure, print, draw; the exit code."""
    results, started = Results(), time.monotonic()
    heldout = json.loads((options.models / HELDOUT).read_text())
    print(HEADER)
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(heldout, options, Path(work))
        for bench.round in range(options.rounds):
            for server in chosen if bench.round % 2 == 0 else reversed(chosen):
                try:
                    bench.measure(server, results)
                except (NotUp, Failed) as error:
                    return _fail(f"{server.name}: {error}")
        ours = [server for server in chosen if server.name == OURS]
        if ours and any(point.server != OURS for point in results.curve):
            try:
                bench.at_their_load(ours[0], results)
            except (NotUp, Failed) as error:
                return _fail(f"{OURS}: {error}")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "serving.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    from loadtests.serving.plot import plot

    plot(typical(results.saturated), results.curve, options.out / "serving.svg")
    noisy = sum(m.others > QUIET for m in results.saturated)
    if noisy:
        print(
            f"\nwarning: something else was busy in {noisy} of {len(results.saturated)} rows; their figures are too low"
        )
    print(f"\n{time.monotonic() - started:.0f} s; figures and plot: {options.out}/serving.json, serving.svg")
    machine.warn()
    return report(bars(results), check=options.check)


def _fail(reason: str) -> int:
    print(f"loadtests.bench_serving: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
