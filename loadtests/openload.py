"""Open-loop load by `peers/openload` (built by `bench_peers`): latency from when a request was due, at little cost.

Contract: one call, one run, bounded by its duration; an answer that is not 200, a broken connection or a request
that was not answered makes it ``Failed``.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from loadtests.peers.programs import find_program
from loadtests.stand import HEADERS, PATH
from loadtests.wrk import Failed

MISSING = "openload is not built: run `make bench-peers`"


@dataclass(frozen=True, slots=True)
class Open:
    """Milliseconds from when a request was due; `lag_p99` is the generator's own part of it."""

    answered: int
    p50: float
    p99: float
    worst: float
    lag_p99: float


def parse(stdout: str) -> Open:
    """What the program printed. ``Failed`` unless every request that was due was answered."""
    try:
        result = json.loads(stdout)
    except ValueError:
        raise Failed(f"openload printed {stdout[-200:]!r}") from None
    if result["errors"] or not result["answered"]:
        raise Failed(f"{result['answered']} of {result['offered']} answered, errors {result['errors']}")
    ms = {name: result[name] / 1e3 for name in ("p50", "p99", "max", "lag_p99")}
    return Open(result["answered"], ms["p50"], ms["p99"], ms["max"], ms["lag_p99"])


def run(port: int, *, rate: float, seconds: float, connections: int = 64, seed: int = 1) -> Open:
    """Offer `rate` requests a second, as a Poisson process, for `seconds`."""
    program = find_program("openload")
    if program is None:
        raise Failed(MISSING)
    command = [program, "-target", f"127.0.0.1:{port}", "-path", PATH, f"-rate={rate:.1f}", f"-seconds={seconds:g}"]
    command += [f"-connections={connections}", f"-seed={seed}"]
    for name, value in HEADERS.items():
        command += ["-header", f"{name}: {value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    if not done.stdout:
        raise Failed(f"openload ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return parse(done.stdout)
