"""The host a request is for."""

from __future__ import annotations

from gateway.request import Request


def host_name(request: Request) -> bytes:
    """The Host field in lower case, without its port."""
    host = request.headers.get(b"host", b"").lower()
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() else host
