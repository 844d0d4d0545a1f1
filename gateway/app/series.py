"""Which metric series a configuration has: allotted by the supervisor, looked up by the workers.

Both sides walk the same configuration through the same functions; the catalogue travels with the snapshot, so a
worker only ever finds places and never makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.admission.places import Places
from gateway.admission.queue import PRIORITIES
from gateway.admission.queue import REASONS as REFUSALS
from gateway.breakers.states import DOUBTS, STATES, TRIPS
from gateway.config.model import Config, Limit, PoolRung, Route, Shadow, StaleRung
from gateway.retries.rules import REASONS, RetryCells
from gateway.snapshot import LimitCells, RouteCells
from gateway.telemetry import names
from gateway.telemetry.cells import Catalogue, Metric
from gateway.upstreams.shadow import ShadowCells

#: Statuses with a histogram of their own on each route; the rest shares one labelled "other".
STATUSES: Final = (200, 400, 401, 404, 405, 408, 413, 429, 431, 499, 500, 502, 503, 504)
OUTCOMES: Final = ("success", "failure", "ignore", "dropped")  # in the order of `Outcome`

#: Cells of one backend, in this order after its first: outcomes, duration, then the gauges.
GAUGES: Final[tuple[Metric, ...]] = (
    names.ACTIVE_REQUESTS, names.CONNECTIONS, names.REFUSED_CONNECTIONS, names.PROTOCOL_ERRORS, names.CLIENT_GONE,
    names.REFUSED_PER_ADDRESS, names.HANDSHAKE_FAILURES, names.PROXY_ERRORS, names.REQUEST_LIMITS, names.CACHE_BYTES,
    names.FLEET_WORKERS, names.FLEET_DROPPED, names.STORE_UP, names.STORE_CALLS, names.STORE_FAILURES, names.STORE_LATE,
    names.LEASED_KEYS, names.HELD_PLACES, names.ADJUSTMENTS, names.COSTS_MISREAD,
    names.LATE_REFUNDED, names.LATE_OWED,
    names.LOG_DROPPED, names.SPANS_DROPPED,
    names.BREAKER_HINTS_TOLD, names.BREAKER_HINTS_HEEDED, names.BREAKER_HINTS_IGNORED,
)  # fmt: skip


def rung_label(rung: object) -> str:
    """The rung as a label value."""
    if isinstance(rung, StaleRung):
        return "stale"
    return f"pool:{rung.pool}" if isinstance(rung, PoolRung) else "static"


def route_cells(catalogue: Catalogue, route: Route | None, limits: Mapping[str, Limit]) -> RouteCells:
    """The cells of one route; `None` stands for requests that no route takes. `limits` are those of the file."""
    label = ("http_route", route.name if route is not None else "")

    def place(metric: Metric, *labels: tuple[str, str]) -> int:
        return catalogue.place(metric, (label, *labels))

    def duration(status: str) -> int:
        return place(names.SERVER_DURATION, ("http_response_status_code", status))

    ladder = route.degrade if route is not None else ()
    return RouteCells(
        duration={status: duration(str(status)) for status in STATUSES},
        duration_other=duration("other"),
        limits=tuple(limit_cells(catalogue, name, limits[name]) for name in (route.limits if route else ())),
        rungs=tuple(place(names.DEGRADED, ("rung", rung_label(rung))) for rung in ladder),
        cache_hit=place(names.CACHE_HITS),
        shed=place(names.SHED),
        expired=place(names.EXPIRED),
    )


def limit_cells(catalogue: Catalogue, name: str, limit: Limit) -> LimitCells:
    """The cells of a limit. Without the store its decisions are counted as what they are: `on_store_failure`."""

    def place(by: str, result: str) -> int:
        return catalogue.place(names.LIMIT_DECISIONS, (("limit", name), ("store", by), ("result", result)))

    alone = limit.on_store_failure
    return LimitCells(
        decisions=(
            place("shared", "refused"), place("shared", "allowed"), place(alone, "refused"), place(alone, "allowed"),
            place("leased", "refused"), place("leased", "allowed"),
        ),
        too_large=catalogue.place(names.LIMIT_TOO_LARGE, (("limit", name),)),
    )  # fmt: skip


def retry_cells(catalogue: Catalogue, route: Route) -> RetryCells:
    """Cells of what is sent on top of a route's requests."""
    label = ("http_route", route.name)

    def hedges(result: str) -> int:
        return catalogue.place(names.HEDGES, (label, ("result", result)))

    return RetryCells(
        retries={reason: catalogue.place(names.RETRIES, (label, ("reason", reason))) for reason in REASONS},
        denied=catalogue.place(names.RETRIES_DENIED, (label,)),
        wasted=catalogue.place(names.WASTED, (label,)),
        hedges_sent=hedges("sent"),
        hedges_won=hedges("won"),
        hedges_cancelled=hedges("cancelled"),
        hedges_denied=hedges("denied"),
    )


def pool_gauge(catalogue: Catalogue, pool: str) -> int:
    """The cell of the retries that wait."""
    return catalogue.place(names.RETRIES_WAITING, (("pool", pool),))


def side_cell(catalogue: Catalogue, route: Route, pool: str) -> int:
    """The cell of the requests that came to one side of a split."""
    return catalogue.place(names.SPLIT, (("http_route", route.name), ("pool", pool)))


