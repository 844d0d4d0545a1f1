"""What a bucket is keyed by. A scope turns a request into bytes; several joined make one key.

A new scope is one class and its line in `app/limits.py`. Values come from clients, so they are bounded: one that is
long, or holds what separates the parts of a key, stands as its digest. The first part of a key is its hash tag, so
that all buckets of one client (or tenant, or address) lie on one node of a cluster.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from typing import Final, Protocol

from gateway.limits.memory import Memory
from gateway.request import Request

_PLAIN: Final = re.compile(rb"[A-Za-z0-9._@:/+=-]{1,64}")
_DIGEST: Final = re.compile(rb"#[0-9a-f]{32}")
EVERYBODY: Final = b"*"
_MODEL_PATHS: Final = (b"/v1/models/", b"/v2/models/")  # TensorFlow Serving, Open Inference Protocol


def plain(value: bytes) -> bytes:
    """`value` as part of a key: itself if it is short and harmless, else 16 bytes of its BLAKE2b in hex after `#`."""
    if _PLAIN.fullmatch(value) is not None:
        return value
    return b"#" + hashlib.blake2b(value, digest_size=16).hexdigest().encode()


def is_plain(part: bytes) -> bool:
    """Whether a key can have this as a part as it stands: a plain value, the digest of another, or of everybody."""
    return _PLAIN.fullmatch(part) is not None or _DIGEST.fullmatch(part) is not None or part == EVERYBODY


class PathTemplate(Protocol):
    """A path with captures, as `routing.template` has it."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def captures(self, path: bytes) -> tuple[bytes, ...] | None: ...


class Scope:
    """Base of all scopes."""

    def key(self, request: Request, route: bytes) -> bytes:
        """What the bucket of `request`, on the route of that name, belongs to."""
        raise NotImplementedError


class ClientScope(Scope):
    """The client that the key belongs to; its address if it has none."""

    def key(self, request: Request, route: bytes) -> bytes:
        return request.client or plain(request.peer)


class TenantScope(Scope):
    """The tenant of the client; the client itself if it has none."""

    def key(self, request: Request, route: bytes) -> bytes:
        return request.tenant or request.client or plain(request.peer)


class ApiKeyScope(Scope):
    """The key itself, as 16 bytes of its SHA-256 in hex; the address of who has none."""

    def __init__(self, header: bytes, memory: Memory | None = None) -> None:
        self._header = header
        self._memory = Memory() if memory is None else memory
        self._known = self._memory.part(b"api-key " + header)

    def key(self, request: Request, route: bytes) -> bytes:
        value = request.headers.get(self._header)
        if value is None:
            return plain(request.peer)
        known = self._known.get(value)
        if known is None:
            known = b"key-" + hashlib.sha256(value).hexdigest()[:32].encode()
            self._memory.keep(self._known, value, known)
        return known


class AddressScope(Scope):
    """The client's network: its address cut to `v4` or `v6` bits."""

    def __init__(self, v4: int = 32, v6: int = 64, memory: Memory | None = None) -> None:
        self._v4 = v4
        self._v6 = v6
        self._memory = Memory() if memory is None else memory
        self._known = self._memory.part(b"ip %d %d" % (v4, v6))

    def key(self, request: Request, route: bytes) -> bytes:
        peer = request.peer
        if self._v4 == 32 and b":" not in peer:
            return plain(peer)
        known = self._known.get(peer)
        if known is None:
            known = self._network(peer)
            self._memory.keep(self._known, peer, known)
        return known

    def _network(self, peer: bytes) -> bytes:
        try:
            address = ipaddress.ip_address(peer.decode("latin-1").partition("%")[0])
        except ValueError:  # a unix socket
            return plain(peer)
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        bits = self._v4 if address.version == 4 else self._v6
        if bits == address.max_prefixlen:
            return str(address).encode()
        return str(ipaddress.ip_network((address, bits), strict=False)).encode()


class HeaderScope(Scope):
    """The value of a header field; all requests without it share one bucket."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def key(self, request: Request, route: bytes) -> bytes:
        value = request.headers.get(self._name)
        return plain(value) if value else b"-"


class PathScope(Scope):
    """The path, without the query."""

    def key(self, request: Request, route: bytes) -> bytes:
        return plain(request.path)


class RouteScope(Scope):
    """The route that takes the request."""

    def key(self, request: Request, route: bytes) -> bytes:
        return route


class ModelScope(Scope):
    """The model: what a path template captures as `{model}`, else the name in a path of TensorFlow Serving or of the
    Open Inference Protocol. Requests without a model share one bucket of their route.
    """

    def __init__(self, template: PathTemplate | None = None) -> None:
        self._template = template if template is not None and "model" in template.names else None

    def key(self, request: Request, route: bytes) -> bytes:
        path = request.path
        if self._template is not None:
            captures = self._template.captures(path)
            if captures is not None:
                return plain(captures[self._template.names.index("model")])
        if path.startswith(_MODEL_PATHS):
            name = path[11:].partition(b"/")[0].partition(b":")[0]
            if name:
                return plain(name)
        return b"-" + route


class GlobalScope(Scope):
    """Everybody together."""

    def key(self, request: Request, route: bytes) -> bytes:
        return EVERYBODY


class JoinedScope(Scope):
    """Several scopes at once: a bucket for each combination of their values."""

    def __init__(self, scopes: Sequence[Scope]) -> None:
        self._scopes = tuple(scopes)

    def key(self, request: Request, route: bytes) -> bytes:
        return b"|".join([scope.key(request, route) for scope in self._scopes])


def bucket_key(prefix: bytes, value: bytes) -> bytes:
    """The key in the store: the first part of `value` is its hash tag (Redis Cluster specification, "hash tags")."""
    if b"|" not in value:
        return prefix + b"{" + value + b"}"
    first, bar, rest = value.partition(b"|")
    return b"%s{%s}%s%s" % (prefix, first, bar, rest)
