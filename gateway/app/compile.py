"""From a checked configuration to what the request path reads: plain numbers, bytes and ready-made objects."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from dataclasses import replace

from gateway.admission.admission import AdmissionSettings
from gateway.admission.priority import PriorityRules
from gateway.admission.queue import PRIORITIES
from gateway.app.limits import limits, tenants
from gateway.app.routes import edits, match, prefixes, reply, retry, shadow, split
from gateway.app.series import backend_cells, route_cells
from gateway.balance.hashing import Key
from gateway.balance.registry import Recipe, Settings
from gateway.breakers.gate import BreakerSettings
from gateway.certificates import client_context, server_context
from gateway.config import model
from gateway.config.sections.tls import StoreTls
from gateway.degrade.cache import CacheRules
from gateway.degrade.ladder import PoolRung, Rung, StaleRung, StaticRung
from gateway.http.dial import Address, Tls
from gateway.http.forwarded import TrustedProxies
from gateway.http.origin import Forwarding
from gateway.http.reader import ReadLimits
from gateway.http.server import ServerLimits
from gateway.http.upstream import ClientLimits
from gateway.identity.keys import KeyRing
from gateway.limits import memory as limits_memory
from gateway.request import BodyRules
from gateway.retries.memory import Memory
from gateway.routing.named import named_model
from gateway.routing.table import RouteTable
from gateway.snapshot import Route, Snapshot
from gateway.store.address import StoreAddress
from gateway.telemetry.cells import Catalogue
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool, Sharing
from gateway.upstreams.registry import BackendRegistry
from gateway.upstreams.sticky import Sticky


def snapshot(
    config: model.Config, generation: int, catalogue: Catalogue, registry: BackendRegistry, secret: bytes = b""
) -> Snapshot:
    """Builds a generation. Backends that `registry` knows keep their state; the others are left to `retain`.

    `secret` is what sessions are made with where the configuration gives none.
    """
    zone = config.zone or ""
    pools = {name: _pool(name, pool, catalogue, registry, zone, secret) for name, pool in config.pools.items()}
    registry.pools = pools
    ready = limits_memory.Memory(config.store.ready_keys)
    routes = [_route(route, config, catalogue, pools, registry.retries, ready) for route in config.routes]
    identity = config.identity
    return Snapshot(
        generation=generation,
        routes=RouteTable(routes),
        pools=pools,
        keys=KeyRing(
            header=identity.header.encode(),
            clients=identity.api_keys.clients if identity.api_keys is not None else None,
            anonymous=identity.anonymous == "allow",
            tenants=tenants(identity),
        ),
        unrouted=route_cells(catalogue, None, {}),
        access_log_sample=config.access_log.sample,
        trace_sample=config.tracing.sample,
        via=(b"via", b"1.1 " + _pseudonym(config.http)) if config.http.via != "off" else None,
        deadline_fields=frozenset(
            pool.deadline_header.encode() for pool in config.pools.values() if pool.deadline_header != "off"
        ),
    )


def backend_address(backend: model.Backend) -> Address:
    """Where a backend of the configuration listens."""
    url = backend.url
    return Address(url.host, url.port, url.unix_path)


def backend_tls(pool: model.Pool) -> list[Tls | None]:
    """How each of a pool's backends is spoken to; they share one context. Raises CertificateError."""
    if not any(backend.url.tls for backend in pool.backends):
        return [None] * len(pool.backends)
    section = pool.tls or model.BackendTls()
    context = client_context(section.settings)
    return [
        Tls(section.settings, section.server_name or backend.url.host, context) if backend.url.tls else None
        for backend in pool.backends
    ]


