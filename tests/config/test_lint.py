"""Each lint rule speaks when it should, where it should, and only then."""

from pathlib import Path

import pytest

from gateway.config.lint import RULES, lint
from gateway.config.load import load_text

HEAD = """version: 1
limits: {l: {key: client, rate: 1/s, burst: 1}}
pools:
  p: {backends: [{url: "http://a:1"}, {url: "http://b:1"}]}
  q: {backends: [{url: "http://c:1"}]}
routes:
  - {name: used, match: {path: /used}, pool: q, limits: [l]}
"""


def warnings(text: str) -> list[str]:
    return [each.message for each in lint(load_text(text, Path(__file__).parent / "x.yaml"))]


def route(rest: str, match: str = "{path: '/x*'}") -> str:
    return HEAD + f"  - {{name: x, match: {match}, pool: p, {rest}}}\n"


def secured(**tls: str) -> str:
    files = ", ".join(
        f"{name}: certificates/{value}" if "." in value else f"{name}: {value}" for name, value in tls.items()
    )
    return route("") + f"listen: {{address: '127.0.0.1:8443', tls: {{{files}, key: certificates/key.pem}}}}\n"


CASES = {
    "unreachable_route": (route("") + "  - {name: y, match: {path: /xy, methods: [GET]}, pool: p}\n", "never reached"),
    "retry_of_writes": (route("retry: {on: [connect, 503]}"), "a POST is not sent again after 503"),
    "idle_per_try": (
        route("timeout: 2s, retry: {per_try: 2s, replayable: true}"),
        "not shorter than the timeout (2s), so no try is given up",
    ),
    "idle_hedge": (route("hedge: {}"), "a POST is not hedged"),
    "empty_retry_budget": (
        route("").replace('"http://b:1"}]', '"http://b:1"}], retry_budget: {ratio: 0, min: 0/s}'),
        "nothing is ever retried or hedged",
    ),
    "late_connect": (route("timeout: 200ms"), "a retry never happens"),
    "slow_health_check": (
        route("").replace('"http://c:1"}]', '"http://c:1"}], health: {timeout: 3s}'),
        "longer than the interval (2s)",
    ),
    "drained_pool": (route("").replace('"http://c:1"', '"http://c:1", weight: 0'), "every backend has weight 0"),
    "never_slow": (
        route("timeout: 1s").replace('"http://b:1"}]', '"http://b:1"}], breaker: {slow_after: 1s}'),
        "no call is ever slow: no route waits longer than 1s",
    ),
    "lonely_ejection": (
        route("").replace('"http://c:1"}]', '"http://c:1"}], ejection: {}'),
        "nobody is ever ejected: 3 backends are needed",
    ),
    "idle_zones": (
        route("").replace('"http://c:1"}]', '"http://c:1", zone: a}]'),
        "means nothing: the gateway's own zone is not given",
    ),
    "session_beside_hash": (
        route("").replace('"http://b:1"}]', '"http://b:1"}], sticky: {}, balance: maglev'),
        "the cookie decides before the hash does",
    ),
    "few_to_hedge_to": (
        route("retry: {replayable: true}, hedge: {max: 2}"),
        "hedge.max: more than there are others to ask in the pool (1)",
    ),
    "hedge_behind_per_try": (
        route("timeout: 2s, retry: {replayable: true, per_try: 100ms}, hedge: {after: 100ms}"),
        "hedge.after: not before per_try (100ms), when the try is given up",
    ),
    "long_backoff": (
        route("timeout: 1s, retry: {backoff: 1s, backoff_max: 2s}"),
        "retry.backoff: not below the timeout (1s)",
    ),
    "idle_retry_budget": (
        route("retry: {attempts: 1}").replace('"http://b:1"}]', '"http://b:1"}], retry_budget: {ratio: 0.2}'),
        "pools.p.retry_budget: no route retries or hedges here",
    ),
    "blind_breaker": (
        route("").replace('"http://b:1"}]', '"http://b:1"}], breaker: {error_rate: 0, min_calls: 5}'),
        "pools.p.breaker.min_calls: means nothing: with error_rate 0",
    ),
    "blind_ejection": (
        route("").replace(
            '"http://b:1"}]', '"http://b:1"}, {url: "http://d:1"}], ejection: {success_factor: 0, latency_factor: 0}'
        ),
        "pools.p.ejection: nobody is ever ejected: neither",
    ),
    "no_choice": (
        route("").replace('"http://c:1"}]', '"http://c:1"}], slow_start: 30s'),
        "pools.q.slow_start: means nothing: the pool has one backend",
    ),
    "priority_gap": (
        route("").replace('"http://b:1"}]', '"http://b:1", priority: 2}]'),
        "pools.p.backends[1].priority: no backend has priority 1",
    ),
    "idle_admission_limit": (
        route("").replace('"http://c:1"}]', '"http://c:1"}], admission: {limit: 2049}') + "workers: 2\n",
        "more than max_inflight (1024, for each of 2 workers)",
    ),
    "urgent_strangers": (
        route("") + "priority: {header: x-priority, critical: [mallory]}\n",
        "no API key of a client 'mallory'",
    ),
    "rung_order": (route("degrade: [{pool: p}]"), "already failed"),
    "idle_rewrite": (route("degrade: [{pool: q, rewrite: {/y: /z}}]"), "nothing is rewritten"),
    "redirect_to_itself": (
        route("").replace("pool: p, }", "redirect: {path: /xy}}") + "  - {name: y, match: {path: /y}, pool: p}\n",
        "clients go in circles",
    ),
    "copy_to_the_same_pool": (route("shadow: {pool: p}"), "the copies go to the pool that answers"),
    "shared_answers": (
        route("cache: {fresh: 1s}, request_headers: {set: {x-tenant: '{client}'}}"),
        "the same for everybody",
    ),
    "lease_that_saves_nothing": (
        route("limits: [l, m]").replace("limits: {l:", "limits: {m: {key: ip, rate: 1/s, burst: 9, mode: leased}, l:"),
        "another limit of the route asks the store anyway",
    ),
    "body_over_the_burst": (
        route("limits: [m]").replace("limits: {l:", "limits: {m: {key: ip, rate: 1/s, burst: 9, cost: {body: 1KiB}}, l:"),
        "a body of more than 9KiB costs more than the burst of 'm'",
    ),
    "idle_cache": (route("cache: {}"), "never used"),
    "unused_names": (route("").replace("pools:", "pools:\n  r: {backends: [{url: 'http://d:1'}]}"), "no route uses it"),
    "certificate_ends": (secured(certificate="ended.pem"), "expired on 2020-02-01"),
    "unverified_backends": (
        route("").replace('"http://c:1"}]', '"https://c:1"}], tls: {verify: false}'),
        "can pose as one",
    ),
    "idle_client_certificate": (secured(certificate="long.pem", client_certificate="request"), "without client_ca"),
    "open_proxy_protocol": (
        route("") + 'listen: {address: "0.0.0.0:80", proxy_protocol: true}\n',
        "can claim to be any address",
    ),
    "everybody_trusted": (route("") + "http: {trusted_proxies: [0.0.0.0/0]}\n", "everybody is trusted"),
    "nobody_gets_in": (route("") + "identity: {anonymous: deny}\n", "every request is refused"),
}  # fmt: skip


