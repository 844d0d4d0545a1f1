"""Answers kept in this worker's memory, to be served fresh for a while and stale when the backends are away.

A key is what the answer depends on: route, method, target, the body's digest and the fields in `KEYED`. The cache
holds at most `max_bytes`; the least recently used answer goes first.
Rules: RFC 9111 (`no-store`, `private`, `Vary` and `Authorization` are honoured), RFC 5861 (stale-if-error).
A POST is cached only because the operator said so on the route: an inference answer is a function of its input.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Final, NamedTuple, Protocol

from gateway.request import Request, Response

REWRITE: Final = 10.0  # seconds
_OVERHEAD: Final = 400  # bytes charged per entry for its key and bookkeeping

#: Fields that a backend is sent and that give the body, or the answer, another meaning.
KEYED: Final = (b"host", b"accept", b"content-type", b"content-encoding", b"inference-header-content-length")
#: What `Vary` may name. An answer without a coding suits whatever Accept-Encoding says; one with a coding is not kept.
_VARIED: Final = frozenset((*KEYED, b"accept-encoding"))
_NOT_STORED: Final = (b"no-store", b"private", b"no-cache", b"must-revalidate", b"proxy-revalidate")


class CacheRules(NamedTuple):
    """Seconds and bytes; one per route."""

    fresh: float
    stale_if_error: float
    max_entry: int


class Entry(NamedTuple):
    """`stored` is when it was made, `written` when it was last put below; monotonic nanoseconds."""

    response: Response
    stored: int
    size: int
    written: int

    def age_s(self, now: int) -> int:
        """Whole seconds since the answer was stored (RFC 9111 section 4.2.3)."""
        return (now - self.stored) // 1_000_000_000


class Stored(NamedTuple):
    """An answer from the level below; `age` in seconds."""

    response: Response
    age: float


class AnswerStore(Protocol):
    """The level below, shared by all workers."""

    def put(self, key: bytes, response: Response, ttl_s: float) -> None: ...
    def get(self, key: bytes) -> Awaitable[Stored | None] | None: ...


class AnswerCache:
    """Bounded in bytes. `now` is monotonic nanoseconds. `below` may be absent: then this worker remembers alone."""

    def __init__(self, max_bytes: int, below: AnswerStore | None = None) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self._below = below
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, max_age_s: float, now: int) -> Entry | None:
        """The entry for `key` if it is not older than `max_age_s` seconds."""
        entry = self._entries.get(key)
        if entry is None or now - entry.stored > max_age_s * 1e9:
            return None
        self._entries.move_to_end(key)
        return entry

    async def find(self, key: bytes, max_age_s: float, now: int) -> Entry | None:
        """As `get`, and then in the level below, whose answer is remembered here."""
        entry = self.get(key, max_age_s, now)
        if entry is not None or self._below is None or not self.max_bytes:
            return entry
        pending = self._below.get(key)
        stored = None if pending is None else await pending
        if stored is None or stored.age > max_age_s:
            return None
        self._keep(key, stored.response, self.max_bytes, now - int(stored.age * 1e9), now)
        return Entry(stored.response, now - int(stored.age * 1e9), 0, now)

    def put(self, key: bytes, response: Response, rules: CacheRules, now: int) -> None:
        """Keeps `response`, here and below, unless it is too large.

        An answer that is asked for again and again is written below once in `REWRITE` seconds only.
        """
        old = self._entries.get(key)
        written = now if old is None or now - old.written > REWRITE * 1e9 else old.written
        if not self._keep(key, response, rules.max_entry, now, written):
            return
        if written == now and self._below is not None:
            self._below.put(key, response, rules.fresh + rules.stale_if_error)

    def _keep(self, key: bytes, response: Response, max_entry: int, stored: int, written: int) -> bool:
        """Drops what is least recently used to make room; False when the answer is too large."""
        size = len(response.body) + _OVERHEAD
        for name, value in response.headers:
            size += len(name) + len(value) + 100  # and what Python's objects weigh
        if size > max_entry or size > self.max_bytes:
            return False
        old = self._entries.pop(key, None)
        if old is not None:
            self.size -= old.size
        self._entries[key] = Entry(response, stored, size, written)
        self.size += size
        self.resize(self.max_bytes)
        return True

    def resize(self, max_bytes: int) -> None:
        """Sets the bound and evicts down to it."""
        self.max_bytes = max_bytes
        while self.size > max_bytes:
            _, entry = self._entries.popitem(last=False)
            self.size -= entry.size


def cache_key(route: bytes, request: Request) -> bytes | None:
    """The key for this request, or None where RFC 9111 forbids to share its answer."""
    headers = request.headers
    if b"authorization" in headers or b"cookie" in headers or request.method not in (b"GET", b"HEAD", b"POST"):
        return None
    control = headers.get(b"cache-control")
    if control is not None and any(word in control.lower() for word in (b"no-store", b"no-cache")):
        return None
    digest = hashlib.blake2b(request.body, digest_size=20)
    for part in (route, request.method, request.target, *(headers.get(name, b"") for name in KEYED)):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def may_store(response: Response) -> bool:
    """Whether a backend's answer may be kept: complete, successful and not forbidden by its Cache-Control."""
    if response.status != 200:
        return False
    for name, value in response.headers:
        if name == b"cache-control" and any(word in value.lower() for word in _NOT_STORED):
            return False
        if name == b"vary" and not _VARIED.issuperset([field.strip().lower() for field in value.split(b",")]):
            return False
        if name in (b"set-cookie", b"content-encoding"):
            return False
    return True
