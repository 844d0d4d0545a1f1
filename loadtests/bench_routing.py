"""Microseconds to find a route, by kind of match and number of routes (`make bench`).

One process, no network: `RouteTable.find` on ready-made requests, spread over all routes. Each figure is the best of
five repeats, for what disturbs a run only ever adds. The bar: exact and prefix at 10,000 routes in 2 us or less.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from gateway.request import Request
from gateway.routing import template
from gateway.routing.table import Match, RouteTable

COUNTS = (1, 10, 100, 1_000, 10_000)
BAR_US = 2.0
BARRED = ("exact", "prefix")
ASKED = 512  # requests, over and over
LOOPS = 40
REPEATS = 5


class Route(NamedTuple):
    match: Match


class Kind(NamedTuple):
    """The match of the nth route, and the path and host of a request that only this route takes."""

    match: Callable[[int], Match]
    path: Callable[[int], str]
    host: Callable[[int], str] = lambda _: "gateway.example"


def _exact(n: int) -> Match:
    return Match(f"/v1/models/model-{n:05}:predict".encode(), False)


def _prefix(n: int) -> Match:
    return Match(f"/v1/models/model-{n:05}/".encode(), True)


def _many_lengths(n: int) -> Match:
    return Match(f"/team-{'x' * (n % 40)}/{n:05}/".encode(), True)


def _template(n: int) -> Match:
    return Match(b"", False, template=template.parse(f"/tenants/t{n:05}/models/{{model}}:predict"))


def _verb(n: int) -> Match:
    return Match(b"", False, template=template.parse(f"/v1/models/{{model}}:verb{n:05}"))


def _mixed(n: int) -> Match:
    return (_exact, _prefix, _template, _exact)[n % 4](n)


def _mixed_path(n: int) -> str:
    return (EXACT.path, PREFIX.path, TEMPLATE.path, EXACT.path)[n % 4](n)


EXACT = Kind(_exact, "/v1/models/model-{:05}:predict".format)
PREFIX = Kind(_prefix, "/v1/models/model-{:05}/versions/7:predict".format)
TEMPLATE = Kind(_template, "/tenants/t{:05}/models/digits:predict".format)
KINDS = {
    "exact": EXACT,
    "prefix": PREFIX,
    "prefix, 40 lengths": Kind(_many_lengths, lambda n: f"/team-{'x' * (n % 40)}/{n:05}/digits:predict"),
    "one path, n hosts": Kind(
        lambda n: Match(b"/", True, hosts=(f"h{n:05}.example".encode(),)), lambda _: "/x", "h{:05}.example".format
    ),
    "one path, n domains": Kind(
        lambda n: Match(b"/", True, hosts=(f"*.h{n:05}.example".encode(),)), lambda _: "/x", "a.h{:05}.example".format
    ),
    "template": TEMPLATE,
    "template, n verbs": Kind(_verb, "/v1/models/digits:verb{:05}".format),
    "mixed": Kind(_mixed, _mixed_path),
    "mixed, miss": Kind(_mixed, "/v2/nobody/{:05}/here".format),
}


def measure(kind: Kind, count: int, *, miss: bool) -> float:
    """Microseconds per look-up."""
    table = RouteTable([Route(kind.match(n)) for n in range(count)])
    chosen = random.Random(1).choices(range(count), k=ASKED)
    requests = []
    for n in chosen:
        path = kind.path(n).encode()
        requests.append(Request(b"POST", path, path, {b"host": kind.host(n).encode()}))
        found = table.find(requests[-1])
        assert found is None if miss else found is not None and found.match == kind.match(n), path
    find = table.find
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(LOOPS):
            for request in requests:
                find(request)
        best = min(best, time.perf_counter() - began)
    return best / (LOOPS * ASKED) * 1e6


def main() -> int:
    p = argparse.ArgumentParser("python -m loadtests.bench_routing", description=__doc__)
    p.add_argument("--format", choices=("text", "json"), default="text")
    p.add_argument("--check", action="store_true", help="exit 1 if the bar is missed")
    args = p.parse_args()
    figures = {
        name: {count: round(measure(kind, count, miss="miss" in name), 3) for count in COUNTS}
        for name, kind in KINDS.items()
    }
    met = all(figures[name][COUNTS[-1]] <= BAR_US for name in BARRED)
    if args.format == "json":
        print(json.dumps({"us_per_match": figures, "bar_us": BAR_US, "met": met}, indent=2))
    else:
        print(f"{'us per match, by routes':24}" + "".join(f"{count:>9,}" for count in COUNTS))
        for name, row in figures.items():
            print(f"{name:24}" + "".join(f"{row[count]:9.2f}" for count in COUNTS))
        word = "met" if met else "MISSED"
        print(f"bar: exact and prefix at {COUNTS[-1]:,} routes in {BAR_US:g} us or less: {word}")
    return 0 if met or not args.check else 1


if __name__ == "__main__":
    sys.exit(main())
