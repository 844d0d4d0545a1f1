"""Admission on the request path: who waits, who is refused and how that is said, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
import time

import orjson
import pytest

from gateway.admission.admission import Admission, AdmissionSettings
from gateway.admission.priority import PriorityRules
from gateway.admission.queue import FULL, LATE, OVERLOAD
from gateway.degrade.ladder import PoolRung, StaticRung
from gateway.request import Outcome, Request
from gateway.stream import Stream
from gateway.testing import OK, Close, Never, Pause, answer
from tests.test_pipeline import PREDICT, SHED, said, scene

pytestmark = pytest.mark.undisturbed

MS = 1_000_000
OTHER = b"/other"  # no path of a model protocol


def admit(one, places=1, waiting=10, pool="digits"):
    """That many places for the pool."""
    one.pools[pool].admission = Admission(AdmissionSettings(places, 100, waiting, 5 * MS))
    return one.pools[pool].admission


async def settled(admission):
    for _ in range(200):
        if not admission.inflight and not admission.queue.size:
            return True
        await asyncio.sleep(0.005)
    return False


async def until(condition):
    for _ in range(400):
        if condition():
            return True
        await asyncio.sleep(0.005)
    return False


async def test_requests_beyond_the_places_wait_for_one_another_and_all_are_answered():
    async with scene([Pause(0.02), OK]) as one:
        admission = admit(one)
        answers = await asyncio.gather(*(one.ask() for _ in range(4)))
        assert [each.status for each in answers] == [200] * 4
        assert await settled(admission)
        assert admission.limit.latency > 15 * MS


async def test_a_full_queue_is_said_as_503_with_a_time_to_come_back():
    async with scene([Pause(0.2), OK]) as one:
        admission = admit(one, waiting=1)
        running = [asyncio.create_task(one.ask()) for _ in range(2)]
        assert await until(lambda: admission.queue.size == 1)
        response = await one.ask()
        assert not running[0].done(), "at once, and not when a place is free"
        fields = said(response)
        assert (response.status, fields["retry-after"]) == (503, "1")
        assert fields["proxy-status"] == "sluicegate; error=destination_unavailable"
        assert b"Overloaded" in response.body
        assert one.count(SHED) == 1
        assert admission.queue.refused[FULL] == 1
        assert [(await each).status for each in running] == [200, 200]
        assert await settled(admission)


async def test_the_refusal_is_a_problem_with_the_type_for_reduced_capacity():
    async with scene([Never()]) as one:
        admission = admit(one, waiting=0)
        from gateway.replies import overloaded

        request = Request(b"POST", OTHER, OTHER, {})
        request.id = b"id-7"
        problem = orjson.loads(overloaded(one.route, request, OVERLOAD).body)
        assert problem["type"].endswith("#temporary-reduced-capacity")
        assert (problem["status"], problem["title"], problem["instance"]) == (503, "Overloaded", "id-7")
        assert "'digits'" in problem["detail"]
        late = orjson.loads(overloaded(one.route, request, LATE).body)
        assert "within the time allowed" in late["detail"]
        assert await settled(admission)


async def test_a_refused_request_goes_down_the_ladder():
    async with scene([Pause(0.05), OK]) as one:
        admission = admit(one, waiting=0)
        one.use(ladder=[StaticRung(200, b"text/plain", b"later")])
        running = asyncio.create_task(one.ask())
        assert await until(lambda: admission.inflight == 1)
        response = await one.ask()
        assert (response.status, response.body, said(response)["degraded"]) == (200, b"later", "static")
        assert (await running).body == b"ok"


async def test_the_ladders_other_pool_has_places_of_its_own_and_gives_them_back():
    async with scene([Pause(0.1), OK], small=(answer(b"small"),)) as one:
        admission, small = admit(one, waiting=0), admit(one, pool="digits-small")
        one.use(ladder=[PoolRung("digits-small")])
        running = asyncio.create_task(one.ask())
        assert await until(lambda: admission.inflight == 1)
        answers = await asyncio.gather(one.ask(), one.ask())
        assert [each.body for each in answers] == [b"small", b"small"]
        assert (await running).status == 200
        assert await settled(admission)
        assert await settled(small)


async def test_who_cannot_be_answered_in_time_is_never_sent():
    async with scene([Pause(0.05), OK]) as one:
        admission = admit(one)
        assert (await one.ask()).status == 200
        running = asyncio.create_task(one.ask())
        assert await until(lambda: admission.inflight == 1)
        response = await one.ask(("x-request-timeout", "20ms"))  # behind one that takes 50 ms
        assert response.status == 503
        assert len(one.main.requests) == 2
        assert admission.queue.refused[LATE] == 1
        assert (await running).status == 200


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait_then():
    async with scene([Never()]) as one:
        admission = admit(one)
        running = asyncio.create_task(one.ask())
        assert await until(lambda: admission.inflight == 1)
        began = time.monotonic()
        response = await one.ask(("x-request-timeout", "30ms"))
        assert 0.025 < time.monotonic() - began < 0.2
        assert response.status == 503
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert await settled(admission)


class TestCancelled:
    """Clients that leave: each with everything it held."""

    async def test_while_it_waits(self):
        async with scene([Pause(0.05), OK]) as one:
            admission = admit(one)
            running = asyncio.create_task(one.ask())
            assert await until(lambda: admission.inflight == 1)
            waiting = [asyncio.create_task(one.ask()) for _ in range(3)]
            assert await until(lambda: admission.queue.size == 3)
            waiting[0].cancel()
            assert await until(lambda: admission.queue.size == 2), "it is taken out at once"
            assert (await running).status == 200
            assert [(await each).status for each in waiting[1:]] == [200, 200]
            assert await settled(admission)

    async def test_at_the_backend(self):
        async with scene([Never()]) as one:
            admission = admit(one)
            running = asyncio.create_task(one.ask())
            assert await until(lambda: admission.inflight == 1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert (admission.inflight, admission.queue.size) == (0, 0)

    async def test_in_the_moment_between_being_given_a_place_and_running_again(self):
        async with scene([Pause(0.03), OK]) as one:
            admission = admit(one)
            running = asyncio.create_task(one.ask())
            assert await until(lambda: admission.inflight == 1)
            waiting = asyncio.create_task(one.ask())
            assert await until(lambda: admission.queue.size == 1)
            admission.release(0, MS, Outcome.IGNORE, time.monotonic_ns())  # a place, as if another had ended
            assert admission.queue.size == 0
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert admission.inflight == 0
            admission.places.take()  # what was given back twice over above
            assert (await running).status == 200
            assert await settled(admission)

    async def test_at_the_ladders_other_pool(self):
        async with scene(Close(), small=(Never(),)) as one:
            small = admit(one, pool="digits-small")
            one.use(ladder=[PoolRung("digits-small")])
            running = asyncio.create_task(one.ask())
            assert await until(lambda: small.inflight == 1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert small.inflight == 0

    async def test_many_at_random_moments(self):
        async with scene([Pause(0.004), OK]) as one:
            admission = admit(one, places=3, waiting=40)
            for round_ in range(8):
                tasks = [asyncio.create_task(one.ask()) for _ in range(30)]
                await asyncio.sleep(0.002 * round_)
                for each in tasks[:: 2 + round_ % 3]:
                    each.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert await settled(admission), admission


async def test_the_more_urgent_is_served_first():
    async with scene([Pause(0.02), OK]) as one:
        admission = admit(one)
        order = []

        async def ask(name, priority):
            one.use(priority=PriorityRules(priority))
            task = asyncio.create_task(one.ask())
            await asyncio.sleep(0)
            task.add_done_callback(lambda _: order.append(name))
            return task

        first = await ask("first", 1)
        assert await until(lambda: admission.inflight == 1)
        tasks = [await ask("batch", 2), await ask("default", 1), await ask("critical", 0)]
        await asyncio.gather(first, *tasks)
        assert order == ["first", "critical", "default", "batch"]


async def test_a_body_that_streams_takes_no_place():
    """It lasts as long as its client likes: five slow uploads must not stop a pool that has five places."""
    async with scene([Never()]) as one:
        admission = admit(one)
        stream = Stream(asyncio.get_running_loop(), lambda: None, lambda: None, 10)
        request = Request(b"POST", PREDICT, PREDICT, {b"host": b"gw"}, peer=b"10.0.0.9")
        request.stream = stream
        task = asyncio.create_task(one.pipeline.handle(request))
        assert await until(lambda: one.pools["digits"].inflight == 1)
        assert admission.inflight == 0
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        stream.abandon()


async def test_failures_and_refusals_of_the_backend_give_the_place_back():
    async with scene(answer(b"no", 500), answer(b"full", 503), answer(b"slow down", 429), Close(), OK) as one:
        admission = admit(one)
        statuses = [(await one.ask()).status for _ in range(5)]
        assert statuses[:3] == [500, 503, 429]
        assert await settled(admission)
