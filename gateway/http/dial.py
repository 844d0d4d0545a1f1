"""Opening a connection to a backend: TCP or a unix socket, then TLS where it is wanted.

Invariants: one clock runs over both steps; what did not work out leaves no socket open; the protocol is told of its
transport once, when it can be written to, so that a handshake is nobody else's business. A half-closed TLS connection
cannot be had from asyncio.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.certificates import ClientTls
from gateway.errors import CertificateRefused, ConnectFailed, TlsFailed

_GOODBYE: Final = 1.0  # seconds for the backend to answer our close_notify


@dataclass(frozen=True, slots=True)
class Address:
    """Where a backend listens: `host` and `port`, or `unix_path`."""

    host: str = ""
    port: int = 0
    unix_path: str | None = None

    @property
    def authority(self) -> bytes:
        """What `Host` says where the client's own is not sent on."""
        return b"localhost" if self.unix_path is not None else str(self).encode()

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS with one backend. Two are equal when connections made with either are as good."""

    settings: ClientTls
    server_name: str  # what is asked for (SNI), and what the certificate must name
    context: ssl.SSLContext = field(compare=False, repr=False)


async def connect(address: Address, tls: Tls | None, protocol: Any, patience: float) -> None:
    """Connects `protocol` (an `asyncio.Protocol` by its methods) within `patience` seconds.

    Raises ConnectFailed, or TlsFailed once the backend was reached; its cause is a TimeoutError where time ran out.
    """
    loop = asyncio.get_running_loop()
    reached = False
    try:
        async with asyncio.timeout(patience):
            if tls is None:
                await _reach(loop, address, lambda: protocol)
            else:
                between = _Between()
                transport = await _reach(loop, address, lambda: between)
                reached = True
                secure = await _shake_hands(loop, transport, between, tls)
                secure.set_protocol(protocol)
                protocol.connection_made(secure)
    except TimeoutError as late:
        what, kind = ("TLS handshake", TlsFailed) if reached else ("connection", ConnectFailed)
        raise kind(f"{address}: no {what} within {patience * 1e3:.0f} ms") from late
    except (OSError, ValueError) as error:
        raise _failure(address, error, reached=reached) from None


async def _reach(
    loop: asyncio.AbstractEventLoop, address: Address, make: Callable[[], asyncio.Protocol]
) -> asyncio.Transport:
    if address.unix_path is not None:
        return (await loop.create_unix_connection(make, address.unix_path))[0]
    return (await loop.create_connection(make, address.host, address.port))[0]


class _Between(asyncio.Protocol):
    """Stands in until the handshake is over. `spoilt`: the backend has left, or spoke before it was asked."""

    def __init__(self) -> None:
        self.spoilt = False

    def data_received(self, data: bytes) -> None:
        self.spoilt = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.spoilt = True


async def _shake_hands(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, between: _Between, tls: Tls
) -> asyncio.Transport:
    try:
        secure = await loop.start_tls(
            transport, between, tls.context, server_hostname=tls.server_name, ssl_shutdown_timeout=_GOODBYE
        )
        if secure is None or between.spoilt:
            raise ConnectionResetError
        return secure
    except BaseException:
        transport.abort()
        raise


def _failure(address: Address, error: OSError | ValueError, *, reached: bool) -> ConnectFailed:
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateRefused(f"{address}: the certificate is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return TlsFailed(f"{address}: the TLS handshake failed: {tls_reason(error)}")
    if reached:
        return TlsFailed(f"{address}: the backend closed the connection in the TLS handshake")
    return ConnectFailed(f"{address}: {getattr(error, 'strerror', None) or error}")


def ended_by_backend(transport: asyncio.BaseTransport) -> bool:
    """Whether an end of what comes in, seen now, is the backend's own: a FIN, or over TLS a close_notify.

    uvloop reports no other; asyncio reports a connection that was cut off too (RFC 8446 section 6.1).
    """
    secure: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if secure is None:
        return True
    try:
        return not secure.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


def tls_reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason in words."""
    return error.reason.replace("_", " ").lower() if error.reason else str(error)
