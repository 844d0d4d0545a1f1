"""This gateway with every policy on, as a user would run it with one worker.

API key, route, token bucket in the store, breaker, least-request over two backends (the origin on two loopback
addresses), retry budget, metrics, request id, 1 % of requests traced and exported. Health checks and the response
cache are off: both would answer or ask beside the requests that are counted.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from demo.layout import GATEWAY
from loadtests.peers.base import BURST, RATE, Endpoint, Peer
from loadtests.peers.processes import Process, descendants, free_ports

CLIENT_KEY = "bench-key"

CONFIG = """\
version: 1
listen: 127.0.0.1:%(port)d
workers: %(workers)d
admin: {listen: "127.0.0.1:%(admin)d"}
store: {url: "redis://%(store)s/0"}
identity:
  api_keys: {file: keys.yaml}
limits:
  per-client: {key: client, rate: %(rate)d/s, burst: %(burst)d, mode: %(mode)s}
pools:
  origin:
    protocol: %(protocol)s
    backends:
      - {url: "http://127.0.0.1:%(origin)d"}
      - {url: "http://127.0.0.2:%(origin)d"}
    balance: least-request
    breaker: {failures: 5, open_for: 5s, probes: 1}
routes:
  - name: all
    match: {path: "/*"}
    pool: origin
    limits: [per-client]
    timeout: 10s
    retry: {attempts: 2, on: [connect, 502, 503]}
tracing: {sample: 0.01}
http: {max_connections: 20000, max_connections_per_address: 20000}
"""
KEYS = """\
version: 1
keys:
  - {client: bench, sha256: %s}
"""


class Sluicegate(Peer):
    """The worker is the proxy; the supervisor, which serves admin and metrics, is counted beside."""

    name: ClassVar[str] = "sluicegate"
    does: ClassVar[str] = "all policies: key, token bucket, breaker, least-request, retry, metrics, 1 % traces"
    limits: ClassVar[bool] = True
    protocol: ClassVar[str] = "http"
    """What it speaks to its backends."""
    workers: ClassVar[int] = 1
    mode: ClassVar[str] = "exact"
    """Of the limit: every decision by the store, or tokens leased from it."""

    def __init__(self) -> None:
        super().__init__()
        self._supervisor: Process | None = None

    def available(self) -> str | None:
        if not GATEWAY.exists():
            return "the gateway is not installed: run `make run`"
        asked = subprocess.run([GATEWAY, "version"], capture_output=True, text=True, check=False, cwd="/")
        if asked.returncode:
            return f"`gateway version` fails: {asked.stderr.strip()[-300:]}"
        if "not compiled" in asked.stdout:
            print("warning: the request path is not compiled: no C compiler at installation", file=sys.stderr)
        return None

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        port, admin = free_ports(2)
        (workdir / "keys.yaml").write_text(KEYS % hashlib.sha256(CLIENT_KEY.encode()).hexdigest())
        file = workdir / "gateway.yaml"
        values = {"port": port, "admin": admin, "store": store, "origin": origin.port, "rate": RATE, "burst": BURST}
        values |= {"protocol": self.protocol, "workers": self.workers, "mode": self.mode}
        file.write_text(CONFIG % values)
        # The origin answers 200 to anything, so it also serves as the collector that traces are sent to.
        tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{origin}", "OTEL_SERVICE_NAME": "bench"}
        command = [str(GATEWAY), "run", "-c", str(file)]
        self._supervisor = self.run(Process("gateway", command, workdir, tracing), port)
        return port

    def roles(self) -> dict[str, list[int]]:
        """Worker as the proxy, supervisor beside it; a gateway that is a single process is the proxy."""
        if self._supervisor is None:
            return {}
        workers = descendants(self._supervisor.pid)
        return {"proxy": workers, "supervisor": [self._supervisor.pid]} if workers else super().roles()


class LeasingSluicegate(Sluicegate):
    """The same, with a limit whose tokens a worker leases from the store."""

    name: ClassVar[str] = "sluicegate, leased"
    mode: ClassVar[str] = "leased"