def shadow_cells(catalogue: Catalogue, route: Route, shadow: Shadow) -> ShadowCells:
    """The cells of a route's shadow copies."""
    labels = (("http_route", route.name), ("pool", shadow.pool))

    def place(result: str) -> int:
        return catalogue.place(names.SHADOWS, (*labels, ("result", result)))

    return ShadowCells(
        classes=(place("1xx"), place("2xx"), place("3xx"), place("4xx"), place("5xx")),
        failed=place("failed"),
        dropped=place("dropped"),
        duration=catalogue.place(names.SHADOW_DURATION, labels),
    )


def backend_cells(catalogue: Catalogue, pool: str, backend: str) -> int:
    """The first cell of a backend: four outcomes, its duration, then what `backend_gauges` lists."""
    labels = (("pool", pool), ("backend", backend))
    first = catalogue.place(names.ATTEMPTS, (*labels, ("outcome", OUTCOMES[0])))
    for outcome in OUTCOMES[1:]:
        catalogue.place(names.ATTEMPTS, (*labels, ("outcome", outcome)))
    catalogue.place(names.CLIENT_DURATION, labels)
    return first


def backend_gauges(catalogue: Catalogue, pool: str, backend: str) -> tuple[int, int]:
    """Cells of: in flight, healthy."""
    labels = (("pool", pool), ("backend", backend))
    return (catalogue.place(names.BACKEND_INFLIGHT, labels), catalogue.place(names.BACKEND_HEALTHY, labels))


class BreakerCells(NamedTuple):
    """Where a backend's breakers are shown; what happened stands beside its cell."""

    states: tuple[int, ...]
    trips: tuple[tuple[str, int], ...]
    doubts: tuple[tuple[str, int], ...]
    forced: tuple[tuple[str, int], ...]
    window: tuple[int, ...]  # calls, failures, slow
    models: int


def breaker_cells(catalogue: Catalogue, pool: str, backend: str) -> BreakerCells:
    """The cells of a backend's breakers."""
    labels = (("pool", pool), ("backend", backend))

    def each(metric: Metric, label: str, values: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        return tuple((value, catalogue.place(metric, (*labels, (label, value)))) for value in values)

    return BreakerCells(
        states=tuple(cell for _, cell in each(names.BREAKER_WORKERS, "state", STATES)),
        trips=each(names.BREAKER_TRIPS, "reason", TRIPS),
        doubts=each(names.BREAKER_DOUBTS, "reason", DOUBTS),
        forced=each(names.BREAKER_FORCED, "state", ("open", "closed")),
        window=tuple(cell for _, cell in each(names.BREAKER_WINDOW, "kind", ("calls", "failures", "slow"))),
        models=catalogue.place(names.BREAKER_MODELS, labels),
    )


def panic_cell(catalogue: Catalogue, pool: str) -> int:
    """The cell that says whether a pool uses what something speaks against."""
    return catalogue.place(names.PANIC, (("pool", pool),))


def ejection_cells(catalogue: Catalogue, pool: str, backend: str) -> tuple[int, dict[str, int]]:
    """Cells of: ejected now, and how often for which reason."""
    labels = (("pool", pool), ("backend", backend))
    return (
        catalogue.place(names.EJECTED, labels),
        {why: catalogue.place(names.EJECTIONS, (*labels, ("reason", why))) for why in ("success-rate", "latency")},
    )


class AdmissionCells(NamedTuple):
    """Where a pool's admission is told of: gauges, one per priority, one per priority, counters by reason."""

    limit: int
    inflight: int
    rate: int
    latency: int
    queued: tuple[int, ...]
    overloaded: tuple[int, ...]
    refused: tuple[int, ...]


def admission_cells(catalogue: Catalogue, pool: str) -> AdmissionCells:
    """The cells of a pool's admission."""
    label = ("pool", pool)

    def place(metric: Metric, *labels: tuple[str, str]) -> int:
        return catalogue.place(metric, (label, *labels))

    return AdmissionCells(
        limit=place(names.ADMISSION_LIMIT),
        inflight=place(names.ADMISSION_INFLIGHT),
        rate=place(names.ADMISSION_RATE),
        latency=place(names.ADMISSION_LATENCY),
        queued=tuple(place(names.ADMISSION_QUEUED, ("priority", each)) for each in PRIORITIES),
        overloaded=tuple(place(names.ADMISSION_OVERLOADED, ("priority", each)) for each in PRIORITIES),
        refused=tuple(place(names.ADMISSION_REFUSED, ("reason", each)) for each in REFUSALS),
    )


def places_cell(catalogue: Catalogue, pool: str, workers: int = 0) -> int:
    """Where the workers share a pool's places."""
    return catalogue.place(names.ADMISSION_PLACES, (("pool", pool),), Places.width(workers))


def allot(catalogue: Catalogue, config: Config, workers: int) -> None:
    """Gives every series of `config` its place. Called by the supervisor before a snapshot is sent out."""
    for metric in GAUGES:
        catalogue.place(metric)
    route_cells(catalogue, None, {})
    for route in config.routes:
        route_cells(catalogue, route, config.limits)
        retry_cells(catalogue, route)
        for side in route.sides:
            side_cell(catalogue, route, side.pool)
        if route.shadow is not None:
            shadow_cells(catalogue, route, route.shadow)
    for pool_name, pool in config.pools.items():
        admission_cells(catalogue, pool_name)
        places_cell(catalogue, pool_name, workers)
        pool_gauge(catalogue, pool_name)
        panic_cell(catalogue, pool_name)
        for backend in pool.backends:
            backend_cells(catalogue, pool_name, backend.name)
            backend_gauges(catalogue, pool_name, backend.name)
            breaker_cells(catalogue, pool_name, backend.name)
            if pool.ejection is not None:
                ejection_cells(catalogue, pool_name, backend.name)
