"""The front door over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import replace

import pytest

from gateway.http.reader import ReadLimits
from gateway.http.server import Server, ServerLimits
from gateway.replies import bad_request as answer
from gateway.request import BodyRules, Response
from gateway.stream import Stream
from gateway.testing import RawClient

pytestmark = pytest.mark.undisturbed

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = {"header_timeout": 0.03, "body_timeout": 0.03, "idle_timeout": 0.03, "write_timeout": 0.03}


def get(path="/", *fields, method="GET", version="1.1", body=b""):
    lines = [f"{method} {path} HTTP/{version}", "Host: a", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class House:
    """A server whose handler is replaced at will; the default one answers with the path."""

    def __init__(self, limits):
        self.server = Server(self.handle, lambda error, _peer: answer(error), replace(limits, sweep=0.005))
        self.handler = self.echo
        self.handled = []
        self.port = 0

    async def handle(self, request):
        self.handled.append(request)
        return await self.handler(request)

    async def echo(self, request):
        return Response(200, [(b"x-from", b"handler")], request.path + request.body)

    async def start(self):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        self.port = sock.getsockname()[1]
        await self.server.listen(sock)

    async def client(self):
        return await RawClient.connect(self.port)

    async def quiet(self):
        """Until no connection is left."""
        async with asyncio.timeout(30):
            while self.server.connections:
                await asyncio.sleep(0.001)
            while self.server.busy:  # a task that was cancelled has its turn yet
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def house(**limits):
    one = House(ServerLimits(**limits))
    await one.start()
    try:
        yield one
    finally:
        await one.server.drain(idle=0, timeout=0)
        await one.quiet()


async def test_an_answer():
    async with house() as one, await one.client() as client:
        reply = await client.get("/hello")
        assert (reply.status, reply.body) == (200, b"/hello")
        assert reply.header("x-from") == "handler"
        assert reply.header("content-length") == "6"
        assert reply.header("date").endswith("GMT")
        assert reply.header("connection") is None


async def test_a_connection_is_kept():
    async with house() as one, await one.client() as client:
        for _ in range(3):
            assert (await client.get()).status == 200
        assert one.server.stats.accepted == 1


@pytest.mark.parametrize("ahead", [1, 4])
async def test_pipelined_answers_leave_in_order_one_at_a_time(ahead):
    running = 0

    async def slower_first(request):
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.01 if request.path == b"/0" else 0)
        running -= 1
        return Response(200, [], request.path)

    async with house(max_pipelined=ahead) as one, await one.client() as client:
        one.handler = slower_first
        client.send(b"".join(get(f"/{i}") for i in range(20)))
        assert [(await client.reply()).body for _ in range(20)] == [b"/%d" % i for i in range(20)]


async def test_a_client_that_asks_for_thousands_of_things_at_once_leaves_the_others_their_turns():
    async with house() as one, await one.client() as client:
        client.send(GET)
        await client.reply()
        (connection,) = one.server.connections
        many = b"".join(get(f"/{i}") for i in range(9000))
        connection.data_received(many)  # as much as one read of the socket may bring
        turns = []
        parsed = 0
        while len(one.handled) < 9001:
            before = len(one.handled)
            await asyncio.sleep(0)
            turns.append(len(one.handled) - before)
            parsed = max(parsed, len(connection._reader.ready))
        assert max(turns) <= 33
        assert parsed <= 32 + 8 * 1024 / len(get("/0"))
        assert [(await client.reply()).body for _ in range(9000)] == [b"/%d" % i for i in range(9000)]
        assert not one.server.deaf
        assert (await client.get()).status == 200


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("ahead", [1, 32])
async def test_what_comes_at_once_means_what_it_means_piece_by_piece(streams, ahead):
    large = bytes(range(256)) * 200
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (large[:9], large[9:40_000], large[40_000:]))
    parts = [
        get("/a", method="POST", body=large),
        *[get(f"/{i}") for i in range(700)],
        get("/b", "Transfer-Encoding: chunked", method="POST") + chunked + b"0\r\n\r\n",
        get("/c", f"X: {'x' * 20_000}"),
        get("/d", "Connection: upgrade", "Upgrade: unheard-of"),
        get("/e", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n" * 9000 + b"0\r\n\r\n",
        *[get(f"/{i}") for i in range(700)],
    ]
    expected = [b"/a" + large, *(b"/%d" % i for i in range(700)), b"/b" + large, b"/c", b"/d", b"/e" + b"x" * 9000]
    expected += [b"/%d" % i for i in range(700)]

    async def echo(request):
        body = request.body
        while request.stream is not None and (more := await request.stream.read()):
            body += more
        return Response(200, [], request.path + body)

    async with house(max_pipelined=ahead) as one:
        one.handler = echo
        if streams:
            one.server.body_rules = lambda _request: BodyRules(buffer=1024, limit=1 << 20)
        async with await one.client() as client:
            client.send(GET)
            await client.reply()
            (connection,) = one.server.connections
            connection.data_received(b"".join(parts))
            for each in expected:
                assert (await client.reply()).body == each
            assert not one.server.deaf


@pytest.mark.parametrize("end", [b"GET / HTTP/1.1\r\n\r\n", get("/last", "Connection: close") + get("/never")])
async def test_what_stands_behind_the_end_of_many_is_not_read(end):
    async with house() as one, await one.client() as client:
        client.send(get("/first"))
        await client.reply()
        (connection,) = one.server.connections
        connection.data_received(b"".join(get(f"/{i}") for i in range(2000)) + end + get("/never") * 2000)
        replies = [await client.reply() for _ in range(2001)]
        assert [each.body for each in replies[:-1]] == [b"/%d" % i for i in range(2000)]
        assert (replies[-1].status, replies[-1].body) in ((200, b"/last"), (400, replies[-1].body))
        assert await client.ended() == b""
        assert b"/never" not in {each.path for each in one.handled}


async def test_a_client_that_goes_in_the_middle_of_many_is_left_alone():
    async with house() as one:
        client = await one.client()
        client.send(GET)
        await client.reply()
        (connection,) = one.server.connections
        connection.data_received(GET * 9000)
        client.close()
        await one.quiet()
        await asyncio.sleep(0.01)
        assert len(one.handled) < 9001
        assert not one.server.deaf


async def test_the_time_of_a_request_that_waits_runs_from_its_arrival():
    gate = asyncio.Event()

    async def wait(request):
        await gate.wait()
        return Response(200, [], request.path)

    async with house() as one, await one.client() as client:
        one.handler = wait
        client.send(get("/0"))
        while not one.handled:
            await asyncio.sleep(0.001)
        client.send(get("/1") + get("/2"))
        (connection,) = one.server.connections
        while len(connection._reader.ready) < 2:
            await asyncio.sleep(0.001)
        arrived = time.monotonic_ns()
        await asyncio.sleep(0.02)
        client.send(get("/3"))
        while len(connection._reader.ready) < 3:
            await asyncio.sleep(0.001)
        gate.set()
        assert [(await client.reply()).body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]
        first, second, third, last = (request.received for request in one.handled)
        assert first == 0  # it did not wait: who handles it says when
        assert second == third <= arrived
        assert last >= arrived + 15_000_000


async def test_reading_ahead_stops_at_a_large_waiting_body():
    gate = asyncio.Event()

    async def wait(request):
        await gate.wait()
        return Response(200, [], b"%d" % len(request.body))

    async with house() as one, await one.client() as client:
        one.handler = wait
        body = b"x" * 1_000_000
        client.send(get(method="POST", body=body) * 12)
        await asyncio.sleep(0.05)
        (connection,) = one.server.connections
        assert len(connection._reader.ready) <= 3
        gate.set()
        for _ in range(12):
            assert (await client.reply()).body == b"1000000"


@pytest.mark.parametrize("body", [b"", b"12345"])
async def test_head(body):
    async def handler(_request):
        return Response(200, [] if body else [(b"content-length", b"77")], body)

    async with house() as one, await one.client() as client:
        one.handler = handler
        client.send(get(method="HEAD") + GET)
        reply = await client.reply(head_only=True)
        assert reply.header("content-length") == ("5" if body else "77")
        assert (await client.reader.readexactly(9)) == b"HTTP/1.1 "


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(status):
    async def handler(_request):
        return Response(status, [], b"must not leave")

    async with house() as one, await one.client() as client:
        one.handler = handler
        for _ in range(2):
            reply = await client.get()
            assert reply.status == status
            assert reply.header("content-length") is None


async def test_a_date_of_the_backend_is_kept():
    async def handler(_request):
        return Response(200, [(b"date", b"then")], b"")

    async with house() as one, await one.client() as client:
        one.handler = handler
        assert (await client.get()).header("date") == "then"


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        (get(version="1.0"), "close"),
        (get("/", "Connection: keep-alive", version="1.0"), "keep-alive"),
        (get("/", "Connection: close"), "close"),
        (GET, None),
    ],
)
async def test_persistence(request_, connection):
    async with house() as one, await one.client() as client:
        client.send(request_)
        reply = await client.reply()
        assert reply.header("connection") == connection
        if connection == "close":
            assert await client.ended() == b""
        else:
            assert (await client.get()).status == 200


async def test_a_response_can_close():
    async def handler(_request):
        return Response(200, [], b"", close=True)

    async with house() as one, await one.client() as client:
        one.handler = handler
        client.send(GET + GET)
        assert (await client.reply()).header("connection") == "close"
        assert await client.ended() == b""
        assert len(one.handled) == 1


# -- 100-continue -------------------------------------------------------------------------------------------------

EXPECTING = b"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"


async def test_continue():
    async with house() as one, await one.client() as client:
        client.send(EXPECTING)
        assert (await client.reply()).status == 100
        client.send(b"hi")
        assert (await client.reply()).body == b"/ehi"


async def test_no_continue_once_the_body_is_there():
    async with house() as one, await one.client() as client:
        client.send(EXPECTING + b"hi")
        assert (await client.reply()).status == 200


@pytest.mark.parametrize("together", [True, False])
async def test_continue_waits_its_turn_behind_a_pipelined_request(together):
    gate = asyncio.Event()

    async def handler(request):
        if request.path == b"/":
            await gate.wait()
        return Response(200, [], request.path + request.body)

    async with house() as one, await one.client() as client:
        one.handler = handler
        client.send(GET + EXPECTING if together else GET)
        await asyncio.sleep(0.01)
        if not together:
            client.send(EXPECTING)
            await asyncio.sleep(0.01)
        gate.set()
        assert (await client.reply()).body == b"/"
        assert (await client.reply()).status == 100
        client.send(b"hi")
        assert (await client.reply()).body == b"/ehi"


async def test_a_body_that_is_too_large_is_refused_instead_of_asked_for():
    async with house(read=ReadLimits(body=1)) as one, await one.client() as client:
        client.send(EXPECTING)
        assert (await client.reply()).status == 413


# -- what is not acceptable ---------------------------------------------------------------------------------------


async def test_a_protocol_error_is_answered_once_and_closes():
    async with house() as one, await one.client() as client:
        client.send(GET + b"nonsense\r\n\r\n" + GET)
        assert (await client.reply()).status == 200
        reply = await client.reply()
        assert reply.status == 400
        assert reply.header("content-type") == "application/problem+json"
        assert reply.header("connection") == "close"
        assert await client.ended() == b""
        client.close()
        await one.quiet()
        assert len(one.handled) == 1
        assert one.server.stats.protocol_errors == 1


async def test_the_answer_to_an_upload_that_is_too_large_arrives():
    """A reset for the unread bytes must not overtake it."""
    async with house(read=ReadLimits(body=1000)) as one, await one.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            client.send(b"x" * 100_000)
            await asyncio.sleep(0)
        assert (await client.reply()).status == 413
        assert await client.ended() == b""


async def test_a_refused_client_that_stays_is_cut_off():
    async with house(linger=0.02) as one, await one.client() as client:
        client.send(b"nonsense\r\n\r\n")
        assert (await client.reply()).status == 400
        await one.quiet()


async def test_over_max_connections_the_newcomer_is_cut_off():
    async with house(max_connections=2) as one:
        first, second = await one.client(), await one.client()
        await first.get()
        await second.get()
        third = await one.client()
        third.send(GET)
        assert await third.ended() == b""
        assert one.server.stats.refused == 1
        assert (await first.get()).status == 200
        second.close()
        while len(one.server.connections) > 1:
            await asyncio.sleep(0.001)
        fourth = await one.client()
        assert (await fourth.get()).status == 200
        for client in (first, third, fourth):
            client.close()


# -- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: ", 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 408),
        (b"", None),
        (GET, 200),
    ],
    ids=["line", "head", "body", "chunk", "nothing", "idle"],
)
async def test_timeouts(sent, status):
    async with house(**QUICK) as one, await one.client() as client:
        client.send(sent)
        if status is not None:
            assert (await client.reply()).status == status
        assert await client.ended() == b""
        client.close()
        await one.quiet()
        assert one.server.stats.timeouts == 1


async def test_a_trickle_gains_nothing_in_the_head():
    async with house(**QUICK) as one, await one.client() as client:
        await client.get()
        end = asyncio.get_running_loop().time() + 0.1
        replied = asyncio.ensure_future(client.reply())
        for byte in get("/" + "x" * 100):
            if replied.done():
                break
            client.send(bytes((byte,)))
            await asyncio.sleep(0.004)
        assert (await replied).status == 408
        assert asyncio.get_running_loop().time() < end


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_trickle_gains_next_to_nothing_in_the_body(framing):
    """Each byte used to begin the body's time anew."""
    async with house(body_timeout=0.03, body_min_rate=1024) as one, await one.client() as client:
        end = asyncio.get_running_loop().time() + 0.15
        client.send(get("/", framing, method="POST") + (b"3e8\r\n" if "chunked" in framing else b""))
        replied = asyncio.ensure_future(client.reply())
        while not replied.done() and asyncio.get_running_loop().time() < end:
            client.send(b"x")
            await asyncio.sleep(0.004)
        assert (await replied).status == 408
        assert asyncio.get_running_loop().time() < end


