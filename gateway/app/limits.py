"""What the configuration says of limits, made ready for the path."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.config import model
from gateway.config.sections.limits import Cost as CostSection
from gateway.config.sections.limits import Scope as ScopeSection
from gateway.limits.bucket import BucketSpec
from gateway.limits.costs import BodyCost, Cost, HeaderCost, RowsCost
from gateway.limits.memory import Memory
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import (
    AddressScope,
    ApiKeyScope,
    ClientScope,
    GlobalScope,
    HeaderScope,
    JoinedScope,
    ModelScope,
    PathScope,
    RouteScope,
    Scope,
    TenantScope,
)
from gateway.limits.verdict import RouteLimits
from gateway.routing import template

#: Scope in the configuration -> what it is. A new one is one line here, and its word in `config/sections/limits.py`.
SCOPES: Mapping[str, Callable[[model.Route, model.Identity, Memory], Scope]] = {
    "client": lambda _route, _identity, _memory: ClientScope(),
    "api-key": lambda _route, identity, memory: ApiKeyScope(identity.header.encode(), memory),
    "tenant": lambda _route, _identity, _memory: TenantScope(),
    "ip": lambda _route, _identity, memory: AddressScope(memory=memory),
    "path": lambda _route, _identity, _memory: PathScope(),
    "route": lambda _route, _identity, _memory: RouteScope(),
    "model": lambda route, _identity, _memory: ModelScope(_template(route)),
    "global": lambda _route, _identity, _memory: GlobalScope(),
}


def limits(route: model.Route, config: model.Config, memory: Memory) -> RouteLimits | None:
    """The limits of a route, or None if it has none. What is made of clients' values is kept ready in `memory`."""
    if not route.limits:
        return None
    policies = [_policy(name, config.limits[name], route, config.identity, memory) for name in route.limits]
    return RouteLimits(route.name, policies, config.store.key_prefix, memory)


def tenants(identity: model.Identity) -> dict[bytes, bytes] | None:
    """Tenant by client, or None if no client has one."""
    if identity.api_keys is None or not identity.api_keys.tenants:
        return None
    return {client.encode(): tenant.encode() for client, tenant in identity.api_keys.tenants.items()}


def _policy(name: str, limit: model.Limit, route: model.Route, identity: model.Identity, memory: Memory) -> LimitPolicy:
    scopes = [_scope(each, route, identity, memory) for each in limit.key]
    scope = scopes[0] if len(scopes) == 1 else JoinedScope(scopes)

    def policy(
        rate: float | None,
        written: str,
        burst: int | None,
        places: int | None,
        overrides: Mapping[bytes, LimitPolicy] | None,
    ) -> LimitPolicy:
        concurrent = places or 0
        spec = None if concurrent else BucketSpec(rate or 0.0, float(burst or 0))
        return LimitPolicy(
            name,
            scope,
            spec,
            limit.on_store_failure,
            limit.legacy_headers,
            cost=_cost(limit.cost, limit.unit, float(burst or 0)),
            mode=limit.mode,
            concurrent=concurrent,
            shadow=limit.shadow,
            partition=limit.partition_key,
            overrides=overrides,
            written=written,
        )

    overrides = {
        key.encode(): policy(
            each.rate if each.rate is not None else limit.rate,
            each.rate_as_written if each.rate is not None else limit.rate_as_written,
            each.burst if each.burst is not None else limit.burst,
            each.concurrent if each.concurrent is not None else limit.concurrent,
            None,
        )
        for key, each in limit.all_overrides.items()
    }
    return policy(limit.rate, limit.rate_as_written, limit.burst, limit.concurrent, overrides)


def _template(route: model.Route) -> template.Template | None:
    return template.parse(route.match.path) if route.match.template else None


def _scope(given: ScopeSection, route: model.Route, identity: model.Identity, memory: Memory) -> Scope:
    if given.ip is not None:
        return AddressScope(given.ip.v4, given.ip.v6, memory)
    if given.header is not None:
        return HeaderScope(given.header.encode())
    assert given.word is not None
    return SCOPES[given.word](route, identity, memory)


def _cost(given: CostSection, unit: str | None, burst: float) -> Cost:
    if given.body is not None:
        return BodyCost(given.body, unit or "content-bytes")
    if given.rows is not None:
        return RowsCost(given.rows, burst if given.otherwise is None else given.otherwise, unit or "rows")
    if given.header is not None:
        return HeaderCost(given.header.encode(), 1.0 if given.reserve is None else given.reserve, unit or "units")
    return Cost(given.tokens or 1.0, unit or "")
