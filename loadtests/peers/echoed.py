"""The same programs in front of the Go echo: what the link is compared with must have the same origin.

The echo costs more CPU than nginx and shares the cores with the proxy, so rows are compared with rows of this kind
only. "sluicegate@link" speaks the link to it, the others HTTP/1.1.
"""

from __future__ import annotations

from typing import ClassVar

from loadtests.peers.envoy import Envoy, EnvoyRatelimit
from loadtests.peers.nginx import NginxLua
from loadtests.peers.programs import find_program
from loadtests.peers.sluicegate import Sluicegate

ECHO = "go echo"


def _echo() -> str | None:
    return None if find_program("linkecho") else "linkecho is not built"


class SluicegateEcho(Sluicegate):
    """Over HTTP/1.1."""

    name: ClassVar[str] = "sluicegate@go"
    origin: ClassVar[str] = ECHO

    def available(self) -> str | None:
        return _echo() or super().available()


class SluicegateLink(SluicegateEcho):
    """Over the link."""

    name: ClassVar[str] = "sluicegate@link"
    does: ClassVar[str] = f"{Sluicegate.does}; over the link"
    protocol: ClassVar[str] = "link"


class EnvoyEcho(Envoy):
    """Plain proxy."""

    name: ClassVar[str] = "envoy@go"
    origin: ClassVar[str] = ECHO

    def available(self) -> str | None:
        return _echo() or super().available()


class EnvoyRatelimitEcho(EnvoyRatelimit):
    """Envoy and the rate limit service."""

    name: ClassVar[str] = "envoy+ratelimit@go"
    origin: ClassVar[str] = ECHO

    def available(self) -> str | None:
        return _echo() or super().available()


class NginxLuaEcho(NginxLua):
    """nginx asking Redis from Lua."""

    name: ClassVar[str] = "nginx+lua+redis@go"
    origin: ClassVar[str] = ECHO

    def available(self) -> str | None:
        return _echo() or super().available()
