"""What a section cannot see alone: references, duplicates, and habits from other tools that do not work here.

The checks read the raw data, not the model, so that they also speak when some field elsewhere is wrong: all faults of
a file come in one run. They say nothing about data of the wrong shape; that is the model's to report.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from gateway.config.diagnosis import spell, suggest
from gateway.config.errors import Diagnostic
from gateway.config.source import Loc, Source
from gateway.routing import template, words

DEFAULT_ADMIN = "127.0.0.1:9090"
DEFAULT_HEADER = "x-api-key"
DESTINATIONS = ("pool", "split", "redirect", "respond")
ASKING = (
    "cache",
    "degrade",
    "priority",
    "request_headers",
    "retry",
    "rewrite",
    "shadow",
    "timeout",
)  # of no use without a pool
EDITS = ("request_headers", "response_headers")

Check = Callable[[Source], Iterator[Diagnostic]]


def check(source: Source) -> list[Diagnostic]:
    """All diagnostics of all checks."""
    return [found for each in CHECKS for found in each(source)]


def _walk(value: object, loc: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    yield loc, value
    if isinstance(value, dict):
        for key, content in value.items():
            yield from _walk(content, (*loc, key))
    elif isinstance(value, list):
        for index, content in enumerate(value):
            yield from _walk(content, (*loc, index))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _names(value: object) -> list[tuple[int, Any]]:
    return [(index, item) for index, item in enumerate(_list(value)) if isinstance(item, str)]


def _routes(source: Source) -> Iterator[tuple[Loc, dict[str, Any]]]:
    for index, route in enumerate(_list(_mapping(source.data).get("routes"))):
        yield ("routes", index), _mapping(route)


def no_substitution(source: Source) -> Iterator[Diagnostic]:
    for loc, value in _walk(source.data):
        if isinstance(value, str) and (found := re.search(r"\$\{\w+[^}]*\}", value)):
            yield source.diagnose(
                loc,
                f"{spell(loc)}: {found[0]} is not replaced; environment variables are not supported in this file",
                "write the value here, or generate the file (envsubst) before the gateway reads it",
            )


def no_empty_value(source: Source) -> Iterator[Diagnostic]:
    for loc, value in _walk(source.data):
        if value is None and loc not in source.unread:
            hint = "remove the key to get its default, or write a value"
            yield source.diagnose(loc, f"{spell(loc)} has no value", hint, key=True)


def known_names(source: Source) -> Iterator[Diagnostic]:
    pools, limits = (list(_mapping(_mapping(source.data).get(kind))) for kind in ("pools", "limits"))
    for loc, route in _routes(source):
        references = [((*loc, "pool"), route.get("pool"), "pool", pools)]
        references += [((*loc, "limits", i), name, "limit", limits) for i, name in _names(route.get("limits"))]
        for key in ("degrade", "split"):
            for index, part in enumerate(_list(route.get(key))):
                references.append(((*loc, key, index, "pool"), _mapping(part).get("pool"), "pool", pools))
        references.append(((*loc, "shadow", "pool"), _mapping(route.get("shadow")).get("pool"), "pool", pools))
        for place, name, kind, known in references:
            if isinstance(name, str) and name not in known:
                hint = suggest(name, known, f"defined under {kind}s") or f"nothing is defined under '{kind}s'"
                yield source.diagnose(place, f"{spell(place)}: there is no {kind} named '{name}'", hint)


def unique_names(source: Source) -> Iterator[Diagnostic]:
    routes = [((*loc, "name"), route.get("name")) for loc, route in _routes(source)]
    yield from _repeated(source, routes, "another route is named '{}' too", "give each route its own name")
    for loc, route in _routes(source):
        limits = [((*loc, "limits", index), name) for index, name in _names(route.get("limits"))]
        yield from _repeated(source, limits, "the limit '{}' is listed twice", "each limit counts a request once")
    for pool, content in _mapping(_mapping(source.data).get("pools")).items():
        backends: list[tuple[Loc, Any]] = []
        for index, raw in enumerate(_list(_mapping(content).get("backends"))):
            backend = _mapping(raw)
            key = "name" if "name" in backend else "url"
            name = re.sub("^https?://", "", str(backend.get(key))).removesuffix("/") if key in backend else None
            backends.append((("pools", pool, "backends", index, key), name))
        hint = "give more traffic with 'weight', or tell them apart with 'name'"
        yield from _repeated(source, backends, "another backend of the pool is named '{}' too", hint)


def _repeated(source: Source, items: list[tuple[Loc, Any]], message: str, hint: str) -> Iterator[Diagnostic]:
    seen: set[str] = set()
    for loc, name in items:
        if isinstance(name, str) and name in seen:
            yield source.diagnose(loc, f"{spell(loc)}: {message.format(name)}", hint)
        elif isinstance(name, str):
            seen.add(name)


def one_destination(source: Source) -> Iterator[Diagnostic]:
    for loc, route in _routes(source):
        given = [key for key in DESTINATIONS if key in route]
        if not given and (route or loc not in source.unread):
            hint = "for example pool: NAME, of a pool under 'pools'"
            yield source.diagnose(loc, f"missing key in {spell(loc)}: one of {', '.join(DESTINATIONS)}", hint)
        for extra in given[1:]:
            message = f"{spell((*loc, extra))}: the route has '{given[0]}' already"
            yield source.diagnose((*loc, extra), message, "a route has one of pool, split, redirect, respond", key=True)
        if given and given[0] in ("redirect", "respond"):
            for key in route:
                if key in ASKING:
                    message = f"{spell((*loc, key))}: a route with '{given[0]}' asks no pool"
                    yield source.diagnose((*loc, key), message, f"remove '{key}'", key=True)


def sensible_split(source: Source) -> Iterator[Diagnostic]:
    for loc, route in _routes(source):
        if "sticky" in route and "split" not in route:
            place = (*loc, "sticky")
            yield source.diagnose(place, f"{spell(place)}: there is no split to stick to", "add a 'split'", key=True)
        sides = [_mapping(side) for side in _list(route.get("split"))]
        pools = [((*loc, "split", index, "pool"), side.get("pool")) for index, side in enumerate(sides)]
        yield from _repeated(source, pools, "the pool '{}' is in the split twice", "add up the weights")
        weights = [side.get("weight") for side in sides]
        if weights and all(weight == 0 for weight in weights if not isinstance(weight, bool)):
            place = (*loc, "split")
            yield source.diagnose(place, f"{spell(place)}: every weight is 0", "give at least one pool a weight")


def known_places(source: Source) -> Iterator[Diagnostic]:
    """`{names}` in rewrites, redirects and header values."""
    for loc, route in _routes(source):
        path = _mapping(route.get("match")).get("path")
        try:
            captures = template.parse(path).names if isinstance(path, str) and template.is_template(path) else ()
        except ValueError:
            continue  # the model tells what is wrong with it
        variables = (*words.CONSTANTS, *words.VARIABLES)
        for name in captures:
            if name in variables:
                place = (*loc, "match", "path")
                message = f"{spell(place)} has the capture '{{{name}}}', which is a variable of that name already"
                yield source.diagnose(place, message, "give the capture another name")
        for place, text in _phrases(loc, route):
            known = (*captures, *variables)
            for name in _places(text):
                if name not in known:
                    message = f"{spell(place)}: nothing fills in '{{{name}}}'"
                    yield source.diagnose(place, message, suggest(name, known))


def _phrases(loc: Loc, route: dict[str, Any]) -> Iterator[tuple[Loc, Any]]:
    for section, keys in (("rewrite", ("path", "host")), ("redirect", ("path", "host"))):
        for key in keys:
            yield (*loc, section, key), _mapping(route.get(section)).get(key)
    for section in EDITS:
        for verb in ("set", "add"):
            for name, value in _mapping(_mapping(route.get(section)).get(verb)).items():
                yield (*loc, section, verb, name), value


def _places(text: object) -> list[str]:
    try:
        return words.names(text) if isinstance(text, str) else []
    except ValueError:
        return []


def key_field_stays(source: Source) -> Iterator[Diagnostic]:
    """The field with the caller's key is never sent on, so an edit of it would be lost."""
    header = _mapping(_mapping(source.data).get("identity")).get("header", DEFAULT_HEADER)
    for loc, route in _routes(source):
        edits = _mapping(route.get("request_headers"))
        for verb in ("set", "add"):
            if isinstance(header, str) and header in _mapping(edits.get(verb)):
                place = (*loc, "request_headers", verb, header)
                message = f"{spell(place)}: this field holds the caller's key (identity.header) and is never sent on"
                yield source.diagnose(place, message, "use another name", key=True)


