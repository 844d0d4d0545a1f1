"""go_infer beside Flask + gunicorn: the same SavedModel, the same JSON load, one run.

    python -m loadtests.bench_infer [--seconds 8] [--concurrency 1,8,32,64]

Closed loop with Debian's `wrk` on loopback: each connection sends its next request when the last is answered. All
servers get the same requests (held-out digits, one per request) and the same cores; wrk runs on those cores too,
equally for each. A server that is measured is the only one running. Answers are checked against the labels before and
after each measurement.
Memory is the proportional set size summed over a server's processes; CPU is what they used while the load ran.

Exit code 0 if the bars hold, 1 if not or if something cannot run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.peers.processes import free_ports

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "loadtests/peers/predict.lua"
PATH = "/v1/models/digits:predict"
BODIES = 256  # different requests in turn
START_SECONDS = 60
CHECKED = 50  # answers compared with their labels before and after each measurement
FLOOR = 0.97  # held-out accuracy of digits version 2
TICKS = os.sysconf("SC_CLK_TCK")

# What go_infer has to reach against Flask + gunicorn at the concurrency of the comparison.
BAR_CONCURRENCY = 64
BAR_RATE, BAR_P99, BAR_MEMORY = 10.0, 1 / 5, 1 / 2


@dataclass(frozen=True)
class Peer:
    """A server to measure; `{port}` in its command is replaced."""

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Measured:
    """One server at one concurrency."""

    peer: str
    concurrency: int
    rate: float  # requests per second
    p50: float  # milliseconds
    p99: float
    memory: float  # megabytes, PSS
    cpu: float  # microseconds per request
    failed: int


def peers(binary: Path, models: Path) -> list[Peer]:
    """Who is measured, fastest first, so that a long run shows its point early."""
    serve = (str(binary), "--model_name=digits", f"--model_base_path={models / 'digits'}", "--rest_api_port={port}")
    gunicorn = (sys.executable, "-m", "gunicorn", "--workers=2", "--bind=127.0.0.1:{port}", "--keep-alive=60")
    return [
        Peer("go_infer", serve),
        Peer("go_infer, unbatched", (*serve, "--enable_batching=false")),
        Peer(
            "Flask + gunicorn, 2 workers",
            (*gunicorn, "loadtests.peers.flask_app:app"),
            (("MODEL_DIR", str(models / "digits/2")), ("TF_CPP_MIN_LOG_LEVEL", "3")),
        ),
        Peer(
            "Flask + gunicorn, 2 workers, 8 threads each",
            (*gunicorn, "--worker-class=gthread", "--threads=8", "loadtests.peers.flask_app:app"),
            (("MODEL_DIR", str(models / "digits/2")), ("TF_CPP_MIN_LOG_LEVEL", "3")),
        ),
    ]


@contextlib.contextmanager
def running(peer: Peer, log: Path) -> Iterator[tuple[int, int]]:
    """Start a server, wait until it is ready, yield (pid, port), stop it and all its children."""
    [port] = free_ports(1)
    command = [part.format(port=port) for part in peer.command]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **dict(peer.environment)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_ready(process, port, peer.name, log)
        yield process.pid, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended at once with {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{name} is not ready after {START_SECONDS} s:\n{log.read_text()[-2000:]}")


def check(port: int, heldout: dict[str, Any], start: int) -> float:
    """Accuracy of CHECKED answers, one request each, beginning at a held-out digit."""
    right = 0
    for i in range(start, start + CHECKED):
        body = json.dumps({"instances": [heldout["instances"][i]]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{PATH}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            right += json.load(answer)["predictions"][0]["label"] == heldout["labels"][i]
    return right / CHECKED


def load(port: int, concurrency: int, seconds: float, bodies: Path) -> dict[str, float]:
    """One closed-loop run of wrk."""
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds:g}s", "--timeout=10s", "-s", str(SCRIPT)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{PATH}"],
        env={**os.environ, "BODIES": str(bodies)},
        check=True,
        capture_output=True,
        text=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return result


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time used so far."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def memory_mb(pids: Sequence[int]) -> float:
    """Proportional set size in megabytes: shared pages count once over all processes."""
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes / 1024


def measure(
    peer: Peer, concurrencies: Sequence[int], seconds: float, heldout: dict[str, Any], work: Path
) -> list[Measured]:
    """Run one server through every concurrency."""
    results = []
    bodies = work / "bodies"
    with running(peer, work / "server.log") as (pid, port):
        accuracy = check(port, heldout, 0)
        load(port, 8, 1.0, bodies)  # nobody's first second counts
        for concurrency in concurrencies:
            pids = tree(pid)
            before = cpu_seconds(pids)
            outcome = load(port, concurrency, seconds, bodies)
            used = cpu_seconds(pids) - before
            count = max(outcome["requests"], 1)
            results.append(
                Measured(
                    peer.name,
                    concurrency,
                    outcome["requests"] / outcome["seconds"],
                    outcome["p50_ms"],
                    outcome["p99_ms"],
                    memory_mb(pids),
                    used / count * 1e6,
                    int(outcome["failed"]),
                )
            )
            _show(results[-1])
        accuracy = min(accuracy, check(port, heldout, CHECKED))
    print(f"  {peer.name}: {accuracy:.0%} of {CHECKED} checked answers right, before and after", flush=True)
    if accuracy < FLOOR:
        raise SystemExit(f"{peer.name} answers wrongly: {accuracy:.1%} right")
    return results


COLUMNS = ("requests/s", 12), ("p50 ms", 9), ("p99 ms", 9), ("PSS MB", 8), ("CPU us/req", 12), ("failed", 8)
HEADER = f"{'server':<44}{'clients':>8}" + "".join(f"{name:>{width}}" for name, width in COLUMNS)


def _show(m: Measured) -> None:
    timing = f"{m.rate:>12,.0f}{m.p50:>9.2f}{m.p99:>9.2f}"
    print(f"{m.peer:<44}{m.concurrency:>8}{timing}{m.memory:>8.0f}{m.cpu:>12.0f}{m.failed:>8}", flush=True)


def verdict(results: Sequence[Measured]) -> bool:
    """Print the ratios at the highest concurrency up to BAR_CONCURRENCY, and whether the bars hold."""
    at = max(m.concurrency for m in results if m.concurrency <= max(BAR_CONCURRENCY, results[0].concurrency))
    rows = {m.peer: m for m in results if m.concurrency == at}
    ours = rows["go_infer"]
    good = ours.failed == 0
    print(f"\nat {at} clients, go_infer against")
    for name, other in rows.items():
        if name == "go_infer":
            continue
        rate, p99, memory = ours.rate / other.rate, ours.p99 / other.p99, ours.memory / other.memory
        cpu = ours.cpu / other.cpu
        print(f"  {name:<44}{rate:6.1f}x requests/s, {p99:.3f}x p99, {memory:.2f}x memory, {cpu:.3f}x CPU")
        if name.startswith("Flask"):
            good = good and rate >= BAR_RATE and p99 <= BAR_P99 and memory <= BAR_MEMORY
    bars = f"requests/s >= {BAR_RATE:g}x, p99 <= {BAR_P99:g}x, memory <= {BAR_MEMORY:g}x of Flask + gunicorn"
    print(f"{'PASS' if good else 'FAIL'}: {bars}")
    return good


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_infer", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement (default: %(default)s)")
    parser.add_argument("--concurrency", default="1,8,32,64", help="clients, comma separated (default: %(default)s)")
    parser.add_argument("--binary", type=Path, default=ROOT / "build/bin/go_infer")
    parser.add_argument("--models", type=Path, default=ROOT / "build/models")
    options = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        return _fail("wrk is not installed: apt-get install wrk")
    heldout_file = options.models / "digits/heldout.json"
    for needed, how in ((options.binary, "backends.build"), (heldout_file, "backends.models.digits")):
        if not needed.exists():
            return _fail(f"{needed} does not exist: run 'python -m {how}' first")
    heldout = json.loads(heldout_file.read_text())
    concurrencies = [int(text) for text in options.concurrency.split(",")]
    results: list[Measured] = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        lines = [json.dumps({"instances": [row]}) for row in heldout["instances"][:BODIES]]
        (work / "bodies").write_text("\n".join(lines) + "\n")
        print(HEADER)
        for peer in peers(options.binary.resolve(), options.models.resolve()):
            results += measure(peer, concurrencies, options.seconds, heldout, work)
    return 0 if verdict(results) else 1


def _fail(reason: str) -> int:
    print(f"loadtests.bench_infer: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
