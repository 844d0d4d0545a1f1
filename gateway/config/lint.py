"""Warnings: configurations that are valid and probably not what was meant.

One rule is one generator; adding a rule is one function and its line in ``RULES``. A rule must be right nearly
always: a warning that is usually ignored teaches people to ignore the rest.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from gateway.config.diagnosis import spell
from gateway.config.errors import Diagnostic
from gateway.config.model import BackendTls, Config, PoolRung, Route, StaticRung, Tls
from gateway.config.pointless import POINTLESS, Finding
from gateway.config.reach import can_start, covering_domains, covers
from gateway.config.sections.balance import HASHING
from gateway.config.source import Loc
from gateway.config.units import format_duration, format_size
from gateway.routing import words


def lint(config: Config) -> list[Diagnostic]:
    """Warnings by line. They point into the file if the configuration came from one."""
    source = config.provenance.source
    found = []
    for rule in RULES:
        for loc, message, hint in rule(config):
            text = f"{spell(loc)}: {message}"
            if source is None:
                found.append(Diagnostic("configuration", 0, 0, text, hint, "warning"))
            else:
                found.append(source.diagnose(loc, text, hint, warn=True))
    return sorted(found, key=lambda each: (each.line, each.col))


def unreachable_route(config: Config) -> Iterator[Finding]:
    """Only earlier routes whose paths begin like this one's, and which share a host with it, are looked at."""
    earlier: dict[tuple[str, str], list[Route]] = {}
    lengths: set[int] = set()
    for index, route in enumerate(config.routes):
        match = route.match
        host = match.host[0] if match.host else ""
        hosts = ["", *([host, *covering_domains(host)] if host else [])]
        heads = [match.head[:length] for length in sorted(lengths) if length <= len(match.head)]
        near = (wide for head in heads for each in hosts for wide in earlier.get((head, each), ()))
        taker = next((wide for wide in near if covers(wide.match, match)), None)
        if taker is not None:
            message = f"never reached, the route '{taker.name}' above takes all its requests"
            yield ("routes", index, "match"), message, "write the narrower route first"
        lengths.add(len(match.head))
        for each in match.host or ("",):
            earlier.setdefault((match.head, each), []).append(route)


