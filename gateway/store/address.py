"""Where the store is, as plain values."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """One server, by TCP or by unix socket; or the `sentinels` that know the master of `service`; or `seeds`, nodes
    of a cluster. The password never shows in `str`.
    """

    host: str = ""
    port: int = 6379
    unix_path: str | None = None
    username: str | None = None
    password: str | None = None
    db: int = 0
    secure: bool = False
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    seeds: tuple[tuple[str, int], ...] = ()

    def at(self, host: str, port: int) -> StoreAddress:
        """One server of those that belong together."""
        return replace(self, host=host, port=port, sentinels=(), service="", seeds=())

    def tls(self) -> ssl.SSLContext | None:
        """A verifying context for `rediss://`, else None."""
        return ssl.create_default_context() if self.secure else None

    def __str__(self) -> str:
        if self.sentinels:
            return f"{self.service} by sentinel {_list(self.sentinels)}"
        if self.seeds:
            return f"cluster of {_list(self.seeds)}"
        return self.unix_path or f"{self.host}:{self.port}/{self.db}"


def _list(hosts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in hosts)
