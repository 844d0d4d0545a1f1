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

DEFAULT_ADMIN = "127.0.0.1:9090"

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
        for index, rung in enumerate(_list(route.get("degrade"))):
            if isinstance(rung, dict):
                references.append(((*loc, "degrade", index, "pool"), rung.get("pool"), "pool", pools))
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
            name = str(backend.get(key)).removeprefix("http://").removesuffix("/") if key in backend else None
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


def stale_needs_cache(source: Source) -> Iterator[Diagnostic]:
    for loc, route in _routes(source):
        for index, rung in _names(route.get("degrade")):
            if rung == "stale" and "cache" not in route:
                place = (*loc, "degrade", index)
                hint = "add for example cache: {stale_if_error: 10m} to the route, or remove the rung"
                yield source.diagnose(place, f"{spell(place)}: 'stale' needs a cache and the route has none", hint)


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


CHECKS: tuple[Check, ...] = (
    no_substitution,
    no_empty_value,
    known_names,
    unique_names,
    stale_needs_cache,
    distinct_listeners,
)