async def test_a_body_that_keeps_its_pace_may_take_its_time():
    async with house(body_timeout=0.03, body_min_rate=1000) as one, await one.client() as client:
        for _ in range(2):  # the second has a clock of its own
            client.send(get("/", "Content-Length: 1000", method="POST"))
            for _ in range(20):
                client.send(b"x" * 50)
                await asyncio.sleep(0.004)
            assert len((await client.reply()).body) == 1001


async def test_a_head_has_its_own_time_however_little_is_left_to_idle():
    async with house(idle_timeout=0.04, header_timeout=5.0) as one, await one.client() as client:
        await client.get()
        client.send(GET[:5])
        await asyncio.sleep(0.06)
        client.send(GET[5:])
        assert (await client.reply()).status == 200


async def test_a_handler_may_take_longer_than_any_of_these():
    async def slow(_request):
        await asyncio.sleep(0.06)
        return Response(200, [], b"slow")

    async with house(**QUICK) as one, await one.client() as client:
        one.handler = slow
        assert (await client.get()).body == b"slow"


async def narrow(one):
    """A client that does not read, with as little room on its side as the kernel grants."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", one.port))
    return sock


async def test_a_slow_reader_holds_up_its_own_connection_and_is_cut_off():
    async def large(_request):
        return Response(200, [], b"x" * 8_000_000)

    async with house(write_timeout=0.05) as one:
        one.handler = large
        sock = await narrow(one)
        await asyncio.get_running_loop().sock_sendall(sock, GET * 10)
        await asyncio.sleep(0.02)
        assert len(one.handled) == 1  # the second waits until the first has left
        await one.quiet()
        assert one.server.stats.timeouts == 1
        assert len(one.handled) == 1
        sock.close()


async def test_a_client_that_reads_too_slowly_is_cut_off():
    """It takes something in each `write_timeout`, but not enough."""

    async def large(_request):
        return Response(200, [], b"x" * 40_000_000)

    for rate, cut in ((1 << 30, True), (1, False)):
        # Ten times a pause: a busy machine that stretches one must not look like a client that takes nothing.
        async with house(write_timeout=0.2, write_min_rate=rate) as one:
            one.handler = large
            async with await one.client() as client:
                client.send(GET)
                got = 0
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    while got < 40_000_000:
                        got += len(await client.reader.readexactly(1_000_000))
                        await asyncio.sleep(0.02)
                assert (got < 40_000_000) is cut
                assert (one.server.stats.timeouts == 1) is cut


async def test_a_body_that_trickles_does_not_keep_a_client_that_does_not_read():
    async def large(_request):
        return Response(200, [], b"x" * 8_000_000)

    async with house(write_timeout=0.03, body_timeout=30.0) as one:
        one.handler = large
        loop = asyncio.get_running_loop()
        sock = await narrow(one)
        await loop.sock_sendall(sock, GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                await loop.sock_sendall(sock, b"x")
                await asyncio.sleep(0.003)
        await one.quiet()
        sock.close()


async def test_closing_does_not_wait_for_ever_for_a_client_that_does_not_read():
    async def large(_request):
        return Response(200, [], b"x" * 8_000_000, close=True)

    async with house(write_timeout=0.03) as one:
        one.handler = large
        sock = await narrow(one)
        await asyncio.get_running_loop().sock_sendall(sock, GET)
        await one.quiet()
        sock.close()


async def test_a_slow_reader_that_reads_gets_everything():
    async def large(_request):
        return Response(200, [], b"x" * 3_000_000)

    async with house() as one, await one.client() as client:
        one.handler = large
        client.send(GET * 3)
        for _ in range(3):
            await asyncio.sleep(0.005)
            assert len((await client.reply()).body) == 3_000_000


# -- what goes wrong ----------------------------------------------------------------------------------------------


async def test_a_client_that_goes_away_cancels_the_work():
    cancelled = asyncio.Event()

    async def wait(_request):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with house() as one:
        one.handler = wait
        client = await one.client()
        client.send(GET)
        while not one.handled:
            await asyncio.sleep(0.001)
        client.close()
        async with asyncio.timeout(30):
            await cancelled.wait()
        await one.quiet()
        assert one.server.stats.client_gone == 1


@pytest.mark.parametrize(("how", "answers"), [("end", False), ("reset", False), ("reset", True)])
async def test_a_client_that_goes_away_while_it_is_not_read_cancels_the_work(how, answers):
    """What it still sends waits in the kernel, so the event loop does not see it leave."""
    cancelled = asyncio.Event()

    async def wait(_request):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with house(max_pipelined=2, answer_half_closed=answers) as one:
        one.handler = wait
        client = await one.client()
        client.send(GET * 4)
        while not one.server.deaf:
            await asyncio.sleep(0.001)
        client.send(GET)
        await asyncio.sleep(0.01)
        if how == "reset":
            reset_at_close(client)
        client.close()
        async with asyncio.timeout(30):
            await cancelled.wait()
        await one.quiet()
        assert len(one.handled) == 1
        assert one.server.stats.client_gone == 1
        assert not one.server.deaf


async def test_a_client_that_stays_while_it_is_not_read_is_answered():
    async def slow(request):
        await asyncio.sleep(0.02)
        return Response(200, [], request.path)

    async with house(max_pipelined=2) as one, await one.client() as client:
        one.handler = slow
        client.send(b"".join(get(f"/{i}") for i in range(8)))
        assert [(await client.reply()).body for _ in range(8)] == [b"/%d" % i for i in range(8)]
        assert not one.server.deaf


# -- a client that closes its half --------------------------------------------------------------------------------


async def slowly(request):
    await asyncio.sleep(0.02)
    return Response(200, [], request.path + request.body)


async def test_a_half_closed_client_has_gone_unless_told_otherwise():
    async with house() as one, await one.client() as client:
        one.handler = slowly
        client.send(GET)
        client.writer.write_eof()
        assert await client.ended() == b""
        await one.quiet()
        assert one.server.stats.client_gone == 1


async def test_a_half_closed_client_can_be_answered():
    async with house(answer_half_closed=True) as one, await one.client() as client:
        one.handler = slowly
        client.send(get("/1") + get("/2", method="POST", body=b"+") + get("/3") + b"GET /never")
        client.writer.write_eof()
        assert [(await client.reply()).body for _ in range(2)] == [b"/1", b"/2+"]
        reply = await client.reply()
        assert (reply.body, reply.header("connection")) == (b"/3", "close")
        assert await client.ended() == b""
        await one.quiet()
        assert one.server.stats.client_gone == 0


async def test_one_that_asked_for_nonsense_hears_so():
    async with house(answer_half_closed=True) as one, await one.client() as client:
        client.send(b"nonsense\r\n\r\n")
        client.writer.write_eof()
        assert (await client.reply()).status == 400
        assert await client.ended() == b""
        await one.quiet()


@pytest.mark.parametrize("sent", [b"", GET[:9], get(method="POST", body=b"12345")[:-2]])
async def test_one_that_asked_for_nothing_whole_is_closed(sent):
    async with house(answer_half_closed=True) as one, await one.client() as client:
        client.send(sent)
        client.writer.write_eof()
        assert await client.ended() == b""
        await one.quiet()
        assert not one.handled


async def test_a_half_closed_client_that_then_goes_away_cancels_the_work():
    async with house(answer_half_closed=True) as one, await one.client() as client:
        one.handler = lambda _request: asyncio.sleep(10)
        client.send(GET)
        client.writer.write_eof()
        while not one.server.deaf:
            await asyncio.sleep(0.001)
        reset_at_close(client)
        client.close()
        await one.quiet()
        assert one.server.stats.client_gone == 1


def reset_at_close(client):
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# -- how many are about -------------------------------------------------------------------------------------------


async def test_requests_count_as_long_as_they_are_handled_however_that_ends():
    go_on, counts = asyncio.Event(), []

    async def waits(request):
        counts.append(one.server.busy)
        await go_on.wait()
        return Response(200, [], request.path)

    async with asyncio.timeout(30), house() as one, await one.client() as first, await one.client() as second:
        one.handler = waits
        first.send(GET)
        second.send(GET)
        while len(counts) < 2:
            await asyncio.sleep(0.001)
        second.close()
        while one.server.busy > 1:
            await asyncio.sleep(0.001)
        go_on.set()
        assert (await first.reply()).status == 200
        assert (counts, one.server.busy) == ([1, 2], 0)
        one.handler = lambda _request: asyncio.sleep(0, result=1 / 0)  # crashes
        first.send(GET)
        assert (await first.reply()).status == 500
        assert one.server.busy == 0


@pytest.mark.parametrize("how", ["abort", "close_if_idle", "timed_out"])
async def test_a_connection_that_is_ended_within_the_step_its_bytes_take(how, caplog):
    """The task runs within `data_received`, and what it calls may call back into the connection."""
    stepped = []

    async def ends(request):
        (connection,) = one.server.connections
        stepped.append(connection._waiter)
        getattr(connection, how)()
        return Response(200, [], request.path)

    async with house() as one, await one.client() as client:
        one.handler = ends
        client.send(get("/1") + get("/2") + GET[:9])
        if how == "abort":
            assert await client.ended() == b""
        else:
            assert [(await client.reply()).body for _ in range(2)] == [b"/1", b"/2"]
        client.close()
        await one.quiet()
        assert (one.server.busy, caplog.text) == (0, "")
        assert stepped[0] is None


async def test_bodies_and_answers_that_stream_do_not_count():
    """Nine slow uploads, or tunnels, would have the worker take the long way with every request."""
    counts, streams = [], []

    async def streaming(request):
        counts.append(one.server.busy)
        if request.stream is not None:
            while await request.stream.read():
                counts.append(one.server.busy)
            return Response(200, [], b"whole")
        response = Response(200, [])
        response.stream = Stream(asyncio.get_running_loop(), int, int, 2)
        streams.append(response.stream)
        return response

    async with asyncio.timeout(30), house() as one:
        one.handler = streaming
        one.server.body_rules = lambda _request: BodyRules(0, 1 << 20)
        async with await one.client() as up, await one.client() as down:
            up.send(get(method="POST", body=b"x" * 20_000)[:-1])
            while not counts:
                await asyncio.sleep(0.001)
            down.send(GET)
            while not streams:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            assert one.server.busy == 0
            streams[0].feed(b"ok")
            streams[0].end()
            assert (await down.reply()).body == b"ok"
            up.send(b"x")
            assert (await up.reply()).body == b"whole"
        assert (counts.count(1), set(counts), one.server.busy) == (1, {0, 1}, 0)


async def test_a_crash_is_a_500_and_only_that(caplog):
    async def crash(_request):
        raise ZeroDivisionError

    async with house() as one, await one.client() as client:
        one.handler = crash
        reply = await client.get()
        assert reply.status == 500
        assert b"ZeroDivision" not in reply.body
        assert "ZeroDivisionError" in caplog.text
        assert await client.ended() == b""
        one.handler = one.echo
        async with await one.client() as other:
            assert (await other.get()).status == 200


async def test_an_answer_that_cannot_be_written_leaks_no_connection(caplog):
    async def handler(_request):
        return Response(777, [], b"")

    async with house() as one, await one.client() as client:
        one.handler = handler
        client.send(GET)
        assert await client.ended() == b""
        await one.quiet()
        assert "a connection failed" in caplog.text


async def test_a_handler_that_cancels_itself_leaks_no_connection():
    async def handler(_request):
        raise asyncio.CancelledError

    async with house() as one, await one.client() as client:
        one.handler = handler
        client.send(GET)
        assert await client.ended() == b""
        await one.quiet()


# -- drain --------------------------------------------------------------------------------------------------------


async def test_drain_finishes_what_was_begun_and_says_close():
    gate = asyncio.Event()

    async def wait(request):
        await gate.wait()
        return Response(200, [], request.path)

    async with house() as one, await one.client() as client:
        one.handler = wait
        client.send(get("/begun"))
        while not one.handled:
            await asyncio.sleep(0.001)
        drained = asyncio.ensure_future(one.server.drain(idle=0, timeout=5))
        await asyncio.sleep(0.01)
        assert not drained.done()
        with pytest.raises(OSError):
            await one.client()
        gate.set()
        reply = await client.reply()
        assert (reply.body, reply.header("connection")) == (b"/begun", "close")
        assert await client.ended() == b""
        assert await drained == 0


async def test_drain_answers_an_idle_connection_once_more():
    async with house() as one, await one.client() as client:
        await client.get()
        drained = asyncio.ensure_future(one.server.drain(idle=0.5, timeout=5))
        await asyncio.sleep(0.005)
        assert (await client.get("/late")).header("connection") == "close"
        assert await client.ended() == b""
        assert await drained == 0


async def test_drain_closes_what_is_idle_and_waits_for_what_is_half_sent():
    async with house() as one, await one.client() as idle, await one.client() as half:
        await idle.get()
        half.send(GET[:10])
        await asyncio.sleep(0.01)
        drained = asyncio.ensure_future(one.server.drain(idle=0, timeout=5))
        assert await idle.ended() == b""
        half.send(GET[10:])
        assert (await half.reply()).status == 200
        assert await drained == 0


async def test_drain_cuts_off_what_does_not_end():
    async def wait(_request):
        await asyncio.sleep(10)

    async with house() as one, await one.client() as client:
        one.handler = wait
        client.send(GET)
        while not one.handled:
            await asyncio.sleep(0.001)
        assert await one.server.drain(idle=0, timeout=0.02) == 1
        assert await client.ended() == b""
        await one.quiet()
