"""A promise is a future to a task, and steps it at once where that is asked for and may be."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from gateway.promise import Promise

WHO = ContextVar("WHO", default="nobody")


def in_a_callback(call):
    """Runs `call` as the loop runs a transport's callbacks: outside of any task. A future of when it is done."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run():
        call()
        done.set_result(None)

    loop.call_soon(run)
    return done


async def waiting(promise, told):
    try:
        told.append(await promise)
    except BaseException as error:
        told.append(error)
        raise


@pytest.fixture
async def waiter():
    """A promise, a task that waits for it, and what it was told."""
    promise, told = Promise(asyncio.get_running_loop()), []
    task = asyncio.create_task(waiting(promise, told))
    await asyncio.sleep(0)
    yield promise, task, told
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_kept_now_the_task_runs_within_the_call(waiter):
    promise, _, told = waiter
    seen = []

    def arrive():
        promise.keep_now("it")
        seen.extend(told)

    await in_a_callback(arrive)
    assert seen == ["it"]


async def test_kept_the_task_runs_in_the_next_turn(waiter):
    promise, task, told = waiter
    seen = ["before"]

    def arrive():
        promise.keep("it")
        seen.extend(told)

    await in_a_callback(arrive)
    await task
    assert (seen, told) == (["before"], ["it"])


async def test_settled_the_task_runs_when_it_is_told(waiter):
    promise, _, told = waiter
    seen = []

    def arrive():
        assert promise.settle("it")
        seen.append(list(told))
        promise.tell()
        seen.append(list(told))

    await in_a_callback(arrive)
    assert seen == [[], ["it"]]


async def test_within_another_task_it_is_put_off(waiter):
    promise, task, told = waiter
    promise.keep_now("it")  # this test is a task
    assert told == []
    await task
    assert told == ["it"]


async def test_kept_before_anybody_waits():
    promise = Promise(asyncio.get_running_loop())
    promise.keep_now(1)
    promise.keep(2)
    assert await promise == 1


async def test_broken_it_raises(waiter):
    promise, task, told = waiter
    error = OSError("gone")
    promise.breach(error)
    promise.keep_now("too late")
    with pytest.raises(OSError, match="gone"):
        await task
    assert told == [error]


async def test_a_task_that_is_cancelled_leaves_it_done(waiter):
    promise, task, told = waiter
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (promise.done(), promise.cancelled(), told[0].args) == (True, True, ("enough",))
    assert not promise.settle("too late")


async def test_cancelled_between_being_kept_and_running(waiter):
    promise, task, _ = waiter
    promise.keep_now("it")  # put off
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert promise.result() == "it"


async def test_the_task_runs_in_its_own_context():
    promise, seen = Promise(asyncio.get_running_loop()), []

    async def wait():
        WHO.set("task")
        await promise
        seen.append(WHO.get())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)

    def arrive():
        WHO.set("transport")
        promise.keep_now(None)
        seen.append(WHO.get())

    await in_a_callback(arrive)
    await task
    assert seen == ["task", "transport"]


async def test_everybody_who_asked_is_called_once():
    promise, called = Promise(asyncio.get_running_loop()), []
    promise.add_done_callback(lambda one: called.append(("first", one.result())))
    promise.add_done_callback(lambda one: called.append(("second", one.result())))
    promise.keep(1)
    promise.keep(2)
    promise.add_done_callback(lambda one: called.append(("late", one.result())))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert called == [("first", 1), ("second", 1), ("late", 1)]


async def test_not_kept_it_has_no_result():
    promise = Promise(asyncio.get_running_loop())
    assert asyncio.isfuture(promise)
    with pytest.raises(asyncio.InvalidStateError):
        promise.result()
