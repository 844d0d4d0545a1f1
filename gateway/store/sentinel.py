"""Who is the master now, by Sentinel.

Asked at every connection, so again after each loss; the answer is believed only if the server itself says that it is
the master (Redis documentation, "Guidelines for Redis clients with support for Redis Sentinel"). A sentinel that does
not answer, or knows no such service, is passed over.
"""

from __future__ import annotations

from gateway.errors import StoreError
from gateway.store.address import StoreAddress
from gateway.store.connect import ask, connect
from gateway.store.connection import StoreConnection


async def find_master(address: StoreAddress, timeout: float) -> StoreAddress:
    """The master's address. Raises StoreError when no sentinel names one; each has `timeout` seconds."""
    reasons = []
    for host, port in address.sentinels:
        sentinel = address.sentinel_at(host, port)
        try:
            return address.at(*await _ask(sentinel, address.service, timeout))
        except StoreError as error:
            reasons.append(f"{error}")
    raise StoreError(f"no sentinel names a master of '{address.service}': {'; '.join(reasons)}")


async def _ask(sentinel: StoreAddress, service: str, timeout: float) -> tuple[str, int]:
    connection = await connect(sentinel, timeout, lambda: StoreConnection(timeout, _ignore))
    try:
        said = await ask(sentinel, connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    finally:
        connection.drop(StoreError("asked"))
    if said is None:
        raise StoreError(f"{sentinel}: it does not know the service '{service}'")
    try:
        return said[0].decode(), int(said[1])
    except (TypeError, ValueError, LookupError, AttributeError):
        raise StoreError(f"{sentinel}: it names no address but {said!r}") from None


def _ignore(_connection: StoreConnection) -> None:
    """Nobody else waits on it."""
