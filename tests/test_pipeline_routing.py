"""Splits, shadows, rewrites, redirects and header edits on the whole path, over scripted backends."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from gateway.degrade.cache import CacheRules
from gateway.degrade.ladder import PoolRung, StaticRung
from gateway.limits.bucket import Taken
from gateway.request import Request
from gateway.routing import template
from gateway.routing.edits import Edits, HeaderEdits, Rewrite
from gateway.routing.replies import Fixed, Redirect
from gateway.routing.split import Side, Split, Sticky
from gateway.routing.table import Match
from gateway.routing.words import parse
from gateway.testing import OK, Never, Pause, Reset, Say, answer
from gateway.upstreams.shadow import ShadowCells, ShadowRules
from tests.test_pipeline import DURATIONS, PREDICT, SHED, said, scene

pytestmark = pytest.mark.undisturbed

SIDES = (3020, 3021)
SHADOW = ShadowCells((3030, 3031, 3032, 3033, 3034), 3035, 3036, 3040)
TEMPLATE = template.parse("/v1/models/{model}:predict")


def words(text):
    return parse(text, ("model",), {"pool": "digits", "route": "digits"})


def divide(one, weight, other, sticky=None, **changes):
    """Splits the scene's route between its two pools."""
    one.use(**changes)
    sides = [
        Side(name, share, dataclasses.replace(one.route, pool=one.pools[name], key=name.encode(), side=cell))
        for name, share, cell in (("digits", weight, SIDES[0]), ("digits-small", other, SIDES[1]))
    ]
    one.use(split=Split(sides, sticky))


def draws(one, *lots):
    """A request draws for its side."""
    left = iter(lots)
    one.pipeline._draw = lambda: next(left)


def shadowed(one, share=1.0, most=2, timeout=1.0, rewrite=()):
    one.use(shadow=ShadowRules("digits", one.pools["digits-small"], share, most, int(timeout * 1e9), rewrite, SHADOW))


async def settled(one, copies):
    """Waits until that many copies have an outcome."""
    async with asyncio.timeout(30):
        while sum(one.count(cell) for cell in (*SHADOW.classes, SHADOW.failed)) < copies:
            await asyncio.sleep(0.001)


# -- splits -------------------------------------------------------------------------------------------------------


async def test_a_split_by_lot():
    async with scene() as one:
        divide(one, 2, 1)
        draws(one, 0.1, 0.5, 0.7, 0.9)
        for _ in range(4):
            assert (await one.ask()).status == 200
        assert (len(one.main.requests), len(one.small.requests)) == (2, 2)
        assert [one.count(cell) for cell in SIDES] == [2, 2]
        assert one.histogram(DURATIONS[200]) == 4


async def test_a_sticky_split():
    async with scene() as one:
        divide(one, 1, 1, Sticky(header=b"x-user"))
        for user in "abcdefgh":
            before = len(one.main.requests), len(one.small.requests)
            for _ in range(3):
                await one.ask(("x-user", user))
            moved = len(one.main.requests) - before[0], len(one.small.requests) - before[1]
            assert sorted(moved) == [0, 3]
        assert one.main.requests
        assert one.small.requests


async def test_the_log_names_the_side():
    async with scene() as one:
        divide(one, 0, 1)
        one.use(sample=1.0)
        await one.ask()
        assert one.log.lines[0].pool == "digits-small"


async def test_sides_keep_their_answers_apart():
    async with scene(answer(b"main"), small=[answer(b"small")]) as one:
        divide(one, 1, 1, cache=CacheRules(60.0, 600.0, 10_000))
        draws(one, 0.1, 0.9, 0.1, 0.9)
        assert [(await one.ask()).body for _ in range(4)] == [b"main", b"small", b"main", b"small"]
        assert (len(one.main.requests), len(one.small.requests)) == (1, 1)


async def test_a_side_that_is_down_falls_to_the_ladder():
    async with scene(small=[Reset()]) as one:
        divide(one, 0, 1, ladder=[PoolRung("digits")])
        response = await one.ask()
        assert (response.status, said(response)["degraded"]) == (200, "fallback;pool=digits")


# -- shadows ------------------------------------------------------------------------------------------------------


