"""Answers that stream over a link, against a backend that does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from gateway.errors import BadUpstreamResponse, ConnectionBroken, PoolExhausted, UpstreamTimeout
from gateway.http.upstream import ClientLimits
from gateway.link import encoder, frames
from gateway.link.connection import LinkConnection
from gateway.link.exchange import WINDOW
from gateway.link.frames import Settings
from gateway.link.pulse import LinkLimits
from gateway.stream import Stream
from tests.link.fuzz import fuzz_exchanges
from tests.link.peer import ACCEPTED, DROPPED, SERVER, Nowhere, request
from tests.link.test_connection import JSON, opened, scene

pytestmark = pytest.mark.undisturbed

EVENTS = encoder.response_head([(b"content-type", b"text/event-stream; charset=utf-8")])


def stated(length):
    return encoder.response_head([(b"content-length", b"%d" % length)])


def data(number, body, *, end=False):
    return encoder.data_start(number, len(body), end=end) + body


async def begun(one, session, said=b"data: 1\n\n", **options):
    """The number of an exchange whose answer streams, and its stream."""
    asked = one.one(**options)
    number = (await session.heard("request"))["stream"]
    session.say(encoder.response(number, 200, EVENTS, body=said, end=False))
    response = await asked
    assert response.stream is not None
    return number, response.stream


async def whole(stream):
    got = b""
    while piece := await stream.read():
        got += piece
    return got


# -- what streams -------------------------------------------------------------------------------------------------


async def test_a_large_answer_of_a_stated_length_streams_at_once():
    async with scene(limits=ClientLimits(whole=100, gather=5)) as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, JSON, extra=stated(101), body=b"a" * 50, end=False))
        response = await asked
        assert (response.status, response.headers, response.body) == (
            200,
            [(b"content-type", b"application/json")],
            b"",
        )
        assert response.stream.length == 101
        assert await response.stream.read() == b"a" * 50
        session.say(data(2, b"b" * 51, end=True))
        assert await whole(response.stream) == b"b" * 51
        assert not one.streams


async def test_a_small_answer_of_a_stated_length_is_waited_for():
    async with scene(limits=ClientLimits(whole=100, gather=0.01)) as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, extra=stated(100), body=b"a" * 50, end=False))
        await asyncio.sleep(0.05)
        session.say(data(2, b"b" * 50, end=True))
        assert (await asked).body == b"a" * 50 + b"b" * 50


async def test_an_answer_of_unstated_length_streams_when_it_is_not_there_in_a_moment():
    async with scene(limits=ClientLimits(gather=0.03)) as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, body=b"a", end=False), data(2, b"b"))
        response = await asked
        assert response.stream.length is None
        assert await response.stream.read() == b"ab"
        session.say(data(2, b"", end=True))
        assert await response.stream.read() == b""
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(3, 200, body=b"a", end=False), data(3, b"b", end=True))
        assert (await asked).body == b"ab"


async def test_an_answer_that_grows_streams():
    async with scene(limits=ClientLimits(whole=100, gather=5)) as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, body=b"a" * 60, end=False), data(2, b"b" * 60))
        response = await asked
        assert await response.stream.read() == b"a" * 60 + b"b" * 60
        session.say(data(2, b"c", end=True))
        assert await whole(response.stream) == b"c"


async def test_each_event_arrives_before_the_next_is_sent():
    async with scene(limits=ClientLimits(gather=5)) as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        assert await stream.read() == b"data: 1\n\n"
        for event in range(2, 6):
            session.say(data(number, b"data: %d\n\n" % event))
            assert await stream.read() == b"data: %d\n\n" % event
        session.say(data(number, b"", end=True))
        assert await stream.read() == b""


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_an_answer_without_a_body_is_there_with_its_head(method, status):
    async with scene() as one:
        session = await opened(one)
        asked = one.one(method)
        await session.heard("request")
        session.say(encoder.response(2, status, extra=stated(7), end=False))
        response = await asked
        assert (response.status, response.body, response.stream) == (status, b"", None)
        await session.heard("cancel")
        session.say(data(2, b"", end=True))
        for end in (True, False):
            asked = one.one(method)
            number = (await session.heard("request"))["stream"]
            session.say(encoder.response(number, status, body=b"x", end=end))
            with pytest.raises(BadUpstreamResponse, match="body"):
                await asked
        session.say(data(number, b"", end=True))


async def test_a_streaming_upload_goes_beside_a_link_that_is_required():
    async with scene() as one:
        await opened(one)
        loop = asyncio.get_running_loop()
        asked = request(b"POST", b"/x")
        asked.stream = Stream(loop, lambda: None, lambda: None, 3)
        asked.stream.feed(b"abc")
        asked.stream.end()
        answer = await one.ask(asked, b"/x", b"a", 10**9, DROPPED, deadline=loop.time() + 1)
        assert answer.body == b"http"
        assert one.backend.requests == 1


# -- credit -------------------------------------------------------------------------------------------------------


class Sender:
    """Sends an answer as the gateway's windows allow; one for all exchanges of a session."""

    def __init__(self, session):
        self.session = session
        self.credit = {}
        self.total = 16 * 1024 * 1024
        self.sent = {}

    def send(self, number, upto):
        while self.sent[number] < upto:
            size = min(frames.CHUNK, self.credit[number], self.total, upto - self.sent[number])
            if size == 0:
                return
            self.session.say(data(number, b"x" * size))
            self.sent[number] += size
            self.credit[number] -= size
            self.total -= size

    async def listen(self, upto):
        while True:
            heard = await self.session.heard("window")
            if heard["stream"]:
                self.credit[heard["stream"]] += heard["credit"]
            else:
                self.total += heard["credit"]
            for number in self.sent:
                self.send(number, upto)

    def open(self, number):
        self.credit[number] = WINDOW
        self.sent[number] = 0


