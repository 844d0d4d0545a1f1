"""Trying again: when, where, how soon, and what that takes of the pool's budget."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.breakers.gate import BreakerSettings
from gateway.errors import UpstreamTimeout
from gateway.request import Outcome
from gateway.retries.budget import RetryBudget
from gateway.testing import OK, Never, Pause, Reset, answer
from tests.retries.test_budget import allows
from tests.upstreams.scene import DEAD, DENIED, WASTED, scene

pytestmark = pytest.mark.undisturbed

MS = 1_000_000
BUSY = answer(b"busy", 503)
BUSY_FOR_A_SECOND = answer(b"busy", 503, headers=[("Retry-After", "1")])
EVERY = ("connect", "reset", "429", "500", "502", "503", "504")


class Clock:
    """Seconds that a call took."""

    def __enter__(self):
        self.began = time.monotonic()
        return self

    def __exit__(self, *_):
        self.took = time.monotonic() - self.began


# -- the time of one try ------------------------------------------------------------------------------------------


async def test_a_try_is_given_up_after_its_own_time_and_made_elsewhere():
    async with scene([[Never()]], [[OK]]) as one:
        with Clock() as clock:
            got = await one.ask(rules=one.rules(per_try=20 * MS))
        assert (got.response.status, got.backend, got.attempts) == (200, one.backends[1], 2)
        assert 0.019 <= clock.took < 0.5
        assert one.retries == {"timeout": 1}
        assert one.count(WASTED) == 1
        assert one.outcomes(0) == [0, 1, 0, 0]  # its time was up: a failure
        await one.gone(0)  # cancelled where it ran


async def test_the_last_try_has_all_the_time_there_is():
    async with scene([[Never()]], [[(Pause(0.06), OK)]]) as one:
        got = await one.ask(rules=one.rules(per_try=15 * MS))
        assert (got.response.status, got.attempts) == (200, 2)


@pytest.mark.parametrize("why", ["budget", "nobody", "post"])
async def test_a_try_goes_on_where_no_other_can_be_made(why):
    """A pool that is slow as a whole would answer nobody if tries were given up for nothing."""
    async with scene(*[[[(Pause(0.06), OK)]]] * (1 if why == "nobody" else 2)) as one:
        if why == "budget":
            one.spend_all()
        got = await one.ask(b"POST" if why == "post" else b"GET", rules=one.rules(per_try=15 * MS))
        assert (got.response.status, got.attempts) == (200, 1)
        assert one.retries == {}
        assert (one.count(DENIED) > 0) == (why == "budget")


async def test_a_try_goes_on_until_the_budget_has_something_again():
    async with scene([[Never()]], [[OK]]) as one:
        one.budget = one.pool.budget = RetryBudget(0.5, 0.0, time.monotonic_ns())
        asking = asyncio.ensure_future(one.ask(rules=one.rules(per_try=10 * MS)))
        while one.count(DENIED) < 2:
            await asyncio.sleep(0.001)
        one.budget.deposit(time.monotonic_ns())
        got = await asking
        assert (got.response.status, got.attempts) == (200, 2)


async def test_lateness_of_one_try_is_no_hurry_of_the_callers():
    async with scene([[Never()]], [[OK]]) as one:
        await one.ask(rules=one.rules(per_try=15 * MS), fair=1000 * MS)
        assert one.outcomes(0)[Outcome.FAILURE] == 1


async def test_the_time_of_a_try_is_cut_by_the_deadline():
    async with scene([[Never()]], [[Never()]]) as one:
        with Clock() as clock:
            got = await one.ask(seconds=0.05, rules=one.rules(attempts=3, per_try=1000 * MS))
        assert isinstance(got.error, UpstreamTimeout)
        assert got.attempts == 1
        assert clock.took < 0.5


# -- how soon -----------------------------------------------------------------------------------------------------


async def test_the_first_retry_elsewhere_is_at_once():
    async with scene(DEAD, [[OK]]) as one:
        with Clock() as clock:
            assert (await one.ask(rules=one.rules(backoff=10_000 * MS, backoff_max=10_000 * MS))).attempts == 2
        assert clock.took < 1.0


async def test_overload_is_not_answered_at_once():
    async with scene([[BUSY]], [[OK]]) as one:
        with Clock() as clock:
            got = await one.ask(rules=one.rules(on=EVERY, backoff=60 * MS))
        assert got.response.status == 200
        assert clock.took > 0.029  # half of it: `rand` is 0.5


async def test_a_retry_that_waits_counts_in_the_budget():
    async with scene([[BUSY]], [[OK]]) as one:
        one.budget = one.pool.budget = RetryBudget(0.0, 1.0, time.monotonic_ns())
        waiting = asyncio.ensure_future(one.ask(rules=one.rules(on=EVERY, backoff=100 * MS)))
        while not one.budget.waiting:
            await asyncio.sleep(0.001)
        assert not allows(one.budget, time.monotonic_ns())
        assert (await waiting).attempts == 2
        assert (one.budget.waiting, one.budget.spent) == (0, 1)


async def test_a_pause_that_does_not_fit_is_not_begun():
    async with scene([[BUSY]], [[OK]]) as one:
        with Clock() as clock:
            got = await one.ask(seconds=0.5, rules=one.rules(on=EVERY, backoff=10_000 * MS, backoff_max=10_000 * MS))
        assert (got.response.status, got.attempts) == (503, 1)
        assert clock.took < 0.4


# -- Retry-After --------------------------------------------------------------------------------------------------


async def test_retry_after_does_not_keep_anybody_from_another_backend():
    async with scene([[BUSY_FOR_A_SECOND]], [[OK]]) as one:
        with Clock() as clock:
            assert (await one.ask(rules=one.rules(on=EVERY))).response.status == 200
        assert clock.took < 0.9


async def test_retry_after_is_waited_for_where_there_is_nobody_else():
    async with scene([[BUSY_FOR_A_SECOND, OK]]) as one:
        with Clock() as clock:
            got = await one.ask(rules=one.rules(on=EVERY, same_backend=True))
        assert (got.response.status, got.attempts) == (200, 2)
        assert 0.99 <= clock.took < 1.9


async def test_a_retry_after_that_does_not_fit_is_given_up_at_once():
    async with scene([[BUSY_FOR_A_SECOND, OK]]) as one:
        with Clock() as clock:
            got = await one.ask(seconds=0.8, rules=one.rules(on=EVERY, same_backend=True))
        assert (got.response.status, got.attempts) == (503, 1)
        assert clock.took < 0.5


async def test_the_longest_retry_after_of_all_that_were_asked_counts():
    async with scene([[BUSY_FOR_A_SECOND, OK]], [[BUSY]]) as one:
        got = await one.ask(seconds=0.8, rules=one.rules(attempts=3, on=EVERY))
        assert (got.response.status, got.attempts) == (503, 2)
        assert one.retries == {"503": 1}


# -- where, and whether -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [False, True])
async def test_with_one_backend_alone(same):
    async with scene([[BUSY, OK]]) as one:
        got = await one.ask(rules=one.rules(on=EVERY, same_backend=same))
        assert (got.response.status, got.attempts) == ((200, 2) if same else (503, 1))


async def test_a_breaker_that_opens_in_the_back_off_ends_the_retry_and_gives_the_budget_back():
    async with scene([[BUSY]], [[OK]]) as one:
        one.backends[1].gate.configure(BreakerSettings(failures=1, open_for=60.0))
        waiting = asyncio.ensure_future(one.ask(rules=one.rules(on=EVERY, backoff=60 * MS)))
        while not one.budget.waiting:
            await asyncio.sleep(0.001)
        gate = one.backends[1].gate
        gate.release(gate.try_acquire(0), Outcome.FAILURE, time.monotonic_ns())
        got = await waiting
        assert (got.response.status, got.response.body, got.attempts) == (503, b"busy", 1)
        assert (one.budget.waiting, one.budget.spent) == (0, 0)


@pytest.mark.parametrize(
    ("headers", "rules", "attempts"),
    [
        ({b"idempotency-key": b"1"}, {"replay_field": b"idempotency-key"}, 2),
        ({b"idempotency-key": b"1"}, {}, 1),
        ({}, {"replay_field": b"idempotency-key"}, 1),
    ],
)
async def test_a_post_may_run_twice_if_its_sender_says_so(headers, rules, attempts):
    async with scene([[Reset()]], [[OK]]) as one:
        got = await one.ask(b"POST", headers=headers, rules=one.rules(on=EVERY, **rules))
        assert got.attempts == attempts


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_every_status_of_the_route_is_retried_and_counted_by_itself(status):
    async with scene([[answer(b"", status)]], [[OK]]) as one:
        got = await one.ask(rules=one.rules(on=(str(status),)))
        assert (got.response.status, got.attempts) == (200, 2)
        assert one.retries == {str(status): 1}
        assert one.count(WASTED) == 1


async def test_a_status_that_is_not_of_the_route_is_the_answer():
    async with scene([[answer(b"", 500)]], [[OK]]) as one:
        got = await one.ask(rules=one.rules(on=("503",)))
        assert (got.response.status, got.attempts) == (500, 1)
        assert one.count(WASTED) == 0


async def test_the_budget_is_the_pools():
    """Two routes that share a pool share what may be sent on top."""
    async with scene([[BUSY] * 8], [[OK] * 8]) as one:
        one.backends[0].gate.configure(BreakerSettings(failures=1000))
        one.budget = one.pool.budget = RetryBudget(0.0, 3.0, time.monotonic_ns())
        for number in range(8):
            await one.ask(rules=one.rules(attempts=2 + number % 2, on=("503",)))
        assert sum(one.retries.values()) == 3
        assert one.count(DENIED) == 1  # half of the others came to the living one first


async def test_a_request_that_nobody_could_be_asked_for_earns_no_retry():
    async with scene([[OK]]) as one:
        one.backends[0].weight = 0
        assert (await one.ask()).attempts == 0
        assert repr(one.budget) == "<RetryBudget 0 on top of 0 a second, 0 waiting>"


async def test_a_try_is_not_called_off_for_a_backend_that_gives_no_permit():
    """All are slow, and calling tries off opens their breakers: who is still asked must be left to answer."""
    async with scene(*[[[(Pause(0.06), OK)]]] * 3) as one:
        for backend in one.backends:
            backend.gate.configure(BreakerSettings(failures=1, open_for=5.0, probes=1))
        one.budget = one.pool.budget = RetryBudget(0.0, 100.0, time.monotonic_ns())
        rules = one.rules(attempts=3, per_try=15 * MS, backoff=30 * MS)
        got = await asyncio.gather(*(one.ask(rules=rules) for _ in range(6)))
        assert all(each.response is not None for each in got), [each.error for each in got]
