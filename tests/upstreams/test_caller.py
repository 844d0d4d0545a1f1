"""One call at a pool of backends that do what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from gateway.breakers.gate import BreakerSettings
from gateway.errors import BadUpstreamResponse, ConnectFailed, ConnectionBroken, StaleConnection, UpstreamTimeout
from gateway.http.upstream import ClientLimits
from gateway.request import Outcome, Request
from gateway.testing import OK, Close, Never, Pause, Reset, Say, answer
from tests.upstreams.scene import DEAD, DENIED, scene

pytestmark = pytest.mark.undisturbed

ASKED = Request(b"GET", b"/x", b"/x", {})


async def test_success():
    async with scene([[answer(b"hi")]]) as one:
        got = await one.ask()
        assert (got.response.body, got.error, got.backend, got.attempts) == (b"hi", None, one.backends[0], 1)
        assert one.outcomes() == [1, 0, 0, 0]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_refused_connection_is_tried_elsewhere(method):
    async with scene(DEAD, [[OK]]) as one:
        got = await one.ask(method)
        assert (got.response.status, got.backend, got.attempts) == (200, one.backends[1], 2)
        assert one.outcomes(0) == [0, 1, 0, 0]
        assert one.retries == {"connect": 1}


@pytest.mark.parametrize(("backends", "expected"), [(1, [1]), (2, [3, 2]), (3, [2, 2, 1]), (6, [1, 1, 1, 1, 1, 0])])
async def test_never_the_same_backend_twice_in_a_row(backends, expected):
    """Those not tried yet come first; then those tried before the last, after a back-off. The first is preferred by
    far, so it is asked as often as the rule allows.
    """
    async with scene(*[[[answer(b"", 502)]]] * backends) as one:
        for number, backend in enumerate(one.backends):
            backend.gate.configure(BreakerSettings(failures=100))
            backend.weight = 1_000_000 ** (backends - number)
        one.pool._unsettle()
        got = await one.ask(rules=one.rules(attempts=5, on=("502",)))
        assert [sum(one.outcomes(number)) for number in range(backends)] == expected
        assert got.attempts == sum(expected)
        assert got.response.status == 502


async def test_no_more_than_the_attempts_allowed():
    async with scene(DEAD, DEAD, [[OK]]) as one:
        assert (await one.ask()).response is None
        assert (await one.ask(rules=one.rules(attempts=1))).attempts == 1


async def test_without_budget_there_is_no_retry():
    async with scene([[answer(b"busy", 503)]], [[OK]]) as one:
        one.spend_all()
        got = await one.ask(rules=one.rules(on=("503",)))
        assert got.response.status == 503
        assert (got.attempts, one.count(DENIED), one.retries) == (1, 1, {})


async def test_one_that_could_not_be_reached_had_no_work_of_it_so_another_is_asked_whatever_the_budget():
    async with scene(DEAD, [[OK]]) as one:
        one.spend_all()
        got = await one.ask()
        assert (got.response.status, got.attempts, one.count(DENIED)) == (200, 2, 0)
        assert one.retries == {"connect": 1}


async def test_but_not_again_and_again():
    """The second time there is a pause, and that is paid for."""
    async with scene(DEAD, DEAD, [[OK]]) as one:
        one.spend_all()
        one.backends[2].mark(healthy=False, now=0)  # it is asked last
        got = await one.ask(rules=one.rules(attempts=4, on=("connect",)))
        assert isinstance(got.error, ConnectFailed)
        assert (got.attempts, one.count(DENIED)) == (2, 1)


async def test_a_denied_retry_takes_no_probe():
    async with scene([[answer(b"busy", 503)]], [[OK]]) as one:
        one.spend_all()
        gate = one.backends[1].gate
        for _ in range(2):
            gate.release(gate.try_acquire(0), Outcome.FAILURE, 0)
        one.backends[1].mark(healthy=False, now=0)  # else it would be asked first
        await one.ask(rules=one.rules(on=("503",)))
        assert one.count(DENIED) == 1
        assert gate.state == "open"


async def test_without_rules_there_is_one_attempt():
    async with scene(DEAD, [[OK]]) as one:
        got = await one.ask(rules=None)
        assert (got.response, got.attempts) == (None, 1)


@pytest.mark.parametrize(
    ("method", "on", "replayable", "attempts"),
    [
        (b"GET", ("connect", "503"), False, 2),
        (b"POST", ("connect", "503"), False, 1),
        (b"POST", ("connect", "503"), True, 2),
        (b"GET", ("connect", "502"), False, 1),
    ],
)
async def test_a_status_is_retried_if_the_route_says_so_and_the_request_may_run_twice(method, on, replayable, attempts):
    async with scene([[answer(b"no", 503)]], [[OK]]) as one:
        got = await one.ask(method, rules=one.rules(on=on, replayable=replayable))
        assert (got.attempts, got.response.status) == (attempts, 200 if attempts == 2 else 503)


@pytest.mark.parametrize(
    ("method", "on", "replayable", "attempts"),
    [
        (b"GET", ("reset",), False, 2),
        (b"GET", ("connect",), False, 1),
        (b"POST", ("reset",), False, 1),
        (b"POST", ("reset",), True, 2),
    ],
)
async def test_a_broken_exchange(method, on, replayable, attempts):
    async with scene([[Reset()]], [[OK]]) as one:
        got = await one.ask(method, rules=one.rules(on=on, replayable=replayable))
        assert got.attempts == attempts
        assert (got.response is None) == (attempts == 1)
        if attempts == 1:
            assert isinstance(got.error, ConnectionBroken)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (OK, Outcome.SUCCESS),
        (answer(b"", 404), Outcome.SUCCESS),
        (answer(b"", 501), Outcome.SUCCESS),
        (answer(b"", 500), Outcome.FAILURE),
        (answer(b"", 502), Outcome.FAILURE),
        (answer(b"", 504), Outcome.FAILURE),
        (answer(b"", 503), Outcome.DROPPED),
        (answer(b"", 429), Outcome.DROPPED),
        (Say(b"garbage\r\n"), Outcome.FAILURE),
        (Close(), Outcome.FAILURE),
    ],
)
async def test_what_an_attempt_proves(said, outcome):
    async with scene([[said]]) as one:
        await one.ask(rules=one.rules(attempts=1))
        assert one.outcomes() == [int(outcome is each) for each in Outcome]


async def test_garbage_is_not_retried():
    async with scene([[Say(b"garbage\r\n")]], [[OK]]) as one:
        got = await one.ask(rules=one.rules(on=("connect", "reset", "502", "503")))
        assert isinstance(got.error, BadUpstreamResponse)
        assert got.attempts == 1


# -- stale connections --------------------------------------------------------------------------------------------

STALE = [[OK, Close()], [answer(b"again")]]  # the first connection closes under its second request


@pytest.mark.parametrize(
    ("method", "replayable", "replayed"), [(b"GET", False, True), (b"POST", False, False), (b"POST", True, True)]
)
async def test_a_stale_connection_is_replayed_on_a_new_one(method, replayable, replayed):
    async with scene(STALE) as one:
        rules = one.rules(attempts=1, replayable=replayable)
        await one.ask(method, rules=rules)
        got = await one.ask(method, rules=rules)
        assert one.outcomes() == [1 + replayed, 0, 1, 0]  # being stale proves nothing
        if replayed:
            assert (got.response.body, got.attempts) == (b"again", 2)
        else:
            assert isinstance(got.error, StaleConnection)
            assert len(one.servers[0].requests) == 2


async def test_the_replay_uses_a_new_connection_though_others_idle():
    async with scene([[(Pause(0.01), OK), Close()], [(Pause(0.01), OK), Close()], [answer(b"new")]]) as one:
        await asyncio.gather(one.ask(), one.ask())
        assert one.backends[0].connections.idle == 2
        assert (await one.ask()).response.body == b"new"


async def test_the_replay_costs_no_budget():
    async with scene(STALE) as one:
        one.spend_all()
        await one.ask()
        assert (await one.ask()).response.body == b"again"


async def test_there_is_one_replay():
    async with scene([[OK, Close()], [Close()]]) as one:
        await one.ask()
        got = await one.ask()
        assert isinstance(got.error, ConnectionBroken)
        assert got.attempts == 2


# -- time ---------------------------------------------------------------------------------------------------------


async def test_too_slow():
    async with scene([[Never()]], [[OK]]) as one:
        got = await one.ask(seconds=0.02)
        assert isinstance(got.error, UpstreamTimeout)
        assert got.attempts == 1
        assert one.outcomes() == [0, 1, 0, 0]


async def test_no_time_left_asks_nobody():
    async with scene([[OK]]) as one:
        got = await one.ask(seconds=0)
        assert (got.response, got.error, got.backend, got.attempts) == (None, None, None, 0)
        assert one.servers[0].connections == 0


@pytest.mark.parametrize("said", [Never(), answer(b"", 504)], ids=["silence", "504"])
async def test_a_caller_in_too_great_a_hurry_opens_no_breaker(said):
    async with scene([[said]]) as one:
        for _ in range(3):
            await one.ask(seconds=0.01, fair=250_000_000)
        assert one.backends[0].gate.state == "closed"
        assert one.outcomes() == [0, 0, 3, 0]


# -- permits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 0.001, 0.01])
async def test_a_cancelled_call_proves_nothing_and_frees_its_probe(after):
    async with scene([[Never()]]) as one:
        gate = one.backends[0].gate
        for _ in range(2):
            gate.release(gate.try_acquire(0), Outcome.FAILURE, 0)
        task = asyncio.ensure_future(one.ask())
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert one.settled()
        assert gate.state == ("half-open" if after else gate.state)
        assert gate.available(time.monotonic_ns())
        assert one.outcomes()[Outcome.FAILURE] == 0


async def test_only_the_probes_go_to_a_backend_that_may_have_recovered():
    async with scene([[(Pause(0.01), OK)]]) as one:
        gate = one.backends[0].gate
        for _ in range(2):
            gate.release(gate.try_acquire(0), Outcome.FAILURE, 0)
        answers = await asyncio.gather(*(one.ask() for _ in range(50)))
        assert sum(got.response is not None for got in answers) == 1
        assert gate.state == "closed"


async def test_an_open_breaker_sends_everything_elsewhere():
    async with scene(DEAD, [[OK]]) as one:
        one.backends[0].gate.configure(BreakerSettings(failures=1, open_for=60.0))
        for _ in range(10):
            assert (await one.ask()).response.status == 200
        assert one.outcomes(0) == [0, 1, 0, 0]


async def test_too_many_connections_are_our_overload_and_no_proof_against_the_backend():
    async with scene([[(Pause(0.01), OK)]], limits=ClientLimits(max_connections=2)) as one:
        answers = await asyncio.gather(*(one.ask() for _ in range(30)))
        assert sum(got.response is not None for got in answers) == 2
        assert one.backends[0].gate.state == "closed"
        assert one.outcomes() == [2, 0, 0, 28]


# -- answers that stream ------------------------------------------------------------------------------------------

STREAMS = ClientLimits(whole=1000)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_answer_that_streams_is_let_go_before_the_next_attempt(status):
    """Nobody would read it: its connection, its place and its permit would be gone for good."""
    async with scene([[answer(b"x" * 3_000_000, status)]], [[OK]], limits=STREAMS) as one:
        got = await one.ask(rules=one.rules(on=(str(status),)))
        assert (got.attempts, got.response.body) == (2, b"ok")
        assert one.settled()
        proved = Outcome.DROPPED if status in (429, 503) else Outcome.FAILURE
        assert one.outcomes() == [int(proved is each) for each in Outcome]


async def test_it_is_kept_where_there_is_no_next_attempt():
    async with scene([[answer(b"x" * 3_000_000, 503)]], limits=STREAMS) as one:
        got = await one.ask(rules=one.rules(on=("503",)))
        assert (got.attempts, got.response.status, one.pool.inflight) == (1, 503, 1)
        got.response.discard()
        assert one.settled()
        got.response.discard()
        assert one.outcomes() == [0, 0, 0, 1]


async def test_a_client_that_leaves_during_the_next_attempt_leaves_nothing_behind():
    async with scene([[answer(b"x" * 3_000_000, 503)]], [[Never()]], limits=STREAMS) as one:
        asking = asyncio.ensure_future(one.ask(rules=one.rules(on=("503",))))
        while not one.servers[1].requests:
            await asyncio.sleep(0.001)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert one.settled()
        assert [one.outcomes(0), one.outcomes(1)] == [[0, 0, 0, 1], [0, 0, 1, 0]]


@pytest.mark.parametrize(("status", "state"), [(502, "open"), (200, "half-open")])
async def test_a_probe_whose_answer_nobody_reads_is_given_back(status, state):
    async with scene([[answer(b"x" * 3_000_000, status)]], limits=STREAMS) as one:
        gate = one.backends[0].gate
        gate.configure(BreakerSettings(failures=1, open_for=0.0, probes=1))
        gate.release(gate.try_acquire(0), Outcome.FAILURE, 0)
        got = await one.ask()
        assert gate.state == "half-open"
        assert not gate.available(time.monotonic_ns())
        got.response.discard()
        assert gate.state == state
        assert gate.available(time.monotonic_ns())


# -- picking ------------------------------------------------------------------------------------------------------


async def test_health_is_a_preference_and_the_breaker_is_the_law():
    async with scene([[OK]], [[OK]]) as one:
        first, second = one.backends
        first.mark(healthy=False, now=0)
        assert {one.pool.pick(ASKED, [], 0) for _ in range(6)} == {second}
        second.mark(healthy=False, now=0)
        assert {one.pool.pick(ASKED, [], 0) for _ in range(6)} == {first, second}
        for _ in range(2):
            first.gate.release(first.gate.try_acquire(0), Outcome.FAILURE, 0)
        assert {one.pool.pick(ASKED, [], 0) for _ in range(6)} == {second}
        assert one.pool.pick(ASKED, [second], 0) is None


async def test_a_backend_of_weight_zero_gets_nothing():
    async with scene([[OK]], [[OK]]) as one:
        one.backends[0].weight = 0
        assert {one.pool.pick(ASKED, [], 0) for _ in range(6)} == {one.backends[1]}


async def test_a_recovery_seen_by_the_prober_lets_the_breaker_probe_at_once():
    async with scene([[OK]]) as one:
        backend = one.backends[0]
        backend.gate.configure(BreakerSettings(failures=1, open_for=60.0))
        backend.gate.release(backend.gate.try_acquire(0), Outcome.FAILURE, 0)
        backend.mark(healthy=False, now=5)
        assert not backend.gate.available(5)
        backend.mark(healthy=True, now=6)
        assert backend.gate.available(6)
