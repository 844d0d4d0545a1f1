"""The recording origin: a backend that reads strictly, remembers every byte, and answers as it is told.

It shares no code with the gateway. What it cannot read as one plain request it notes in `faults`; bytes behind a
request that is not yet answered are a fault too, for nobody pipelines towards a backend.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final, Self

_LINE: Final = re.compile(rb"([A-Z-]+) (/[\x21-\x7e]*) HTTP/1\.[01]")
_FIELD: Final = re.compile(rb"([a-z0-9!#$%&'*+.^_`|~-]+): ?([\x20-\x7e\x80-\xff\t]*)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")


class Fault(Exception):
    """Bytes that are not one plain request."""


class Seen:
    """One request as it came: `raw` is all of it, `connection` which connection it came on."""

    def __init__(self, raw: bytes, connection: int, head: bytes, body: bytes) -> None:
        self.raw = raw
        self.connection = connection
        self.body = body
        line, *fields = head.split(b"\r\n")
        self.method, self.target, _ = line.split(b" ")
        self.fields = [field.lower() for field in fields]

    def __repr__(self) -> str:
        return f"<{self.raw!r} on {self.connection}>"


Step = bytes | float | None  # says, pauses for seconds, or closes
Script = Callable[[Seen], Sequence[Step]]


def echo(seen: Seen) -> Sequence[Step]:
    """The request's own target, over a connection that stays open."""
    body = b"" if seen.method == b"HEAD" else seen.target
    return (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body,)


class Origin:
    """Listens on a port of 127.0.0.1; `script` decides what is answered."""

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.faults: list[str] = []
        self.port = 0
        self._count = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 20, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._count += 1
        number = self._count
        try:
            while await self._serve(number, reader, writer):
                pass
        except Fault as fault:
            self.faults.append(f"connection {number}: {fault}")
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
        length = self._check(head)
        body = await reader.readexactly(length or 0)
        seen = Seen(head + b"\r\n\r\n" + body, number, head, body)
        self.seen.append(seen)
        await asyncio.sleep(0)
        behind = bytes(reader._buffer)  # type: ignore[attr-defined]
        if behind:
            raise Fault(f"bytes behind a request: {behind!r}")
        for step in self.script(seen):
            if step is None:
                writer.close()
                await writer.wait_closed()
                return False
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                writer.write(step)
                await writer.drain()
        return True

    @staticmethod
    def _check(head: bytes) -> int | None:
        """The stated length of the body. Raises Fault for anything but a plain head."""
        line, *fields = head.split(b"\r\n")
        if _LINE.fullmatch(line) is None:
            raise Fault(f"request line {line!r}")
        lengths, hosts = [], 0
        for field in fields:
            match = _FIELD.fullmatch(field)
            if match is None:
                raise Fault(f"field {field!r}")
            name, value = match[1].lower(), match[2]
            if name == b"transfer-encoding":
                raise Fault(f"field {field!r}")
            hosts += name == b"host"
            if name == b"content-length":
                if _LENGTH.fullmatch(value) is None:
                    raise Fault(f"field {field!r}")
                lengths.append(int(value))
        if hosts != 1 or len(lengths) > 1:
            raise Fault(f"{hosts} Host and {len(lengths)} Content-Length in {head!r}")
        return lengths[0] if lengths else None
