"""What a limit is: its scope (what a bucket is keyed by), its bucket, and how it speaks in headers.

Header fields follow draft-ietf-httpapi-ratelimit-headers-11: `RateLimit-Policy: "name";q=200;w=2` states the
quota, `RateLimit: "name";r=50;t=1` what is left now and the seconds until it is whole again (when refused: until
the next request can be admitted, so that `Retry-After` is never earlier than the end of `t`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from gateway.limits.bucket import BucketSpec, full_s, wait_s
from gateway.request import Request

OnStoreFailure = Literal["local", "open", "closed"]

#: scope name in the configuration -> what the bucket is keyed by. A new scope is one line here.
SCOPES: Final[dict[str, Callable[[Request, bytes], bytes]]] = {
    "client": lambda request, _route: request.client or request.peer,
    "ip": lambda request, _route: request.peer,
    "route": lambda _request, route: route,
    "global": lambda _request, _route: b"*",
}


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """One named limit. `rate` tokens per second up to `burst` tokens."""

    name: str
    scope: str
    spec: BucketSpec
    on_store_failure: OnStoreFailure = "local"
    legacy_headers: bool = False
    argv: tuple[bytes, bytes] = (b"", b"")  # rate and burst as the script reads them
    left: bytes = b""  # the RateLimit member, but for its two numbers

    def __post_init__(self) -> None:
        object.__setattr__(self, "argv", (b"%r" % float(self.spec.rate), b"%r" % float(self.spec.burst)))
        object.__setattr__(self, "left", b'"%s";r=%%d;t=%%d' % self.name.encode())

    def policy_header(self) -> bytes:
        """The RateLimit-Policy member; constant, so it is built once per snapshot."""
        window = max(1, math.ceil(self.spec.burst / self.spec.rate))
        return b'"%s";q=%d;w=%d' % (self.name.encode(), int(self.spec.burst), window)

    def left_header(self, tokens: float, *, allowed: bool) -> bytes:
        """The RateLimit member for a bucket that holds `tokens` after the decision."""
        spec = self.spec
        full = math.ceil((spec.burst - tokens) / spec.rate) if allowed else self.seconds(tokens, allowed=False)
        return self.left % (tokens, full)

    def seconds(self, tokens: float, *, allowed: bool) -> int:
        """Whole seconds: until full when admitted, until the next admission (at least 1) when refused."""
        if allowed:
            return math.ceil(full_s(self.spec, tokens))
        return max(1, math.ceil(wait_s(self.spec, tokens)))
