"""Waiting for a place, with a real event loop: woken, refused, cancelled."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.admission.admission import Admission, AdmissionSettings
from gateway.admission.queue import FULL, LATE
from gateway.request import Outcome
from gateway.upstreams.entrance import Entrance

pytestmark = pytest.mark.undisturbed

MS = 1_000_000


def now():
    return time.monotonic_ns()


@pytest.fixture
def taken():
    """One place, and it is taken."""
    admission = Admission(AdmissionSettings(1, 100, 2, 5 * MS))
    admission.enter(1, now())
    return admission


def wait(entrance, admission, patience=10_000):
    return asyncio.create_task(entrance.wait(admission, 1, b"a", now() + patience * MS, now()))


async def test_a_place_that_is_given_back_wakes_the_one_that_waits(taken):
    task = wait(Entrance(), taken)
    await asyncio.sleep(0)
    assert taken.queue.size == 1
    taken.release(0, MS, Outcome.SUCCESS, now())
    assert await task >= 0
    assert taken.inflight == 1


async def test_a_refusal_is_told_at_once(taken):
    entrance = Entrance()
    waiting = [wait(entrance, taken) for _ in range(2)]
    await asyncio.sleep(0)
    assert await entrance.wait(taken, 2, b"a", now() + 1000 * MS, now()) == -1 - FULL
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert taken.queue.size == 0


async def test_a_deadline_in_the_queue_is_noticed_without_anything_else_happening(taken):
    entrance = Entrance()
    assert await wait(entrance, taken, patience=10) == -1 - LATE
    await asyncio.sleep(0.02)
    assert not entrance.swept, "the timer ends with the waiting"


async def test_one_timer_for_each_admission_and_again_after_a_pause(taken):
    entrance = Entrance()
    for _ in range(2):
        tasks = [wait(entrance, taken, patience=15) for _ in range(2)]
        await asyncio.sleep(0)
        assert entrance.swept == {taken}
        assert await asyncio.gather(*tasks) == [-1 - LATE] * 2
        await asyncio.sleep(0.02)
        assert not entrance.swept


async def test_cancelled_while_waiting(taken):
    task = wait(Entrance(), taken)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (taken.queue.size, taken.inflight) == (0, 1)


async def test_cancelled_with_the_place_already_given(taken):
    task = wait(Entrance(), taken)
    await asyncio.sleep(0)
    taken.release(0, MS, Outcome.SUCCESS, now())
    assert taken.inflight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert taken.inflight == 0


async def test_given_to_the_next_when_the_first_is_cancelled_and_has_not_run_yet(taken):
    entrance = Entrance()
    first, second = wait(entrance, taken), wait(entrance, taken)
    await asyncio.sleep(0)
    first.cancel()
    taken.release(0, MS, Outcome.SUCCESS, now())  # before `first` has heard of it
    assert await second >= 0
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (taken.inflight, taken.queue.size) == (1, 0)
