"""What a backend is sent: the request serialised anew, never copied through.

Dropped: hop-by-hop fields and those that `Connection` names (RFC 9110 section 7.6.1), framing (said anew), the
caller's key, and forwarding fields a client may have forged. Added: who asked, the request's id and the time left.
"""

from __future__ import annotations

from typing import Final

from gateway.request import Request

_DROPPED: Final = frozenset(
    (
        b"connection", b"content-length", b"expect", b"forwarded", b"grpc-timeout", b"host", b"keep-alive",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip",
        b"x-request-id", b"x-request-timeout",
    )
)  # fmt: skip


def dropped_fields(key_header: bytes) -> frozenset[bytes]:
    """The fields never sent on, for a snapshot whose callers put their key in `key_header`."""
    return _DROPPED | {key_header}


def serialise(request: Request, target: bytes, authority: bytes, timeout_ms: int, dropped: frozenset[bytes]) -> bytes:
    """The bytes of one attempt. `timeout_ms` is what is left of the request's time."""
    headers = request.headers
    named = headers.get(b"connection")
    if named is not None and named not in (b"keep-alive", b"close", b"Keep-Alive"):
        dropped = dropped | {name.strip().lower() for name in named.split(b",")}
    parts = [
        request.method, b" ", target, b" HTTP/1.1\r\nhost: ", headers.get(b"host", authority),
        b"\r\n", request.via, b"x-request-id: ", request.id,
        b"\r\nx-request-timeout: %dms\r\n" % timeout_ms,
    ]  # fmt: skip
    for name, value in headers.items():
        if name not in dropped:
            parts += (name, b": ", value, b"\r\n")
    body = request.body
    if body or request.method in (b"POST", b"PUT", b"PATCH"):
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
    else:
        parts.append(b"\r\n")
    return b"".join(parts)
