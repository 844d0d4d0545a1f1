"""What a link may be told, tried at random: any bytes for the decoder, any behaviour for a link with streams.

python -m tests.link.fuzz [--cases 100000] [--seed 1]

`fuzz` sends recorded sessions with bytes changed, cut, doubled and put in through the decoder: frames or a LinkViolation.
`Exchanges` plays a backend and the readers of its answers, which do whatever comes to their minds, with or without
mutated bytes in between: every reader gets what was said to it, in order, and an end; credit is never exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

from gateway.errors import GatewayError, LinkViolation
from gateway.http.upstream import ClientLimits
from gateway.link import encoder, frames
from gateway.link.connection import LinkConnection
from gateway.link.decoder import Decoder
from gateway.link.exchange import WINDOW
from gateway.link.frames import Settings
from gateway.link.pulse import LinkLimits
from tests.link.encode import Recorder
from tests.link.peer import ACCEPTED, DROPPED, SERVER, Nowhere, request

VECTORS = Path(__file__).parent.parent / "vectors" / "link"
MAX = 3 * WINDOW  # bytes of one answer
LIMITS = ClientLimits(whole=20_000, gather=0.0, max_response=MAX)
EVENTS = encoder.response_head([(b"content-type", b"text/event-stream")])


def corpus():
    for vector in json.loads((VECTORS / "frames.json").read_text()):
        yield vector["receiver"], bytes.fromhex("".join(frame["hex"] for frame in vector["frames"]))


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del data[at : at + rng.randint(1, 20)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case _:
                data[at:at] = rng.randbytes(rng.randint(1, 12))
        if not data:
            data = bytearray(b"\x00")
    return bytes(data)


def fuzz(cases, rng):
    """Runs the cases; the number that were violations. Anything else that is raised is a bug."""
    seeds = list(corpus())
    violations = 0
    for _ in range(cases):
        receiver, data = rng.choice(seeds)
        data = mutated(data, rng)
        decoder = Decoder(Recorder(), Settings(), client=receiver == "client")
        step = rng.choice((len(data), 1 + rng.randrange(40)))
        try:
            for start in range(0, len(data), step):
                decoder.feed(data[start : start + step])
        except LinkViolation:
            violations += 1
    return violations


class Reader:
    """One exchange as its client sees it, and what the backend has said on it."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.waiter = exchange.future
        self.said = b""
        self.got = b""
        self.begun = self.ended = self.left = False
        self.stated = None

    @property
    def stream(self):
        if not self.waiter.done() or self.waiter.cancelled() or self.waiter.exception() is not None:
            return None
        return self.waiter.result().stream

    def read(self):
        """All that waits, without waiting for more."""
        if self.stream is None or not (self.stream._chunks or self.stream.done):
            return
        try:
            self.stream.read().send(None)
        except StopIteration as read:
            self.got += read.value
        except GatewayError:
            pass

    def leave(self, link):
        self.left = True
        if self.stream is not None:
            self.stream.abandon()
        elif not self.waiter.done():
            self.waiter.cancel()
            link.cancel(self.exchange)


