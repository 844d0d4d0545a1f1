"""Warnings about limits: what never refuses, never admits or never matches as it was probably meant (see `lint`)."""

from collections.abc import Callable, Iterator

from gateway.config.model import Config
from gateway.config.source import Loc
from gateway.config.units import format_size
from gateway.limits.scopes import is_plain

Finding = tuple[Loc, str, str | None]

#: What a part of a key says already, because it determines the other: no bucket is told apart by that one.
IMPLIED = (("tenant", "client"), ("tenant", "api-key"), ("client", "api-key"), ("model", "path"))


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


def idle_scope(config: Config) -> Iterator[Finding]:
    for name, limit in config.limits.items():
        known = [scope.word for scope in limit.key]
        for index, word in enumerate(known):
            wider = next((other for part, other in IMPLIED if part == word and other in known), None)
            if wider is not None:
                message = f"every {wider} has one {word}, so '{word}' makes no more buckets"
                yield ("limits", name, "key", index), message, "remove it"
            elif word == "global" and len(known) > 1:
                yield ("limits", name, "key", index), "'global' beside others tells nothing apart", "remove it"


def idle_override(config: Config) -> Iterator[Finding]:
    for name, limit in config.limits.items():
        for key in limit.all_overrides:
            parts = key.split("|")
            if len(parts) != len(limit.key):
                message = (
                    f"{key!r} never matches: it has {_parts(len(parts))}, keys of this limit {_parts(len(limit.key))}"
                )
                hint = "join its parts by '|'" if len(limit.key) > 1 else None
            elif odd := next((part for part in parts if not is_plain(part.encode())), None):
                message = f"{key!r} never matches: {odd!r} is too long, or not plain, and in keys as a digest"
                hint = None
            else:
                continue
            place = ("overrides", key) if key in limit.overrides else ("overrides_file",)
            yield ("limits", name, *place), message, hint


def _parts(count: int) -> str:
    return "one part" if count == 1 else f"{count} parts"


def dear_batches(config: Config) -> Iterator[Finding]:
    for name, limit in config.limits.items():
        most = limit.cost.otherwise
        if most is not None and limit.burst is not None and most > limit.burst:
            message = f"more than the burst ({limit.burst}), so a body whose rows cannot be counted is always refused"
            yield ("limits", name, "cost", "otherwise"), message, None


LIMIT_RULES: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    lease_that_saves_nothing,
    body_over_the_burst,
    idle_scope,
    idle_override,
    dear_batches,
)