async def test_a_copy_goes_out_and_its_answer_nowhere():
    async with scene(answer(b"right"), small=[answer(b"wrong", 418, headers=[("x-evil", "1")])]) as one:
        shadowed(one, rewrite=((b"/v1/models/digits", b"/v1/models/digits-next"),))
        response = await one.ask(("x-shadow", "forged"), ("x-a", "1"))
        await settled(one, 1)
        assert (response.status, response.body) == (200, b"right")
        assert "x-evil" not in said(response)
        assert b"x-shadow" not in one.main.requests[0]
        copy = one.small.requests[0]
        assert copy.startswith(b"POST /v1/models/digits-next:predict HTTP/1.1\r\n")
        assert b"x-request-id: id-1-shadow\r\n" in copy
        assert b"x-shadow: 1\r\n" in copy
        assert b"x-a: 1\r\n" in copy
        assert copy.endswith(b"\r\n\r\n[1]")
        assert one.count(SHADOW.classes[3]) == 1
        assert one.histogram(SHADOW.duration) == 1


async def test_a_share_is_copied():
    async with scene() as one:
        shadowed(one, share=0.25, most=100)
        lots = iter([0.2, 0.3, 0.1, 0.25] * 3)
        one.pipeline.shadows._draw = lambda: next(lots)
        for _ in range(12):
            await one.ask()
        await settled(one, 6)
        assert len(one.small.requests) == 6


async def test_what_is_over_the_bound_is_dropped():
    async with scene(small=[Never()]) as one:
        shadowed(one, most=2, timeout=30.0)
        began = time.monotonic()
        for _ in range(10):
            assert (await one.ask()).status == 200
        assert time.monotonic() - began < 5
        assert one.pipeline.shadows.active == 2
        assert one.count(SHADOW.dropped) == 8
        await one.pipeline.shadows.close()
        assert one.pipeline.shadows.active == 0
        assert one.small.connections == 2
        await one.ask()  # after the close there are no copies
        assert one.pipeline.shadows.active == 0


async def test_the_bound_holds_across_a_reload():
    async with scene(small=[Never()]) as one:
        shadowed(one, most=2, timeout=30.0)
        await one.ask()
        await one.ask()
        shadowed(one, most=2, timeout=30.0)
        await one.ask()
        assert (one.pipeline.shadows.active, one.count(SHADOW.dropped)) == (2, 1)
        await one.pipeline.shadows.close()


@pytest.mark.parametrize("script", [[Reset()], [Pause(5)], [answer(status=503)]])
async def test_a_shadow_that_fails_changes_nothing(script):
    async with scene(small=script) as one:
        shadowed(one, timeout=0.05)
        one.use(ladder=[StaticRung(200, b"text/plain", b"static")])
        response = await one.ask()
        assert "degraded" not in said(response)
        assert response.body == b"ok"
        await settled(one, 1)
        assert one.count(SHADOW.failed) + one.count(SHADOW.classes[4]) == 1


async def test_a_copys_answer_that_streams_is_read_to_its_end():
    async with scene(small=[answer(b"x" * 3_000_000)]) as one:
        shadowed(one)
        for number in range(1, 4):
            await one.ask()
            await settled(one, number)
        assert one.pools["digits-small"].inflight == 0
        assert one.small.connections == 1, "read, so the connection goes on"
        assert one.count(SHADOW.classes[1]) == 3


@pytest.mark.parametrize("end", [Never(), Reset()])
async def test_a_copys_answer_that_does_not_end_is_let_go_in_time(end):
    endless = (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 2_000_000), Pause(0.01), end)
    async with scene(small=[endless]) as one:
        shadowed(one, timeout=0.1)
        await one.ask()
        await settled(one, 1)
        assert one.pools["digits-small"].inflight == 0
        assert one.count(SHADOW.failed) == 1


async def test_a_client_that_leaves_does_not_end_the_copy():
    async with scene(Pause(5), small=[(Pause(0.05), OK)]) as one:
        shadowed(one)
        task = asyncio.create_task(one.ask())
        while not one.small.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(one, 1)
        assert one.count(SHADOW.classes[1]) == 1


async def test_what_does_not_reach_the_pool_is_not_copied():
    async with scene() as one:
        one.use_limits()
        shadowed(one)
        one.store.reply = Taken(False, 0.25)
        assert (await one.ask()).status == 429
        one.store.reply = Taken(True, 7.0)
        one.pools["digits"].max_inflight = 0
        assert (await one.ask()).status == 503
        assert one.count(SHED) == 1
        assert one.pipeline.shadows.active == 0


