"""What a limit is: its scope (what a bucket is keyed by), its bucket or its places, and how it speaks in headers.

Header fields follow draft-ietf-httpapi-ratelimit-headers-11: `RateLimit-Policy: "name";q=200;w=2` states the
quota, `RateLimit: "name";r=50;t=1` what is left now and the seconds until it is whole again (when refused: until
the next request can be admitted, so that `Retry-After` is never earlier than the end of `t`).
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Final, Literal

from gateway.limits.bucket import BucketSpec, full_s, wait_s
from gateway.limits.costs import BodyCost, Cost
from gateway.limits.scopes import ClientScope, Scope

OnStoreFailure = Literal["local", "open", "closed"]
Mode = Literal["exact", "leased"]

SHADOW: Final = 1  # bits of the kind of a limit, as the script reads it
PLACES: Final = 2
LONGEST: Final = 366 * 86_400  # seconds; nobody is told to wait longer
_PERIODS: Final = {"s": "second", "m": "minute", "h": "hour"}
_LIMIT: Final = struct.Struct("<Bddd")


class LimitPolicy:
    """One named limit, immutable.

    A bucket: `spec.rate` tokens per second up to `spec.burst` tokens. With `concurrent` (places) set it is no bucket:
    that many requests may be under way. `shadow`: decided and counted, never refuses. `overrides`: other figures
    for single keys. `partition` shows in the headers (`pk`) which bucket a request fell into, as a digest. `written` is
    the rate as the user wrote it, such as 100/m.
    """

    def __init__(
        self,
        name: str,
        scope: Scope | None = None,
        spec: BucketSpec | None = None,
        on_store_failure: OnStoreFailure = "local",
        legacy_headers: bool = False,
        *,
        cost: Cost | None = None,
        mode: Mode = "exact",
        concurrent: int = 0,
        shadow: bool = False,
        partition: bool = False,
        overrides: Mapping[bytes, LimitPolicy] | None = None,
        written: str = "",
    ) -> None:
        self.name = name
        self._written = written
        self.scope: Scope = ClientScope() if scope is None else scope
        self.spec = BucketSpec(float(concurrent), float(concurrent)) if spec is None else spec
        self.on_store_failure: OnStoreFailure = on_store_failure
        self.legacy_headers = legacy_headers
        self.cost: Cost = Cost() if cost is None else cost
        self.leased = mode == "leased" and not concurrent
        self.concurrent = concurrent
        self.shadow = shadow
        self.partition = partition
        self.overrides: dict[bytes, LimitPolicy] = dict(overrides or {})
        self._each = self.cost.bytes_each if isinstance(self.cost, BodyCost) else 1  # what the unit is of a token
        #: As the script reads it.
        kind = (SHADOW if shadow else 0) | (PLACES if concurrent else 0)
        self.packed: bytes = _LIMIT.pack(kind, self.spec.rate, self.spec.burst, self.cost.tokens)
        unit = "concurrent-requests" if concurrent else self.cost.unit
        quota = b'"%s";q=%d' % (name.encode(), int(self.spec.burst) * self._each)
        if unit and unit != "requests":
            quota += b';qu="%s"' % unit.encode()
        if not concurrent:
            quota += b";w=%d" % max(1, math.ceil(self.spec.burst / self.spec.rate))
        self._quota = quota
        self._left = b'"%s";r=' % name.encode()

    def figures(self) -> str:
        """The limit in words, for who was refused."""
        if self.concurrent:
            return f"{self.concurrent} requests at once"
        if self._each != 1:
            what = f"tokens of {self._each} bytes"
        else:
            what = "bytes" if self.cost.unit == "content-bytes" else self.cost.unit or "requests"
        count, _, period = (self._written or f"{self.spec.rate:.6g}/s").partition("/")
        return f"{count.strip()} {what} per {_PERIODS[period.strip()]}, {self.spec.burst:.10g} at once"

    def policy_header(self, key: bytes = b"") -> bytes:
        """The RateLimit-Policy member; constant but for `pk`."""
        return self._quota + self._pk(key) if self.partition else self._quota

    def left_header(self, tokens: float, *, allowed: bool, cost: float = 1.0, key: bytes = b"") -> bytes:
        """The RateLimit member for a bucket that holds `tokens` (or has as many places) after the decision."""
        spec = self.spec
        left = max(0, int(tokens * self._each))  # a settled cost may have left it below nothing
        said = self._left + str(left).encode()
        if not self.concurrent:
            until = math.ceil((spec.burst - tokens) / spec.rate) if allowed else self.seconds(tokens, cost)
            said += b";t=" + str(until).encode()
        return said + self._pk(key) if self.partition else said

    def seconds(self, tokens: float, cost: float = 1.0) -> int:
        """Whole seconds until a refused request can be admitted, at least 1; what never can waits for a full bucket."""
        if self.concurrent:
            return 1
        return min(LONGEST, max(1, math.ceil(wait_s(self.spec, tokens, min(cost, self.spec.burst)))))

    def full_in(self, tokens: float) -> int:
        """Whole seconds until the bucket is full."""
        return 0 if self.concurrent else math.ceil(full_s(self.spec, tokens))

    @staticmethod
    def _pk(key: bytes) -> bytes:
        return b";pk=:%s:" % base64.b64encode(hashlib.blake2b(key, digest_size=9).digest())