def retry_of_writes(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        codes = [each for each in route.retry.on if each != "connect"]
        if codes and route.retry.attempts > 1 and _writes_run_once(route):
            message = f"a POST is not sent again after {' or '.join(codes)}, for it may have been carried out"
            yield ("routes", index, "retry", "on"), message, "for pure inference add replayable: true"


def _writes_run_once(route: Route) -> bool:
    return not route.retry.replayable and (route.match.methods is None or "POST" in route.match.methods)


def _have_nobody_else(config: Config, route: Route) -> bool:
    """Whether none of the route's pools has a second backend to ask."""
    return not route.retry.same_backend and all(
        sum(backend.weight > 0 for backend in config.pools[pool].backends) < 2 for pool in route.pools
    )


def idle_per_try(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        loc: Loc = ("routes", index, "retry", "per_try")
        retry = route.retry
        if retry.per_try is None:
            continue
        if retry.per_try >= route.timeout:
            yield loc, f"not shorter than the timeout ({format_duration(route.timeout)}), so no try is given up", None
        elif retry.attempts == 1:
            yield loc, "there is no other try for which one would be given up", "allow more attempts"
        elif _have_nobody_else(config, route):
            yield loc, "the pool has nobody else to ask, so no try is given up", None
        elif _writes_run_once(route):
            message = "a POST is not given up for another try, for it may have been carried out"
            yield loc, message, "for pure inference add replayable: true"


def idle_hedge(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        loc: Loc = ("routes", index, "hedge")
        hedge = route.hedge
        if hedge is None:
            continue
        if _have_nobody_else(config, route):
            yield loc, "the pool has nobody else to ask, so nothing is hedged", None
        elif not isinstance(hedge.after, str) and hedge.after >= route.timeout:
            message = f"not before the timeout ({format_duration(route.timeout)}), so nothing is hedged"
            yield (*loc, "after"), message, None
        elif _writes_run_once(route):
            message = "a POST is not hedged, for it would be carried out twice"
            yield loc, message, "for pure inference add retry: {replayable: true}"


def empty_retry_budget(config: Config) -> Iterator[Finding]:
    asking = {pool for route in config.routes if route.hedge or route.retry.attempts > 1 for pool in route.pools}
    for name, pool in config.pools.items():
        if name in asking and pool.retry_budget.ratio == 0 and pool.retry_budget.min == 0:
            yield ("pools", name, "retry_budget"), "nothing is ever retried or hedged", None


def late_connect(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        connect = max((config.pools[pool].connections.connect_timeout for pool in route.pools), default=0.0)
        if connect >= route.timeout:
            message = (
                f"the pool's connect_timeout ({format_duration(connect)}) is not shorter, so a retry never happens"
            )
            yield (
                ("routes", index, "timeout"),
                message,
                "raise the timeout or lower pools.*.connections.connect_timeout",
            )


def slow_health_check(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        if pool.health and pool.health.timeout > pool.health.interval:
            message = (
                f"longer than the interval ({format_duration(pool.health.interval)}), so failures are noticed late"
            )
            yield ("pools", name, "health", "timeout"), message, None


def drained_pool(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        if all(backend.weight == 0 for backend in pool.backends):
            yield ("pools", name, "backends"), "every backend has weight 0, so the pool answers nothing", None


def idle_admission_limit(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        limit = pool.admission.limit
        workers = config.workers
        if isinstance(limit, int) and isinstance(workers, int) and limit > pool.max_inflight * workers:
            message = f"more than max_inflight ({pool.max_inflight}, for each of {workers} workers), which holds"
            yield ("pools", name, "admission", "limit"), message, "raise max_inflight"


def urgent_strangers(config: Config) -> Iterator[Finding]:
    keys = config.identity.api_keys
    known = set(keys.clients.values()) if keys is not None else set()
    for index, client in enumerate(config.priority.critical):
        if client not in known:
            yield ("priority", "critical", index), f"there is no API key of a client '{client}'", None


def rung_order(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        for rung_index, rung in enumerate(route.degrade):
            loc: Loc = ("routes", index, "degrade", rung_index)
            if isinstance(rung, PoolRung) and route.pools == (rung.pool,):
                yield (*loc, "pool"), "the route's own pool has already failed when the ladder starts", None
            if isinstance(rung, StaticRung) and rung_index + 1 < len(route.degrade):
                yield loc, "a static answer always succeeds, the rungs after it are never used", "write it last"


def idle_rewrite(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        loc: Loc = ("routes", index)
        own = [((*loc, key, "prefix"), part.prefix) for key in ("rewrite", "redirect") if (part := getattr(route, key))]
        later: list[tuple[Loc, Mapping[str, str]]] = [
            ((*loc, "degrade", number, "rewrite"), rung.rewrite)
            for number, rung in enumerate(route.degrade)
            if isinstance(rung, PoolRung)
        ]
        later += [((*loc, "split", number, "rewrite"), side.rewrite) for number, side in enumerate(route.sides)]
        if route.shadow is not None:
            later.append(((*loc, "shadow", "rewrite"), route.shadow.rewrite))
        rewritten = route.rewrite is not None and (route.rewrite.path is not None or route.rewrite.prefix)
        for place, prefixes in own if rewritten else own + later:
            for start in prefixes:
                if not can_start(route.match, start):
                    message = f"no path of this route starts with {start!r}, so nothing is rewritten"
                    yield (*place, start), message, None


def redirect_to_itself(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        to = route.redirect
        if to is None or to.path is None or to.host or to.scheme or to.port or "{" in to.path:
            continue
        aim = route.match.model_copy(update={"path": to.path})
        if covers(route.match, aim):
            yield ("routes", index, "redirect", "path"), "the route takes this path too, so clients go in circles", None


def copy_to_the_same_pool(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        if route.shadow is not None and route.shadow.pool in route.pools:
            message = "the copies go to the pool that answers, and count in its breakers and its max_inflight"
            yield ("routes", index, "shadow", "pool"), message, "give the shadow a pool of its own"


def idle_cache(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        cache = route.cache
        if cache is None:
            continue
        loc: Loc = ("routes", index, "cache")
        stale = any(not isinstance(rung, (PoolRung, StaticRung)) for rung in route.degrade)
        if cache.fresh == 0 and not (stale and cache.stale_if_error):
            yield loc, "responses are kept but never used", "set 'fresh', or add the rung 'stale' with stale_if_error"
        elif config.cache.max_bytes < cache.max_entry:
            message = f"max_entry ({format_size(cache.max_entry)}) is more than cache.max_bytes holds"
            yield loc, f"{message} ({format_size(config.cache.max_bytes)})", None


def shared_answers(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        edits = route.request_headers
        if route.cache is None or edits is None:
            continue
        for verb, fields in (("set", edits.set), ("add", edits.add)):
            for name, text in fields.items():
                if {"client", "peer"} & set(words.names(text)):
                    message = "the backend is told who asks, but the route's cached answers are the same for everybody"
                    yield ("routes", index, "request_headers", verb, name), message, "remove the route's 'cache'"


def unused_names(config: Config) -> Iterator[Finding]:
    pools = {pool for route in config.routes for pool in route.pools}
    pools |= {route.shadow.pool for route in config.routes if route.shadow is not None}
    pools |= {rung.pool for route in config.routes for rung in route.degrade if isinstance(rung, PoolRung)}
    limits = {name for route in config.routes for name in route.limits}
    for kind, defined, used in (("pools", config.pools, pools), ("limits", config.limits, limits)):
        for name in defined:
            if name not in used:
                yield (kind, name), "no route uses it", None


def lease_that_saves_nothing(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        modes = [config.limits[name].mode for name in route.limits]
        for place, mode in enumerate(modes):
            if mode == "leased" and "exact" in modes:
                message = f"'{route.limits[place]}' is leased, but another limit of the route asks the store anyway"
                hint = "lease all limits of the route or none; concurrent limits are always exact"
                yield ("routes", index, "limits", place), message, hint
                break


def body_over_the_burst(config: Config) -> Iterator[Finding]:
    for index, route in enumerate(config.routes):
        largest = config.http.max_body if route.max_body is None else route.max_body
        for place, name in enumerate(route.limits):
            limit = config.limits[name]
            if limit.cost.body is not None and limit.burst is not None and limit.cost.body * limit.burst < largest:
                most = format_size(limit.cost.body * limit.burst)
                message = f"a body of more than {most} costs more than the burst of '{name}' and is always refused"
                yield ("routes", index, "limits", place), message, "raise its burst, or lower the route's max_body"


def nobody_gets_in(config: Config) -> Iterator[Finding]:
    keys = config.identity.api_keys
    if config.identity.anonymous == "deny" and not (keys and keys.clients):
        yield ("identity", "anonymous"), "there are no API keys, so every request is refused", "name a file in api_keys"


def certificate_ends(config: Config) -> Iterator[Finding]:
    now = datetime.now(UTC)
    sections: list[tuple[Loc, Tls | BackendTls | None, str]] = [
        (("listen", index), listener.tls, "clients") for index, listener in enumerate(config.listen)
    ]
    sections += [(("pools", name), pool.tls, "backends") for name, pool in config.pools.items()]
    for loc, tls, peers in sections:
        end = tls.not_after if tls is not None else None
        if end is not None and end < now:
            yield (*loc, "tls", "certificate"), f"expired on {end:%Y-%m-%d}; {peers} refuse it", None
        elif end is not None and end - now < timedelta(days=7):
            yield (*loc, "tls", "certificate"), f"expires on {end:%Y-%m-%d}", "renew it, then reload"


def never_slow(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        slow = pool.breaker.slow_after
        waits = [route.timeout for route in config.routes if name in route.pools]
        if slow is not None and waits and slow >= max(waits):
            message = f"no call is ever slow: no route waits longer than {format_duration(max(waits))}"
            yield ("pools", name, "breaker", "slow_after"), message, "lower it"


def lonely_ejection(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        if pool.ejection is not None and len(pool.backends) < pool.ejection.min_backends:
            message = f"nobody is ever ejected: {pool.ejection.min_backends} backends are needed to tell who is odd"
            yield ("pools", name, "ejection"), message, None


def idle_zones(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        known = {backend.zone for backend in pool.backends if backend.zone is not None}
        if known and config.zone is None:
            at = next(index for index, backend in enumerate(pool.backends) if backend.zone is not None)
            hint = "write 'zone' at the top of the file, beside 'workers'"
            yield ("pools", name, "backends", at, "zone"), "means nothing: the gateway's own zone is not given", hint
        elif known and config.zone not in known:
            message = f"no backend is in the gateway's own zone, {config.zone}, so none is preferred"
            yield ("pools", name, "backends"), message, None
        if not known and pool.spill_above != "off":
            yield ("pools", name, "spill_above"), "means nothing: no backend of the pool has a zone", None


def session_beside_hash(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        if pool.sticky is not None and pool.balance.type in HASHING:
            yield ("pools", name, "sticky"), "the cookie decides before the hash does; one of the two is enough", None


def unverified_backends(config: Config) -> Iterator[Finding]:
    for name, pool in config.pools.items():
        if pool.tls is not None and not pool.tls.verify:
            message = "whoever is on the way to the backends can pose as one, and read and change everything"
            hint = "name their authority in 'ca', and the name they go by in 'server_name'"
            yield ("pools", name, "tls", "verify"), message, hint


def idle_client_certificate(config: Config) -> Iterator[Finding]:
    for index, listener in enumerate(config.listen):
        tls = listener.tls
        if tls is not None and tls.client_ca is None and "client_certificate" in tls.model_fields_set:
            message = "no client certificate is asked for without client_ca"
            yield ("listen", index, "tls", "client_certificate"), message, "name the authorities in client_ca"


def open_proxy_protocol(config: Config) -> Iterator[Finding]:
    for index, listener in enumerate(config.listen):
        loc: Loc = ("listen", index, "proxy_protocol")
        trusted = config.http.trusted_proxies
        if not listener.proxy_protocol:
            continue
        if not trusted and not listener.address.loopback:
            message = f"whoever can connect to {listener.address} can claim to be any address"
            yield loc, message, "name your proxies in http.trusted_proxies"
        elif trusted and listener.address.unix_path is not None and "unix" not in trusted:
            yield loc, "nobody can connect: http.trusted_proxies does not have 'unix'", None


def everybody_trusted(config: Config) -> Iterator[Finding]:
    for index, text in enumerate(config.http.trusted_proxies):
        if text in ("0.0.0.0/0", "::/0"):
            message = "everybody is trusted, so every client can claim to be any address"
            yield ("http", "trusted_proxies", index), message, "name your proxies alone"


RULES: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    unreachable_route,
    retry_of_writes,
    idle_per_try,
    idle_hedge,
    empty_retry_budget,
    late_connect,
    slow_health_check,
    drained_pool,
    idle_admission_limit,
    urgent_strangers,
    rung_order,
    idle_rewrite,
    redirect_to_itself,
    copy_to_the_same_pool,
    idle_cache,
    shared_answers,
    unused_names,
    lease_that_saves_nothing,
    body_over_the_burst,
    nobody_gets_in,
    certificate_ends,
    never_slow,
    lonely_ejection,
    idle_zones,
    session_beside_hash,
    unverified_backends,
    idle_client_certificate,
    open_proxy_protocol,
    everybody_trusted,
    *POINTLESS,
)
