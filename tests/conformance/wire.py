"""The client's side of a run: raw bytes out, strictly read answers in."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Final, NamedTuple, Self

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\x20-\x7e]*")
_FIELD: Final = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+:[ \t]*[\x20-\x7e\x80-\xff\t]*", re.IGNORECASE)


class Reply(NamedTuple):
    """An answer: `raw` is its head as it came."""

    status: int
    raw: bytes
    body: bytes


class Client:
    """One connection. Everything fails after `patience` seconds rather than hang."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float) -> None:
        self.reader = reader
        self.writer = writer
        self.patience = patience

    @classmethod
    async def connect(cls, port: int, patience: float = 30.0) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 22), patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, head_only: bool = False) -> Reply:
        """The next final answer. Raises IncompleteReadError or a ConnectionError where none comes."""
        async with asyncio.timeout(self.patience):
            while True:
                raw = await self.reader.readuntil(b"\r\n\r\n")
                line, *fields = raw[:-4].split(b"\r\n")
                match = _STATUS.fullmatch(line)
                assert match, line
                for field in fields:
                    assert _FIELD.fullmatch(field), field
                status = int(match[1])
                if status >= 200:
                    break
            named = [field.partition(b":") for field in fields]
            lengths = [int(value) for name, _, value in named if name.lower() == b"content-length"]
            assert len(lengths) < 2, raw
            assert not any(name.lower() == b"transfer-encoding" for name, _, _ in named), raw
            length = 0 if head_only or status in (204, 304) or not lengths else lengths[0]
            return Reply(status, raw, await self.reader.readexactly(length))

    async def rest(self) -> bytes:
        """What still comes until the other side closes; a reset counts as closing."""
        rest = b""
        async with asyncio.timeout(self.patience):
            with contextlib.suppress(ConnectionError):
                while chunk := await self.reader.read(65536):
                    rest += chunk
        return rest


async def canary(client: Client, number: int) -> None:
    """Asks for a thing of its own, and must get that."""
    target = b"/canary/%d" % number
    client.send(b"GET %s HTTP/1.1\r\nHost: canary\r\n\r\n" % target)
    reply = await client.reply()
    assert (reply.status, reply.body) == (200, target), reply
