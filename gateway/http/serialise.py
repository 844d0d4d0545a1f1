"""A request as HTTP/1.1 says it to a backend: serialised anew, never copied through.

Added: who asked and through whom, the request's id, the time left, and framing. Left out: what the caller names,
and what the client's `Connection` names (RFC 9110 section 7.6.1).
"""

from __future__ import annotations

from gateway.request import Request


def serialise(request: Request, target: bytes, authority: bytes, left: bytes, dropped: frozenset[bytes]) -> bytes:
    """The bytes of one attempt. `left` is the line that says what is left of the request's time, or b""."""
    headers = request.headers
    named = headers.get(b"connection")
    if named is not None and named not in (b"keep-alive", b"close", b"Keep-Alive"):
        dropped = dropped | {name.strip().lower() for name in named.split(b",")}
    parts = [
        request.method, b" ", target, b" HTTP/1.1\r\nhost: ", headers.get(b"host", authority),
        b"\r\n", request.via, b"x-request-id: ", request.id,
        b"\r\n", left,
    ]  # fmt: skip
    for name, value in headers.items():
        if name not in dropped:
            parts += (name, b": ", value, b"\r\n")
    body = request.body
    stream = request.stream
    if stream is not None:
        if request.upgrade:
            parts.append(b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % request.upgrade)
        elif stream.length is None:
            parts.append(b"transfer-encoding: chunked\r\n\r\n")
        else:
            parts.append(b"content-length: %d\r\n\r\n" % stream.length)
    elif body or request.method in (b"POST", b"PUT", b"PATCH"):
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
    else:
        parts.append(b"\r\n")
    return b"".join(parts)
