"""One link and its pool, against a backend that does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from gateway.errors import (
    BadUpstreamResponse,
    ConnectFailed,
    ConnectionBroken,
    PoolExhausted,
    StaleConnection,
    UpstreamTimeout,
)
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.link import encoder, frames, pool
from gateway.link.connection import LinkConnection
from gateway.link.exchange import WINDOW, NotStarted
from gateway.link.frames import Settings
from gateway.link.pool import LinkPool
from gateway.link.pulse import LinkLimits
from gateway.request import Response
from tests.link.encode import pairs
from tests.link.fuzz import corpus, mutated
from tests.link.peer import ACCEPTED, DROPPED, SERVER, LinkBackend, Nowhere, request
from tests.patience import GUARD

pytestmark = pytest.mark.undisturbed

LIMITS = ClientLimits(max_response=1000)
PATIENT = LinkLimits(silence=GUARD, patience=GUARD)
JSON = encoder.response_head([(b"content-type", b"application/json")])


class Pool(LinkPool):
    """Asks with less typing."""

    def one(self, *args, seconds=30.0, **kwargs):
        loop = asyncio.get_running_loop()
        asked = request(*args, **kwargs)
        deadline = loop.time() + seconds
        return asyncio.ensure_future(
            self.ask(asked, asked.target, b"authority", int(seconds * 1e9), DROPPED, deadline=deadline)
        )


@contextlib.asynccontextmanager
async def scene(*, required=True, limits=None, times=None, **options):
    async with LinkBackend(**options) as backend:
        one = Pool(
            Address("127.0.0.1", backend.port), limits or ClientLimits(), required=required, times=times or PATIENT
        )
        one.backend = backend
        yield one
        assert not one.active
        assert not [exchange for exchange in one.streams if exchange.wanted]
        one.close()


async def opened(one):
    """The session of a link that has served one exchange."""
    asked = one.one()
    session = await one.backend.session()
    await session.heard("request")
    session.say(encoder.response(1, 200))
    await asked
    return session


# -- exchanges ----------------------------------------------------------------------------------------------------


async def test_what_is_sent():
    async with scene() as one:
        asked = one.one(b"POST", b"/a?b", b"body", x_odd=b"1", x_api_key=b"secret", traceparent=b"00-1-2-3", te=b"x")
        session = await one.backend.session()
        heard = await session.heard("request")
        assert 0 < heard.pop("deadline_us") <= 30_000_000
        assert heard == {
            "type": "request", "stream": 1, "priority": 0, "method": "POST", "target": "/a?b", "end": True,
            "fields": [["host", "a"], ["x-odd", "1"]], "body": b"body".hex(),
            "extra": [["x-forwarded-for", "192.0.2.7"], ["x-forwarded-proto", "http"], ["x-request-id", "id-1"], ["traceparent", "00-1-2-3"]],
        }  # fmt: skip
        session.say(encoder.response(1, 201, JSON, body=b"{}"))
        response = await asked
        assert (response.status, response.headers, response.body) == (
            201,
            pairs([["content-type", "application/json"]]),
            b"{}",
        )


async def test_fields_that_connection_names_stay_behind():
    async with scene() as one:
        asked = one.one(connection=b"X-Odd, close", x_odd=b"1", x_even=b"2")
        session = await one.backend.session()
        assert (await session.heard("request"))["fields"] == [["host", "a"], ["x-even", "2"]]
        session.say(encoder.response(1, 200))
        await asked


async def test_the_third_request_of_a_kind_says_its_head_in_one_number():
    async with scene() as one:
        session = await opened(one)
        sizes = []
        for number in (2, 3, 4):
            asked = one.one(b"POST", b"/x", b"", x_long=b"y" * 500)
            heard = await session.heard("request")
            assert ["x-long", "y" * 500] in heard["fields"]
            session.say(encoder.response(number, 200))
            await asked
            sizes.append(session.decoder)
        asked = one.one(b"POST", b"/x", b"", x_long=b"y" * 500)
        await asyncio.sleep(0.01)
        data = await session.reader.read(65536)
        assert len(data) < 70
        session.decoder.feed(data)
        assert (await session.heard("request"))["fields"][1] == ["x-long", "y" * 500]
        session.say(encoder.response(5, 200))
        await asked


async def test_everything_of_a_tick_leaves_in_one_write():
    loop = asyncio.get_running_loop()
    transport = Nowhere()
    link = LinkConnection(b"a", LinkLimits(), LIMITS, lambda link: None)
    link.connection_made(transport)
    link.data_received(ACCEPTED + encoder.hello(SERVER))
    transport.written.clear()
    streams = [link.send(request(), b"/", b"a", 1000, DROPPED, loop.time() + 1) for _ in range(50)]
    link.cancel(streams[7])
    await asyncio.sleep(0)
    assert len(transport.written) == 1
    assert transport.written[0].count(b"id-1") == 50
    link.drop(None)
    for stream in streams:
        if stream.future is not None:
            stream.future.exception()


@pytest.mark.parametrize("cut", [1, 5, 13])
async def test_answers_come_in_any_order_and_in_any_pieces(cut):
    async with scene() as one:
        session = await opened(one)
        asked = [one.one(b"GET", b"/%d" % number) for number in range(20)]
        heard = [await session.heard("request") for _ in asked]
        random.Random(3).shuffle(heard)
        said = b"".join(
            encoder.response(each["stream"], 200, JSON, slot=1, body=each["target"].encode()) for each in heard
        )
        for start in range(0, len(said), cut):
            session.say(said[start : start + cut])
            if start % 50 == 0:
                await asyncio.sleep(0)
        for number, answer in enumerate(await asyncio.gather(*asked)):
            assert answer.body == b"/%d" % number
            answer.headers.clear()  # each has its own


async def test_a_large_request_follows_the_backends_windows():
    settings = Settings(max_streams=9, stream_window=frames.CHUNK, connection_window=2 * frames.CHUNK)
    body = random.Random(1).randbytes(300_001)
    async with scene(answer=ACCEPTED + encoder.hello(settings)) as one:
        asked = [one.one(body=body), one.one(body=body[::-1]), one.one(body=b"small")]
        session = await one.backend.session()
        got = {1: b"", 2: b"", 3: b""}
        ended = set()
        while len(ended) < 3:
            heard = await session.heard()
            piece = bytes.fromhex(heard["body"])
            got[heard["stream"]] += piece
            if heard["end"]:
                ended.add(heard["stream"])
            assert len(piece) <= frames.CHUNK
            if piece:
                session.say(encoder.window(0, len(piece)), encoder.window(heard["stream"], len(piece)))
        assert got == {1: body, 2: body[::-1], 3: b"small"}
        session.say(*[encoder.response(number, 200) for number in got])
        await asyncio.gather(*asked)


async def test_a_large_answer_that_is_held_whole_is_granted_as_it_comes():
    async with scene(limits=ClientLimits(whole=1 << 30, gather=5)) as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, end=False))
        left, credit, total = 40_000_000, WINDOW, 16_777_216
        while left:
            size = min(left, frames.CHUNK, credit, total)
            if size == 0:
                heard = await session.heard("window")
                if heard["stream"]:
                    credit += heard["credit"]
                else:
                    total += heard["credit"]
                continue
            left, credit, total = left - size, credit - size, total - size
            session.say(encoder.data_start(2, size, end=not left), bytes(size))
        assert len((await asked).body) == 40_000_000


async def test_head_keeps_its_length_and_others_do_not():
    async with scene() as one:
        session = await opened(one)
        length = encoder.response_head([(b"content-length", b"77")])
        for method, wanted in ((b"HEAD", [(b"content-length", b"77")]), (b"GET", [])):
            asked = one.one(method)
            number = (await session.heard("request"))["stream"]
            session.say(encoder.response(number, 200, length, extra=length))
            assert (await asked).headers == wanted


async def test_what_is_for_the_gateway_to_say_is_dropped():
    async with scene() as one:
        session = await opened(one)
        said = [(b"degraded", b"no"), (b"x-request-id", b"no"), (b"x-fine", b"yes"), (b"transfer-encoding", b"no")]
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, encoder.response_head(said), extra=encoder.response_head(said)))
        assert (await asked).headers == [(b"x-fine", b"yes")] * 2


# -- refusals and ends --------------------------------------------------------------------------------------------


async def test_an_answer_larger_than_allowed():
    async with scene(limits=ClientLimits(max_response=100)) as one:
        session = await opened(one)
        for said in ([encoder.response(2, 200, body=b"x" * 101)],
                     [encoder.response(3, 200, body=b"x" * 60, end=False), encoder.data_start(3, 60, end=False), b"y" * 60]):  # fmt: skip
            asked = one.one()
            await session.heard("request")
            session.say(*said)
            with pytest.raises(BadUpstreamResponse, match="larger"):
                await asked
        assert (await session.heard("cancel")) == {"type": "cancel", "stream": 3, "code": frames.C_TOO_LARGE}
        session.say(encoder.data_start(3, 1, end=True), b"z")  # late: dropped
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(4, 200))
        assert (await asked).status == 200


@pytest.mark.parametrize("answered", [False, True])
async def test_a_cancelled_exchange_tells_the_backend_and_drops_what_comes(answered):
    async with scene() as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        if answered:
            session.say(encoder.response(2, 200, body=b"part", end=False))
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await session.heard("cancel")) == {"type": "cancel", "stream": 2, "code": frames.C_UNWANTED}
        assert len(one.streams) == 1  # until the backend's last word
        session.say(encoder.data_start(2, 3, end=False) + b"and" if answered else encoder.response(2, 200, end=False))
        session.say(encoder.control(frames.CANCEL, code=1, stream=2))
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(3, 200, body=b"mine"))
        assert (await asked).body == b"mine"
        assert not one.streams


async def test_a_deadline():
    async with scene() as one:
        session = await opened(one)
        asked = one.one(seconds=0.03)
        with pytest.raises(UpstreamTimeout):
            await asked
        assert (await session.heard("cancel"))["code"] == frames.C_DEADLINE


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (frames.C_REFUSED, NotStarted),
        (frames.C_DEADLINE, UpstreamTimeout),
        (frames.C_FAILED, ConnectionBroken),
        (frames.C_TOO_LARGE, BadUpstreamResponse),
        (999, ConnectionBroken),
    ],
)
async def test_the_backend_gives_a_stream_up(code, error):
    async with scene() as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.control(frames.CANCEL, code=code, stream=2))
        with pytest.raises(error):
            await asked


@pytest.mark.parametrize(
    ("served", "part", "error"), [(0, 0, ConnectionBroken), (1, 0, StaleConnection), (1, 1, ConnectionBroken)]
)
async def test_a_lost_link_says_whether_the_backend_can_have_answered(served, part, error):
    async with scene() as one:
        session = await opened(one) if served else None
        asked = one.one()
        session = session or await one.backend.session()
        heard = await session.heard("request")
        if part:
            session.say(encoder.response(heard["stream"], 200, body=b"a", end=False))
            await asyncio.sleep(0.01)
        session.close()
        with pytest.raises(error):
            await asked
        assert one.protocol == "http/1.1"


async def test_a_request_that_never_left_is_not_started():
    loop = asyncio.get_running_loop()
    link = LinkConnection(b"a", LinkLimits(), LIMITS, lambda link: None)
    link.connection_made(Nowhere())
    link.data_received(ACCEPTED + encoder.hello(SERVER))
    link.pause_writing()
    stream = link.send(request(), b"/", b"a", 1000, DROPPED, loop.time() + 1)
    await asyncio.sleep(0)
    link.connection_lost(None)
    assert isinstance(stream.future.exception() if stream.future else None, NotStarted) or stream.future is None


async def test_what_waits_for_a_full_transport_leaves_when_it_is_not():
    loop = asyncio.get_running_loop()
    transport = Nowhere()
    link = LinkConnection(b"a", LinkLimits(), LIMITS, lambda link: None)
    link.connection_made(transport)
    link.data_received(ACCEPTED + encoder.hello(SERVER))
    transport.written.clear()
    link.pause_writing()
    stream = link.send(request(body=b"x" * 200_000), b"/", b"a", 1000, DROPPED, loop.time() + 1)
    await asyncio.sleep(0)
    assert not transport.written
    link.resume_writing()
    assert len(b"".join(transport.written)) > 200_000
    waiter = stream.future
    link.drop(None)
    assert isinstance(waiter.exception(), ConnectionBroken)


# -- liveness -----------------------------------------------------------------------------------------------------


async def test_a_silent_backend_is_asked_and_given_up():
    async with scene(times=LinkLimits(0.03, 0.03)) as one:
        session = await opened(one)
        asked = one.one(seconds=5)
        await session.heard("ping")
        with pytest.raises(ConnectionBroken, match="ping"):
            await asked


async def test_a_slow_backend_that_lives_is_waited_for():
    async with scene(times=LinkLimits(0.02, 0.02)) as one:
        session = await opened(one)
        asked = one.one(seconds=5)
        await session.heard("request")
        for _ in range(3):
            ping = await session.heard("ping")
            session.say(encoder.control(frames.PONG, bytes.fromhex(ping["body"])))
        session.say(encoder.response(2, 200))
        assert (await asked).status == 200


async def test_an_idle_link_is_asked_and_in_the_end_closed():
    async with scene(limits=ClientLimits(idle=30)) as one:
        session = await opened(one)
        await asyncio.sleep(0.03)
        now = asyncio.get_running_loop().time()
        one.expire(now)
        ping = await session.heard("ping")
        session.say(encoder.control(frames.PONG, bytes.fromhex(ping["body"])))
        await asyncio.sleep(0.01)
        one.expire(now + 2)
        assert one.link is not None
        one.expire(now + 31)
        assert one.link is None
        await session.closed()


async def test_an_idle_link_whose_peer_is_gone_is_dropped():
    async with scene() as one:
        await opened(one)
        await asyncio.sleep(0.03)
        one.expire(asyncio.get_running_loop().time())
        one.expire(asyncio.get_running_loop().time())
        assert one.link is None


async def test_the_backend_may_ask_too_and_reports_its_load():
    async with scene() as one:
        session = await opened(one)
        session.say(encoder.control(frames.PING, b"hello???"), encoder.load(frames.LoadReport(3, 2, 32, 0.004)))
        assert (await session.heard("pong"))["body"] == b"hello???".hex()
        load = one.link.load
        assert (load.queued, load.running, load.capacity, load.service) == (3, 2, 32, 0.004)


# -- drain --------------------------------------------------------------------------------------------------------


async def test_drain_finishes_what_runs_and_starts_anew():
    async with scene() as one:
        session = await opened(one)
        running = one.one()
        await session.heard("request")
        session.say(encoder.control(frames.DRAIN))
        await asyncio.sleep(0.01)
        fresh = one.one()
        second = await one.backend.session()
        await second.heard("request")
        second.say(encoder.response(1, 200, body=b"second"))
        assert (await fresh).body == b"second"
        session.say(encoder.response(2, 200, body=b"first"))
        assert (await running).body == b"first"
        await session.closed()
        assert one.backend.upgrades == 2


async def test_a_refused_stream_goes_over_http_instead():
    async with scene(required=False) as one:
        assert (await one.one()).body == b"http"
        session = await one.backend.session()
        asked = one.one()
        await session.heard("request")
        session.say(encoder.control(frames.CANCEL, code=frames.C_REFUSED, stream=1))
        assert (await asked).body == b"http"
        assert one.backend.requests == 2


async def test_closing_lets_what_runs_finish():
    async with scene() as one:
        session = await opened(one)
        running = one.one()
        await session.heard("request")
        one.close()
        session.say(encoder.response(2, 200))
        assert (await running).status == 200
        await session.closed()


# -- falling back -------------------------------------------------------------------------------------------------

PLAIN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [PLAIN, PLAIN.replace(b"404", b"503"), ACCEPTED.replace(b"link/1", b"link/2"), b"nonsense\r\n\r\n", b"x" * 20_000],
)
async def test_a_backend_that_does_not_speak_the_link_is_spoken_to_in_http(answer):
    async with scene(required=False, answer=answer) as one:
        for _ in range(5):
            assert (await one.one()).body == b"http"
            await asyncio.sleep(0.005)
        assert one.protocol == "http/1.1"
        assert one.backend.upgrades == 1  # asked again only later


async def test_where_it_is_required_it_is_an_error():
    async with scene(answer=PLAIN) as one:
        with pytest.raises(ConnectFailed, match="answered 404"):
            await one.one()


async def test_a_backend_that_learns_the_link_is_found_out(monkeypatch):
    monkeypatch.setattr(pool, "AGAIN_PLAIN", 0.01)
    async with scene(required=False, answer=PLAIN) as one:
        await one.one()
        await asyncio.sleep(0.02)
        one.backend.answer = ACCEPTED + encoder.hello(SERVER)
        await one.one()
        session = await one.backend.session()
        while one.link is None:
            await asyncio.sleep(0.001)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(1, 200, body=b"link"))
        assert (await asked).body == b"link"


async def test_nobody_listens():
    async with LinkBackend() as backend:
        port = backend.port
        backend.server.close()
        await backend.server.wait_closed()
        for required in (True, False):
            one = Pool(Address("127.0.0.1", port), ClientLimits(), required=required)
            with pytest.raises(ConnectFailed):
                await one.one()
            one.close()


async def test_no_time_to_open_a_link():
    async with scene(answer=b"HTTP/1.1 101 ") as one:
        with pytest.raises(UpstreamTimeout):
            await one.one(seconds=0.02)


async def test_a_request_that_no_link_can_say_goes_over_http():
    async with scene() as one:
        await opened(one)
        assert (await one.one(b"GET", b"/" + b"x" * 70_000)).body == b"http"


@pytest.mark.parametrize("required", [True, False])
async def test_more_exchanges_than_streams(required):
    async with scene(required=required, answer=ACCEPTED + encoder.hello(Settings(max_streams=2))) as one:
        first = one.one()
        session = await one.backend.session()
        if not required:
            assert (await first).body == b"http"
            first = one.one()
        second = one.one()
        for _ in range(2):
            await session.heard("request")
        if required:
            with pytest.raises(PoolExhausted):
                await one.one()
        else:
            assert (await one.one()).body == b"http"
        session.say(encoder.response(1, 200), encoder.response(2, 200))
        await asyncio.gather(first, second)


async def test_who_waited_for_the_link_together_stays_within_its_streams():
    """A third stream on a link of two would cost all of them the link."""
    async with scene(answer=ACCEPTED + encoder.hello(Settings(max_streams=2))) as one:
        asked = [one.one() for _ in range(5)]
        session = await one.backend.session()
        for number in (1, 2):
            assert (await session.heard("request"))["stream"] == number
        session.say(encoder.response(1, 200), encoder.response(2, 200))
        async with asyncio.timeout(GUARD):
            told = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in told] == [Response] * 2 + [PoolExhausted] * 3
        assert one.backend.upgrades == 1


async def test_a_link_that_is_lost_before_who_waited_for_it_goes_on_is_not_used():
    """Nothing sweeps a lost link: what was sent on it would wait for ever."""
    async with scene() as one:
        asked = one.one()
        while one._opening is None:
            await asyncio.sleep(0)
        one._opening.add_done_callback(lambda opening: opening.result().drop(None))
        with pytest.raises(ConnectFailed, match="lost as soon as it was open"):
            async with asyncio.timeout(GUARD):
                await asked
        again = one.one()
        for _ in range(2):
            session = await one.backend.session()
        await session.heard("request")
        session.say(encoder.response(1, 200))
        assert (await again).status == 200


@pytest.mark.parametrize(("lived", "most"), [(6.0, pool.AGAIN_MIN * 2), (4.0, pool.AGAIN_MAX)])
async def test_after_a_link_that_lived_the_first_pause_is_short_again(lived, most):
    async with scene(required=False) as one:
        for _ in range(10):
            one._later(pool.AGAIN_MAX)
        one._retry_at = 0.0
        await one.one()
        session = await one.backend.session()
        link = one.link
        assert link is not None
        one._opened_at -= lived
        session.close()
        while one.link is not None:
            await asyncio.sleep(0.001)
        pause = one._retry_at - asyncio.get_running_loop().time()
        assert most / 2 - 0.05 <= pause <= most


async def test_a_bug_while_a_link_is_opened_is_not_met_at_every_request(monkeypatch):
    async def fails(*_):
        raise KeyError("a bug")

    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    monkeypatch.setattr(pool, "connect", fails)
    async with scene(required=False) as one:
        for _ in range(3):
            assert (await one.one()).body == b"http"
            await asyncio.sleep(0)
    assert [repr(error) for error in told] == ["KeyError('a bug')"]


# -- hostile backends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n"], frames.E_SIZE),
        ([b"\xff" * 12], frames.E_SIZE),
        ([encoder.response(9, 200)], frames.E_STREAM),
        ([encoder.response(1, 200)], frames.E_STREAM),  # answered before
        ([encoder.response(2, 200, end=False), encoder.response(2, 200)], frames.E_STREAM),
        ([encoder.data_start(2, 1, end=False), b"x"], frames.E_STREAM),
        ([encoder.data_start(77, 1, end=False), b"x"], frames.E_STREAM),
        ([encoder.window(77, 1)], frames.E_STREAM),
        ([encoder.control(frames.CANCEL, code=1, stream=77)], frames.E_STREAM),
        ([encoder.window(0, frames.MAX_WINDOW)], frames.E_FLOW),
        ([encoder.response(2, 200, slot=4)], frames.E_HEAD),
        ([encoder.data_start(2, WINDOW + 1, end=False)], frames.E_SIZE),
        ([encoder.hello(SERVER)], frames.E_PROTOCOL),
    ],
)  # fmt: skip
async def test_a_hostile_backend_loses_its_link_and_nothing_else(said, code):
    async with scene() as other, scene() as one:
        session, good = await opened(one), await opened(other)
        asked = one.one()
        await session.heard("request")
        session.say(*said)
        with pytest.raises(BadUpstreamResponse):
            await asked
        assert (await session.heard("error"))["code"] == code
        await session.closed()
        assert one.link is None
        asked = other.one()
        await good.heard("request")
        good.say(encoder.response(2, 200))
        assert (await asked).status == 200


async def test_an_error_from_the_backend_ends_the_link():
    async with scene() as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.error(frames.E_PROTOCOL, "enough"))
        with pytest.raises(BadUpstreamResponse, match="enough"):
            await asked


async def test_no_bytes_do_more_than_end_the_link():
    """Mutated sessions into a link with exchanges under way: every one of them ends, whatever comes."""
    rng = random.Random(7)
    loop = asyncio.get_running_loop()
    seeds = [data for receiver, data in corpus() if receiver == "client"]
    for _ in range(400):
        link = LinkConnection(b"a", LinkLimits(), LIMITS, lambda link: None)
        transport = Nowhere()
        link.connection_made(transport)
        link.data_received(ACCEPTED + encoder.hello(SERVER))
        waiters = [link.send(request(), b"/", b"a", 1000, DROPPED, loop.time() + 9).future for _ in range(4)]
        link.cancel(next(iter(link.streams.values())))
        data = mutated(rng.choice(seeds)[52:], rng)
        step = rng.choice((1 + rng.randrange(50), 10_000))
        for start in range(0, len(data), step):
            if not link.lost:
                link.data_received(data[start : start + step])
        link.connection_lost(None)
        assert not link.streams
        assert link.lost
        for waiter in waiters[1:]:
            assert waiter.done()
            waiter.exception()