class Exchanges:
    """One link with a few exchanges. Backends that keep to the protocol say everything right but the lengths."""

    def __init__(self, loop, rng):
        self.rng = rng
        self.link = LinkConnection(b"a", LinkLimits(), LIMITS, lambda link: None)
        self.transport = Nowhere()
        self.link.connection_made(self.transport)
        self.link.data_received(ACCEPTED + encoder.hello(SERVER))
        method = rng.choice((b"GET", b"GET", b"GET", b"HEAD"))
        self.readers = [
            Reader(self.link.send(request(method), b"/", b"a", 1000, DROPPED, loop.time() + 99))
            for _ in range(rng.randint(1, 4))
        ]
        self.head_only = method == b"HEAD"
        self.heard = Recorder()
        self.server = Decoder(self.heard, Settings(), client=False)
        self.allowed = [WINDOW] * len(self.readers)

    def listen(self):
        """Reads what the link wrote: nothing but frames, and credit to count."""
        self.link._flush()
        written = b"".join(self.transport.written)
        self.transport.written.clear()
        self.server.feed(written.partition(b"\r\n\r\n")[2] if written.startswith(b"GET /.sluice-link") else written)
        for frame in self.heard.seen:
            if frame["type"] == "window" and frame["stream"]:
                self.allowed[frame["stream"] - 1] += frame["credit"]
        self.heard.seen.clear()

    def answer(self, number, reader):
        """The next frame of an answer, within its credit."""
        rng = self.rng
        size = min(rng.choice((0, 1, 100, 20_001, 65_536)), self.allowed[number])
        if self.head_only:
            size = 0
        body = rng.randbytes(1) * size
        end = rng.random() < 0.2
        if not (reader.begun or end) and rng.random() < 0.3:
            reader.stated = rng.choice((0, 100, 65_536, 100_000))
        if rng.random() < 0.05 and reader.begun:
            reader.ended = True
            return encoder.control(frames.CANCEL, code=rng.randrange(7), stream=number + 1)
        reader.said += body
        self.allowed[number] -= size
        if not reader.begun:
            reader.begun, reader.ended = True, end
            extra = (
                b"" if reader.stated is None else encoder.response_head([(b"content-length", b"%d" % reader.stated)])
            )
            head = rng.choice((b"", EVENTS))
            return encoder.response(number + 1, 200, head, extra=extra, body=body, end=end)
        if not (size or end):
            return b""
        reader.ended = end
        return encoder.data_start(number + 1, size, end=end) + body

    def turn(self):
        rng = self.rng
        number = rng.randrange(len(self.readers))
        reader = self.readers[number]
        match rng.randrange(8):
            case 0 | 1 | 2 if not reader.ended:
                self.say(self.answer(number, reader))
            case 3 | 4:
                reader.read()
            case 5 if rng.random() < 0.2:
                reader.leave(self.link)
            case 6:
                self.link._sweep()  # with `gather` at 0 it hands over what has begun
            case _:
                self.say(rng.choice((encoder.control(frames.PING, b"12345678"), encoder.load(self.link.load))))
        for one in self.readers:
            assert one.stream is None or one.stream._waiting <= WINDOW

    def say(self, data):
        if data and not self.link.lost:
            step = self.rng.choice((len(data), len(data), 1 + self.rng.randrange(5000)))
            for start in range(0, len(data), step):
                if not self.link.lost:
                    self.link.data_received(data[start : start + step])

    def end(self):
        """Loses the link: everybody has an end, and nobody was told what was not said."""
        self.link.connection_lost(None)
        assert self.link.lost
        assert not self.link.streams
        for reader in self.readers:
            assert reader.waiter.done()
            reader.read()
            if reader.stream is not None:
                assert reader.stream.done
            elif not reader.waiter.cancelled() and reader.waiter.exception() is None:
                reader.got = reader.waiter.result().body

    def check(self):
        """After a session in which only the protocol was spoken."""
        for reader in self.readers:
            assert reader.said.startswith(reader.got)
            stream = reader.stream
            if stream is not None and stream._error is None and not reader.left:
                assert reader.ended
                assert reader.got == reader.said
                assert stream.length in (None, len(reader.got))


def fuzz_exchanges(cases, rng):
    """Runs the sessions, half of them with mutated bytes; the number of links that were given up for a violation."""
    loop = asyncio.get_running_loop()
    seeds = [data for receiver, data in corpus() if receiver == "client"]
    given_up = 0
    for case in range(cases):
        one = Exchanges(loop, rng)
        for _ in range(rng.randint(1, 30)):
            one.turn()
            one.listen()
        if case % 2:
            one.say(mutated(rng.choice(seeds)[52:], rng))
            given_up += one.link.lost
        else:
            assert not one.link.lost
        one.end()
        if not case % 2:
            one.check()
        if one.link._sweeper is not None:
            one.link._sweeper.cancel()
    return given_up


async def main():
    """Both, for as many cases each."""
    parser = argparse.ArgumentParser(prog="python -m tests.link.fuzz")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for what, run in (("mutated recordings", fuzz), ("sessions with streams", fuzz_exchanges)):
        began = time.monotonic()
        found = run(options.cases, random.Random(options.seed))
        print(f"{options.cases} {what}: {found} violations, no other error, {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
