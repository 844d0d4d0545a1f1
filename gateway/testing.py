"""The public test kit: time that stands still, a backend that does what it is told, a client that sends raw bytes.

Nothing here knows the gateway's own HTTP code, so that a fault cannot hide on both sides of a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self


class FakeClock:
    """Monotonic nanoseconds that move only when told to."""

    def __init__(self, now: int = 1_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> int:
        """Moves on; returns the new time."""
        self.now += round(seconds * 1e9)
        return self.now


# -- what a backend can be told to do ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Writes these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Does nothing for a while."""

    seconds: float


class Echo:
    """Answers with the request's own target as the body."""


class Close:
    """Closes the connection (FIN)."""


class Reset:
    """Breaks the connection (RST)."""


class Never:
    """Does nothing until the connection ends."""


Action = Say | Pause | Echo | Close | Reset | Never
Exchange = Action | Sequence[Action]


def answer(
    body: bytes = b"ok", status: int = 200, *, headers: Sequence[tuple[str, str]] = (), reason: str = "Whatever"
) -> Say:
    """A whole, well-formed, persistent answer."""
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", *(f"{n}: {v}" for n, v in headers)]
    return Say("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


OK: Final = answer()


class ScriptedBackend:
    """An HTTP/1.1 server on a free port of 127.0.0.1, or on a unix socket, that follows scripts.

    Each connection takes the next script; the last one serves for all that follow. A script is what to do for the
    first, second, ... request of the connection; its last entry serves for all that follow. `requests` holds every
    request as it came, `connections` counts what was accepted.
    """

    def __init__(
        self, *scripts: Sequence[Exchange], tls: ssl.SSLContext | None = None, unix_path: str | None = None
    ) -> None:
        self.tls = tls
        self.unix_path = unix_path
        self.scripts: list[Sequence[Exchange]] = list(scripts) or [[OK]]
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens; after a `stop` on the same port again."""
        if self.unix_path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self.unix_path, ssl=self.tls)
            return
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and breaks every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        self.open += 1
        try:
            await self._follow(script, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def _follow(
        self, script: Sequence[Exchange], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        number = 0
        while True:
            request = await _one_request(reader)
            self.requests.append(request)
            exchange = script[min(number, len(script) - 1)]
            number += 1
            for action in exchange if isinstance(exchange, Sequence) else (exchange,):
                match action:
                    case Say(data):
                        writer.write(data)
                        await writer.drain()
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case Echo():
                        writer.write(answer(request.split(b" ", 2)[1]).data)
                    case Close():
                        writer.close()
                        with contextlib.suppress(ConnectionError):
                            await writer.wait_closed()
                        return
                    case Reset():
                        linger = struct.pack("ii", 1, 0)
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        writer.transport.abort()
                        return
                    case Never():
                        await reader.read()
                        return


async def _one_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)


# -- a client ---------------------------------------------------------------------------------------------------


class Reply(NamedTuple):
    """A response as a client reads it; header names in lower case, in the order they came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The only value of `name`; several are a fault of the test or of the gateway."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, (name, values)
        return values[0] if values else None


class RawClient:
    """One connection on which a test writes whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """To a port of 127.0.0.1."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, head_only: bool = False) -> Reply:
        """The next response, interim ones included; fails after 5 seconds rather than hang."""
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            status = int(head[0].split(" ")[1])
            headers = [
                (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)
            ]
            length = int(dict(headers).get("content-length", "0"))
            body = b"" if head_only or status < 200 or status in (204, 304) else await self.reader.readexactly(length)
            return Reply(status, headers, body)

    async def get(self, target: str = "/", *fields: str) -> Reply:
        """A GET and its response."""
        lines = [f"GET {target} HTTP/1.1", "Host: test", *fields]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        return await self.reply()

    async def ended(self) -> bytes:
        """Whatever still comes until the other side closes (a reset counts as closing)."""
        rest = b""
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                while chunk := await self.reader.read(65536):
                    rest += chunk
        return rest

    def close(self) -> None:
        self.writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
