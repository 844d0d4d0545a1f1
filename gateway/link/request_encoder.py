"""A gateway's request as the REQUEST frame of one link.

What requests of a kind have in common is the head: said once, and from then on by the number of its slot. What differs
each time stands beside it: who the client is, the request's id, its trace. Contract: `docs/link.md`.
"""

from __future__ import annotations

from typing import Final

from gateway.link import encoder
from gateway.link.encoder import SentHeads
from gateway.link.frames import MAX_REMEMBERED, Settings
from gateway.request import Request

#: Request fields that differ each time: said beside the head, which is then the same for many requests.
_CHANGING: Final = (b"traceparent", b"tracestate", b"baggage", b"idempotency-key")
_PLAIN_CONNECTION: Final = (b"keep-alive", b"close", b"Keep-Alive")
_MAX_PEERS: Final = 4096  # fields kept ready, one per client address
_MAX_DEADLINE: Final = 0xFFFFFFFF  # microseconds: 71 minutes
_ID_START: Final = tuple(encoder.field(b"x-request-id", bytes(size).replace(b"\x00", b"-"))[:3] for size in range(256))


class RequestEncoder:
    """Of one link, whose other end allows `theirs`."""

    __slots__ = ("_dropped", "_heads", "_max_head", "_skipped", "_via")

    def __init__(self, theirs: Settings) -> None:
        self._heads = SentHeads(theirs.slots)
        self._max_head = theirs.max_head
        self._dropped: frozenset[bytes] = frozenset()
        self._skipped: frozenset[bytes] = frozenset()
        self._via: dict[bytes, bytes] = {}

    def encode(
        self,
        out: list[bytes],
        stream: int,
        request: Request,
        target: bytes,
        authority: bytes,
        deadline_us: int,
        dropped: frozenset[bytes],
        inline: int,
        *,
        end: bool,
    ) -> None:
        """Appends a REQUEST to `out`, up to its body, of which `inline` bytes follow; without the fields in `dropped`.

        ValueError, and nothing appended: this request cannot be said on this link.
        """
        headers = request.headers
        if dropped is not self._dropped:
            self._dropped = dropped
            self._skipped = dropped.union(_CHANGING)
        skipped = self._skipped
        named = headers.get(b"connection")
        if named is not None and named not in _PLAIN_CONNECTION:
            skipped = skipped.union([name.strip().lower() for name in named.split(b",")])
        parts = [request.method, target, headers.get(b"host", authority)]
        for name, value in headers.items():
            if name not in skipped:
                parts.append(name)
                parts.append(value)

        via, number = request.via, request.id
        extra = (self._via.get(via) or self._vouch(via)) + _ID_START[len(number)] + number
        for name in _CHANGING:
            if name in headers and name not in dropped:
                extra += encoder.field(name, headers[name])
        if len(extra) > 65_535:
            raise ValueError("the fields are too large for the link")

        key = b"\x00".join(parts)  # no part holds a NUL: the front door refuses it, and `_new_head` too
        slot = self._heads.find(key)
        if slot:
            head = b""
        else:
            head = self._new_head(parts)
            if len(head) <= MAX_REMEMBERED:
                slot = self._heads.learn(key)  # last: a slot is only for what is sent

        start = encoder.request_start(
            stream, min(deadline_us, _MAX_DEADLINE), slot, len(extra), len(head), inline, end=end
        )
        out += (start, extra, head)

    def _new_head(self, parts: list[bytes]) -> bytes:
        fields = [(b"host", parts[2])] + [(parts[i], parts[i + 1]) for i in range(3, len(parts), 2)]
        head = encoder.request_head(parts[0], parts[1], fields)
        if len(head) > self._max_head:
            raise ValueError("the head is too large for this backend")
        return head

    def _vouch(self, via: bytes) -> bytes:
        """The fields that say who the client is."""
        if len(self._via) >= _MAX_PEERS:
            self._via.clear()
        lines = [line.split(b": ", 1) for line in via.split(b"\r\n") if line]
        known = self._via[via] = b"".join([encoder.field(name, value) for name, value in lines])
        return known
