"""What a request of the Open Inference Protocol costs go_infer in CPU, beyond the Runs themselves.

    python -m loadtests.bench_oip [--seconds 5] [--concurrency 64] [--rounds 3] [--check]

Closed loop with Debian's `wrk` on loopback, one digit per request: binary tensors, JSON, and TF-Serving's JSON beside
them. CPU is the server's (from /proc, all threads; resolution 10 ms). From the statistics that the server keeps, each
run knows how many Runs of which size it took; what those cost by themselves is measured before and after by
`go test -bench BareRun ./internal/session` on the same machine. The difference per request is the protocol, HTTP and
the queue together. The last row asks for nothing (`GET /v2/health/live`): what HTTP and the kernel take of it.

Exit code 0; 1 if something cannot run, or with --check if the bar is missed (binary: 25 us a request).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.peers.processes import NotUp
from loadtests.serving.bare import bare_runs
from loadtests.serving.servers import ROOT, Running, go_infer, running

BAR = 25.0  # microseconds of CPU beyond the Runs, binary
BODIES = 256
HEAD = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Kind:
    """One way to ask; `body(digit)` gives the body and how many bytes of it are JSON."""

    name: str
    path: str
    binary: bool | None  # None: TF-Serving's JSON
    asks: bool = True  # for a Run

    def body(self, digit: list[float]) -> tuple[bytes, int]:
        """The body of a request for one digit, and the length of its JSON."""
        if not self.asks:
            return b"", 0
        if self.binary is None:
            text = json.dumps({"instances": [digit]}).encode()
            return text, len(text)
        tensor: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [1, 64]}
        if not self.binary:
            text = json.dumps({"inputs": [{**tensor, "data": digit}]}).encode()
            return text, len(text)
        tensor["parameters"] = {"binary_data_size": 256}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        return head + struct.pack("<64f", *digit), len(head)


KINDS = (
    Kind("OIP binary", "/v2/models/digits/infer", binary=True),
    Kind("OIP JSON", "/v2/models/digits/infer", binary=False),
    Kind("TF-Serving JSON", "/v1/models/digits:predict", binary=None),
    Kind("nothing", "/v2/health/live", binary=None, asks=False),
)

SCRIPT = """\
local bodies, requests, turn = {%s}, {}, 0
function init()
  for i, each in ipairs(bodies) do
    requests[i] = #each[1] > 0 and wrk.format("POST", nil, {["%s"] = each[2]}, each[1]) or wrk.format("GET")
  end
end
function request()
  turn = turn %% #requests + 1
  return requests[turn]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "seconds": %%.6f, "failed": %%d, "p50": %%.3f, "p99": %%.3f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def script(kind: Kind, digits: list[list[float]], file: Path) -> Path:
    """Lua that asks for the digits in turn. Every byte is written as a number, so that any body can be said."""

    def quoted(data: bytes) -> str:
        return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'

    bodies = [kind.body(digit) for digit in digits]
    file.write_text(SCRIPT % (",".join(f'{{{quoted(body)},"{head}"}}' for body, head in bodies), HEAD))
    return file


def models() -> Path:
    """Where the digits are."""
    return Path(os.environ.get("SLUICEGATE_MODELS", ROOT / "build/models")).resolve()


def padded(rows: int) -> int:
    """The size a batch is padded to, as internal/batch does."""
    return 1 << (rows - 1).bit_length() if rows < 32 else 32


def stats(port: int) -> dict[int, int]:
    """How many Runs of how many rows there were."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/digits/versions/2/stats", timeout=5) as answer:
        [model] = json.load(answer)["model_stats"]
    return {batch["batch_size"]: batch["compute_infer"]["count"] for batch in model["batch_stats"]}


@dataclass(frozen=True)
class Measured:
    """One run, per request."""

    rate: float
    p50: float
    p99: float
    rows: float  # in a Run
    cpu: float  # microseconds
    runs: float  # of these, what bare Runs cost

    @property
    def beyond(self) -> float:
        """CPU that is not the Runs'."""
        return self.cpu - self.runs


def measure(server: Running, kind: Kind, lua: Path, clients: int, seconds: float, cost: dict[int, float]) -> Measured:
    """One closed-loop run."""
    port = server.http_port
    before, used = stats(port), server.cpu_seconds()
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout=10s", "-s", str(lua)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{kind.path}"], check=True, capture_output=True, text=True)
    used, after = server.cpu_seconds() - used, stats(port)
    result = json.loads(next(x for x in done.stdout.splitlines() if x.startswith("RESULT ")).removeprefix("RESULT "))
    if result["failed"] or not result["requests"]:
        raise SystemExit(f"{kind.name}: {result}")
    took = {rows: count - before.get(rows, 0) for rows, count in after.items()}
    answered = sum(rows * count for rows, count in took.items()) if kind.asks else result["requests"]
    runs = sum(cost[padded(rows)] * count for rows, count in took.items()) / answered
    return Measured(
        result["requests"] / result["seconds"],
        result["p50"],
        result["p99"],
        answered / max(sum(took.values()), 1) if kind.asks else 0.0,
        used / answered * 1e6,
        runs,
    )


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_oip", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each run (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="connections (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, in turn (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if the bar is missed")
    parser.add_argument("--binary", type=Path, default=ROOT / "build/bin/go_infer")
    options = parser.parse_args(arguments)
    heldout = json.loads((models() / "digits/heldout.json").read_text())
    digits = heldout["instances"][:BODIES]
    costs = [bare_runs(models(), ROOT / "build/bin")]
    results: dict[Kind, list[Measured]] = {kind: [] for kind in KINDS}
    with (
        tempfile.TemporaryDirectory() as directory,
        running(go_infer(options.binary.absolute(), models()), Path(directory)) as server,
    ):
        scripts = {kind: script(kind, digits, Path(directory, f"{i}.lua")) for i, kind in enumerate(KINDS)}
        for kind in KINDS:
            measure(server, kind, scripts[kind], 8, 1.0, costs[0])  # nobody's first second counts
        for _ in range(options.rounds):
            for kind in KINDS:
                results[kind].append(
                    measure(server, kind, scripts[kind], options.concurrency, options.seconds, costs[0])
                )
    costs.append(bare_runs(models(), ROOT / "build/bin"))
    drift = costs[1][32] / costs[0][32]
    print(f"bare Run of 32 rows: {costs[0][32]:.0f} us before, {costs[1][32]:.0f} us after ({drift:.2f}x)")
    names = f"{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'rows/Run':>10}{'CPU us':>9}{'Runs us':>9}{'beyond us':>11}"
    print(f"{'':<18}{names}")
    for kind, runs in results.items():
        m = sorted(runs, key=lambda run: run.beyond)[len(runs) // 2]
        rate = f"{m.rate:>12,.0f}{m.p50:>9.2f}{m.p99:>9.2f}{m.rows:>10.1f}"
        print(f"{kind.name:<18}{rate}{m.cpu:>9.1f}{m.runs:>9.1f}{m.beyond:>11.1f}")
    beyond = statistics.median(run.beyond for run in results[KINDS[0]])
    good = beyond <= BAR
    print(f"{'PASS' if good else 'FAIL'}: binary, CPU beyond the Runs {beyond:.1f} us a request, at most {BAR:g}")
    return 0 if good or not options.check else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (NotUp, RuntimeError) as failure:
        sys.exit(f"bench_oip: {failure}")