async def test_a_slow_reader_holds_up_its_own_stream_and_no_other():
    size = 40_000_000  # more than the connection's window
    async with scene() as one:
        session = await opened(one)
        sender = Sender(session)
        slow, stuck = await begun(one, session, b"", seconds=60)
        fast, moving = await begun(one, session, b"", seconds=60)
        for number in (slow, fast):
            sender.open(number)
            sender.send(number, size)
        listening = asyncio.create_task(sender.listen(size))
        got = 0
        async with asyncio.timeout(30):
            while got < size:
                got += len(await moving.read())
                assert stuck._waiting <= WINDOW
        assert sender.sent[slow] == WINDOW
        async with asyncio.timeout(30):
            while sender.sent[slow] < 3 * WINDOW:
                assert 0 < len(await stuck.read()) <= WINDOW
        listening.cancel()
        session.say(data(fast, b"", end=True), data(slow, b"", end=True))
        await whole(moving)
        await whole(stuck)


async def test_more_than_the_window_ends_the_link_and_the_stream_is_told():
    async with scene() as one:
        session = await opened(one)
        number, stream = await begun(one, session, b"")
        session.say(*[data(number, b"x" * frames.CHUNK) for _ in range(5)])
        assert (await session.heard("error"))["code"] == frames.E_FLOW
        with pytest.raises(BadUpstreamResponse, match="window"):
            await whole(stream)


# -- ends ---------------------------------------------------------------------------------------------------------


async def test_a_reader_that_has_gone_cancels_its_stream_alone():
    async with scene() as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        other, kept = await begun(one, session)
        stream.abandon()
        assert await session.heard("cancel") == {"type": "cancel", "stream": number, "code": frames.C_UNWANTED}
        session.say(data(number, b"late"), data(other, b"kept", end=True))
        assert await whole(kept) == b"data: 1\n\nkept"
        assert [exchange.number for exchange in one.streams] == [number]
        session.say(encoder.control(frames.CANCEL, code=1, stream=number))
        await asyncio.sleep(0.01)
        assert not one.streams


async def test_who_leaves_in_the_turn_of_the_hand_over_is_noticed():
    async with scene() as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        exchange = one.streams[0]
        session.say(encoder.response(2, 200, EVENTS, body=b"x", end=False))
        while exchange.future is not None:
            await asyncio.sleep(0)
        assert not asked.done()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await session.heard("cancel"))["code"] == frames.C_UNWANTED
        session.say(data(2, b"", end=True))


async def test_a_stream_that_falls_silent_is_cut_and_one_that_waits_for_its_reader_is_not():
    async with scene(limits=ClientLimits(idle_stream=0.05)) as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        await asyncio.sleep(0.12)  # the event waits for us
        assert await stream.read() == b"data: 1\n\n"
        with pytest.raises(UpstreamTimeout):
            await stream.read()
        assert await session.heard("cancel") == {"type": "cancel", "stream": number, "code": frames.C_DEADLINE}
        session.say(data(number, b"", end=True))


async def test_a_stream_may_outlast_the_requests_deadline():
    async with scene(times=LinkLimits(5, 5)) as one:
        session = await opened(one)
        number, stream = await begun(one, session, seconds=0.05)
        for _ in range(4):
            await asyncio.sleep(0.03)
            session.say(data(number, b"x"))
        session.say(data(number, b"", end=True))
        assert await whole(stream) == b"data: 1\n\nxxxx"


