"""Where the store listens, as plain values."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """One server, by TCP or by unix socket; the password never shows in `str`."""

    host: str = ""
    port: int = 6379
    unix_path: str | None = None
    username: str | None = None
    password: str | None = None
    db: int = 0
    secure: bool = False

    def tls(self) -> ssl.SSLContext | None:
        """A verifying context for `rediss://`, else None."""
        return ssl.create_default_context() if self.secure else None

    def __str__(self) -> str:
        return self.unix_path or f"{self.host}:{self.port}/{self.db}"
