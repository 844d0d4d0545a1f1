"""The pooled upstream client against a backend that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest

from gateway.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    ConnectionBroken,
    PoolExhausted,
    ResponseTooLarge,
    StaleConnection,
    UpstreamTimeout,
)
from gateway.http.client import ConnectionPool
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits, UpstreamConnection
from gateway.request import Request
from gateway.stream import Stream
from gateway.testing import OK, Close, Echo, Never, Pause, Reset, Say, ScriptedBackend, answer

pytestmark = pytest.mark.undisturbed

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Pool:
    """A pool and the scripted backend behind it."""

    def __init__(self, pool, backend):
        self.pool = pool
        self.backend = backend

    def __getattr__(self, name):
        return getattr(self.pool, name)

    def __repr__(self):
        return repr(self.pool)


@contextlib.asynccontextmanager
async def pool(*scripts, **limits):
    async with ScriptedBackend(*scripts) as backend:
        one = Pool(ConnectionPool(Address("127.0.0.1", backend.port), ClientLimits(**limits)), backend)
        yield one
        one.close()


def now():
    return asyncio.get_running_loop().time()


async def exchange(pool, data=REQUEST, *, head_only=False, seconds=30.0, fresh=False):
    return await pool.exchange(data, head_only=head_only, deadline=now() + seconds, fresh=fresh)


async def raises(kind, pool, **how):
    with pytest.raises(kind) as caught:
        await exchange(pool, **how)
    assert type(caught.value) is kind
    assert (len(pool.active), pool.idle) == (0, 0)


# -- answers ------------------------------------------------------------------------------------------------------


async def test_an_answer_and_its_headers():
    said = answer(b"body", 201, headers=[("X-One", "1  "), ("Set-Cookie", "a"), ("Set-Cookie", "b")])
    async with pool([said]) as one:
        response = await exchange(one)
        assert (response.status, response.body) == (201, b"body")
        assert response.headers == [(b"x-one", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]


async def test_what_concerns_one_connection_only_stays_here():
    fields = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Trailer", "x"),
        ("X", "2"),
    ]
    async with pool([answer(headers=fields)]) as one:
        assert (await exchange(one)).headers == [(b"x", b"2")]
        assert one.idle == 1


@pytest.mark.parametrize(
    ("said", "body", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n", b"abcde", 1),
        (b"HTTP/1.1 204 No\r\n\r\n", b"", 1),
        (b"HTTP/1.1 304 No\r\n\r\n", b"", 1),
        (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", b"", 0),  # announced, so it could still come
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", b"x", 0),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", 0),
        (
            b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            b"x",
            1,
        ),
    ],
    ids=["chunked", "204", "304", "304 with length", "close", "1.0", "interim"],
)
async def test_kinds_of_answers(said, body, kept):
    async with pool([Say(said)]) as one:
        response = await exchange(one)
        assert response.body == body
        assert b"link" not in dict(response.headers)
        assert b"t" not in dict(response.headers)
        assert one.idle == kept


async def test_an_answer_that_streamed_without_fields_has_none_of_the_next():
    """It is still being told of while its connection is another's already, as where it was hedged."""
    bare = Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"), Pause(0.005), Say(b"0\r\n\r\n")
    async with pool([bare, answer(headers=[("X-Secret", "1")])], gather=0.0) as one:
        first = await exchange(one)
        assert await first.stream.read() == b"a"
        assert await first.stream.read() == b""
        second = await exchange(one)
        assert (first.headers, second.headers) == ([], [(b"x-secret", b"1")])


async def test_what_is_condemned_behind_an_answer_that_streamed_is_closed():
    """It had gone back to the pool when the bytes that nobody asked for were read."""
    junk = b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    said = Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"), Pause(0.005), Say(junk)
    async with pool([said, OK], [OK], gather=0.0) as one:
        first = await exchange(one)
        while await first.stream.read():
            pass
        (condemned,) = one._idle
        assert not condemned.usable
        assert (await exchange(one)).status == 200
        assert condemned.transport.is_closing()
        assert one.backend.connections == 2


