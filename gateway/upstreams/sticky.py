"""Sticky sessions: a cookie of ours names the backend a client came to, and brings it back there.

The cookie holds an HMAC of the pool and the backend's address under a secret of the gateway: it says nothing about
addresses, and nobody can make one up. A backend that is away, or has no weight, is not waited for: the request is
balanced like any other, and the answer moves the session to the backend that gave it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from gateway.request import Request, Response
from gateway.upstreams.backend import Backend

_DIGEST: Final = 12  # bytes: 96 bits, 16 characters


class Sticky:
    """Of one pool. `attributes` are those of the cookie, as in `; Path=/; HttpOnly`."""

    __slots__ = ("_backends", "_cookie", "_lines", "_tokens")

    def __init__(self, cookie: bytes, attributes: bytes, secret: bytes, backends: Sequence[Backend]) -> None:
        self._cookie = cookie
        self._tokens: dict[str, bytes] = {}
        self._lines: dict[str, bytes] = {}
        self._backends: dict[bytes, Backend] = {}
        for backend in backends:
            digest = hmac.digest(secret, backend.key.encode(), hashlib.sha256)[:_DIGEST]
            token = base64.urlsafe_b64encode(digest)
            self._tokens[backend.key] = token
            self._backends[token] = backend
            self._lines[backend.key] = cookie + b"=" + token + attributes

    def find(self, request: Request) -> Backend | None:
        """The backend that the request's cookie names, whatever its state."""
        token = request.cookie(self._cookie)
        return self._backends.get(token) if token else None

    def keep(self, request: Request, response: Response, backend: Backend) -> None:
        """Ties the client to `backend`, which answered, unless it is tied already."""
        if request.cookie(self._cookie) != self._tokens.get(backend.key):
            response.headers.append((b"set-cookie", self._lines[backend.key]))