def test_every_rule_has_a_case() -> None:
    assert CASES.keys() == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("name", sorted(CASES))
def test_rule(name: str) -> None:
    text, part = CASES[name]
    found = warnings(text)
    assert len(found) == 1
    assert part in found[0]


@pytest.mark.parametrize(
    "text",
    [
        route(""),
        route("") + "listen: {address: '127.0.0.1:80', proxy_protocol: true}\n",
        route("") + "listen: {address: '0.0.0.0:80', proxy_protocol: true}\nhttp: {trusted_proxies: [10.0.0.1]}\n",
        secured(certificate="long.pem"),
        secured(certificate="long.pem", client_ca="long.pem", client_certificate="request"),
        route("retry: {on: [503]}", "{path: /x, methods: [GET]}"),
        route("retry: {on: [503], attempts: 1}"),
        route("degrade: [{pool: q, rewrite: {/xy: /z, /: /w}}]"),
        route("retry: {replayable: true}, hedge: {max: 1}"),
        route("retry: {replayable: true, same_backend: true}, hedge: {max: 3}"),
        route("timeout: 2s, retry: {replayable: true, per_try: 100ms}, hedge: {after: 99ms}"),
        route("timeout: 2s, retry: {replayable: true, per_try: 100ms}, hedge: {}"),
        route("timeout: 1s, retry: {backoff: 999ms, backoff_max: 2s}"),
        route("").replace('"http://b:1"}]', '"http://b:1"}], retry_budget: {ratio: 0.2}'),
        route("").replace('"http://b:1"}]', '"http://b:1"}], breaker: {error_rate: 0, failures: 2}'),
        route("").replace('"http://b:1"}]', '"http://b:1"}], breaker: {error_rate: 0, slow_after: 1s, window: 5s}'),
        route("").replace('"http://b:1"}]', '"http://b:1", priority: 1}], sticky: {}, slow_start: 30s'),
        route("cache: {fresh: 1s}"),
        route("cache: {}, degrade: [stale]"),
        route("", "{path: '/x*', methods: [GET]}") + "  - {name: y, match: {path: /xy}, pool: p}\n",
        route("", "{path: '/x*', host: a.b}") + "  - {name: y, match: {path: /xy}, pool: p}\n",
        route("", "{path: /x}") + "  - {name: y, match: {path: '/x*'}, pool: p}\n",
    ],
)
def test_silence(text: str) -> None:
    assert warnings(text) == []


def test_a_session_has_no_choice_in_a_pool_of_one() -> None:
    text = route("").replace('"http://c:1"}]', '"http://c:1"}], sticky: {}')
    assert warnings(text) == ["pools.q.sticky: means nothing: the pool has one backend, so every session stays there"]


def test_a_pool_without_priority_0() -> None:
    text = route("").replace('{url: "http://c:1"}', '{url: "http://c:1", priority: 1}')
    assert "no backend has priority 0" in warnings(text)[0]


def test_a_static_rung_ends_the_ladder() -> None:
    text = route("degrade: [{static: ../../config/fallback/digits.json}, {pool: q}]")
    assert "always succeeds" in warnings(text)[0]


def test_places_come_from_the_file() -> None:
    config = load_text(route("timeout: 200ms"), Path("x.yaml"))
    assert [(each.file, each.line) for each in lint(config)] == [("x.yaml", 8)]
    assert [each.severity for each in lint(config)] == ["warning"]


def test_a_config_without_a_file_is_linted_too() -> None:
    config = load_text(route("timeout: 200ms"), Path("x.yaml"))
    assert [each.line for each in lint(type(config).model_validate(config.model_dump()))] == [0]
