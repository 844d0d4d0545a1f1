"""What a route of the configuration says of matching and of the way its requests take, made ready for the path."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from gateway.app.series import retry_cells, shadow_cells, side_cell
from gateway.config import model
from gateway.degrade.ladder import PoolRung
from gateway.paths import Prefixes
from gateway.retries.hedge import HedgeRules
from gateway.retries.memory import Memory
from gateway.retries.rules import RetryRules
from gateway.routing import template, words
from gateway.routing.conditions import Conditions, Exact, Matches, Prefix, Present, Test
from gateway.routing.edits import Edits, HeaderEdits, Pairs, Rewrite
from gateway.routing.regex import Regex
from gateway.routing.replies import Fixed, Redirect, Reply
from gateway.routing.split import Side, Split, Sticky
from gateway.routing.table import Match
from gateway.routing.words import Words
from gateway.snapshot import Route
from gateway.telemetry.cells import Catalogue
from gateway.upstreams.pool import Pool
from gateway.upstreams.shadow import ShadowRules


def match(given: model.Match) -> Match:
    """Which requests the route takes."""
    conditions = Conditions(
        tuple((name.encode(), _test(test)) for name, test in given.headers.items()),
        tuple((name.encode(), _test(test)) for name, test in given.query.items()),
    )
    return Match(
        given.literal.encode(),
        given.prefix,
        frozenset(method.encode() for method in given.methods or ()),
        tuple(host.encode() for host in given.host),
        template.parse(given.path) if given.template else None,
        conditions if conditions.headers or conditions.query else None,
    )


def _test(given: model.ValueTest) -> Test:
    if given.exact is not None:
        return Exact(given.exact.encode())
    if given.prefix is not None:
        return Prefix(given.prefix.encode())
    return Matches(Regex(given.regex)) if given.regex is not None else Present(bool(given.present))


def prefixes(given: Mapping[str, str]) -> Prefixes:
    """The longest first."""
    return tuple((a.encode(), b.encode()) for a, b in sorted(given.items(), key=lambda item: -len(item[0])))


class _Phrases:
    """Text of one route, with its captures and constants known."""

    def __init__(self, route: model.Route, pool: str) -> None:
        self.template = template.parse(route.match.path) if route.match.template else None
        self._captures = self.template.names if self.template is not None else ()
        self._constants = {"route": route.name, "pool": pool}

    def words(self, text: str) -> Words:
        return words.parse(text, self._captures, self._constants)

    def pairs(self, given: Mapping[str, str]) -> Pairs:
        return tuple((name.encode(), self.words(text)) for name, text in given.items())

    def headers(self, given: model.RequestEdits | model.ResponseEdits | None) -> HeaderEdits | None:
        if given is None or not (given.set or given.add or given.remove):
            return None
        removed = frozenset(name.encode() for name in given.remove)
        return HeaderEdits(removed, self.pairs(given.set), self.pairs(given.add))


def edits(route: model.Route, pool: str, side: model.Side | None) -> Edits | None:
    """All edits on the way to `pool`, or None if there are none."""
    phrases = _Phrases(route, pool)
    given = route.rewrite
    path = phrases.words(given.path) if given is not None and given.path is not None else None
    rewrite = Rewrite(
        path, prefixes(given.prefix) if given is not None else (), prefixes(side.rewrite) if side is not None else ()
    )
    host = None
    if given is not None and given.host is not None:
        host = phrases.words("" if given.host == "backend" else given.host)
    made = Edits(
        template=phrases.template,
        rewrite=rewrite if path is not None or rewrite.prefixes or rewrite.after else None,
        host=host,
        request=phrases.headers(route.request_headers),
        response=phrases.headers(route.response_headers),
    )
    return None if made == Edits(template=phrases.template) else made


def reply(route: model.Route) -> Reply | None:
    """The answer of a route that asks no pool."""
    if route.respond is not None:
        return Fixed(route.respond.status, route.respond.media_type.encode(), route.respond.content)
    given = route.redirect
    if given is None:
        return None
    phrases = _Phrases(route, "")
    return Redirect(
        status=given.status,
        scheme=(given.scheme or "").encode(),
        host=phrases.words(given.host) if given.host is not None else None,
        port=given.port or 0,
        path=phrases.words(given.path) if given.path is not None else None,
        prefixes=prefixes(given.prefix),
        keep_query=given.query,
        template=phrases.template,
    )


def retry(route: model.Route, pool: str, catalogue: Catalogue, memory: Memory) -> RetryRules:
    """When the route's requests at `pool` are tried again, or asked twice."""
    given = route.retry
    return RetryRules(
        retry_cells(catalogue, route),
        given.attempts,
        frozenset(given.on),
        replayable=given.replayable,
        replay_field=b"" if given.replay_header == "off" else given.replay_header.encode(),
        per_try=int((given.per_try or 0) * 1e9),
        backoff=int(given.backoff * 1e9),
        backoff_max=int(given.backoff_max * 1e9),
        same_backend=given.same_backend,
        hedge=_hedge(route, pool, memory),
    )


def _hedge(route: model.Route, pool: str, memory: Memory) -> HedgeRules | None:
    given = route.hedge
    if given is None or not pool:
        return None
    latencies = memory.latencies(route.name, pool, time.monotonic_ns())
    if isinstance(given.after, str):
        return HedgeRules(latencies, share=float(given.after[1:]) / 100, most=given.max)
    return HedgeRules(latencies, after=int(given.after * 1e9), most=given.max)


def shadow(route: model.Route, catalogue: Catalogue, pools: Mapping[str, Pool]) -> ShadowRules | None:
    """Where copies of the route's requests go."""
    given = route.shadow
    if given is None or not given.share:
        return None
    cells = shadow_cells(catalogue, route, given)
    timeout = int(given.timeout * 1e9)
    rewrite = prefixes(given.rewrite)
    return ShadowRules(route.name, pools[given.pool], given.share, given.max_inflight, timeout, rewrite, cells)


def split(
    route: model.Route, compiled: Route, catalogue: Catalogue, pools: Mapping[str, Pool], memory: Memory
) -> Route:
    """The route with one whole route per side. A side's ladder leaves out the rungs of its own pool."""
    sides = []
    for side in route.sides:
        kept = [
            not (isinstance(rung, PoolRung) and rung.pool == side.pool and not rung.rewrite) for rung in compiled.ladder
        ]
        ladder = tuple(rung for rung, keep in zip(compiled.ladder, kept, strict=True) if keep)
        rungs = tuple(cell for cell, keep in zip(compiled.cells.rungs, kept, strict=True) if keep)
        changed = replace(
            compiled,
            pool=pools[side.pool],
            retry=retry(route, side.pool, catalogue, memory),
            key=f"{route.name} {side.pool}".encode(),
            edits=edits(route, side.pool, side),
            ladder=ladder,
            cells=replace(compiled.cells, rungs=rungs),
            side=side_cell(catalogue, route, side.pool),
        )
        sides.append(Side(side.pool, side.weight, changed))
    sticky = route.sticky
    by = Sticky((sticky.header or "").encode(), (sticky.cookie or "").encode()) if sticky is not None else None
    return replace(compiled, split=Split(sides, by))
