"""A backend's end of a link that does what a test says, and a transport that writes nowhere."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.link import encoder, frames
from gateway.link.decoder import Decoder
from gateway.link.frames import Settings
from gateway.request import Request
from gateway.upstreams.forward import dropped_fields
from tests.link.encode import Recorder

DROPPED = dropped_fields(b"x-api-key")
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sluice-link/1\r\n\r\n"
SERVER = Settings(max_streams=1024)


def request(method=b"POST", target=b"/x", body=b"", **fields):
    headers = {b"host": b"a", **{name.replace("_", "-").encode(): value for name, value in fields.items()}}
    one = Request(method, target, target, headers, body, peer=b"192.0.2.7")
    one.via = b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\n"
    one.id = b"id-1"
    return one


class Session(Recorder):
    """One accepted link. `heard()` waits for the next frame; `say` writes bytes."""

    def __init__(self, reader, writer):
        super().__init__()
        self.reader, self.writer = reader, writer
        self.decoder = Decoder(self, Settings(frames.MIN_MAX_FRAME), client=False)
        self.taken = 0

    def say(self, *data):
        self.writer.write(b"".join(data))

    async def heard(self, kind=None):
        """The next frame, or the next of a kind."""
        async with asyncio.timeout(30):
            while True:
                while self.taken < len(self.seen):
                    self.taken += 1
                    one = self.seen[self.taken - 1]
                    if kind in (None, one["type"]):
                        return one
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self.decoder.feed(data)

    async def closed(self):
        """Waits for the client to close."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                await self.heard()

    def close(self):
        self.writer.transport.abort()


class LinkBackend:
    """Listens on a free port; `answer` is what the Upgrade is answered with, HELLO included."""

    def __init__(
        self, answer=ACCEPTED + encoder.hello(SERVER), plain=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhttp"
    ):
        self.answer = answer
        self.plain = plain
        self.sessions: asyncio.Queue[Session] = asyncio.Queue()
        self.upgrades = 0
        self.requests = 0
        self._open = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _accept(self, reader, writer):
        self._open.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"upgrade: sluice-link/1\r\n" not in head:
                    self.requests += 1
                    writer.write(self.plain)
                    continue
                self.upgrades += 1
                writer.write(self.answer)
                if self.answer.startswith(b"HTTP/1.1 101"):
                    self.sessions.put_nowait(Session(reader, writer))
                    return

    async def session(self):
        async with asyncio.timeout(30):
            one = await self.sessions.get()
            await one.heard("hello")
            return one


class Nowhere:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = []
        self.closed = False

    def write(self, data):
        self.written.append(data)

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = True