async def test_a_body_that_ends_when_the_backend_has_gone_is_not_ended():
    """It is not known yet to who sends it, and uvloop raises where a closed transport is written to."""
    loop = asyncio.get_running_loop()
    one = ConnectionPool(Address("127.0.0.1", 1), ClientLimits())
    connection = UpstreamConnection(ClientLimits())
    connection.transport = Gone()
    body = Stream(loop, int, int)
    body.end()
    await one._pump(connection, body, 1.0, tunnel=False)
    assert connection.deadline == 0.0


class Gone:
    """A transport that is closed."""

    def is_closing(self):
        return True

    def write(self, data):
        raise RuntimeError("the handler is closed")


async def test_a_body_that_ends_with_the_connection():
    async with pool([(Say(b"HTTP/1.1 200 OK\r\n\r\nabc"), Pause(0.005), Say(b"def"), Close())]) as one:
        assert (await exchange(one)).body == b"abcdef"
        assert one.idle == 0


async def test_a_body_in_many_pieces():
    pieces = [Say(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"), *[Say(b"x" * 30_000)] * 10]
    async with pool([pieces]) as one:
        assert len((await exchange(one)).body) == 300_000
        assert one.idle == 1


# -- HEAD ---------------------------------------------------------------------------------------------------------


async def test_head_has_no_body_and_keeps_its_length():
    head = Say(b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n")
    async with pool([head], [OK]) as one:
        response = await exchange(one, head_only=True)
        assert response.body == b""
        assert response.headers == [(b"content-length", b"77")]
        assert (await exchange(one)).body == b"ok"
        assert one.backend.connections == 2  # a body that was announced could still come: not reused


@pytest.mark.parametrize("body", [b"four", b"4\r\nfour\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_a_body_after_head_condemns_the_connection(body):
    framing = b"Content-Length: 4" if body == b"four" else b"Transfer-Encoding: chunked"
    async with pool([Say(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body)], [OK]) as one:
        assert (await exchange(one, head_only=True)).body == b""
        assert one.idle == 0
        assert (await exchange(one)).body == b"ok"


async def test_a_body_that_comes_later_after_head_condemns_it_too():
    script = [(Say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"), Pause(0.005), Say(b"HTTP"))]
    async with pool(script, [OK]) as one:
        await exchange(one, head_only=True)
        await asyncio.sleep(0.02)
        assert (await exchange(one)).body == b"ok"
        assert one.backend.connections == 2


# -- reuse --------------------------------------------------------------------------------------------------------


async def test_the_last_connection_back_is_the_first_one_out():
    slow, slower = [(Pause(0.005), OK), answer(b"second")], [(Pause(0.02), OK), answer(b"last")]
    async with pool(slow, slower) as one:
        await asyncio.gather(exchange(one), exchange(one))
        assert repr(one) == f"<ConnectionPool {one.address} [0 active, 2 idle]>"
        assert (await exchange(one)).body == b"last"
        assert (await exchange(one)).body == b"last"
        assert one.backend.connections == 2


async def test_repr_counts_what_is_active():
    async with pool([(Pause(0.02), OK)]) as one:
        task = asyncio.ensure_future(exchange(one))
        await asyncio.sleep(0.01)
        assert repr(one).endswith("[1 active, 0 idle]>")
        await task
        assert repr(one).endswith("[0 active, 1 idle]>")


async def test_a_connection_is_not_reused_while_its_request_is_still_being_written():
    """The backend answers before it has read the request; what is left of it must not be read as another."""
    accepted = 0

    async def hasty(reader, writer):
        nonlocal accepted
        accepted += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK.data)
        await over.wait()
        writer.transport.abort()

    over = asyncio.Event()
    server = await asyncio.start_server(hasty, "127.0.0.1", 0, limit=1 << 16)
    one = ConnectionPool(Address("127.0.0.1", server.sockets[0].getsockname()[1]), ClientLimits())
    try:
        large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000
        assert (await exchange(one, large)).body == b"ok"
        assert one.idle == 0
        assert (await exchange(one)).body == b"ok"
        assert accepted == 2
    finally:
        one.close()
        server.close()
        over.set()
        await asyncio.sleep(0.01)


async def test_a_fresh_connection_can_be_asked_for():
    async with pool([OK], [answer(b"new")]) as one:
        await exchange(one)
        assert (await exchange(one, fresh=True)).body == b"new"
        assert one.idle == 2


async def test_an_idle_connection_that_the_backend_closed_is_not_used():
    async with pool([(OK, Pause(0.001), Close())], [answer(b"new")]) as one:
        await exchange(one)
        await asyncio.sleep(0.02)
        assert (await exchange(one)).body == b"new"


@pytest.mark.parametrize("end", [Close(), Reset()])
async def test_a_reused_connection_that_ends_before_an_answer_is_stale(end):
    async with pool([OK, end]) as one:
        await exchange(one)
        await raises(StaleConnection, one)


async def test_bytes_that_nobody_asked_for_condemn_the_connection():
    async with pool(
        [(OK, Pause(0.002), Say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))], [answer(b"good")]
    ) as one:
        await exchange(one)
        await asyncio.sleep(0.02)
        assert (await exchange(one)).body == b"good"


@pytest.mark.parametrize("junk", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"H", b"\x00\xff"])
async def test_and_so_do_those_that_come_with_the_answer(junk):
    async with pool([Say(OK.data + junk)], [answer(b"good")]) as one:
        assert (await exchange(one)).body == b"ok"
        assert one.idle == 0
        assert (await exchange(one)).body == b"good"


# -- faults -------------------------------------------------------------------------------------------------------

TOO_LARGE = b"A: " + b"x" * 70_000
FAULTS = {
    "closed": (Close(), ConnectionBroken),
    "reset": (Reset(), ConnectionBroken),
    "truncated head": ((Say(b"HTTP/1.1 200 OK\r\nCont"), Close()), ConnectionBroken),
    "truncated body": ((Say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"), Close()), ConnectionBroken),
    "truncated chunks": ((Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), Close()), ConnectionBroken),
    "reset in a body without length": ((Say(b"HTTP/1.1 200 OK\r\n\r\nabc"), Pause(0.005), Reset()), ConnectionBroken),
    "only an interim answer": ((Say(b"HTTP/1.1 100 Continue\r\n\r\n"), Close()), ConnectionBroken),
    "an empty line first": (Say(b"\r\n" + OK.data), BadUpstreamResponse),
    "half a version": ((Say(b"HTTP/1"), Pause(0.005), Close()), ConnectionBroken),
    "garbage": (Say(b"SSH-2.0-OpenSSH\r\n"), BadUpstreamResponse),
    "binary": (Say(bytes(range(256))), BadUpstreamResponse),
    "length and chunked": (
        Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"), BadUpstreamResponse,
    ),
    "two lengths": (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), BadUpstreamResponse),
    "bare LF": (Say(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"), BadUpstreamResponse),
    "obs-fold": (Say(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n"), BadUpstreamResponse),
    "unknown coding": (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), BadUpstreamResponse),
    "status 999": (Say(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"), BadUpstreamResponse),
    "status 42": (Say(b"HTTP/1.1 042 Odd\r\nContent-Length: 0\r\n\r\n"), BadUpstreamResponse),
    "switched protocols": (Say(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), BadUpstreamResponse),
    "head too large": (Say(b"HTTP/1.1 200 OK\r\n" + TOO_LARGE + b"\r\nContent-Length: 0\r\n\r\n"), BadUpstreamResponse),
    "head that never ends": (Say(b"HTTP/1.1 200 OK\r\n" + TOO_LARGE * 3), BadUpstreamResponse),
    "body too large": (answer(b"x" * 1001), ResponseTooLarge),
    "chunks too large": (
        Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n%s\r\n" % (b"x" * 500) * 3), ResponseTooLarge,
    ),
    "never": (Never(), UpstreamTimeout),
    "never the end": ((Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), Never()), UpstreamTimeout),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_faults(name):
    exchange_, kind = FAULTS[name]
    async with pool([exchange_], [OK], max_response=1000) as one:
        await raises(kind, one, seconds=0.03 if kind is UpstreamTimeout else 30)
        assert (await exchange(one)).body == b"ok"  # on a new connection
        assert one.backend.connections == 2


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a trailer": b"0\r\nA: ",
    "trailers": b"0\r\n" + b"A: b\r\n" * 1000,
    "an extension": b"1;a=",
    "a chunk's size": b"0" * 100,
}


@pytest.mark.parametrize("what", ENDLESS)
@pytest.mark.parametrize("gather", [0.0, 30.0], ids=["streamed", "whole"])
async def test_framing_that_never_ends(what, gather):
    """It is no part of the body, so no bound of a body holds it: it was read, and a field kept, without any bound."""
    more = b"A: b\r\n" * 3000 if what == "trailers" else b"0" * 18_000
    script = Say(CHUNKED + b"1\r\na\r\n"), Pause(0.005), Say(ENDLESS[what]), *[Pause(0.002), Say(more)] * 8, Never()
    async with pool([script], gather=gather) as one:
        with pytest.raises(BadUpstreamResponse, match="framing of the response is larger than 64 KiB"):
            response = await exchange(one, seconds=5)
            assert gather == 0.0, "an answer that never ends was told as a whole one"
            while await asyncio.wait_for(response.stream.read(), 5):
                pass
        assert (len(one.active), one.idle) == (0, 0)


async def test_much_framing_beside_a_body_is_none_too_much():
    piece = Say(b"1;%s\r\na\r\n" % (b"x" * 8000))
    async with pool([(Say(CHUNKED), *[piece, Pause(0.001)] * 12, Say(b"0\r\nA: b\r\n\r\n"))], gather=30.0) as one:
        assert (await exchange(one)).body == b"a" * 12
        assert one.idle == 1


async def test_exactly_the_largest_response():
    async with pool([answer(b"x" * 1000)], max_response=1000) as one:
        assert len((await exchange(one)).body) == 1000


async def test_nobody_listens():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        one = ConnectionPool(Address("127.0.0.1", sock.getsockname()[1]), ClientLimits())
        await raises(ConnectFailed, one)


async def test_a_listener_that_does_not_accept():
    """Its backlog is full, so the kernel does not answer the SYN."""
    with socket.socket() as sock, contextlib.ExitStack() as stack:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        one = ConnectionPool(Address("127.0.0.1", sock.getsockname()[1]), ClientLimits(connect_timeout=0.02))
        await raises(ConnectFailed, one)
        await raises(UpstreamTimeout, one, seconds=0.01)  # the caller's hurry, not the backend's fault


def asked():
    one = Request(b"GET", b"/", b"/", {b"host": b"a"})
    one.id = b"id-1"
    return one


async def ask(pool, seconds, *, fresh=False):
    left = int(seconds * 1e9)
    return await pool.ask(asked(), b"/", b"a", left, frozenset(), deadline=time.monotonic() + seconds, fresh=fresh)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({}, b"x-request-timeout: 2000ms"),
        ({"deadline_name": b"grpc-timeout: ", "deadline_unit": b"m\r\n"}, b"grpc-timeout: 2000m"),
        ({"deadline_name": b""}, None),
    ],
)
async def test_a_backend_is_told_the_time_it_has(said, line):
    async with pool([OK], **said) as one:
        await exchange(one)  # so that a connection is at hand
        await ask(one, 2.0)
        lines = one.backend.requests[1].split(b"\r\n")
        assert [each for each in lines if b"timeout" in each] == ([] if line is None else [line])


async def test_what_connecting_took_is_not_told():
    async with pool([OK]) as one:
        asyncio.get_running_loop().call_soon(time.sleep, 0.05)  # the loop is busy while it connects
        await ask(one, 60.0)
        left = int(one.backend.requests[0].partition(b"x-request-timeout: ")[2].partition(b"ms")[0])
        assert 0 < left <= 59951


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_nothing_is_sent_when_the_time_is_up(seconds):
    async with pool([OK]) as one:
        for _ in range(3):
            with pytest.raises(UpstreamTimeout):
                await ask(one, seconds, fresh=True)
        assert not one.active
        assert (await ask(one, 2.0)).status == 200
        assert len(one.backend.requests) == 1


async def test_the_bound_counts_what_is_active_and_what_connects():
    async with pool([Never()], max_connections=3) as one:
        tasks = [asyncio.ensure_future(exchange(one)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(PoolExhausted):
            await exchange(one)
        await asyncio.sleep(0.01)
        assert len(one.active) == 3
        with pytest.raises(PoolExhausted):
            await exchange(one)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (len(one.active), one.idle) == (0, 0)


async def test_the_bound_counts_the_idle_ones_where_a_fresh_one_is_asked_for():
    async with pool([(Pause(0.005), OK)], max_connections=3) as one:
        await asyncio.gather(*(exchange(one) for _ in range(3)))
        oldest = one._idle[0]
        await exchange(one, fresh=True)
        assert oldest.transport.is_closing()
        assert repr(one).endswith("[0 active, 3 idle]>")
        await asyncio.gather(*(exchange(one, fresh=True) for _ in range(3)))
        await asyncio.sleep(0.02)
        assert one.idle == one.backend.open == 3


# -- cancellation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8])
async def test_a_cancelled_exchange_never_leaks_its_answer_to_another(after):
    async with ScriptedBackend([(Pause(0.004), Echo())]) as backend:
        one = ConnectionPool(Address("127.0.0.1", backend.port), ClientLimits())
        task = asyncio.ensure_future(exchange(one, b"GET /first HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(after / 1000)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert (await task).body == b"/first"
        targets = [b"/%d" % number for number in range(5)]
        answers = await asyncio.gather(*(exchange(one, b"GET %s HTTP/1.1\r\n\r\n" % target) for target in targets))
        assert [response.body for response in answers] == targets
        assert len(one.active) == 0
        one.close()


async def test_cancelling_in_the_tick_of_the_answer_condemns_the_connection():
    async with pool([OK]) as one:
        await exchange(one)
        task = asyncio.ensure_future(exchange(one))
        await asyncio.sleep(0)
        (connection,) = one.active
        connection._waiter.add_done_callback(lambda _: task.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert len(one.active) == 0
        assert (await exchange(one)).body == b"ok"


async def test_cancelling_while_connecting_frees_the_place():
    async with pool([OK], max_connections=1) as one:
        for _ in range(20):
            task = asyncio.ensure_future(exchange(one))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (await exchange(one)).body == b"ok"


# -- age and end --------------------------------------------------------------------------------------------------


async def test_connections_that_idle_too_long_are_closed():
    async with pool([(Pause(0.01), OK)], idle=10.0) as one:
        await asyncio.gather(exchange(one), exchange(one))
        one.expire(now() + 9.0)
        assert one.idle == 2
        one._idle[0].idle_since -= 100
        one.expire(now())
        assert one.idle == 1
        one.expire(now() + 11.0)
        assert one.idle == 0
        await asyncio.sleep(0.02)
        assert one.backend.open == 0


async def test_a_closed_pool_finishes_its_exchanges_and_keeps_nothing():
    async with pool([(Pause(0.01), OK)]) as one:
        task = asyncio.ensure_future(exchange(one))
        await asyncio.sleep(0.003)
        one.close()
        assert (await task).body == b"ok"
        assert (await exchange(one)).body == b"ok"  # a request that began under the old snapshot
        assert one.idle == 0
        await asyncio.sleep(0.02)
        assert one.backend.open == 0


async def test_no_task_and_no_timer_stays_behind():
    async with pool([OK]) as one:
        await exchange(one)
        await asyncio.sleep(ConnectionPool.SWEEP * 2.5)
        assert one._sweeper is None


def test_addresses():
    assert str(Address("10.0.0.1", 80)) == "10.0.0.1:80"
    assert str(Address("::1", 80)) == "[::1]:80"
