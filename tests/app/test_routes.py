"""From the words of a configuration to routes that are ready for the path."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gateway.app import compile as compiled
from gateway.app.series import allot
from gateway.config.load import load, load_text
from gateway.degrade.ladder import PoolRung
from gateway.request import Request
from gateway.routing.replies import Fixed, Redirect
from gateway.telemetry.cells import Catalogue
from gateway.upstreams.registry import BackendRegistry

EXAMPLE = Path(__file__).parents[2] / "config/examples/routing.yaml"
HEAD = """version: 1
pools: {a: {backends: [{url: "http://a:1"}]}, b: {backends: [{url: "http://b:1"}]}}
routes:
"""


def snapshot(config):
    """As a worker makes it: it finds every series allotted by the supervisor."""
    catalogue = Catalogue()
    allot(catalogue, config, 2)
    places = len(list(catalogue.series()))
    made = compiled.snapshot(*pickle.loads(pickle.dumps((config, 1, catalogue))), BackendRegistry())
    compiled.snapshot(config, 1, catalogue, BackendRegistry())
    assert len(list(catalogue.series())) == places, "a worker never makes a series"
    return made


def one_route(text):
    made = snapshot(load_text(f"{HEAD}  - {{name: r, match: {{path: '/m/{{model}}'}}, {text}}}\n", Path("x.yaml")))
    route = made.routes.find(Request(b"GET", b"/m/digits", b"/m/digits", {}))
    assert route is not None
    return route


def ask(table, target, method=b"GET", **fields):
    headers = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    found = table.find(Request(method, target, target.partition(b"?")[0], headers))
    return found.name if found is not None else None


def test_the_example():
    table = snapshot(load(EXAMPLE)).routes
    assert ask(table, b"/v1/models/ranker:predict", b"POST", x_model="next") == "try-next"
    assert ask(table, b"/v1/models/ranker:predict", b"POST") == "ranker"
    assert ask(table, b"/models/m/7:predict", b"POST", host="eu.api.example.com:80") == "short-path"
    assert ask(table, b"/models/m/7:predict", b"POST", host="example.com") is None
    assert ask(table, b"/debug/x?token=00ff00ff") == "debug"
    assert ask(table, b"/debug/x?token=00") is None
    assert ask(table, b"/api/v0/x") == "moved"
    assert ask(table, b"/") == "hello"


def test_a_route_without_any_of_it_carries_nothing():
    route = one_route("pool: a")
    assert (route.split, route.edits, route.reply, route.shadow) == (None, None, None, None)
    assert one_route("pool: a, request_headers: {}, response_headers: {remove: []}").edits is None
    assert one_route("pool: a, shadow: {pool: b, share: 0}").shadow is None


def test_sides_are_whole_routes():
    route = one_route(
        "split: [{pool: a, weight: 1}, {pool: b, weight: 3, rewrite: {/m/: /n/}}], degrade: [{pool: a}, {pool: b}],"
        " response_headers: {set: {x-pool: '{pool}'}}, shadow: {pool: b}"
    )
    first, second = route.split.sides
    assert [(side.name, side.weight) for side in (first, second)] == [("a", 1), ("b", 3)]
    assert [side.route.pool.name for side in (first, second)] == ["a", "b"]
    assert first.route.key != second.route.key, "answers of the two are not mixed in the cache"
    assert first.route.side != second.route.side
    assert first.route.pool.budget is not second.route.pool.budget, "one budget for each pool"
    for side, other in ((first, "b"), (second, "a")):
        assert side.route.split is None
        assert [rung.pool for rung in side.route.ladder if isinstance(rung, PoolRung)] == [other]
        assert len(side.route.cells.rungs) == 1
        assert side.route.edits.response.set[0][1].parts[0].text == side.name.encode()
        assert side.route.shadow is route.shadow
    assert first.route.edits.rewrite is None
    assert second.route.edits.rewrite.after == ((b"/m/", b"/n/"),)


def test_a_rung_that_asks_the_same_pool_for_something_else_stays():
    route = one_route("split: [{pool: a, weight: 1}], degrade: [{pool: a, rewrite: {/m/: /small/}}]")
    assert len(route.split.sides[0].route.ladder) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redirect: {path: '/n/{model}'}", Redirect),
        ("respond: {body: x}", Fixed),
        ("respond: {status: 204}", Fixed),
    ],
)
def test_routes_that_answer_by_themselves_have_an_empty_pool(text, expected):
    route = one_route(text)
    assert isinstance(route.reply, expected)
    assert route.pool.backends == ()


def test_a_reload_keeps_names_and_series_in_place():
    config = load(EXAMPLE)
    catalogue = Catalogue()
    allot(catalogue, config, 2)
    before = {(metric, labels): place for metric, labels, place in catalogue.series()}
    allot(catalogue, load(EXAMPLE), 2)
    assert {(metric, labels): place for metric, labels, place in catalogue.series()} == before