def stale_needs_cache(source: Source) -> Iterator[Diagnostic]:
    for loc, route in _routes(source):
        for index, rung in _names(route.get("degrade")):
            if rung == "stale" and "cache" not in route:
                place = (*loc, "degrade", index)
                hint = "add for example cache: {stale_if_error: 10m} to the route, or remove the rung"
                yield source.diagnose(place, f"{spell(place)}: 'stale' needs a cache and the route has none", hint)


def slow_rate_needs_slow(source: Source) -> Iterator[Diagnostic]:
    for name, pool in _mapping(_mapping(source.data).get("pools")).items():
        breaker = _mapping(_mapping(pool).get("breaker"))
        if "slow_rate" in breaker and "slow_after" not in breaker:
            place = ("pools", name, "breaker", "slow_rate")
            hint = "say with slow_after from when on a call is slow"
            yield source.diagnose(place, f"{spell(place)}: means nothing without slow_after", hint, key=True)


def distinct_listeners(source: Source) -> Iterator[Diagnostic]:
    data = _mapping(source.data)
    listen = data.get("listen")
    places: list[tuple[Loc, Any]] = [(("listen",), listen)]
    if isinstance(listen, list):
        places = [(("listen", index), each) for index, each in enumerate(listen)]
    places = [
        ((*loc, "address"), each.get("address")) if isinstance(each, dict) else (loc, each) for loc, each in places
    ]
    admin = _mapping(data.get("admin")).get("listen", DEFAULT_ADMIN)
    seen = {admin} if isinstance(admin, str) else set()
    for loc, address in places:
        if isinstance(address, str) and not address.endswith(":0"):
            if address in seen:
                other = "the admin listener uses it too" if address == admin else "it is in the list twice"
                yield source.diagnose(loc, f"{spell(loc)}: {address}: {other}", "give each listener its own address")
            seen.add(address)


def state_file_of_its_own(source: Source) -> Iterator[Diagnostic]:
    """What is kept there is written over."""
    data = _mapping(source.data)
    admin = _mapping(data.get("admin"))
    state = admin.get("state_file", "off")
    places: tuple[tuple[Loc, object], ...] = (
        (("admin", "token_file"), admin.get("token_file")),
        (("access_log", "path"), _mapping(data.get("access_log")).get("path")),
        (("identity", "api_keys"), _mapping(data.get("identity")).get("api_keys")),
    )
    for loc, name in places:
        if isinstance(state, str) and state != "off" and name == state:
            place: Loc = ("admin", "state_file")
            hint = "give it a file of its own, such as /var/lib/sluicegate/state.json"
            yield source.diagnose(place, f"{spell(place)}: {spell(loc)} is the same file", hint)


CHECKS: tuple[Check, ...] = (
    no_substitution,
    no_empty_value,
    known_names,
    unique_names,
    one_destination,
    sensible_split,
    known_places,
    key_field_stays,
    stale_needs_cache,
    slow_rate_needs_slow,
    distinct_listeners,
    state_file_of_its_own,
)
