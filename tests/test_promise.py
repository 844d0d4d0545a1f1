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


# -- what asyncio does with futures: all of it, for `isfuture` says that it may -------------------------------------


async def cancelled(awaitable):
    """Cancels who awaits it; what it is told."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_gather_takes_what_is_kept_broken_and_cancelled():
    loop = asyncio.get_running_loop()
    kept, broken, called_off, silent = (Promise(loop) for _ in range(4))
    loop.call_soon(kept.keep_now, 1)
    loop.call_soon(broken.breach, OSError("gone"))
    loop.call_soon(called_off.cancel, "enough")
    loop.call_soon(silent.cancel)
    async with asyncio.timeout(30):
        one, two, three, four = await asyncio.gather(kept, broken, called_off, silent, return_exceptions=True)
    assert (one, str(two), three.args) == (1, "gone", ("enough",))
    assert isinstance(four, asyncio.CancelledError)


async def test_gather_ends_when_one_is_cancelled():
    promise = Promise(asyncio.get_running_loop())
    asyncio.get_running_loop().call_soon(promise.cancel)
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.gather(promise)


async def test_gather_cancels_it():
    promise = Promise(asyncio.get_running_loop())

    async def gathering():
        await asyncio.gather(promise)

    await cancelled(gathering())
    assert promise.cancelled()


@pytest.mark.parametrize("when", [asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION])
async def test_wait_takes_it_and_gives_it_up(when):
    loop = asyncio.get_running_loop()
    promise = Promise(loop)
    assert await asyncio.wait([promise], timeout=0.001, return_when=when) == (set(), {promise})
    assert promise._callback is None
    loop.call_soon(promise.breach, OSError("gone"))
    assert await asyncio.wait([promise], timeout=30, return_when=when) == ({promise}, set())


async def test_wait_for_takes_it_and_cancels_it_when_it_is_late():
    loop = asyncio.get_running_loop()
    kept, late = Promise(loop), Promise(loop)
    loop.call_soon(kept.keep_now, 1)
    assert await asyncio.wait_for(kept, 30) == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late, 0.001)
    assert late.cancelled()
    await cancelled(asyncio.wait_for(waits := Promise(loop), 30))
    assert waits.cancelled()


async def test_shield_keeps_it_from_being_cancelled():
    loop = asyncio.get_running_loop()
    promise = Promise(loop)
    await cancelled(asyncio.shield(promise))
    assert not promise.done()
    shielded = asyncio.shield(promise)
    loop.call_soon(promise.keep_now, 1)
    assert await shielded == 1
    called_off = Promise(loop)
    shielded = asyncio.shield(called_off)
    called_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await shielded


async def test_as_completed_takes_it():
    loop = asyncio.get_running_loop()
    promises = [Promise(loop), Promise(loop)]
    loop.call_soon(promises[1].keep_now, 1)
    loop.call_soon(promises[0].keep_now, 0)
    assert sorted([await each for each in asyncio.as_completed(promises, timeout=30)]) == [0, 1]
    with pytest.raises(TimeoutError):
        for each in asyncio.as_completed([Promise(loop)], timeout=0.001):
            await each


async def test_a_timeout_around_it():
    promise = Promise(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await promise
    assert promise.cancelled()


async def test_a_task_group_cancels_who_awaits_it():
    promise, told = Promise(asyncio.get_running_loop()), []
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(waiting(promise, told))
            await asyncio.sleep(0)
            raise OSError("gone")
    assert (promise.cancelled(), [type(each) for each in told]) == (True, [asyncio.CancelledError])


def test_a_loop_runs_until_it_is_kept():
    loop = asyncio.new_event_loop()
    try:
        promise = Promise(loop)
        loop.call_soon(promise.keep_now, 1)
        assert loop.run_until_complete(promise) == 1
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError, match="stopped before"):
            loop.run_until_complete(unkept := Promise(loop))
        assert unkept._callback is None
    finally:
        loop.close()


async def test_what_was_cancelled_is_told_as_by_a_future():
    promise = Promise(asyncio.get_running_loop())
    assert promise.cancel("enough")
    assert not promise.cancel()
    for ask in (promise.result, promise.exception):
        with pytest.raises(asyncio.CancelledError, match="enough"):
            ask()
    with pytest.raises(asyncio.InvalidStateError):
        Promise(asyncio.get_running_loop()).exception()


async def test_a_callback_can_be_taken_back():
    promise, called = Promise(asyncio.get_running_loop()), []

    def first(_):
        called.append(1)

    def second(_):
        called.append(2)

    assert promise.remove_done_callback(first) == 0
    for each in (first, second, first, second):
        promise.add_done_callback(each)
    assert (promise.remove_done_callback(first), promise.remove_done_callback(first)) == (2, 0)
    promise.keep(None)
    assert promise.remove_done_callback(second) == 0  # as of a future: it is on its way
    await asyncio.sleep(0)
    assert called == [2, 2]


# -- what may go wrong in a step --------------------------------------------------------------------------------------


async def test_a_callback_that_raises_is_the_loops_business_and_nobody_elses():
    loop = asyncio.get_running_loop()
    promise, called, told = Promise(loop), [], []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fails(_):
        raise OSError("its own fault")

    promise.add_done_callback(fails)
    promise.add_done_callback(called.append)
    await in_a_callback(lambda: promise.keep_now(1))  # and does not raise
    await asyncio.sleep(0)
    assert ([str(error) for error in told], called) == (["its own fault"], [promise])


async def test_an_exit_is_not_held_up(waiter):
    promise, seen = Promise(asyncio.get_running_loop()), []

    def leaves(_):
        raise SystemExit(3)

    promise.add_done_callback(leaves)

    def arrive():
        with pytest.raises(SystemExit):
            promise.keep_now(1)
        seen.append(True)

    await in_a_callback(arrive)
    assert seen == [True]


async def test_a_task_that_fails_in_the_step_fails_alone():
    promise = Promise(asyncio.get_running_loop())

    async def fails():
        await promise
        raise OSError("its own fault")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await in_a_callback(lambda: promise.keep_now(None))
    with pytest.raises(OSError, match="its own fault"):
        await task


async def test_tasks_that_keep_one_anothers_promises_are_no_recursion():
    loop = asyncio.get_running_loop()
    promises = [Promise(loop) for _ in range(5_000)]
    depth, deepest = 0, 0

    async def passes_on(number):
        nonlocal depth, deepest
        await promises[number]
        depth += 1
        deepest = max(deepest, depth)
        if number + 1 < len(promises):
            promises[number + 1].keep_now(None)
        depth -= 1

    tasks = [asyncio.create_task(passes_on(number)) for number in range(len(promises))]
    await asyncio.sleep(0)
    await in_a_callback(lambda: promises[0].keep_now(None))
    await asyncio.gather(*tasks)
    assert deepest == 1


async def test_a_step_may_wait_for_the_next_promise_and_end_the_task():
    loop = asyncio.get_running_loop()
    first, second, seen = Promise(loop), Promise(loop), []

    async def two():
        seen.append(await first)
        seen.append(await second)

    task = asyncio.create_task(two())
    await asyncio.sleep(0)

    def arrive():
        first.keep_now(1)
        second.keep_now(2)  # asked for within the call before
        seen.append(asyncio.current_task())

    await in_a_callback(arrive)
    assert (seen, task.done()) == ([1, 2, None], True)


async def test_cancelled_between_being_settled_and_told_the_task_is_cancelled_within_the_call(waiter):
    promise, task, told = waiter

    def arrive():
        promise.settle("it")
        task.cancel()
        promise.tell()
        told.append(task.done())

    await in_a_callback(arrive)
    assert ([type(each) for each in told], told[-1]) == ([asyncio.CancelledError, bool], True)


async def test_cancelled_before_it_is_kept_now_the_task_is_told_once(waiter):
    promise, task, told = waiter

    def arrive():
        task.cancel()
        promise.keep_now("too late")

    await in_a_callback(arrive)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(each) for each in told] == [asyncio.CancelledError]


def test_of_a_loop_that_is_closed_it_is_refused_as_a_future_is():
    loop = asyncio.new_event_loop()
    promise = Promise(loop)
    promise.add_done_callback(print)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        promise.keep(None)
    assert (promise.done(), promise.result()) == (True, None)
