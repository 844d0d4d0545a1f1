"""The second level of the answer cache: answers in Redis/Valkey, for all workers and gateways that share the store.

Implements `degrade.cache.AnswerStore`. Writing is fire and forget, small answers only, so that a large value never
holds up a limit decision on the same connection. Format: a JSON head in one line, then the body as it was.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any, Final

import hiredis
import orjson

from gateway.degrade.cache import Stored
from gateway.request import Response
from gateway.store.link import StoreLink

LARGEST: Final = 64 * 1024  # bytes
_BREAK: Final = re.compile(rb"[\r\n\0]")  # would end a header field early


class SharedAnswers:
    """One per worker; `link(key)` is the line to the server that has the key. Nothing here raises, or waits longer than
    the link's deadline.
    """

    def __init__(self, link: Callable[[bytes], StoreLink | None], prefix: str) -> None:
        self._link = link
        self._prefix = f"{prefix}:answer:".encode()
        self.failures = 0

    def put(self, key: bytes, response: Response, ttl_s: float) -> None:
        """Keeps `response` for `ttl_s` seconds, if the store is there and the answer is small."""
        name = self._prefix + key.hex().encode()
        link = self._link(name)
        connection = link.connection if link is not None else None
        if connection is None or len(response.body) > LARGEST:
            return
        headers = [(field.decode("latin-1"), value.decode("latin-1")) for field, value in response.headers]
        head = orjson.dumps({"at": time.time(), "status": response.status, "headers": headers})
        value = head + b"\n" + response.body
        command = (b"SET", name, value, b"PX", max(1, int(ttl_s * 1000)))
        connection.send(hiredis.pack_command(command), self._stored)  # type: ignore[arg-type]  # the stub says 1-tuple

    def _stored(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            self.failures += 1

    def get(self, key: bytes) -> asyncio.Future[Stored | None] | None:
        """The answer with its age; None at once while the store is away, None later when it has none."""
        name = self._prefix + key.hex().encode()
        link = self._link(name)
        connection = link.connection if link is not None else None
        if link is None or connection is None:
            return None
        future: asyncio.Future[Stored | None] = link.loop.create_future()

        def on_reply(reply: Any) -> None:
            if not future.done():
                future.set_result(_read(reply) if isinstance(reply, bytes) else None)

        command = (b"GET", name)
        connection.send(hiredis.pack_command(command), on_reply)  # type: ignore[arg-type]  # the stub says 1-tuple
        return future


def _read(value: bytes) -> Stored | None:
    """What `put` wrote; None for anything else, for the store may be shared with others."""
    head, _, body = value.partition(b"\n")
    try:
        about = orjson.loads(head)
        headers = [(str(name).encode("latin-1"), str(text).encode("latin-1")) for name, text in about["headers"]]
        if about["status"] != 200 or any(_BREAK.search(name + text) for name, text in headers):
            return None
        age = max(0.0, time.time() - float(about["at"]))
        return Stored(Response(200, headers, body), age)
    except (ValueError, KeyError, TypeError):
        return None
