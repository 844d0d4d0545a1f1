"""A second attempt beside one that is late."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

import pytest

from gateway.http.upstream import ClientLimits
from gateway.request import Outcome, Request
from gateway.retries.budget import MINIMUM, RetryBudget
from gateway.retries.hedge import HedgeRules
from gateway.retries.latencies import ENOUGH, Latencies
from gateway.stream import Stream
from gateway.testing import OK, Never, Pause, Reset, Say, answer
from tests.upstreams.scene import CANCELLED, DROPPED, GATE, HEDGES_DENIED, SENT, WASTED, WON, scene

MS = 1_000_000
SLOW = (Pause(0.5), answer(b"slow"))
LATE = answer(b"late")
EVERY = ("connect", "reset", "429", "500", "502", "503", "504")

pytestmark = pytest.mark.undisturbed


def after(milliseconds=15, most=1):
    return HedgeRules(Latencies(0), after=milliseconds * MS, most=most)


def hedges(one):
    """Sent, won, cancelled, denied."""
    return [one.count(cell) for cell in (SENT, WON, CANCELLED, HEDGES_DENIED)]


async def test_a_late_request_is_answered_by_another_and_the_first_is_called_off():
    async with scene([[Never()]], [[OK]]) as one:
        got = await one.ask(rules=one.rules(attempts=1, hedge=after()))
        assert (got.response.status, got.backend) == (200, one.backends[1])
        assert (got.attempts, got.hedges) == (2, 1)
        assert hedges(one) == [1, 1, 0, 0]
        assert one.count(WASTED) == 1
        assert one.outcomes(0) == [0, 0, 1, 0]  # called off: it proves nothing
        assert one.outcomes(1) == [1, 0, 0, 0]
        await one.gone(0)


async def test_a_request_in_time_is_not_hedged():
    async with scene([[OK]], [[OK]]) as one:
        tasks = len(asyncio.all_tasks())
        got = await one.ask(rules=one.rules(hedge=after(300)))
        assert (got.attempts, got.hedges) == (1, 0)
        assert hedges(one) == [0, 0, 0, 0]
        assert len(asyncio.all_tasks()) <= tasks + 1  # the backend's own, of the connection


async def test_the_first_wins_if_it_is_first_and_the_hedge_is_called_off():
    async with scene([[(Pause(0.06), OK)]], [[Never()]]) as one:
        got = await one.ask(rules=one.rules(hedge=after()))
        assert (got.backend, got.attempts, got.hedges) == (one.backends[0], 2, 1)
        await one.gone(1)
        await asyncio.sleep(0)
        assert hedges(one) == [1, 0, 1, 0]
        assert one.outcomes(1) == [0, 0, 1, 0]


async def test_a_hedge_takes_of_the_budget():
    async with scene([[SLOW]], [[OK]]) as one:
        one.spend_all()
        got = await one.ask(rules=one.rules(hedge=after()))
        assert (got.response.body, got.hedges) == (b"slow", 0)
        assert hedges(one) == [0, 0, 0, 1]


@pytest.mark.parametrize(("room_at", "sent"), [(0.105, 1), (0.15, 0)])
async def test_a_hedge_that_was_denied_is_due_once_more_a_quarter_later(room_at, sent):
    async with scene([[(Pause(0.3), OK)]], [[OK]]) as one:
        one.spend_all()
        asking = asyncio.ensure_future(one.ask(rules=one.rules(attempts=1, hedge=after(100))))
        await asyncio.sleep(room_at)
        one.budget = one.pool.budget = RetryBudget(0.0, 10.0, time.monotonic_ns())
        assert (await asking).hedges == sent
        assert hedges(one) == [sent, sent, 0, 1]


@pytest.mark.parametrize(("share", "script", "hedged"), [
    (0.95, (Pause(0.235), OK), 0), (0.95, Never(), 1), (0.0, (Pause(0.235), OK), 1),
])  # fmt: skip
async def test_after_a_percentile_the_last_of_the_budget_is_for_those_late_a_little_longer(share, script, hedged):
    latencies = Latencies(0)
    for _ in range(ENOUGH):
        latencies.add(200 * MS, time.monotonic_ns())
    rules = HedgeRules(latencies, after=200 * MS, share=share)
    async with scene([[script]], [[OK]]) as one:
        now = time.monotonic_ns()
        one.budget = one.pool.budget = RetryBudget(1.0, 0.0, now)
        for _ in range(7):  # the request itself is the eighth
            one.budget.deposit(now)
            one.budget.reserve(now)
            one.budget.spend(now)
        assert (await one.ask(rules=one.rules(attempts=1, hedge=rules))).hedges == hedged
        assert one.count(HEDGES_DENIED) == 0


async def test_a_hedge_that_was_sent_is_spent():
    async with scene([[Never()]], [[OK]]) as one:
        one.budget = one.pool.budget = RetryBudget(0.0, 1.0, time.monotonic_ns())
        await one.ask(rules=one.rules(hedge=after()))
        assert (one.budget.spent, one.budget.waiting) == (1, 0)


@pytest.mark.parametrize("backends", [1, 2])
async def test_with_nobody_else_there_is_no_hedge(backends):
    async with scene(*[[[(Pause(0.05), OK)]]] * backends) as one:
        if backends == 2:
            one.backends[1].weight = 0
        got = await one.ask(rules=one.rules(hedge=after()))
        assert (got.response.status, got.hedges) == (200, 0)
        assert hedges(one) == [0, 0, 0, 0]
        assert one.budget.spent == 0


async def test_a_hedge_that_finds_nobody_gives_the_budget_back_at_once():
    """The other backend may be probed when the hedge is due, and its one probe goes to another request before the
    hedge runs.
    """
    async with scene([[(Pause(0.2), OK)]], [[OK]]) as one:
        one.budget = one.pool.budget = RetryBudget(0.0, 1.0, time.monotonic_ns())
        other = one.backends[1].gate
        for _ in range(2):
            now = time.monotonic_ns()
            other.release(other.try_acquire(now), Outcome.FAILURE, now)
        taken = []

        def make(loop, coroutine, **more):
            if one.budget.waiting and not taken:  # the first task after the budget was reserved is the hedge's
                taken.append(other.try_acquire(time.monotonic_ns()))
            return asyncio.Task(coroutine, loop=loop, **more)

        asking = asyncio.ensure_future(one.ask(rules=one.rules(attempts=1, hedge=after(30))))
        asyncio.get_running_loop().set_task_factory(make)
        async with asyncio.timeout(5):
            while not taken:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.002)
        assert not asking.done()
        assert one.budget.waiting == 0  # though the request still runs
        got = await asking
        assert (got.response.status, got.attempts, got.hedges) == (200, 1, 0)
        assert hedges(one) == [0, 0, 0, 0]
        assert one.budget.spent == 0
        assert one.budget.reserve(time.monotonic_ns()) == MINIMUM  # the whole of it
        one.budget.give_back(MINIMUM)
        other.release(taken[0], Outcome.IGNORE, time.monotonic_ns())


async def test_somebody_who_would_give_no_permit_is_nobody_to_hedge_to():
    """A breaker that opened by a rate is an opinion, and is kept while enough others are closed."""
    gate = dataclasses.replace(GATE, failures=100, error_rate=0.5, min_calls=2, open_for=60.0)
    async with scene([[(Pause(0.05), OK)]], [[OK]]) as one:
        one.backends[1].configure(gate)
        for _ in range(2):
            now = time.monotonic_ns()
            one.backends[1].gate.release(one.backends[1].gate.try_acquire(now), Outcome.FAILURE, now)
        one.spend_all()
        got = await one.ask(rules=one.rules(attempts=1, hedge=after()))
        assert (got.response.status, got.hedges) == (200, 0)
        assert hedges(one) == [0, 0, 0, 0]  # not even denied: the budget was not asked


async def test_an_address_that_stands_for_many_is_asked_twice():
    async with scene([[Never()], [OK]]) as one:
        got = await one.ask(rules=one.rules(hedge=after(), same_backend=True))
        assert (got.response.status, got.hedges) == (200, 1)


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_no_more_hedges_than_allowed(most):
    async with scene(*[[[Never()]]] * 5) as one:
        got = await one.ask(seconds=0.15, rules=one.rules(attempts=1, hedge=after(10, most)))
        assert (got.attempts, got.hedges) == (1 + most, most)
        assert got.response is None
        assert hedges(one) == [most, 0, 0, 0]


async def test_a_post_is_not_hedged():
    async with scene([[(Pause(0.05), OK)]], [[OK]]) as one:
        assert (await one.ask(b"POST", rules=one.rules(hedge=after()))).hedges == 0
        assert (await one.ask(b"POST", rules=one.rules(hedge=after(), replayable=True))).attempts >= 1
        assert len(one.servers[1].requests) == 1


async def test_a_request_whose_body_streams_is_not_hedged():
    async with scene([[(Pause(0.05), OK)]], [[OK]]) as one:
        request = Request(b"PUT", b"/x", b"/x", {b"host": b"a"})
        request.stream = Stream(asyncio.get_running_loop(), lambda: None, lambda: None, 2)
        request.stream.feed(b"hi")
        request.stream.end()
        deadline = time.monotonic_ns() + 1000 * MS
        got = await one.caller.ask(one.pool, request, b"/x", deadline, one.rules(hedge=after()), DROPPED)
        assert (got.response.status, got.attempts) == (200, 1)


async def test_an_answer_that_begins_to_stream_has_won():
    head = Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 100_000)
    rest = Say(b"x" * 2_900_000)
    async with scene([[(Pause(0.03), head, Pause(0.1), rest)]], [[Never()]], limits=ClientLimits(whole=1000)) as one:
        got = await one.ask(rules=one.rules(hedge=after()))
        assert got.backend is one.backends[0]
        size = 0
        while piece := await got.response.stream.read():
            size += len(piece)
        assert size == 3_000_000
        await one.gone(1)
        assert hedges(one) == [1, 0, 1, 0]


# -- with failures ------------------------------------------------------------------------------------------------


async def test_the_first_good_answer_wins_not_the_first():
    async with scene([[(Pause(0.03), answer(b"", 503))]], [[(Pause(0.05), OK)]]) as one:
        got = await one.ask(rules=one.rules(on=EVERY, hedge=after()))
        assert (got.response.status, got.backend, got.attempts) == (200, one.backends[1], 2)
        assert one.retries == {}  # the hedge was under way: no retry was needed


async def test_a_hedge_that_fails_leaves_the_first_alone():
    async with scene([[(Pause(0.06), OK)]], [[Reset()]]) as one:
        got = await one.ask(rules=one.rules(on=EVERY, hedge=after()))
        assert (got.response.status, got.backend, got.attempts) == (200, one.backends[0], 2)
        assert one.outcomes(1) == [0, 1, 0, 0]


async def test_when_both_fail_what_follows_is_a_retry():
    async with scene([[(Pause(0.03), Reset())]], [[Reset()]], [[OK]]) as one:
        got = await one.ask(rules=one.rules(on=EVERY, hedge=after()))
        assert (got.response.status, got.backend) == (200, one.backends[2])
        assert (got.attempts, got.hedges) == (3, 1)
        assert one.retries == {"reset": 1}


async def test_a_try_and_its_hedge_are_given_up_together_a_time_after_the_hedge_was_sent():
    async with scene([[Never()]], [[Never()]], [[OK]]) as one:
        began = time.monotonic()
        got = await one.ask(rules=one.rules(per_try=40 * MS, hedge=after()))
        assert (got.response.status, got.attempts, got.hedges) == (200, 3, 1)
        assert time.monotonic() - began >= 0.055
        assert one.retries == {"timeout": 1}
        assert [one.outcomes(0), one.outcomes(1)] == [[0, 1, 0, 0]] * 2
        await one.gone(0)
        await one.gone(1)


async def test_the_answer_of_a_failed_first_is_kept_until_the_hedge_has_failed_too():
    async with scene([[(Pause(0.03), answer(b"first", 503))]], [[(Pause(0.05), Reset())]]) as one:
        got = await one.ask(rules=one.rules(attempts=1, on=EVERY, hedge=after()))
        assert got.attempts == 2
        assert got.response is None or got.response.body == b"first"


@pytest.mark.parametrize("status", [429, 503])
async def test_an_answer_that_streams_and_is_not_used_is_let_go(status):
    big = answer(b"x" * 3_000_000, status)
    async with scene([[(Pause(0.03), big)]], [[(Pause(0.06), OK)]], limits=ClientLimits(whole=1000)) as one:
        got = await one.ask(rules=one.rules(on=EVERY, hedge=after()))
        assert got.response.body == b"ok"
        assert one.settled()


# -- percentiles --------------------------------------------------------------------------------------------------


async def test_a_percentile_is_learnt_and_what_was_called_off_counts_as_late():
    latencies = Latencies(0)
    rules_of = HedgeRules(latencies, share=0.9)
    async with scene([[OK]], [[OK]]) as one:
        for _ in range(ENOUGH):
            got = await one.ask(rules=one.rules(hedge=rules_of))
            assert got.hedges == 0
        assert 0 < rules_of.delay(time.monotonic_ns() + 10**9) < 100 * MS
    async with scene([[Never()]], [[OK]]) as one:
        known = latencies._count
        one.budget = one.pool.budget = RetryBudget(1.0, 100.0, time.monotonic_ns())
        for _ in range(12):
            one.backends[1].weight, one.backends[0].weight = 1, 1
            await one.ask(rules=one.rules(hedge=rules_of))
        assert latencies._count == known + 12
    latencies._share = 0.0
    assert latencies.percentile(0.5, 0) < latencies.percentile(0.99, 1)


async def test_failures_teach_nothing_of_latency():
    latencies = Latencies(0)
    async with scene([[Reset()]], [[Reset()]]) as one:
        await one.ask(rules=one.rules(on=EVERY, hedge=HedgeRules(latencies, share=0.9)))
        assert latencies._count == 0


# -- the client ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.005, 0.05])
async def test_a_client_that_leaves_ends_both(pause):
    async with scene([[Never()]], [[Never()]]) as one:
        asking = asyncio.ensure_future(one.ask(rules=one.rules(hedge=after())))
        await asyncio.sleep(pause)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert one.settled()
        await one.gone(0)
        await one.gone(1)
        assert one.outcomes(0)[Outcome.FAILURE] == one.outcomes(1)[Outcome.FAILURE] == 0


async def test_a_client_that_leaves_just_when_the_hedge_has_won_is_not_taken_for_ours():
    """Both cancel the same task: it must end as cancelled, and the winner's answer be let go."""
    async with scene([[Never()]], [[(Pause(0.02), answer(b"x" * 3_000_000))]], limits=ClientLimits(whole=1000)) as one:
        asking = asyncio.ensure_future(one.ask(rules=one.rules(hedge=after())))
        while not one.count(WON):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert asking.cancelled()
        assert one.settled()