def server_limits(http: model.Http) -> ServerLimits:
    """The front door's limits."""
    return ServerLimits(
        read=ReadLimits(
            http.max_request_line,
            http.max_header_bytes,
            http.max_headers,
            http.max_body,
            plain_paths_only=http.paths == "refuse",
        ),
        header_timeout=http.header_timeout,
        body_timeout=http.body_timeout,
        idle_timeout=http.idle_timeout,
        write_timeout=http.write_timeout,
        body_min_rate=http.body_min_rate,
        write_min_rate=http.write_min_rate,
        answer_half_closed=http.half_close == "answer",
        handshake_timeout=http.tls_handshake_timeout,
        max_connections=http.max_connections,
        max_connections_per_address=_or_zero(http.max_connections_per_address),
        max_requests_per_connection=_or_zero(http.max_requests_per_connection),
        max_pipelined=http.max_pipelined,
    )


def _or_zero(bound: int | str) -> int:
    """A bound as the server takes it: 0 is none."""
    return bound if isinstance(bound, int) else 0


def forwarding(http: model.Http) -> Forwarding:
    """Whom the front door believes about clients, and what backends are told."""
    networks = tuple(each for each in http.trusted_proxies if each != "unix")
    proxies = TrustedProxies(networks, unix="unix" in http.trusted_proxies)
    return Forwarding(proxies, http.trusted_header.encode(), frozenset(http.forwarded_fields), _pseudonym(http))


def _pseudonym(http: model.Http) -> bytes:
    return b"" if http.via == "off" else http.via.encode()


def store_address(store: model.Store) -> StoreAddress:
    """Where the store is that `store.url` names, and who we are there."""
    url = store.url
    section = store.tls or StoreTls()
    return StoreAddress(
        host=url.host, port=url.port, unix_path=url.unix_path, username=url.username, password=url.password, db=url.db,
        tls=section.settings if url.tls else None, server_name=section.server_name,
        sentinels=url.sentinels, service=url.service,
        sentinel_username=store.sentinel_username, sentinel_password=store.sentinel_password, seeds=url.seeds,
    )  # fmt: skip


def tls_contexts(config: model.Config) -> list[ssl.SSLContext | None]:
    """One per listener. Raises CertificateError where a worker sees what the supervisor did not."""
    return [
        server_context(each.tls.pem, each.tls.min_version, each.tls.client_certificate)
        if each.tls is not None
        else None
        for each in config.listen
    ]


def _pool(
    name: str, pool: model.Pool, catalogue: Catalogue, registry: BackendRegistry, zone: str, secret: bytes
) -> Pool:
    gate = _breaker(pool.breaker)
    connections = pool.connections
    limits = ClientLimits(
        connections.max,
        connections.idle,
        connections.connect_timeout,
        pool.max_response,
        whole=pool.stream_above,
        gather=pool.stream_after,
        idle_stream=pool.stream_idle,
        deadline_name=b"" if pool.deadline_header == "off" else pool.deadline_header.encode() + b": ",
        deadline_unit=b"m\r\n" if pool.deadline_header == "grpc-timeout" else b"ms\r\n",
    )
    backends = []
    for backend, tls in zip(pool.backends, backend_tls(pool), strict=True):
        live = registry.obtain(
            name,
            backend.name,
            backend_address(backend),
            backend.weight,
            gate,
            limits,
            pool.protocol,
            tls,
            backend.priority,
            backend.zone or "",
        )
        live.series = backend_cells(catalogue, name, backend.name)
        backends.append(live)
    return Pool(
        name,
        tuple(backends),
        _balancer(pool.balance),
        pool.max_inflight,
        pool.breaker.panic,
        registry.retries.budget(name, pool.retry_budget.ratio, pool.retry_budget.min, time.monotonic_ns()),
        registry.admission(name, _admission(pool), time.monotonic_ns()),
        per_model=gate.per_model,
        sharing=Sharing(
            zone=zone,
            slow_start=int(pool.slow_start * 1e9),
            spill_above=float(pool.spill_above) if pool.spill_above != "off" else 0.0,
            sticky=_sticky(pool.sticky, secret, backends) if pool.sticky is not None else None,
            load_reports=pool.load_reports == "auto",
        ),
        before=registry.pools.get(name),
    )


