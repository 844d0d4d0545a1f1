"""Who is the master now, by Sentinel (redis-py asks, with its retries and pools turned off).

Asked at every connection, so again after each loss; the answer is believed only if the server itself says that it is
the master (Redis documentation, "Guidelines for Redis clients with support for Redis Sentinel").
"""

from __future__ import annotations

from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.errors import StoreError
from gateway.store.address import StoreAddress


async def find_master(address: StoreAddress, timeout: float) -> StoreAddress:
    """The master's address. Raises StoreError when no sentinel names one; each has `timeout` seconds."""
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(address.sentinels),
        sentinel_kwargs={
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "ssl": address.secure,
        },
    )
    try:
        host, port = await sentinel.discover_master(address.service)
    except (RedisError, OSError) as error:
        raise StoreError(f"{address}: {error}") from None
    finally:
        for client in sentinel.sentinels:
            await client.aclose()
    return address.at(host, int(port))
