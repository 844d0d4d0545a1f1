"""Who is calling: an API key in a header, known by its SHA-256. Keys are high-entropy, so a fast hash is right.

Invariants: the key itself is never written down, logged or sent on to a backend; a wrong key is refused (401) and never
treated as no key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.request import Request


@dataclass(frozen=True, slots=True)
class KeyRing:
    """`clients` maps the hex SHA-256 of a key to a client's name, `tenants` a client to whom it belongs."""

    header: bytes = b"x-api-key"
    clients: Mapping[str, str] | None = None
    anonymous: bool = True
    tenants: Mapping[bytes, bytes] | None = None
    _seen: dict[bytes, bytes] = field(default_factory=dict)  # good keys, so that each is hashed once

    def identify(self, request: Request) -> bytes | None:
        """The client's name; empty for an anonymous caller; None when the caller must be refused."""
        key = request.headers.get(self.header)
        if key is None:
            return b"" if self.anonymous else None
        seen = self._seen.get(key)
        if seen is not None:
            return seen
        name = (self.clients or {}).get(hashlib.sha256(key).hexdigest())
        if name is None:
            return None
        self._seen[key] = name.encode()
        return self._seen[key]