async def test_a_link_that_is_lost_is_told_after_what_came():
    async with scene() as one:
        session = await opened(one)
        _, stream = await begun(one, session)
        await asyncio.sleep(0.01)
        session.close()
        await asyncio.sleep(0.01)
        assert await stream.read() == b"data: 1\n\n"
        with pytest.raises(ConnectionBroken, match="in the middle"):
            await stream.read()


async def test_a_silent_link_breaks_its_streams():
    async with scene(times=LinkLimits(0.03, 0.03)) as one:
        session = await opened(one)
        _, stream = await begun(one, session, b"")
        with pytest.raises(ConnectionBroken, match="ping"):
            await stream.read()


async def test_who_only_listens_gives_signs_of_life():
    async with scene(times=LinkLimits(5, 5, sign_of_life=0.05)) as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        for _ in range(15):
            await asyncio.sleep(0.01)
            session.say(data(number, b"."))
            await stream.read()
        session.say(data(number, b"", end=True))
        await whole(stream)
        signs = [await session.heard("ping") for _ in range(2)]
        assert len(signs) == 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (frames.C_UNWANTED, ConnectionBroken),
        (frames.C_DEADLINE, UpstreamTimeout),
        (frames.C_REFUSED, ConnectionBroken),  # which it cannot be, and nobody may send it again
        (frames.C_FAILED, ConnectionBroken),
        (frames.C_TOO_LARGE, BadUpstreamResponse),
    ],
)
async def test_the_backend_gives_a_stream_up(code, error):
    async with scene(limits=ClientLimits(gather=0.03)) as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        session.say(data(number, b"more"), encoder.control(frames.CANCEL, code=code, stream=number))
        assert (await stream.read()).startswith(b"data: 1\n\n")
        with pytest.raises(error):
            await whole(stream)
        asked = one.one()  # the same before it is handed over
        number = (await session.heard("request"))["stream"]
        session.say(
            encoder.response(number, 200, body=b"a", end=False),
            encoder.control(frames.CANCEL, code=code, stream=number),
        )
        with pytest.raises(error):
            await asked
        assert one.protocol == "sluice-link/1"


@pytest.mark.parametrize("whole_above", [5, 1000])
@pytest.mark.parametrize(
    "said", [[data(2, b"x" * 7)], [data(2, b"x" * 7, end=True)], [data(2, b"x" * 5, end=True)]], ids=["7", "7!", "5!"]
)
async def test_a_stated_length_is_kept(whole_above, said):
    async with scene(limits=ClientLimits(whole=whole_above)) as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, extra=stated(10), body=b"1234", end=False))
        if whole_above == 5:
            response = await asked
            session.say(*said)
            with pytest.raises(BadUpstreamResponse, match="stated 10 bytes"):
                await whole(response.stream)
        else:
            session.say(*said)
            with pytest.raises(BadUpstreamResponse, match="stated 10 bytes"):
                await asked
        if said == [data(2, b"x" * 7)]:
            await session.heard("cancel")
            session.say(data(2, b"", end=True))
        await asyncio.sleep(0.01)
        assert not one.streams


@pytest.mark.parametrize("value", [b"", b"-1", b"1e3", b"9" * 19])
async def test_a_length_that_is_no_number_ends_the_link(value):
    async with scene() as one:
        session = await opened(one)
        asked = one.one()
        await session.heard("request")
        extra = encoder.response_head([(b"content-length", value)])
        session.say(encoder.response(2, 200, extra=extra, body=b"1234", end=False))
        with pytest.raises(BadUpstreamResponse, match="length"):
            await asked
        assert (await session.heard("error"))["code"] == frames.E_HEAD


async def test_a_stream_that_grows_beyond_what_is_allowed():
    async with scene(limits=ClientLimits(max_response=100)) as one:
        session = await opened(one)
        number, stream = await begun(one, session, b"x" * 60)
        session.say(data(number, b"x" * 60))
        with pytest.raises(BadUpstreamResponse, match="larger"):
            await whole(stream)
        assert (await session.heard("cancel"))["code"] == frames.C_TOO_LARGE
        session.say(data(number, b"", end=True))
        asked = one.one()
        number = (await session.heard("request"))["stream"]
        session.say(encoder.response(number, 200, extra=stated(101), end=False))
        with pytest.raises(BadUpstreamResponse, match="larger"):
            await asked
        session.say(data(number, b"", end=True))


async def test_drain_lets_a_stream_end_as_it_began():
    async with scene() as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        session.say(encoder.control(frames.DRAIN))
        await asyncio.sleep(0.01)
        fresh = one.one()
        second = await one.backend.session()
        await second.heard("request")
        second.say(encoder.response(1, 200))
        await fresh
        session.say(data(number, b"2"), data(number, b"3", end=True))
        assert await whole(stream) == b"data: 1\n\n23"
        await session.closed()


