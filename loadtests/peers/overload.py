"""What overload is measured with: the gateway told nothing, nginx told nothing, HAProxy told the capacity, and Envoy
with its adaptive concurrency filter.

HAProxy's queue holds a request for 300 of the 500 ms that the benchmark's clients wait (`maxconn` and `timeout queue`):
with 500 it would answer those alone who are about to leave. Envoy's filter has the settings of its documentation, with
windows that fit latencies of milliseconds; it looks for its least latency once in 30 s.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from demo.layout import GATEWAY
from loadtests.peers.base import Endpoint
from loadtests.peers.envoy import TYPE, Envoy, config, start_envoy
from loadtests.peers.haproxy import CONFIG as HAPROXY_CONFIG
from loadtests.peers.haproxy import Haproxy
from loadtests.peers.processes import Process, free_ports
from loadtests.peers.programs import find_program
from loadtests.peers.sluicegate import Sluicegate

QUEUE_MS = 300  # leaves a request 200 ms to be answered

GATEWAY_CONFIG = """\
version: 1
listen: 127.0.0.1:%(port)d
workers: %(workers)d
admin: {listen: "127.0.0.1:%(admin)d"}
identity:
  api_keys: {file: keys.yaml}
pools:
  slots:
    backends: [{url: "http://%(origin)s"}]
routes:
  - {name: critical, match: {path: "/critical*"}, pool: slots, priority: critical, timeout: 10s}
  - {name: batch, match: {path: "/batch*"}, pool: slots, priority: batch, timeout: 10s}
  - {name: all, match: {path: "/*"}, pool: slots, timeout: 10s}
http: {max_connections: 20000, max_connections_per_address: 20000}
"""


def tenant_key(name: str) -> str:
    return f"key-of-{name}"


class OverloadedGateway(Sluicegate):
    """One pool, three routes that differ in priority; everything about admission is the default."""

    does: ClassVar[str] = "admission as it is by default"
    limits: ClassVar[bool] = False

    def __init__(self, workers: int = 1, tenants: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._workers = workers
        self._tenants = tenants
        self.admin = 0

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        port, self.admin = free_ports(2)
        keys = [
            f"  - {{client: {name}, sha256: {hashlib.sha256(tenant_key(name).encode()).hexdigest()}}}"
            for name in self._tenants
        ]
        (workdir / "keys.yaml").write_text("\n".join(["version: 1", "keys:" if keys else "keys: []", *keys, ""]))
        file = workdir / "gateway.yaml"
        values = {"port": port, "admin": self.admin, "origin": origin, "workers": self._workers}
        file.write_text(GATEWAY_CONFIG % values)
        self._supervisor = self.run(Process("gateway", [str(GATEWAY), "run", "-c", str(file)], workdir), port)
        return port


class CappedHaproxy(Haproxy):
    """As many connections to the server as it has slots."""

    name: ClassVar[str] = "haproxy, told"
    does: ClassVar[str] = "maxconn = slots, queue for 300 ms"

    def __init__(self, slots: int = 4) -> None:
        super().__init__()
        self._slots = slots

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        [port] = free_ports(1)
        file = workdir / "haproxy.cfg"
        text = HAPROXY_CONFIG % {"port": port, "origin": origin}
        text = text.rstrip() + f" maxconn {self._slots}\n"
        file.write_text(text.replace("timeout connect 1s", f"timeout connect 1s\n    timeout queue {QUEUE_MS}ms"))
        self.run(Process("haproxy", [find_program("haproxy") or "haproxy", "-db", "-f", str(file)], workdir), port)
        return port


class AdaptiveEnvoy(Envoy):
    """The gradient controller."""

    name: ClassVar[str] = "envoy, adaptive"
    does: ClassVar[str] = "adaptive concurrency, told nothing"

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        [port] = free_ports(1)
        bootstrap = config(port, origin, None)
        [listener] = bootstrap["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"].insert(
            0,
            {
                "name": "envoy.filters.http.adaptive_concurrency",
                "typed_config": {
                    "@type": f"{TYPE}.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
                    "gradient_controller_config": {
                        "sample_aggregate_percentile": {"value": 90},
                        "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                        "min_rtt_calc_params": {
                            "interval": "30s", "request_count": 50, "jitter": {"value": 10},
                        },
                    },
                    "enabled": {"default_value": True, "runtime_key": "adaptive_concurrency.enabled"},
                },
            },
        )  # fmt: skip
        self.run(start_envoy("envoy", workdir, bootstrap), port)
        return port