def _balancer(balance: model.Balance) -> Recipe:
    settings = Settings()
    if balance.key is not None:
        settings = replace(settings, key=Key(balance.key.kind, balance.key.name.encode()))
    if balance.bound is not None:
        settings = replace(settings, bound=balance.bound)
    if balance.choices is not None:
        settings = replace(settings, choices=balance.choices)
    if balance.decay is not None:
        settings = replace(settings, decay=balance.decay * 1e9)
    if balance.hot is not None:
        settings = replace(settings, hot=balance.hot)
    return Recipe(balance.type, settings)


def _sticky(session: model.Session, secret: bytes, backends: Sequence[Backend]) -> Sticky:
    attributes = "; Path=/; HttpOnly; SameSite=Lax"
    if session.max_age:
        attributes += f"; Max-Age={int(session.max_age)}"
    if session.secure:
        attributes += "; Secure"
    return Sticky(session.cookie.encode(), attributes.encode(), session.secret or secret, backends)


def _admission(pool: model.Pool) -> AdmissionSettings:
    section, most = pool.admission, pool.max_inflight
    if section.limit == "off":
        return AdmissionSettings(most, most, 0, 0, shared=False)
    places = 0 if section.limit == "adaptive" else int(section.limit)
    return AdmissionSettings(places, most, section.queue, int(section.target * 1e9))


def _breaker(breaker: model.Breaker) -> BreakerSettings:
    return BreakerSettings(
        failures=breaker.failures,
        open_for=breaker.open_for,
        probes=breaker.probes,
        open_max=max(breaker.open_for, 60.0) if breaker.open_max is None else breaker.open_max,
        jitter=breaker.jitter,
        error_rate=breaker.error_rate,
        slow_rate=breaker.slow_rate,
        slow_after=breaker.slow_after or 0.0,
        silent_after=breaker.silent_after,
        min_calls=breaker.min_calls,
        window=breaker.window,
        window_calls=breaker.window_calls,
        per_model=breaker.per == "model",
    )


def _route(
    route: model.Route,
    config: model.Config,
    catalogue: Catalogue,
    pools: dict[str, Pool],
    memory: Memory,
    ready: limits_memory.Memory,
) -> Route:
    cache = route.cache
    taken = match(route.match)
    compiled = Route(
        name=route.name,
        match=taken,
        pool=pools[route.pools[0]] if route.pools else _nobody(),
        limits=limits(route, config, ready),
        timeout_ns=int(route.timeout * 1e9),
        retry=retry(route, route.pool or "", catalogue, memory),
        tell_attempts=route.retry.attempts_header,
        cache=CacheRules(cache.fresh, cache.stale_if_error, cache.max_entry) if cache is not None else None,
        ladder=tuple(_rung(rung) for rung in route.degrade),
        cells=route_cells(catalogue, route, config.limits),
        key=f"{route.name} {route.pool}".encode(),
        edits=edits(route, route.pool or "", None),
        reply=reply(route),
        shadow=shadow(route, catalogue, pools),
        named=named_model(taken.template) if any(pool.per_model for pool in pools.values()) else None,
        body=BodyRules(
            route.buffer,
            config.http.max_body if route.max_body is None else route.max_body,
            frozenset(protocol.encode() for protocol in route.upgrade),
        ),
        priority=PriorityRules(
            PRIORITIES.index(route.priority),
            (config.priority.header or "").encode(),
            frozenset(client.encode() for client in config.priority.critical),
        ),
    )
    return split(route, compiled, catalogue, pools, memory) if route.split else compiled


def _nobody() -> Pool:
    """The pool of a route that answers by itself."""
    return Pool("", (), Recipe("least-request"), 0)


def _rung(rung: model.Rung) -> Rung:
    if isinstance(rung, model.StaleRung):
        return StaleRung()
    if isinstance(rung, model.PoolRung):
        return PoolRung(rung.pool, prefixes(rung.rewrite), rung.timeout)
    return StaticRung(rung.status, rung.content_type.encode(), rung.content)