async def test_closing_lets_a_stream_end():
    async with scene() as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        one.close()
        session.say(data(number, b"2", end=True))
        assert await whole(stream) == b"data: 1\n\n2"
        await session.closed()


async def test_a_reload_reaches_a_link_that_is_open():
    async with scene() as one:
        session = await opened(one)
        one.limits = ClientLimits(whole=3, gather=5)
        one.expire(asyncio.get_running_loop().time())
        asked = one.one()
        await session.heard("request")
        session.say(encoder.response(2, 200, body=b"1234", end=False))
        stream = (await asked).stream
        session.say(data(2, b"", end=True))
        assert await whole(stream) == b"1234"


# -- backends that do not do their part ---------------------------------------------------------------------------


async def test_a_link_whose_backend_never_says_the_last_word_is_replaced():
    async with scene(
        times=LinkLimits(5, 5, last_word=0.05), answer=ACCEPTED + encoder.hello(Settings(max_streams=3))
    ) as one:
        session = await opened(one)
        number, stream = await begun(one, session)
        stuck = [one.one(seconds=0.02), one.one()]
        for _ in stuck:
            await session.heard("request")
        stuck[1].cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        with pytest.raises(PoolExhausted):
            await one.one()
        await asyncio.sleep(0.12)
        asked = one.one()
        second = await one.backend.session()
        await second.heard("request")
        second.say(encoder.response(1, 200, body=b"second"))
        assert (await asked).body == b"second"
        session.say(data(number, b"2", end=True))  # what somebody wants ends as it began
        assert await whole(stream) == b"data: 1\n\n2"
        await session.closed()
        assert not one.streams


async def test_a_last_word_in_time_keeps_the_link():
    async with scene(times=LinkLimits(5, 5, last_word=0.05)) as one:
        session = await opened(one)
        asked = one.one(seconds=0.02)
        await asyncio.gather(asked, return_exceptions=True)
        await session.heard("cancel")
        session.say(encoder.control(frames.CANCEL, code=2, stream=2))
        await asyncio.sleep(0.1)
        assert one.backend.upgrades == 1
        assert one.protocol == "sluice-link/1"


async def test_what_a_backend_that_never_reads_can_make_us_hold_is_bounded():
    loop = asyncio.get_running_loop()
    link = LinkConnection(b"a", LinkLimits(), ClientLimits(), lambda link: None)
    transport = Nowhere()
    link.connection_made(transport)
    link.data_received(ACCEPTED + encoder.hello(SERVER))
    waiter = link.send(request(), b"/", b"a", 1000, DROPPED, loop.time() + 60).future
    await asyncio.sleep(0)
    link.pause_writing()
    turns = 0
    while not link.lost:
        link.data_received(encoder.control(frames.PING, b"12345678") * 3000)
        turns += 1
        assert turns < 1000
        assert len(link._out) < 20_000
    link.connection_lost(None)
    assert isinstance(waiter.exception(), BadUpstreamResponse)
    assert "does not read" in str(waiter.exception())


async def test_whatever_backends_and_readers_do_everybody_gets_what_was_said_and_an_end():
    assert fuzz_exchanges(600, random.Random(1)) > 100


# -- a client that leaves at any time -----------------------------------------------------------------------------


async def answering(backend, said):
    """Every link of `backend`: answers each request with `said(number)`, which is its last word, cancelled or not."""

    async def serve(session):
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                heard = await session.heard()
                if heard["type"] == "request":
                    session.say(*said(heard["stream"]))

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(serve(await backend.sessions.get()))


def in_two(number):
    return encoder.response(number, 200, EVENTS, body=b"data: 1\n\n", end=False), data(number, b"data: 2\n\n", end=True)


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("said", [lambda number: (encoder.response(number, 200, body=b"link"),), in_two])
async def test_who_leaves_at_any_turn_leaves_nothing_behind(required, said):
    turns, finished = 0, False
    while not finished:
        async with scene(required=required) as one:
            serving = asyncio.ensure_future(answering(one.backend, said))

            async def leaves(one=one):
                response = await one.one()
                if response.stream is not None:
                    await whole(response.stream)

            task = asyncio.ensure_future(leaves())
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(30):
                response = await one.one()  # the next is served, whatever was left
                if response.stream is not None:
                    assert await whole(response.stream) == b"data: 1\n\ndata: 2\n\n"
                while one.streams or one.active or one._opening is not None:
                    await asyncio.sleep(0.001)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        turns += 1
    assert turns > 5
