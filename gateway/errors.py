"""The whole error tree. Each error carries the status it is answered with, its problem type, and what to do.

Expected refusals (a limit, an open breaker) are not here: they are values (see `gateway.problems`).
Everything raised on purpose derives from `GatewayError`, so a caller can tell our errors from bugs.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

#: What the system says where a disk, or our share of it, is full: that is over some time, what else it says is not.
DISK_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class GatewayError(Exception):
    """Base of every error the gateway raises on purpose."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"


class ProtocolError(GatewayError):
    """The client's bytes are not a request we accept; the connection closes after the answer.

    The status differs by what was wrong, so it is an instance attribute here (h11's `error_status_hint`).
    """

    title: ClassVar[str] = "Bad request"

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.error_status = status


class UpstreamError(GatewayError):
    """A backend could not be reached or did not answer properly."""

    status: ClassVar[int] = 502
    title: ClassVar[str] = "Backend failed"
    proxy_error: ClassVar[bytes] = b"proxy_internal_error"  # RFC 9209 section 2.3


class ConnectFailed(UpstreamError):
    """No connection: refused, unreachable, or not made in time. Nothing was sent, so it is safe to retry."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Backend unreachable"
    proxy_error: ClassVar[bytes] = b"connection_refused"


class TlsFailed(ConnectFailed):
    """The backend was reached, and no TLS connection could be made with it."""

    status: ClassVar[int] = 502
    title: ClassVar[str] = "Backend not secure"
    proxy_error: ClassVar[bytes] = b"tls_protocol_error"


class CertificateRefused(TlsFailed):
    """The backend's certificate does not prove that it is who we mean."""

    proxy_error: ClassVar[bytes] = b"tls_certificate_error"


class PoolExhausted(ConnectFailed):
    """Every connection we allow ourselves to this backend is in use: our own overload, no proof against it."""

    proxy_error: ClassVar[bytes] = b"connection_limit_reached"


class StaleConnection(UpstreamError):
    """A reused keep-alive connection closed before the first byte of an answer: replay it on a new connection."""

    proxy_error: ClassVar[bytes] = b"connection_terminated"


class ConnectionBroken(UpstreamError):
    """The connection closed in the middle of an exchange."""

    proxy_error: ClassVar[bytes] = b"connection_terminated"


class TlsAlert(ConnectionBroken):
    """A TLS alert ended the connection after our end of the handshake; TLS 1.3 refuses client certificates so."""

    proxy_error: ClassVar[bytes] = b"tls_alert_received"


class BadUpstreamResponse(UpstreamError):
    """The backend sent bytes that are not an HTTP response, or one larger than allowed."""

    title: ClassVar[str] = "Backend answered nonsense"
    proxy_error: ClassVar[bytes] = b"http_protocol_error"


class ResponseTooLarge(BadUpstreamResponse):
    """The body of an answer is larger than the pool's max_response."""

    proxy_error: ClassVar[bytes] = b"http_response_body_size"


class UpstreamTimeout(UpstreamError):
    """No complete answer before the deadline."""

    status: ClassVar[int] = 504
    title: ClassVar[str] = "Backend too slow"
    proxy_error: ClassVar[bytes] = b"http_response_timeout"


class LinkViolation(GatewayError):
    """The other end of a link broke the protocol; the connection is over. `code` is what the ERROR frame says."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class StoreError(GatewayError):
    """Redis/Valkey could not be reached, or refused to serve us."""

    title: ClassVar[str] = "Store failed"


class StartError(GatewayError):
    """The gateway cannot start: one line says why and what to do; the exit status is 1."""
