"""Open-loop load by `peers/openload` (built by `bench_peers`): latency from when a request was due, at little cost.

Contract: one call, one run, bounded by its duration; an answer that is not 200, a broken connection or a request
that was not answered makes it ``Failed``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.peers.programs import find_program
from loadtests.stand import HEADERS, PATH
from loadtests.wrk import Failed

MOST = 200_000  # requests of a closed loop
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


@dataclass(frozen=True, slots=True)
class Offered:
    """What became of a load that may be refused, after the warm-up. Milliseconds: of good answers from when they were
    due, of refusals, each of which is told, from when they were sent.
    """

    seconds: float
    good: int
    p50: float
    p99: float
    refused: dict[int, list[float]]  # by status, ascending
    broken: int  # neither
    core: float  # of a processor that the generator took

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds


def parse_offered(stdout: str, seconds: float, warm: float) -> Offered:
    """What the program printed of a load of `seconds`, of which `warm` are not counted."""
    try:
        result = json.loads(stdout)
    except ValueError:
        raise Failed(f"openload printed {stdout[-200:]!r}") from None
    if not result["counted"]:
        raise Failed(f"nothing was answered, errors {result['errors']}")
    refused = {int(status): [us / 1e3 for us in each.get("took", ())] for status, each in result["also"].items()}
    broken = sum(result["errors"].values())
    core = result["cpu"] / result["seconds"]
    return Offered(seconds - warm, result["counted"], result["p50"] / 1e3, result["p99"] / 1e3, refused, broken, core)


def offer(
    port: int, path: str, body: Path, headers: Mapping[str, str], *, rate: float | None, seconds: float, warm: float,
    connections: int, also: tuple[int, ...],
) -> Offered:  # fmt: skip
    """POST `body` at `rate` a second or, without one, from every connection as soon as it has its answer. Statuses in
    `also` are answers, too.
    """
    program = find_program("openload")
    if program is None:
        raise Failed(MISSING)
    command = [program, "-target", f"127.0.0.1:{port}", "-path", path, "-body", str(body), f"-seconds={seconds:g}"]
    command += [f"-rate={rate or MOST / seconds:.1f}", f"-warm={warm:g}", f"-connections={connections}"]
    command += ["-list", "-also=" + ",".join(map(str, also))]
    if rate is None:
        command.append("-closed")
    for name, value in headers.items():
        command += ["-header", f"{name}: {value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    if not done.stdout:
        raise Failed(f"openload ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return parse_offered(done.stdout, seconds, warm)
