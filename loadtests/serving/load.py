"""Load on a server in one encoding: closed loop for what it can do, open loop for how long an answer takes at less.

HTTP/1.1: `wrk` with bodies in turn, and `peers/openload` (Poisson arrivals, latency from when a request was due). gRPC:
`h2load` with one body; at a given rate it sends evenly, whatever became of the earlier ones, up to STREAMS at a time.
Contract: `closed` and `paced` are one run each, bounded; `Failed` if any answer was not a 200, so no figure is of
refusals. gRPC's own status travels behind the answer, which h2load does not see: `ask` proves it before and after.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.peers.programs import find_program
from loadtests.serving.servers import ROOT, Running
from loadtests.serving.wire import Encoding, Rows
from loadtests.wrk import Failed

SCRIPT = ROOT / "loadtests/peers/predict.lua"
STREAMS = 100  # requests under way on one connection of h2load's
PACED_CONNECTIONS = 64
PACED_CLIENTS = 8  # connections of h2load's at a given rate
WAIT = 30.0  # seconds, beyond the length of a run


@dataclass(frozen=True)
class Load:
    """Requests per second and milliseconds."""

    rate: float
    p50: float
    p99: float
    requests: int


def ask(server: Running, encoding: Encoding, rows: Rows) -> list[int]:
    """The labels of one request's rows. ``Failed`` says what came instead."""
    body, fields = encoding.encode(rows), encoding.fields(len(rows))
    if encoding.grpc:
        import grpc  # comes with TensorFlow; not needed to measure the others

        with grpc.insecure_channel(f"127.0.0.1:{server.port(encoding)}") as channel:
            try:
                return encoding.labels(channel.unary_unary(encoding.path)(body[5:], timeout=WAIT), {})
            except grpc.RpcError as error:
                raise Failed(f"{encoding.path}: {error}") from error
    connection = http.client.HTTPConnection("127.0.0.1", server.port(encoding), timeout=WAIT)
    try:
        connection.request("POST", encoding.path, body, fields)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise Failed(f"{encoding.path}: {response.status} {answer[:200]!r}")
    try:
        return encoding.labels(answer, dict(response.getheaders()))
    except (ValueError, KeyError, IndexError) as error:
        raise Failed(f"{encoding.path}: not an answer: {answer[:200]!r}") from error


def closed(
    server: Running, encoding: Encoding, bodies: Sequence[bytes], rows: int, clients: int, seconds: float, work: Path
) -> Load:
    """Each client sends its next request when the last is answered."""
    if encoding.grpc:
        return _h2load(server, encoding, bodies[0], rows, work, seconds, [f"-c{clients}", "-m1"])
    (work / "bodies").write_bytes(b"".join(b"%d\n%b\n" % (len(body), body) for body in bodies))
    (work / "fields").write_text("".join(f"{name}: {value}\n" for name, value in encoding.fields(rows).items()))
    command = [
        find_program("wrk") or "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{max(1, round(seconds))}s",
        "--timeout=10s",
        "-s",
        str(SCRIPT),
    ]
    command.append(f"http://127.0.0.1:{server.port(encoding)}{encoding.path}")
    places = {"BODIES": str(work / "bodies"), "FIELDS": str(work / "fields")}
    said = _run(command, seconds, places)
    if "RESULT " not in said:
        raise Failed(f"wrk says no result: {said.strip()[-300:]}")
    result = json.loads(said.rpartition("RESULT ")[2])
    if result["failed"] or not result["requests"]:
        raise Failed(f"{result['failed']} of {result['requests']} requests failed")
    return Load(result["requests"] / result["seconds"], result["p50_ms"], result["p99_ms"], int(result["requests"]))


def paced(server: Running, encoding: Encoding, body: bytes, rows: int, rate: float, seconds: float, work: Path) -> Load:
    """`rate` requests a second, whatever becomes of them."""
    if encoding.grpc:
        each = max(1, round(rate / PACED_CLIENTS))
        options = [f"-c{PACED_CLIENTS}", f"-m{STREAMS}", f"--rps={each}"]
        return _h2load(server, encoding, body, rows, work, seconds, options)
    (work / "body").write_bytes(body)
    command = [find_program("openload") or "openload", "-target", f"127.0.0.1:{server.port(encoding)}"]
    command += ["-path", encoding.path, f"-rate={rate:.1f}", f"-seconds={seconds:g}", "-body", str(work / "body")]
    command.append(f"-connections={PACED_CONNECTIONS}")
    for name, value in encoding.fields(rows).items():
        command += ["-header", f"{name}: {value}"]
    result = json.loads(_run(command, seconds))
    if result["errors"] or not result["answered"]:
        raise Failed(f"{result['answered']} of {result['offered']} answered, errors {result['errors']}")
    return Load(result["answered"] / seconds, result["p50"] / 1e3, result["p99"] / 1e3, result["answered"])


def _h2load(
    server: Running, encoding: Encoding, body: bytes, rows: int, work: Path, seconds: float, options: list[str]
) -> Load:
    log = work / "h2load.log"
    log.unlink(missing_ok=True)
    (work / "body").write_bytes(body)
    command = [find_program("h2load") or "h2load", "-t1", *options, f"--duration={max(1, round(seconds))}"]
    command += ["-d", str(work / "body"), "--log-file", str(log)]
    for name, value in encoding.fields(rows).items():
        command += ["-H", f"{name}: {value}"]
    _run([*command, f"http://127.0.0.1:{server.port(encoding)}{encoding.path}"], seconds)
    times = []
    for line in log.read_text().splitlines():
        _, status, microseconds = line.split("\t")[:3]
        if status != "200":
            raise Failed(f"an answer had status {status}")
        times.append(int(microseconds))
    if not times:
        raise Failed("no request was answered")
    times.sort()
    return Load(len(times) / max(1, round(seconds)), at(times, 50), at(times, 99), len(times))


def at(ordered: Sequence[int], percent: float) -> float:
    """Nearest-rank percentile of microseconds, in milliseconds."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1e3


def _run(command: list[str], seconds: float, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + WAIT,
    )
    if not done.stdout:
        raise Failed(f"{Path(command[0]).name} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout
