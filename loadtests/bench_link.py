"""What an exchange with go_infer costs in CPU: over HTTP/1.1 keep-alive, and over the link.

    python -m loadtests.bench_link [--seconds 1.0] [--rounds 3] [--streams 32] [--path /v1/models/digits:predict]

One process asks the same go_infer through the gateway's own pools, `--streams` exchanges at a time, closed loop. Client
CPU is this process's, server CPU go_infer's (from /proc, all threads; resolution 10 ms). Rounds alternate between the
two protocols and the median of each is printed. What the exchange carries costs the same on both: an error answer
(the default: a body that is not JSON, so that no Run hides the protocol) or, with --run, a prediction.

Exit code 0; 1 if something cannot run or an answer is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from gateway.http.client import ConnectionPool
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.link.pool import LinkPool
from gateway.request import Request
from gateway.upstreams.forward import dropped_fields
from loadtests.peers.processes import NotUp, tree
from loadtests.serving.servers import cpu_seconds, go_infer, running

PATH = "/v1/models/digits:predict"
BINARY = Path("build/bin/go_infer")
MODELS = Path("build/models")
FIELDS = {
    b"host": b"gateway.example:8080",
    b"content-type": b"application/json",
    b"accept": b"*/*",
    b"accept-encoding": b"gzip, deflate",
    b"user-agent": b"python-requests/2.32",
    b"connection": b"keep-alive",
}
DROPPED = dropped_fields(b"x-api-key")


class Bench:
    """One pool and what it is asked."""

    def __init__(self, pool: ConnectionPool, body: bytes, expected: int) -> None:
        self.pool = pool
        self.body = body
        self.expected = expected
        self.done = 0
        self.wrong = 0

    async def client(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        target = PATH.encode()
        while (now := loop.time()) < until:
            headers = dict(FIELDS)
            headers[b"content-length"] = b"%d" % len(self.body)
            request = Request(b"POST", target, target, headers, self.body, peer=b"192.0.2.7")
            self.done += 1
            request.id = b"0123456789-%x" % self.done
            response = await self.pool.ask(request, target, b"a", 5_000_000_000, DROPPED, deadline=now + 5)
            self.wrong += response.status != self.expected

    async def run(self, streams: int, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self.client(until) for _ in range(streams)))


async def measure(bench: Bench, pids: list[int], streams: int, seconds: float) -> tuple[float, float, float]:
    """Microseconds of client and server CPU per exchange, and exchanges per second."""
    await bench.run(streams, 0.1)
    bench.done = 0
    server, client, began = cpu_seconds(pids), time.process_time(), time.monotonic()
    await bench.run(streams, seconds)
    took = time.monotonic() - began
    client = time.process_time() - client
    server = cpu_seconds(pids) - server
    return client / bench.done * 1e6, server / bench.done * 1e6, bench.done / took


async def compare(port: int, pids: list[int], options: argparse.Namespace) -> int:
    body, expected = b"x" * options.body, 400
    if options.run:
        body, expected = json.dumps({"instances": [[0.0] * 64]}).encode(), 200
    address, limits = Address("127.0.0.1", port), ClientLimits(max_connections=1024)
    benches = {
        "HTTP/1.1": Bench(ConnectionPool(address, limits), body, expected),
        "link": Bench(LinkPool(address, limits, required=True), body, expected),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in benches}
    for _ in range(options.rounds):
        for name, bench in benches.items():
            found[name].append(await measure(bench, pids, options.streams, options.seconds))
    medians = {name: [statistics.median(each) for each in zip(*rounds, strict=True)] for name, rounds in found.items()}
    print(f"{options.streams} exchanges at a time, {len(body)} bytes, {options.rounds} rounds of {options.seconds:g} s")
    print(f"{'':<10}{'client us':>12}{'go_infer us':>14}{'exchanges/s':>14}")
    for name, (client, server, rate) in medians.items():
        print(f"{name:<10}{client:>12.1f}{server:>14.1f}{rate:>14,.0f}")
    http, link = medians["HTTP/1.1"], medians["link"]
    print(f"{'link/HTTP':<10}{link[0] / http[0]:>12.2f}{link[1] / http[1]:>14.2f}{link[2] / http[2]:>14.2f}")
    wrong = sum(bench.wrong for bench in benches.values())
    for bench in benches.values():
        bench.pool.close()
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_link", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each protocol (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=32, help="exchanges at a time (default: %(default)s)")
    parser.add_argument("--body", type=int, default=256, help="bytes of the request (default: %(default)s)")
    parser.add_argument("--run", action="store_true", help="ask for predictions instead of refusals")
    options = parser.parse_args(arguments)
    if not (BINARY.exists() and (MODELS / "digits").exists()):
        print("bench_link: build first: python -m demo.prepare", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as work:
        try:
            with running(go_infer(BINARY.absolute(), MODELS.absolute()), Path(work)) as server:
                return uvloop.run(compare(server.http_port, tree(server.pid), options))
        except NotUp as error:
            print(f"bench_link: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
