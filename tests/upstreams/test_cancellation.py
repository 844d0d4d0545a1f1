"""A client that leaves at the worst moment: whatever the request waits for, nothing is held by anybody afterwards."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.http.upstream import ClientLimits
from gateway.retries.budget import RetryBudget
from gateway.retries.hedge import HedgeRules
from gateway.retries.latencies import Latencies
from gateway.testing import OK, Never, Pause, Reset, answer
from tests.upstreams.scene import DEAD, scene

pytestmark = pytest.mark.undisturbed

MS = 1_000_000
EVERY = ("connect", "reset", "500", "502", "503", "504")
LATE = (Pause(0.03), OK)
BUSY = answer(b"busy", 503)
BIG = answer(b"x" * 3_000_000, 503)
MOST = 60  # awaits of one request


class Leaving:
    """Awaits a coroutine and cancels the task at the `number`-th thing it waits for.

    `late`: when that has just come, and the task is about to go on with it.
    """

    def __init__(self, coroutine, number, late):
        self.coroutine, self.number, self.late = coroutine, number, late
        self.waits = 0

    def __await__(self):
        steps = self.coroutine.__await__()
        task = asyncio.current_task()
        error = None
        while True:
            try:
                future = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            self.waits += 1
            if self.waits == self.number:
                if future is None or not self.late:
                    task.cancel()
                else:
                    future.add_done_callback(lambda _: task.cancel())  # before the task hears of it
            try:
                error = None
                yield future
            except BaseException as raised:  # noqa: BLE001 - whatever the task throws in
                error = raised


def hedge():
    return HedgeRules(Latencies(0), after=10 * MS)


SCENARIOS = {
    "plain": ([[LATE]], {}),
    "a new connection each time": ([[LATE]], {"limits": ClientLimits(idle=0.0)}),
    "a retry": ([DEAD, [LATE]], {}),
    "a back-off": ([[BUSY], [LATE]], {"backoff": 20 * MS}),
    "a back-off with an answer that streams in hand": ([[BIG], [LATE]], {"backoff": 20 * MS}),
    "a stale connection": ([[OK, Reset()], [LATE]], {"warm": True}),
    "the time of a try": ([[Never()], [LATE]], {"per_try": 10 * MS}),
    "a hedge": ([[Never()], [LATE]], {"hedge": True}),
    "a hedge that loses": ([[(Pause(0.03), OK)], [Never()]], {"hedge": True}),
    "a hedge beside a failure": ([[(Pause(0.02), BUSY)], [LATE]], {"hedge": True, "backoff": 20 * MS}),
    "a hedge beside a failure that streams": ([[(Pause(0.02), BIG)], [LATE]], {"hedge": True}),
    "a failed hedge that streams": ([[(Pause(0.05), OK)], [BIG]], {"hedge": True}),
    "a hedge and the time of a try": ([[Never()], [Never()], [LATE]], {"hedge": True, "per_try": 20 * MS}),
}


@pytest.mark.parametrize("late", [False, True], ids=["while", "late"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_nothing_is_left_behind(name, late):
    scripts, options = SCENARIOS[name]
    options = dict(options)
    limits = options.pop("limits", None) or ClientLimits(whole=1000)
    warm, hedged = options.pop("warm", False), options.pop("hedge", False)
    for number in range(1, MOST):
        script = [one if one is DEAD else [one] for one in scripts]
        if warm:
            script = [scripts]
        async with scene(*script, limits=limits) as one:
            one.budget = one.pool.budget = RetryBudget(0.0, 10.0, time.monotonic_ns())
            rules = one.rules(on=EVERY, hedge=hedge() if hedged else None, **options)
            if warm:
                await one.ask(rules=rules)
            leaving = Leaving(one.ask(rules=rules), number, late)

            async def ask(leaving=leaving):
                return await leaving

            task = asyncio.ensure_future(ask())
            try:
                got = await task
                if got.response is not None:
                    got.response.discard()
            except asyncio.CancelledError:
                assert leaving.waits >= number
            await asyncio.sleep(0)  # a hedge is told in the next turn
            await asyncio.sleep(0)
            assert one.settled(), (name, number)
            ours = [each for each in asyncio.all_tasks() if "_hedge" in repr(each)]
            assert not ours, (name, number, ours)
        if leaving.waits < number:
            return  # it was over before: every await has had its turn
    raise AssertionError("more awaits than expected")
