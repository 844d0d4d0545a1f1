"""One generation of configuration, compiled for the request path. Immutable; made by `app`, read by `pipeline`.

State (breakers, levels, connections, cached answers) is not here: it lives in registries that outlast a snapshot.
Cells are the places of metric series (see `telemetry.cells`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.admission.priority import PriorityRules
from gateway.degrade.cache import CacheRules
from gateway.degrade.ladder import Rung
from gateway.identity.keys import KeyRing
from gateway.limits.verdict import RouteLimits
from gateway.request import BodyRules, Header
from gateway.retries.rules import RetryRules
from gateway.routing.edits import Edits
from gateway.routing.named import NamedModel
from gateway.routing.replies import Reply
from gateway.routing.split import Split
from gateway.routing.table import Match, RouteTable
from gateway.upstreams.pool import Pool
from gateway.upstreams.shadow import ShadowRules


@dataclass(frozen=True, slots=True)
class LimitCells:
    """Where a limit counts. `decisions`: refused and allowed, by the store, without it, and from a lease;
    `too_large`: what was refused for good.
    """

    decisions: tuple[int, int, int, int, int, int]
    too_large: int


@dataclass(frozen=True, slots=True)
class RouteCells:
    """Where a route counts."""

    duration: Mapping[int, int]  # status -> histogram
    duration_other: int
    limits: tuple[LimitCells, ...]
    rungs: tuple[int, ...]  # parallel to the ladder
    cache_hit: int
    shed: int
    expired: int  # no time was left before anybody was asked


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the configuration with everything it refers to.

    A route with a `split` is exchanged for one of its sides, a whole route of its own, before anything is done with
    the request; `side` then counts it. A route with a `reply` asks no pool, and its `pool` is empty. `named` is there
    where breakers of single models need the route's captures.
    """

    name: str
    match: Match
    pool: Pool
    limits: RouteLimits | None
    timeout_ns: int
    retry: RetryRules
    cache: CacheRules | None
    ladder: tuple[Rung, ...]
    cells: RouteCells
    key: bytes = field(default=b"")
    split: Split[Route] | None = None
    side: int = 0
    edits: Edits | None = None
    reply: Reply | None = None
    shadow: ShadowRules | None = None
    tell_attempts: bool = False
    named: NamedModel | None = None
    body: BodyRules = BodyRules(1 << 20, 16 << 20)  # noqa: RUF009 - immutable
    priority: PriorityRules = PriorityRules()  # noqa: RUF009 - immutable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`generation` counts up from 1; `via` is the field that an answer of a backend gets. `deadline_fields` are those
    in which pools tell their backends how long an answer is waited for: no client can say them.
    """

    generation: int
    routes: RouteTable[Route]
    pools: Mapping[str, Pool]
    keys: KeyRing
    unrouted: RouteCells
    access_log_sample: float
    trace_sample: float
    via: Header | None = None
    deadline_fields: frozenset[bytes] = frozenset()
