"""Which of a request's fields a backend is never sent, whatever the protocol.

Dropped: hop-by-hop fields (RFC 9110 section 7.6.1; those that `Connection` names are dropped where the request is
said), framing (said anew), the caller's key, and forwarding fields a client may have forged.
"""

from __future__ import annotations

from typing import Final

_DROPPED: Final = frozenset(
    (
        b"connection", b"content-length", b"expect", b"forwarded", b"grpc-timeout", b"host", b"keep-alive",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"via",
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip",
        b"x-request-id", b"x-request-timeout", b"x-shadow",
    )
)  # fmt: skip


def dropped_fields(key_header: bytes, *more: bytes) -> frozenset[bytes]:
    """The fields never sent on, for a snapshot whose callers put their key in `key_header`; `more` are ours to say.

    With every underscore spelling: a backend behind CGI or WSGI reads all of them as one field.
    """
    return frozenset(spelling for name in (*_DROPPED, key_header, *more) for spelling in _spellings(name))


def _spellings(name: bytes) -> set[bytes]:
    found = {b""}
    for byte in name:
        found = {begun + last for begun in found for last in ((b"-", b"_") if byte == 0x2D else (bytes((byte,)),))}
    return found
