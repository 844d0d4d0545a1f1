"""Where the store is and who we are there, as plain values."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gateway.certificates import ClientTls, client_context


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """One server, by TCP or by unix socket; or the `sentinels` that know the master of `service`; or `seeds`, nodes
    of a cluster. The login is for all data nodes; sentinels have one of their own. Passwords never show.

    `tls`: None for plain connections; `server_name` is whom the certificates must be for, if not the host.
    """

    host: str = ""
    port: int = 6379
    unix_path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: ClientTls | None = None
    server_name: str | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    seeds: tuple[tuple[str, int], ...] = ()

    def at(self, host: str, port: int) -> StoreAddress:
        """One data node of those that belong together."""
        return replace(self, host=host, port=port, sentinels=(), service="", seeds=())

    def sentinel_at(self, host: str, port: int) -> StoreAddress:
        """One sentinel."""
        return replace(self.at(host, port), username=self.sentinel_username, password=self.sentinel_password, db=0)

    def context(self) -> ssl.SSLContext | None:
        """What TLS is spoken with, None for plain connections. Raises CertificateError."""
        return None if self.tls is None else _context(self.tls)

    def __str__(self) -> str:
        if self.sentinels:
            return f"{self.service} by sentinel {_list(self.sentinels)}"
        if self.seeds:
            return f"cluster of {_list(self.seeds)}"
        return self.unix_path or f"{self.host}:{self.port}/{self.db}"


@lru_cache(maxsize=4)
def _context(tls: ClientTls) -> ssl.SSLContext:
    """Made once: to read the authorities that the system trusts takes milliseconds, and a lost store is tried often."""
    return client_context(tls)


def _list(hosts: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in hosts)
