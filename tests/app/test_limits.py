"""From the words of a configuration to limits that are ready for the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app import series
from gateway.app.limits import SCOPES, limits, tenants
from gateway.config.load import load, load_text
from gateway.config.sections.limits import WORDS
from gateway.limits.bucket import BucketSpec
from gateway.limits.costs import BodyCost, Cost, HeaderCost, RowsCost
from gateway.limits.memory import Memory
from gateway.request import Request
from gateway.telemetry.cells import Catalogue

TEXT = """version: 1
identity: {api_keys: {file: keys.yaml}}
limits:
  l: %s
pools: {a: {backends: [{url: "http://a:1"}]}}
routes: [{name: r, match: {path: "/infer/{model}"}, pool: a, limits: [l]}]
"""
KEYS = """version: 1
keys:
  - {client: alice, tenant: acme, sha256: %s}
  - {client: bob, sha256: %s}
"""


@pytest.fixture
def made(tmp_path):
    (tmp_path / "keys.yaml").write_text(KEYS % ("a" * 64, "b" * 64))
    (tmp_path / "more.yaml").write_text("version: 1\noverrides: {bob: {rate: 7/s}, alice: {burst: 1}}\n")

    def make(limit):
        config = load_text(TEXT % limit, tmp_path / "gateway.yaml")
        return limits(config.routes[0], config, Memory()), config

    return make


def asked():
    request = Request(b"GET", b"/infer/cats", b"/infer/cats", {b"x-team": b"blue"}, peer=b"10.1.2.3")
    request.client, request.tenant = b"alice", b"acme"
    return request


def test_every_word_has_a_scope():
    assert set(SCOPES) == set(WORDS)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("client", b"alice"), ("tenant", b"acme"), ("ip", b"10.1.2.3"), ("{ip: {v4: 24}}", b"10.1.2.0/24"),
        ("{header: x-team}", b"blue"), ("path", b"/infer/cats"), ("route", b"r"), ("model", b"cats"),
        ("global", b"*"), ("[tenant, model]", b"acme|cats"), ("api-key", b"10.1.2.3"),
    ],
)  # fmt: skip
def test_scopes(made, key, expected):
    route, _ = made(f"{{key: {key}, rate: 1/s, burst: 9}}")
    assert route.scopes[0].key(asked(), b"r") == expected


@pytest.mark.parametrize(
    ("cost", "kind", "tokens"),
    [
        ("5", Cost, 5.0), ("{tokens: 2.5}", Cost, 2.5), ("{body: 1KiB}", BodyCost, 1.0), ("{rows: 2}", RowsCost, 2.0),
        ("{header: x-units}", HeaderCost, 1.0), ("{header: x-units, reserve: 7}", HeaderCost, 7.0),
    ],
)  # fmt: skip
def test_costs(made, cost, kind, tokens):
    route, _ = made(f"{{key: client, rate: 1/s, burst: 9, cost: {cost}}}")
    assert type(route.policies[0].cost) is kind
    assert route.costs == [tokens]


def test_rows_that_cannot_be_counted_cost_the_whole_burst_unless_said_otherwise(made):
    route, _ = made("{key: client, rate: 1/s, burst: 9, cost: {rows: 1}}")
    assert route.policies[0].cost.otherwise == 9.0
    route, _ = made("{key: client, rate: 1/s, burst: 9, cost: {rows: 1, otherwise: 3}}")
    assert route.policies[0].cost.otherwise == 3.0


def test_overrides_of_the_file_and_of_the_limit_itself(made):
    text = "{key: client, rate: 1/s, burst: 9, overrides_file: more.yaml, overrides: {alice: {rate: 5/s}}}"
    overrides = made(text)[0].policies[0].overrides
    assert {name: policy.spec for name, policy in overrides.items()} == {
        b"bob": BucketSpec(7.0, 9.0),
        b"alice": BucketSpec(5.0, 9.0),
    }


def test_places(made):
    route, _ = made("{key: client, concurrent: 20, overrides: {alice: {concurrent: 40}}}")
    assert (route.policies[0].concurrent, route.policies[0].overrides[b"alice"].concurrent) == (20, 40)
    assert route.holds


def test_tenants(made):
    _, config = made("{key: tenant, rate: 1/s, burst: 9}")
    assert tenants(config.identity) == {b"alice": b"acme"}


def test_no_limits_and_no_tenants():
    config = load(Path(__file__).parents[2] / "config/examples/routing.yaml")
    assert all(limits(route, config, Memory()) is None for route in config.routes if not route.limits)
    assert tenants(config.identity) is None


def test_the_rate_is_said_as_it_was_written(made):
    text = "{key: client, rate: 120/m, burst: 9, overrides: {alice: {rate: 7200/h}, bob: {burst: 12}}}"
    limit = made(text)[0].policies[0]
    assert limit.figures() == "120 requests per minute, 9 at once"
    assert limit.overrides[b"alice"].figures() == "7200 requests per hour, 9 at once"
    assert limit.overrides[b"bob"].figures() == "120 requests per minute, 12 at once"


@pytest.mark.parametrize("mode", ["local", "open", "closed"])
def test_decisions_without_the_store_are_counted_as_what_they_are(made, mode):
    _, config = made(f"{{key: client, rate: 1/s, burst: 9, on_store_failure: {mode}}}")
    catalogue = Catalogue()
    cells = series.limit_cells(catalogue, "l", config.limits["l"])
    labels = {place: dict(labels) for _, labels, place in catalogue.series()}
    assert [(labels[cell]["store"], labels[cell]["result"]) for cell in cells.decisions] == [
        (store, result) for store in ("shared", mode, "leased") for result in ("refused", "allowed")
    ]
