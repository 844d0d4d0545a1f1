"""The host a request is for, and what may stand for one."""

from __future__ import annotations

import re
from typing import Final

from gateway.request import Request

_HOST: Final = re.compile(rb"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_AUTHORITY: Final = re.compile(rb"(?:" + _HOST.pattern + rb")(?::[0-9]{1,5})?")


def host_name(request: Request) -> bytes:
    """The Host field in lower case, without its port."""
    host = request.headers.get(b"host", b"").lower()
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() else host


def is_host(name: bytes) -> bool:
    """True for a plain host name or address: what a client wrote into a path must not become anything else."""
    return _HOST.fullmatch(name) is not None


def is_authority(text: bytes) -> bool:
    """True for a host, with or without a port."""
    return _AUTHORITY.fullmatch(text) is not None
