"""Work whose time is up, or whose client has gone, is never begun; the backends' own counts say so."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from demo.layout import MODELS
from gateway.errors import UpstreamTimeout
from gateway.http.client import ConnectionPool
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.testing import RawClient
from loadtests import bench_peers
from loadtests.peers.programs import find_go
from loadtests.slot_stand import standing
from tests.integration.test_link import PREDICT, serving, until_it_runs
from tests.link.peer import DROPPED, request


@pytest.fixture(scope="module", autouse=True)
def slotserver():
    go = find_go()
    if go is None:
        pytest.skip("no Go here")
    bench_peers.BUILT.mkdir(parents=True, exist_ok=True)
    assert bench_peers.build_own(go, "slotserver") is None


async def counted(stand, number=0, **expected):
    """Waits (bounded) until a backend has counted so; leaving takes a moment to be noticed."""
    for _ in range(3000):
        stats = await asyncio.to_thread(stand.backends[number].stats)
        if all(getattr(stats, name) == value for name, value in expected.items()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{stats} instead of {expected}")


async def test_clients_that_leave_are_left_for_by_the_gateway_too():
    with standing(1, slots=1, service_us=1000, stall=True) as stand:
        clients = [await RawClient.connect(stand.port) for _ in range(5)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await counted(stand, received=5, waiting=5)
        for client in clients:
            client.close()
        await counted(stand, abandoned=5, waiting=0, started=0)


async def test_without_time_nobody_is_asked():
    with standing(1, slots=1, service_us=1000) as stand:
        async with await RawClient.connect(stand.port) as client:
            reply = await client.get("/", "X-Request-Timeout: 0")
            assert reply.status == 504
            assert reply.header("proxy-status") == "sluicegate; error=proxy_internal_response"
            assert (await client.get("/", "X-Request-Timeout: 1s")).status == 200
        await counted(stand, received=1, late=0)
        assert stand.metric("gateway_expired_requests_total") == 1


async def test_pipelined_requests_whose_time_runs_out_in_the_line_are_not_sent():
    with standing(1, slots=1, service_us=150_000) as stand:
        async with await RawClient.connect(stand.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: 100ms\r\n\r\n" * 3)
            assert [(await client.reply()).status for _ in range(3)] == [504, 504, 504]
        await counted(stand, received=1)


async def test_a_try_that_takes_too_long_and_a_hedge_that_loses_are_cancelled_where_they_run():
    for route in (
        "timeout: 30s\nretry: {attempts: 2, replayable: true, per_try: 50ms}",
        "timeout: 30s\nretry: {attempts: 1, replayable: true}\nhedge: {after: 50ms}",
    ):
        with standing(2, route=route, slots=1, service_us=1000) as stand:
            stand.backends[0].set(stall=True)
            async with await RawClient.connect(stand.port) as client:
                asked = 0
                while asked < 64 and (asked < 4 or not stand.backends[0].stats().received):
                    began = time.monotonic()
                    assert (await client.get("/")).status == 200
                    assert time.monotonic() - began < 25
                    asked += 1
            stats = stand.backends[0].stats()
            assert stats.received > 0
            await counted(stand, abandoned=stats.received, waiting=0, started=0)
            assert stand.backends[1].stats().finished == asked


async def test_go_infer_drops_over_http_what_is_late_and_what_was_left():
    """As over the link (test_link)."""
    digits = json.loads((MODELS / "digits" / "heldout.json").read_text())["instances"]
    rows = json.dumps({"instances": digits[:320] * 20}).encode()
    with serving("--max_queue=100000") as server:
        pool = ConnectionPool(Address("127.0.0.1", server.port), ClientLimits())

        async def ask(body, seconds=20.0):
            asked = request(b"POST", PREDICT, body, content_type=b"application/json")
            end = asyncio.get_running_loop().time() + seconds
            return await pool.ask(asked, PREDICT, b"a", int(seconds * 1e9), DROPPED, deadline=end)

        busy = [asyncio.create_task(ask(rows)) for _ in range(8)]
        await until_it_runs(server)
        late = [asyncio.create_task(ask(json.dumps({"instances": digits[:1]}).encode(), 0.01)) for _ in range(5)]
        assert all(  # in time (whoever has the nearest deadline goes first), refused at once, or given up
            isinstance(each, UpstreamTimeout) or each.status in (200, 503, 504)
            for each in await asyncio.gather(*late, return_exceptions=True)
        )
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert (await ask(json.dumps({"instances": digits[:1]}).encode())).status == 200

        def dropped(reason):
            lines = [line for line in server.get("/metrics").splitlines() if line.startswith("go_infer_dropped_total")]
            return sum(float(line.rpartition(" ")[2]) for line in lines if f'reason="{reason}"' in line)

        for _ in range(3000):
            if await asyncio.to_thread(dropped, "gone") >= len(busy) - 1:
                break
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(dropped, "gone") >= len(busy) - 1  # one may have had its last rows run
        ran = await asyncio.to_thread(server.metric, "go_infer_batch_rows_sum")
        assert ran < 8 * 6400 / 2, ran
        pool.close()


PATIENT = "timeout: 4s\nretry: {attempts: 3, on: [connect, reset, 502, 503], replayable: true, per_try: 100ms}\n"


@pytest.mark.parametrize("route", [PATIENT, PATIENT + "hedge: {after: 20ms}\n"], ids=["alone", "hedged"])
async def test_no_request_ends_in_504_before_its_time(route):
    """One of three backends hangs and the others take three times `per_try`: tries are called off, which opens
    breakers, and permits run out. Whoever is asked must be left to answer where there is nobody else.
    """
    with standing(3, pool="admission: {limit: off}\n", route=route, slots=16, service_us=300_000) as stand:
        await asyncio.to_thread(stand.backends[0].set, stall=True)
        ended: list[tuple[int, float]] = []

        async def ask(number):
            await asyncio.sleep(0.05 * number)
            began = time.monotonic()
            async with await RawClient.connect(stand.port) as client:
                reply = await client.get("/")
            ended.append((reply.status, time.monotonic() - began))

        async with asyncio.timeout(20):
            await asyncio.gather(*(ask(number) for number in range(60)))
        early = [(status, took) for status, took in ended if status == 504 and took < 3.9]
        assert not early, (early, ended)
        assert sum(status == 200 for status, _ in ended) >= 10
