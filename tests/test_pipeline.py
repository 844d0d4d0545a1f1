"""The whole request path over scripted backends and a store that says what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import time

import orjson
import pytest

from gateway.balance.weighted_round_robin import WeightedRoundRobin
from gateway.breakers.gate import FOREVER, BreakerSettings
from gateway.degrade.cache import AnswerCache, CacheRules
from gateway.degrade.ladder import PoolRung, StaleRung, StaticRung
from gateway.errors import ProtocolError
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.identity.keys import KeyRing
from gateway.limits.bucket import BucketSpec, Taken
from gateway.limits.costs import BodyCost, HeaderCost
from gateway.limits.limiter import Limiter
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import TenantScope
from gateway.limits.verdict import RouteLimits
from gateway.pipeline import Pipeline
from gateway.replies import bad_request
from gateway.request import Request
from gateway.retries.rules import RetryRules
from gateway.routing.table import Match, RouteTable
from gateway.snapshot import LimitCells, Route, RouteCells, Snapshot
from gateway.status import REASONS
from gateway.telemetry.cells import Cells
from gateway.telemetry.tracing import Tracing
from gateway.testing import OK, Close, Never, Pause, Reset, Say, ScriptedBackend, answer
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool
from gateway.upstreams.sticky import Sticky
from tests.limits.fakes import FakeStore
from tests.upstreams.scene import CELLS

pytestmark = pytest.mark.undisturbed

PREDICT = b"/v1/models/digits:predict"
LIMIT = LimitPolicy("per-client", spec=BucketSpec(2.0, 10.0))
KEYS = KeyRing(clients={hashlib.sha256(b"secret").hexdigest(): "alice"}, anonymous=True)

#: Cells: histograms 20 apart, counters one each.
DURATIONS = {status: 1000 + 20 * i for i, status in enumerate((200, 401, 404, 405, 429, 499, 500, 502, 503, 504))}
OTHER, UNROUTED = 1900, 2000
REFUSED, ALLOWED, LOCAL_REFUSED, LOCAL_ALLOWED, HIT, SHED, EXPIRED, TOO_LARGE = range(3000, 3008)
LEASED_REFUSED, LEASED_ALLOWED = 3008, 3009
RUNGS = (3010, 3011, 3012)


class Lines:
    """An access log in memory."""

    dropped = 0

    def __init__(self):
        self.lines = []

    def write(self, line):
        self.lines.append(line)


class Scene:
    def __init__(self, main, small):
        self.store, self.log, self.tracing = FakeStore(Taken(True, 7.0)), Lines(), Tracing()
        self.main, self.small = main, small
        self.pools = {name: self._pool(name, server) for name, server in (("digits", main), ("digits-small", small))}
        self.fd = Cells.create("test")
        self.cells = Cells(self.fd)
        self.route = self._route()
        self.pipeline = Pipeline(
            self.snapshot(), limiter=Limiter(self.store), cache=AnswerCache(100_000), cells=self.cells,
            id_prefix=b"id-", draw=lambda: 0.5, tracing=self.tracing, access_log=self.log,
        )  # fmt: skip

    def _pool(self, name, server):
        backend = Backend(
            f"{name}/a", "a", Address("127.0.0.1", server.port), 1, BreakerSettings(failures=1000), ClientLimits()
        )
        backend.series = 4000 + 100 * (name == "digits-small")
        return Pool(name, (backend,), WeightedRoundRobin, 100)

    def _route(self):
        decisions = (REFUSED, ALLOWED, LOCAL_REFUSED, LOCAL_ALLOWED, LEASED_REFUSED, LEASED_ALLOWED)
        limits = (LimitCells(decisions, TOO_LARGE),)
        cells = RouteCells(DURATIONS, OTHER, limits, (), HIT, SHED, EXPIRED)
        return Route(
            name="digits", match=Match(PREDICT, False, frozenset((b"POST", b"HEAD"))), pool=self.pools["digits"],
            limits=None, timeout_ns=2_000_000_000,
            retry=RetryRules(CELLS, 1, frozenset(("connect",))),
            cache=None, ladder=(), cells=cells, key=b"digits",
        )  # fmt: skip

    def snapshot(self, **changes):
        unrouted = dataclasses.replace(self.route.cells, duration={}, duration_other=UNROUTED, limits=())
        return Snapshot(
            **{
                "generation": 1, "routes": RouteTable([self.route]), "pools": self.pools, "keys": KEYS,
                "unrouted": unrouted, "access_log_sample": 0.0, "trace_sample": 0.0, **changes,
            }
        )  # fmt: skip

    def use(self, *, ladder=None, keys=KEYS, sample=0.0, trace=0.0, **changes):
        """Changes the route (and what goes with it) and puts that in force."""
        if ladder is not None:
            cells = dataclasses.replace(self.route.cells, rungs=RUNGS[: len(ladder)])
            changes |= {"ladder": tuple(ladder), "cells": cells}
        self.route = dataclasses.replace(self.route, **changes)
        self.pipeline.use(self.snapshot(keys=keys, access_log_sample=sample, trace_sample=trace))

    def use_limits(self, policy=LIMIT, **changes):
        self.use(limits=RouteLimits("digits", (policy,), "gw"), **changes)

    async def ask(self, *fields, method=b"POST", path=PREDICT, body=b"[1]", unique=True):
        headers = {b"host": b"gw", **{name.encode(): value.encode() for name, value in fields}}
        response = await self.pipeline.handle(
            Request(method, path, path.partition(b"?")[0], headers, body, peer=b"10.0.0.9")
        )
        for name, value in response.headers:
            assert b"\r" not in name + value
            assert b"\n" not in name + value
        names = [name for name, _ in response.headers]
        assert len(names) == len(set(names)) or not unique, names
        return response

    def count(self, cell):
        return self.cells.values[cell]

    def histogram(self, first):
        return sum(self.cells.values[first : first + 18])


def said(response):
    return {name.decode(): value.decode() for name, value in response.headers}


@contextlib.asynccontextmanager
async def scene(*main, small=(OK,)):
    async with ScriptedBackend(list(main) or [OK]) as first, ScriptedBackend(list(small)) as second:
        one = Scene(first, second)
        yield one
        assert one.pipeline.active == 0
        for pool in one.pools.values():
            assert pool.inflight == 0
            for backend in pool.backends:
                assert not backend.connections.active
                backend.connections.close()
        os.close(one.fd)


# -- straight through ---------------------------------------------------------------------------------------------


async def test_an_answer_comes_through():
    async with scene(answer(b'{"predictions":[7]}', headers=[("Content-Type", "application/json")])) as one:
        response = await one.ask()
        fields = said(response)
        assert (response.status, response.body) == (200, b'{"predictions":[7]}')
        assert fields["content-type"] == "application/json"
        assert fields["x-request-id"] == "id-1"
        assert fields["server-timing"].startswith("limits;dur=0.00, upstream;dur=")
        assert "ratelimit" not in fields
        assert "degraded" not in fields
        assert one.main.requests[0].startswith(b"POST " + PREDICT + b" HTTP/1.1\r\nhost: gw\r\n")
        assert b"x-request-id: id-1\r\n" in one.main.requests[0]
        assert one.histogram(DURATIONS[200]) == 1


async def test_a_backend_cannot_speak_for_us():
    async with scene(answer(headers=[("X-Request-Id", "theirs")])) as one:
        assert said(await one.ask())["x-request-id"] == "id-1"


@pytest.mark.parametrize("status", [200, 201, 400, 404, 422, 500, 501])
async def test_the_backends_own_verdict_comes_through(status):
    async with scene(answer(b"body", status)) as one:
        one.use(ladder=[StaticRung(200, b"text/plain", b"static")])
        response = await one.ask()
        assert (response.status, response.body) == (status, b"body")
        assert one.histogram(DURATIONS.get(status, OTHER)) == 1


# -- refusals -----------------------------------------------------------------------------------------------------


async def test_no_route():
    async with scene() as one:
        response = await one.ask(path=b"/nothing")
        body = orjson.loads(response.body)
        assert (response.status, said(response)["content-type"]) == (404, "application/problem+json")
        assert (body["status"], body["instance"]) == (404, "id-1")
        assert one.histogram(UNROUTED) == 1
        assert one.main.connections == 0


async def test_a_wrong_method_is_told_the_right_ones():
    async with scene() as one:
        response = await one.ask(method=b"GET")
        assert response.status == 405
        assert said(response)["allow"] == "HEAD, POST"
        assert set(orjson.loads(response.body)) == {"error"}  # a TensorFlow Serving path


async def test_options_of_the_server_as_a_whole_are_ours():
    async with scene() as one:
        response = await one.ask(method=b"OPTIONS", path=b"*", body=b"")
        assert (response.status, response.body) == (204, b"")
        assert said(response)["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
        assert one.main.connections == 0


@pytest.mark.parametrize(
    ("methods", "allow"),
    [
        (frozenset(), "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        (frozenset((b"POST", b"OPTIONS")), "OPTIONS, POST"),
    ],
)
async def test_options_with_no_hop_left_end_here(methods, allow):
    """RFC 9110 section 7.6.2."""
    async with scene() as one:
        one.use(match=Match(PREDICT, False, methods))
        response = await one.ask(("max-forwards", "0"), method=b"OPTIONS", body=b"")
        assert (response.status, said(response)["allow"]) == (204, allow)
        assert one.main.connections == 0


@pytest.mark.parametrize(
    ("said_so", "sent"), [("7", "6"), ("1", "0"), ("9" * 30, "999999999"), ("-1", "-1"), ("0x1", "0x1")]
)
async def test_options_with_hops_left_go_on_with_one_less(said_so, sent):
    async with scene() as one:
        one.use(match=Match(PREDICT, False))
        assert (await one.ask(("max-forwards", said_so), method=b"OPTIONS", body=b"")).status == 200
        assert b"max-forwards: %s\r\n" % sent.encode() in one.main.requests[0]


async def test_max_forwards_says_nothing_of_other_methods():
    async with scene() as one:
        assert (await one.ask(("max-forwards", "0"))).status == 200
        assert b"max-forwards: 0\r\n" in one.main.requests[0]


async def test_an_answer_says_whom_it_came_through():
    async with scene(answer(), answer(headers=[("Via", "1.0 theirs")]), answer(status=503)) as one:
        one.use(ladder=[StaticRung(200, b"text/plain", b"static")])
        assert "via" not in said(await one.ask())
        one.pipeline.use(one.snapshot(via=(b"via", b"1.1 ours")))
        hops = [value for name, value in (await one.ask(unique=False)).headers if name == b"via"]
        assert hops == [b"1.0 theirs", b"1.1 ours"]
        degraded = await one.ask()
        assert (degraded.body, "via" in said(degraded)) == (b"static", False), "this one is our own"


@pytest.mark.parametrize("path", [PREDICT, b"/nothing"])
async def test_an_unknown_key_is_refused_before_anything_is_given_away(path):
    async with scene() as one:
        response = await one.ask(("x-api-key", "wrong"), path=path)
        assert response.status == 401
        assert said(response)["www-authenticate"] == "ApiKey"
        assert b"wrong" not in response.body


async def test_the_key_stays_here():
    async with scene() as one:
        one.use(sample=1.0)
        assert (await one.ask(("x-api-key", "secret"))).status == 200
        assert b"secret" not in one.main.requests[0]
        assert one.log.lines[0].client == b"alice"
        assert b"secret" not in repr(one.log.lines[0]).encode()


# -- limits -------------------------------------------------------------------------------------------------------


async def test_within_the_limit():
    async with scene() as one:
        one.use_limits()
        fields = said(await one.ask())
        assert fields["ratelimit-policy"] == '"per-client";q=10;w=5'
        assert fields["ratelimit"] == '"per-client";r=7;t=2'
        assert "retry-after" not in fields
        assert one.count(ALLOWED) == 1


async def test_over_the_limit():
    async with scene() as one:
        one.use_limits()
        one.store.reply = Taken(False, 0.25)
        response = await one.ask(path=PREDICT)
        fields = said(response)
        assert response.status == 429
        assert fields["ratelimit-policy"] == '"per-client";q=10;w=5'
        assert fields["ratelimit"] == '"per-client";r=0;t=1'
        assert fields["retry-after"] == "1"
        assert "per-client" in orjson.loads(response.body)["error"]
        assert (one.count(REFUSED), one.histogram(DURATIONS[429])) == (1, 1)
        assert one.main.connections == 0


async def test_over_the_limit_elsewhere_is_a_problem():
    async with scene() as one:
        one.use_limits(match=Match(b"/", True))
        one.store.reply = Taken(False, 0.0)
        body = orjson.loads((await one.ask(path=b"/classify")).body)
        assert body["type"].endswith("#quota-exceeded")
        assert body["violated-policies"] == ["per-client"]


@pytest.mark.parametrize("mode", ["local", "closed"])
@pytest.mark.parametrize("reply", [Taken(False, 7.0), None], ids=["shared", "alone"])
async def test_what_costs_more_than_the_burst_is_refused_for_good(reply, mode):
    """Read the draft as one likes, a Retry-After here sends the client round in circles."""
    async with scene() as one:
        cost = BodyCost(1)
        policy = LimitPolicy("bytes", spec=BucketSpec(2.0, 10.0), cost=cost, on_store_failure=mode)
        one.use_limits(policy, match=Match(b"/", True))
        one.store.reply = reply
        response = await one.ask(path=b"/classify", body=b"x" * 11)
        fields, problem = said(response), orjson.loads(response.body)
        assert response.status == 413
        assert "retry-after" not in fields
        assert fields["ratelimit-policy"].startswith('"bytes";q=10')
        assert problem["violated-policies"] == ["bytes"]
        assert problem["detail"] == (
            "this request costs 11, and the limit 'bytes' never holds more than its burst of 10: send less at once"
        )
        assert one.count(TOO_LARGE) == 1
        assert one.main.connections == 0


async def test_legacy_headers_only_when_asked_for():
    async with scene() as one:
        one.use_limits(LimitPolicy("per-client", spec=BucketSpec(2.0, 10.0), legacy_headers=True))
        fields = said(await one.ask())
        assert (fields["x-ratelimit-limit"], fields["x-ratelimit-remaining"], fields["x-ratelimit-reset"]) == (
            "10",
            "7",
            "2",
        )
        one.use_limits()
        assert "x-ratelimit-limit" not in said(await one.ask())


@pytest.mark.parametrize(("mode", "status"), [("local", 200), ("open", 200), ("closed", 503)])
async def test_without_the_store(mode, status):
    async with scene() as one:
        one.use_limits(LimitPolicy("per-client", spec=BucketSpec(2.0, 10.0), on_store_failure=mode))
        one.store.reply = None
        response = await one.ask()
        assert response.status == status
        assert one.count(LOCAL_REFUSED if status == 503 else LOCAL_ALLOWED) == 1
        if status == 503:
            assert said(response)["retry-after"] == "1"


# -- the cache ----------------------------------------------------------------------------------------------------

FRESH = CacheRules(fresh=60.0, stale_if_error=600.0, max_entry=10_000)
STALE = CacheRules(fresh=0.0, stale_if_error=600.0, max_entry=10_000)


def grow_old(one, seconds):
    for key, entry in one.pipeline.cache._entries.items():
        one.pipeline.cache._entries[key] = entry._replace(stored=entry.stored - int(seconds * 1e9))


async def test_a_fresh_answer_is_said_again():
    async with scene(answer(b"first"), answer(b"second")) as one:
        one.use_limits(cache=FRESH)
        await one.ask()
        grow_old(one, 12)
        response = await one.ask()
        fields = said(response)
        assert response.body == b"first"
        assert (fields["age"], fields["cache-status"]) == ("12", "sluicegate; hit; ttl=48")
        assert fields["x-request-id"] == "id-2"
        assert "ratelimit" not in fields
        assert one.count(HIT) == 1
        assert len(one.main.requests) == 1
        again = said(await one.ask())
        assert (again["age"], again["x-request-id"]) == ("12", "id-3")


async def test_nothing_of_one_callers_answer_reaches_another():
    async with scene(answer(b"for-a"), answer(b"for-b")) as one:
        one.use(cache=FRESH)
        for fields in (
            [("authorization", "Bearer a")],
            [("cookie", "a")],
            [("cache-control", "no-store")],
            [("host", "evil")],
        ):
            await one.ask(*fields)
        assert len(one.main.requests) == 4
        assert (await one.ask()).body == b"for-b"
        assert len(one.main.requests) == 5


async def test_what_is_not_a_success_is_not_kept():
    async with scene(answer(b"no", 404), answer(b"yes")) as one:
        one.use(cache=FRESH)
        await one.ask()
        assert (await one.ask()).body == b"yes"


# -- the ladder ---------------------------------------------------------------------------------------------------

FAILURES = {
    "refuses": (answer(b"busy", 503), "received-status=503"),
    "closes": (Close(), "error=connection_terminated"),
    "resets": (Reset(), "error=connection_terminated"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_the_stale_rung(name):
    failure, why = FAILURES[name]
    async with scene(answer(b"kept"), failure) as one:
        one.use(cache=STALE, ladder=[StaleRung(), StaticRung(200, b"text/plain", b"static")])
        await one.ask()
        grow_old(one, 33)
        response = await one.ask()
        fields = said(response)
        assert (response.status, response.body) == (200, b"kept")
        assert fields["degraded"] == "stale;age=33"
        assert fields["age"] == "33"
        assert fields["cache-status"].startswith("sluicegate; hit; ttl=-33")
        assert fields["proxy-status"].startswith("sluicegate; error=")
        assert why in fields["proxy-status"]
        assert one.count(RUNGS[0]) == 1


async def test_too_old_is_not_served():
    async with scene(answer(b"kept"), Close()) as one:
        one.use(cache=STALE, ladder=[StaleRung()])
        await one.ask()
        grow_old(one, 601)
        assert (await one.ask()).status == 502


async def test_the_pool_rung_rewrites():
    async with scene(answer(b"busy", 503), small=[answer(b"small")]) as one:
        one.use(ladder=[StaleRung(), PoolRung("digits-small", ((b"/v1/models/digits:", b"/v1/models/digits-small:"),))])
        response = await one.ask()
        fields = said(response)
        assert response.body == b"small"
        assert fields["degraded"] == "fallback;pool=digits-small"
        assert "received-status=503" in fields["proxy-status"]
        assert one.small.requests[0].startswith(b"POST /v1/models/digits-small:predict ")
        assert (one.count(RUNGS[0]), one.count(RUNGS[1])) == (0, 1)


async def test_a_fallback_is_not_kept_as_the_answer():
    async with scene(answer(b"busy", 503), answer(b"right"), small=[answer(b"small")]) as one:
        one.use(cache=FRESH, ladder=[PoolRung("digits-small")])
        assert (await one.ask()).body == b"small"
        assert (await one.ask()).body == b"right"


@pytest.mark.parametrize("small", [answer(b"", 500), answer(b"", 429), answer(b"", 503), Close()])
async def test_the_static_rung_is_the_last(small):
    async with scene(Close(), small=[small]) as one:
        one.use(ladder=[PoolRung("digits-small"), StaticRung(203, b"application/json", b'{"predictions":[]}')])
        response = await one.ask()
        fields = said(response)
        assert (response.status, response.body) == (203, b'{"predictions":[]}')
        assert (fields["degraded"], fields["content-type"]) == ("static", "application/json")
        assert one.count(RUNGS[1]) == 1


async def test_a_slow_fallback_has_its_own_time():
    async with scene(Close(), small=[Never()]) as one:
        one.use(ladder=[PoolRung("digits-small", timeout=0.01), StaticRung(200, b"text/plain", b"static")])
        began = time.monotonic()
        assert (await one.ask()).body == b"static"
        assert time.monotonic() - began < 5


async def test_over_the_pools_bound_goes_to_the_ladder():
    async with scene() as one:
        one.pools["digits"].max_inflight = 0
        one.use(ladder=[StaticRung(200, b"text/plain", b"static")])
        response = await one.ask()
        assert said(response)["degraded"] == "static"
        assert said(response)["proxy-status"] == "sluicegate; error=destination_unavailable"
        assert one.count(SHED) == 1
        one.use(ladder=[])
        response = await one.ask()
        assert (response.status, said(response)["retry-after"]) == (503, "1")


# -- nobody answers -----------------------------------------------------------------------------------------------


async def test_the_backends_refusal_with_a_time_to_come_back():
    async with scene(answer(b"busy", 503), answer(b"busy", 503, headers=[("Retry-After", "7")])) as one:
        assert said(await one.ask())["retry-after"] == "1"
        assert said(await one.ask())["retry-after"] == "7"


async def test_no_backend():
    async with scene() as one:
        await one.main.stop()
        response = await one.ask()
        fields = said(response)
        assert response.status == 503
        assert fields["retry-after"] == "1"
        assert fields["proxy-status"] == "sluicegate; error=connection_refused"
        assert set(orjson.loads(response.body)) == {"error"}


@pytest.mark.parametrize(("held_for", "says"), [(12.5, "13"), (3600.0, "30"), (None, "30"), (0.2, "1")])
async def test_a_pool_that_an_operator_holds_open_says_when_it_is_back(held_for, says):
    async with scene() as one:
        now = time.monotonic_ns()
        until = FOREVER if held_for is None else now + int(held_for * 1e9)
        one.pools["digits"].backends[0].force("open", now, until)
        response = await one.ask()
        assert response.status == 503
        assert said(response)["retry-after"] == says
        assert one.main.requests == []


async def test_broken_off_is_a_502():
    async with scene(Reset()) as one:
        response = await one.ask()
        assert response.status == 502
        assert said(response)["proxy-status"] == "sluicegate; error=connection_terminated"


async def test_an_answer_that_is_too_large_says_so():
    """`A backend broke off` sends operators to a backend that is well: the bound is ours."""
    async with scene(Say(b"HTTP/1.1 200 OK\r\nContent-Length: 70000000\r\n\r\n")) as one:
        response = await one.ask()
        assert response.status == 502
        assert said(response)["proxy-status"] == "sluicegate; error=http_response_body_size"
        assert b"the answer is larger than the max_response of the pool 'digits'" in response.body


async def test_too_late_is_a_504():
    async with scene(Never()) as one:
        one.use(timeout_ns=20_000_000)
        response = await one.ask()
        assert response.status == 504
        assert said(response)["proxy-status"] == "sluicegate; error=http_response_timeout"
        assert said(response)["retry-after"] == "1"  # as with a 503: the pool is what is too slow
        assert one.histogram(DURATIONS[504]) == 1


# -- deadlines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "milliseconds"),
    [
        ("x-request-timeout", "250ms", 250),
        ("x-request-timeout", "250", 250),
        ("x-request-timeout", "1s", 1000),
        ("x-request-timeout", "9s", 2000),  # never longer than the route's
        ("x-request-timeout", "500000us", 500),
        ("grpc-timeout", "250m", 250),
        ("grpc-timeout", "1S", 1000),
        ("grpc-timeout", "1M", 2000),
        ("grpc-timeout", "1H", 2000),
        ("grpc-timeout", "300000u", 300),
        ("grpc-timeout", "90000000n", 90),
    ],
)
async def test_the_time_left_is_passed_on(field, value, milliseconds):
    async with scene() as one:
        assert (await one.ask((field, value))).status == 200
        line = next(line for line in one.main.requests[0].split(b"\r\n") if line.startswith(b"x-request-timeout: "))
        left = int(line.removeprefix(b"x-request-timeout: ").removesuffix(b"ms"))
        assert milliseconds - 30 < left <= milliseconds
        assert b"grpc-timeout" not in one.main.requests[0]


@pytest.mark.parametrize("value", ["soon", "-1s", "1.5s", "1 h", "999999999s", "1s, 2s", "ms"])
async def test_a_time_that_makes_no_sense_is_refused(value):
    async with scene() as one:
        assert (await one.ask(("x-request-timeout", value))).status == 400
        assert one.main.connections == 0


@pytest.mark.parametrize("value", ["0ms", "15ms"])
async def test_a_callers_own_deadline_is_a_504_and_no_fault_of_the_backend(value):
    async with scene(Never()) as one:
        began = time.monotonic()
        assert (await one.ask(("x-request-timeout", value))).status == 504
        assert time.monotonic() - began < 5
        assert one.count(4001) == 0  # failures of the backend


@pytest.mark.parametrize(
    ("field", "value"), [("x-request-timeout", "0"), ("x-request-timeout", "0ms"), ("grpc-timeout", "0n")]
)
async def test_without_time_it_is_refused_at_once_and_the_truth_is_said(field, value):
    async with scene() as one:
        one.use_limits(ladder=[StaticRung(200, b"text/plain", b"static")])
        one.store.take = lambda _asks: 1 / 0  # no token is taken
        response = await one.ask((field, value))
        assert response.status == 504
        assert said(response)["proxy-status"] == "sluicegate; error=proxy_internal_response"
        assert "nobody was asked" in orjson.loads(response.body)["error"]
        assert "retry-after" not in said(response)  # waiting would not help it
        assert one.main.connections == 0
        assert one.count(EXPIRED) == 1


async def test_a_request_whose_time_ran_out_before_its_turn_is_refused():
    async with scene() as one:
        late = Request(b"POST", PREDICT, PREDICT, {b"host": b"gw", b"x-request-timeout": b"50ms"}, b"[1]")
        late.received = time.monotonic_ns() - 60_000_000
        assert (await one.pipeline.handle(late)).status == 504
        in_time = Request(b"POST", PREDICT, PREDICT, {b"host": b"gw", b"x-request-timeout": b"500ms"}, b"[1]")
        in_time.received = time.monotonic_ns() - 60_000_000
        assert (await one.pipeline.handle(in_time)).status == 200
        (sent,) = one.main.requests
        left = int(sent.partition(b"x-request-timeout: ")[2].partition(b"ms")[0])
        assert 300 < left <= 441  # what it waited is gone


@pytest.mark.parametrize("ladder", [(), (StaticRung(200, b"text/plain", b"static"),)])
async def test_nothing_is_sent_once_the_limits_took_the_time(ladder):
    async with scene() as one:
        one.use_limits(ladder=list(ladder))
        one.store.hold = asyncio.Event()
        asking = asyncio.ensure_future(one.ask(("x-request-timeout", "10ms")))
        await asyncio.sleep(0.02)
        one.store.hold.set()
        response = await asking
        assert one.main.connections == 0
        assert one.count(EXPIRED) == 1
        if ladder:
            assert (response.status, response.body) == (200, b"static")
        else:
            assert response.status == 504
            assert "nobody was asked" in orjson.loads(response.body)["error"]


async def test_the_ladder_shares_the_deadline():
    async with scene(Never(), small=[Never()]) as one:
        one.use(ladder=[PoolRung("digits-small", (), None)], timeout_ns=60_000_000)
        began = time.monotonic()
        assert (await one.ask()).status == 504
        assert time.monotonic() - began < 5
        assert one.small.requests == []


# -- attempts -----------------------------------------------------------------------------------------------------


async def test_more_than_one_attempt_shows():
    async with scene(answer(status=503), answer(headers=[("X-Attempts", "99")])) as one:
        rules = RetryRules(CELLS, 2, frozenset(("503",)), replayable=True, same_backend=True, backoff=1)
        one.use(retry=rules, sample=1.0)
        fields = said(await one.ask())
        assert fields["server-timing"].endswith(", attempts;desc=2")
        assert fields["x-attempts"] == "99"  # a backend's own: nothing of ours
        assert (one.log.lines[0].attempts, one.log.lines[0].hedges) == (2, 0)
        one.use(retry=rules, tell_attempts=True)
        fields = said(await one.ask())
        assert fields["x-attempts"] == "1"
        assert "attempts" not in fields["server-timing"]


async def test_clients_cannot_say_what_backends_are_told_of_their_time():
    async with scene() as one:
        one.pipeline.use(one.snapshot(deadline_fields=frozenset((b"x-deadline",))))
        await one.ask(("x-deadline", "1h"))
        assert b"x-deadline" not in one.main.requests[0]


# -- reloads, cancellation, bookkeeping ---------------------------------------------------------------------------


async def test_a_request_keeps_the_snapshot_it_began_with():
    async with scene(answer(b"old"), small=[answer(b"new")]) as one:
        one.use_limits()
        one.store.hold = asyncio.Event()
        task = asyncio.ensure_future(one.ask(("x-api-key", "secret")))
        await asyncio.sleep(0.005)
        one.use(pool=one.pools["digits-small"], limits=None, keys=dataclasses.replace(KEYS, header=b"x-token"))
        assert (await one.ask()).body == b"new"
        one.store.hold.set()
        response = await task
        assert response.body == b"old"
        assert "ratelimit" in said(response)
        assert b"secret" not in one.main.requests[0]


async def test_a_client_that_leaves_is_counted_and_proves_nothing():
    async with scene(Never()) as one:
        task = asyncio.ensure_future(one.ask())
        while not one.main.requests:
            await asyncio.sleep(0.001)
        assert one.pipeline.active == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert one.histogram(DURATIONS[499]) == 1
        assert [one.count(4000 + outcome) for outcome in range(4)] == [0, 0, 1, 0]


async def test_a_bug_is_counted_as_a_500():
    async with scene() as one:
        one.use_limits()
        one.store.take = lambda _asks: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await one.ask()
        assert one.histogram(DURATIONS[500]) == 1
        assert one.log.lines[0].status == 500


async def test_every_request_is_counted_once():
    async with scene(answer(b"", 200), answer(b"", 503)) as one:
        for _ in range(2):
            await one.ask()
        await one.ask(path=b"/nothing")
        assert sum(one.histogram(first) for first in (*DURATIONS.values(), OTHER)) == 2
        assert one.histogram(UNROUTED) == 1
        assert sum(one.count(4000 + outcome) for outcome in range(4)) == 2


@pytest.mark.parametrize(("sample", "status", "logged"), [(0.0, 200, 0), (0.5, 200, 0), (0.51, 200, 1), (0.0, 500, 1)])
async def test_the_access_log_takes_a_sample_and_every_failure(sample, status, logged):
    async with scene(answer(b"12345", status)) as one:
        one.use(sample=sample)
        await one.ask()
        assert len(one.log.lines) == logged
        if logged:
            line = one.log.lines[0]
            assert (line.status, line.sent, line.route, line.backend, line.attempts) == (
                status,
                5,
                "digits",
                "digits/a",
                1,
            )
            assert line.total_ns >= line.upstream_ns > 0


async def test_traces():
    async with scene((Pause(0.001), OK)) as one:
        one.use_limits(trace=1.0)
        await one.ask()
        (span,) = one.tracing.take()
        assert span.name == "POST digits"
        assert span.facts["http.route"] == "digits"
        assert span.facts["gateway.id"] == "id-1"
        assert span.facts["gateway.limits.store"] == "shared"
        assert span.facts["gateway.backend"] == "digits/a"
        assert b"traceparent: %s" % span.traceparent in one.main.requests[0]
        one.use(trace=0.0)
        await one.ask()
        assert not one.tracing.take()


def test_a_bad_request_is_answered_as_a_problem_and_closes():
    response = bad_request(ProtocolError("too large", 413))
    assert (response.status, response.close) == (413, True)
    body = orjson.loads(response.body)
    assert (body["title"], body["detail"]) == (REASONS[413], "too large")


# -- answers that stream and are not used ---------------------------------------------------------------------------

HUGE = b"x" * 3_000_000


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_answer_that_the_ladder_replaces_is_let_go(status):
    async with scene(answer(HUGE, status)) as one:
        one.use(ladder=[StaticRung(200, b"text/plain", b"static")])
        for _ in range(3):
            response = await one.ask()
            assert (response.status, response.body) == (200, b"static")
            assert said(response)["proxy-status"].endswith(f"received-status={status}")
            assert one.pools["digits"].inflight == 0


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_so_is_that_of_the_ladders_pool(status):
    async with scene(answer(HUGE, 503), small=(answer(HUGE, status),)) as one:
        one.use(ladder=[PoolRung("digits-small"), StaticRung(200, b"text/plain", b"static")])
        assert (await one.ask()).body == b"static"
        assert [pool.inflight for pool in one.pools.values()] == [0, 0]


async def test_the_ladders_answer_that_streams_replaces_one_that_streams():
    async with scene(answer(HUGE, 503), small=(answer(HUGE),)) as one:
        one.use(ladder=[PoolRung("digits-small")])
        response = await one.ask()
        assert [pool.inflight for pool in one.pools.values()] == [0, 1]
        sent = 0
        while data := await response.stream.read():
            sent += len(data)
        response.on_end(sent, None)
        assert sent == len(HUGE)


async def test_a_refusal_that_streams_is_passed_on_where_no_rung_helps():
    async with scene(answer(HUGE, 503)) as one:
        response = await one.ask()
        sent = 0
        while data := await response.stream.read():
            sent += len(data)
        response.on_end(sent, None)
        assert (response.status, sent) == (503, len(HUGE))


async def test_a_client_that_leaves_while_the_ladder_is_walked_leaves_nothing_behind():
    async with scene(answer(HUGE, 503), small=(Never(),)) as one:
        one.use(ladder=[PoolRung("digits-small")])
        task = asyncio.ensure_future(one.ask())
        while not one.small.requests:
            await asyncio.sleep(0.001)
        assert one.pools["digits"].inflight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [pool.inflight for pool in one.pools.values()] == [0, 0]


class BrokenEdits:
    def outgoing(self, request):
        return request

    def answered(self, request, response):
        raise ZeroDivisionError


async def test_a_bug_behind_the_answer_leaves_nothing_behind():
    async with scene(answer(HUGE)) as one:
        one.use(edits=BrokenEdits())
        with pytest.raises(ZeroDivisionError):
            await one.ask()
        assert one.pools["digits"].inflight == 0


# -- sessions -----------------------------------------------------------------------------------------------------


async def test_a_session_is_told_to_the_client_once_and_never_cached():
    async with scene(*[answer(b"hi")] * 4) as one:
        pool = one.pools["digits"]
        pool.sticky = Sticky(b"sluice", b"; Path=/", b"0123456789abcdef", pool.backends)
        one.use(cache=FRESH)
        cookie = said(await one.ask())["set-cookie"].removesuffix("; Path=/")
        assert cookie.startswith("sluice=")
        cached = said(await one.ask())
        assert cached["cache-status"].startswith("sluicegate; hit")
        assert "set-cookie" not in cached
        assert "set-cookie" not in said(await one.ask(("cookie", cookie), body=b"[2]"))
        assert said(await one.ask(("cookie", "sluice=x"), body=b"[3]"))["set-cookie"] == cookie + "; Path=/"


async def test_an_answer_of_another_pool_or_of_nobody_starts_no_session():
    async with scene(answer(b"no", 500), answer(b"no", 503), answer(b"no", 503)) as one:
        pool = one.pools["digits"]
        pool.sticky = Sticky(b"sluice", b"; Path=/", b"0123456789abcdef", pool.backends)
        assert "set-cookie" in said(await one.ask())
        assert "set-cookie" not in said(await one.ask())
        one.use(ladder=[PoolRung("digits-small")])
        assert "set-cookie" not in said(await one.ask())


# -- limits, what is given back and what is said --------------------------------------------------------------------


async def test_what_was_never_sent_costs_nothing():
    async with scene() as one:
        one.use_limits()
        one.pools["digits"].max_inflight = 0
        assert (await one.ask()).status == 503
        assert one.store.adjusted == [(b"gw:per-client:{10.0.0.9}", 1.0)]
        one.pools["digits"].max_inflight = 100
        assert (await one.ask()).status == 200
        assert len(one.store.adjusted) == 1


async def test_an_answer_settles_its_cost():
    async with scene(answer(b"x", headers=[("X-Units", "3")])) as one:
        one.use_limits(LimitPolicy("units", spec=BucketSpec(2.0, 10.0), cost=HeaderCost(b"x-units", 5.0)))
        fields = said(await one.ask())
        assert one.store.adjusted == [(b"gw:units:{10.0.0.9}", 2.0)]
        assert fields["ratelimit"] == '"units";r=9;t=1'


async def test_a_place_is_free_again_when_the_answer_is_there():
    async with scene() as one:
        one.use_limits(LimitPolicy("busy", concurrent=3))
        fields = said(await one.ask())
        assert fields["ratelimit-policy"] == '"busy";q=3;qu="concurrent-requests"'
        assert len(one.store.released) == 1
        assert one.pipeline.limiter.held_places == 0


async def test_a_client_that_leaves_while_its_limits_are_asked_holds_nothing():
    async with scene() as one:
        one.use_limits(LimitPolicy("busy", concurrent=3))
        one.store.manual = True
        asking = asyncio.ensure_future(one.ask())
        while not one.store.asked:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        one.store.answer(one.store.asked[0])
        assert len(one.store.released) == 1
        assert one.pipeline.limiter.held_places == 0


@pytest.mark.parametrize("mode", ["local", "open"])
async def test_an_answer_says_that_limits_are_decided_without_the_store(mode):
    async with scene(answer(status=503)) as one:
        policy = LimitPolicy("l", spec=BucketSpec(2.0, 10.0), on_store_failure=mode)
        one.use_limits(policy)
        assert "degraded" not in said(await one.ask())
        one.store.reply = None
        assert said(await one.ask())["degraded"] == f"limits;mode={mode}"
        one.use_limits(policy, ladder=[StaticRung(200, b"text/plain", b"later")])
        assert said(await one.ask())["degraded"] == f"static, limits;mode={mode}"


async def test_a_limit_in_shadow_is_counted_and_not_seen():
    async with scene() as one:
        one.use_limits(LimitPolicy("shadow", spec=BucketSpec(2.0, 10.0), shadow=True))
        one.store.reply = Taken(False, 0.0)
        fields = said(await one.ask())
        assert "ratelimit" not in fields
        assert "ratelimit-policy" not in fields
        assert (one.count(REFUSED), one.count(ALLOWED)) == (1, 0)


async def test_a_client_belongs_to_a_tenant():
    async with scene() as one:
        keys = dataclasses.replace(KEYS, tenants={b"alice": b"acme"})
        one.use_limits(LimitPolicy("t", TenantScope(), BucketSpec(2.0, 10.0)), keys=keys)
        await one.ask(("x-api-key", "secret"))
        await one.ask()
        assert [verdict.keys for verdict in one.store.asked] == [[b"gw:t:{acme}"], [b"gw:t:{10.0.0.9}"]]