async def test_a_copy_charges_nothing():
    async with scene(small=[answer(status=503)]) as one:
        one.use_limits()
        shadowed(one)
        asked = []
        take = one.store.take
        one.store.take = lambda verdict: asked.extend(verdict.keys) or take(verdict)
        await one.ask()
        await settled(one, 1)
        assert len(asked) == 1
        assert len(one.small.requests) == 1, "one try"
        assert repr(one.pools["digits-small"].budget) == "<RetryBudget 0 on top of 0 a second, 0 waiting>"


# -- rewrites and edits ----------------------------------------------------------------------------------------------


async def test_rewrite_and_edits():
    async with scene(answer(b"x", headers=[("Server", "s"), ("X-Keep", "1")])) as one:
        edits = Edits(
            template=TEMPLATE,
            rewrite=Rewrite(path=words("/v2/{model}/infer")),
            host=words(""),
            request=HeaderEdits(frozenset((b"cookie",)), ((b"x-tenant", words("{client}")),), ()),
            response=HeaderEdits(frozenset((b"server",)), ((b"x-model", words("{model}")), (b"x-pool", words("{pool}"))), ()),
        )  # fmt: skip
        one.use(match=Match(b"", False, template=TEMPLATE), edits=edits, sample=1.0)
        response = await one.ask(
            ("cookie", "a=b"), ("x-tenant", "forged"), ("x-api-key", "secret"), path=PREDICT + b"?q=1"
        )
        sent = one.main.requests[0]
        assert sent.startswith(b"POST /v2/digits/infer?q=1 HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % one.main.port)
        assert b"cookie" not in sent
        assert b"x-tenant: alice\r\n" in sent
        fields = said(response)
        assert (fields["x-model"], fields["x-pool"], fields["x-keep"]) == ("digits", "digits", "1")
        assert "server" not in fields
        assert one.log.lines[0].target == PREDICT + b"?q=1", "the log says what was asked"


async def test_the_ladders_pool_gets_the_rewritten_request():
    async with scene(Reset()) as one:
        one.use(
            edits=Edits(rewrite=Rewrite(prefixes=((b"/v1/", b"/v2/"),))),
            ladder=[PoolRung("digits-small", ((b"/v2/models/digits", b"/v2/models/small"),))],
        )
        assert (await one.ask()).status == 200
        assert one.small.requests[0].startswith(b"POST /v2/models/small:predict ")


async def test_refusals_of_the_route_are_edited_too():
    async with scene() as one:
        one.use_limits(edits=Edits(response=HeaderEdits(set=((b"access-control-allow-origin", words("*")),))))
        one.store.reply = Taken(False, 0.25)
        response = await one.ask()
        assert (response.status, said(response)["access-control-allow-origin"]) == (429, "*")


async def test_a_cached_answer_is_kept_as_it_came():
    async with scene(answer(b"x", headers=[("Server", "s")])) as one:
        one.use(
            cache=CacheRules(60.0, 600.0, 10_000),
            edits=Edits(response=HeaderEdits(add=((b"x-id", words("{request_id}")),))),
        )
        assert said(await one.ask())["x-id"] == "id-1"
        assert said(await one.ask())["x-id"] == "id-2"


# -- replies --------------------------------------------------------------------------------------------------------


async def test_a_redirect_asks_nobody_and_passes_the_limits():
    async with scene() as one:
        one.use_limits(reply=Redirect(308, path=words("/v2/{model}"), template=TEMPLATE))
        response = await one.ask(path=PREDICT + b"?a=1")
        fields = said(response)
        assert (response.status, fields["location"]) == (308, "/v2/digits?a=1")
        assert fields["x-request-id"] == "id-1"
        assert "ratelimit" in fields
        assert one.main.connections == 0
        one.store.reply = Taken(False, 0.25)
        assert (await one.ask()).status == 429


async def test_a_fixed_answer():
    async with scene() as one:
        one.use(reply=Fixed(200, b"text/plain", b"hello"))
        response = await one.ask()
        assert (response.status, response.body) == (200, b"hello")
        assert one.main.connections == 0


async def test_a_route_without_any_of_it_sends_the_very_request_on():
    async with scene() as one:
        seen = []
        ask = one.pipeline.caller.ask

        async def watching(pool, request, *rest):
            seen.append(request)
            return await ask(pool, request, *rest)

        one.pipeline.caller.ask = watching
        request = Request(b"POST", PREDICT, PREDICT, {b"host": b"gw"}, b"[1]", peer=b"10.0.0.9")
        await one.pipeline.handle(request)
        assert seen == [request]
