"""Header fields that no edit may touch: how a message is framed, which connection it is on, and what is ours to say."""

from __future__ import annotations

from typing import Final

#: Hop by hop (RFC 9110 section 7.6.1) and framing.
CONNECTION: Final = frozenset(
    (
        "connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-authenticate",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    )
)  # fmt: skip

#: Said to backends by `upstreams.forward` (and `host` by a rewrite).
OWN_REQUEST: Final = CONNECTION | {
    "forwarded", "grpc-timeout", "host", "traceparent", "via", "x-forwarded-for", "x-forwarded-host",
    "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id", "x-request-timeout", "x-shadow",
}  # fmt: skip

#: Said to clients by the pipeline and the front door.
OWN_RESPONSE: Final = CONNECTION | {
    "age", "cache-status", "date", "degraded", "proxy-status", "ratelimit", "ratelimit-policy", "retry-after",
    "server-timing", "via", "x-attempts", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
    "x-request-id",
}  # fmt: skip
