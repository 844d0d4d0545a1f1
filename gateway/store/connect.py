"""A connection to one server, made and logged in; what is wrong is said in words an operator can act on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final

from gateway.errors import GatewayError, StoreError
from gateway.store.address import StoreAddress
from gateway.store.connection import StoreConnection

TLS: Final = "(does it speak TLS on this port?)"
#: How a server's refusal begins -> what to do about it.
ADVICE: Final = (
    ("WRONGPASS", "check the user name and the password"),
    ("NOAUTH", "it asks for a password"),
    ("NOPERM", "its ACL must allow this user what limits need (docs/limits.md)"),
    ("the store closed the connection", "does it speak TLS on this port?"),
    ("ERR AUTH", "it has no password: give none"),
    ("ERR Client sent AUTH", "it has no password: give none"),
)


async def connect(address: StoreAddress, timeout: float, make: Callable[[], Any]) -> StoreConnection:
    """One connection, within `timeout` seconds, logged in. Raises StoreError."""
    loop = asyncio.get_running_loop()
    connection: Any
    try:
        async with asyncio.timeout(timeout):
            if address.unix_path:
                _, connection = await loop.create_unix_connection(make, address.unix_path)
            else:
                context = address.context()
                name = (address.server_name or address.host) if context is not None else None
                _, connection = await loop.create_connection(
                    make, address.host, address.port, ssl=context, server_hostname=name
                )
    except TimeoutError:
        secure = "" if address.tls is None else f" {TLS}"
        raise StoreError(f"{address}: no connection within {timeout * 1e3:.0f} ms{secure}") from None
    except (OSError, GatewayError) as error:
        raise StoreError(f"{address}: {_why(error)}") from None
    try:
        if address.password:
            await ask(address, connection, "AUTH", *([address.username] if address.username else []), address.password)
        await ask(address, connection, "PING")
    except BaseException:  # a cancel, too, leaves nothing open
        connection.drop(StoreError("set-up failed"))
        raise
    made: StoreConnection = connection
    return made


async def ask(address: StoreAddress, connection: StoreConnection, *words: str | bytes | int) -> Any:
    """One command of the set-up. Raises StoreError that names the server."""
    try:
        return await connection.call(*words)
    except StoreError as error:
        said = str(error)
        advice = next((advice for start, advice in ADVICE if said.startswith(start)), None)
        raise StoreError(f"{address}: {said}" + (f" ({advice})" if advice else "")) from None


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"its certificate is not accepted: {why} (see store.tls.ca and store.tls.server_name)"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return f"no TLS connection: {reason} {TLS}"
    if isinstance(error, ConnectionResetError):
        return f"it closed the connection while it was made {TLS}"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
