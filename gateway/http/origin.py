"""Where the requests of one connection come from, and what backends are told about it.

Whether the peer is a trusted proxy is decided once per connection (and again at a reload). An untrusted peer's
forwarding fields are then the same for every request and made once; what it says of itself is never looked at.
`Via` is said with them, behind what earlier hops said (RFC 9110 section 7.6.3).
"""

from __future__ import annotations

from typing import Final

from gateway.http.forwarded import Told, TrustedProxies, parse_address, read_forwarded, read_x_forwarded
from gateway.request import Request

UNIX: Final = b"unix"
_UNKNOWN: Final = b"unknown"  # what a hop without an address is called (RFC 7239 section 6.2)


class Forwarding:
    """Whom to believe, and what to send on. `field` is the one that trusted proxies speak through; `via` is what the
    gateway calls itself, b"" to keep it to itself.
    """

    __slots__ = ("field", "proxies", "tell_for", "tell_forwarded", "tell_host", "tell_proto", "via")

    def __init__(
        self,
        proxies: TrustedProxies | None = None,
        field: bytes = b"x-forwarded-for",
        tells: frozenset[str] = frozenset(("x-forwarded-for", "x-forwarded-proto")),
        via: bytes = b"",
    ) -> None:
        self.proxies = proxies if proxies is not None else TrustedProxies()
        self.field = field
        self.tell_for = "x-forwarded-for" in tells
        self.tell_proto = "x-forwarded-proto" in tells
        self.tell_host = "x-forwarded-host" in tells
        self.tell_forwarded = "forwarded" in tells
        self.via = via


class Origin:
    """One connection's peer. `address` is canonical text or `unix`; `group` is what connections are counted by: the
    address, or the /64 of an IPv6 address, which is what one customer gets; b"" is not counted.
    """

    __slots__ = ("_asked", "_client", "_constant", "_forwarding", "_ours", "_proxied", "_via", "address", "group",
                 "scheme", "trusted")  # fmt: skip

    def __init__(self, address: bytes, forwarding: Forwarding, *, secure: bool = False, proxied: bool = False) -> None:
        """`address` as the kernel or a PROXY header (`proxied`) says it."""
        self._proxied = proxied
        self.scheme = b"https" if secure else b"http"
        self.group = b""
        if b":" in address:
            parsed = parse_address(address)
            if parsed is not None:
                address = str(parsed).encode()
                self.group = address if parsed.version == 4 else parsed.packed[:8]
        elif address != UNIX:
            self.group = address
        self.address = address
        self.decide(forwarding)

    def decide(self, forwarding: Forwarding) -> None:
        """Takes these rules from the next request on."""
        self._forwarding = forwarding
        # A unix socket somewhere behind another proxy is not ours, and proves nothing.
        self.trusted = forwarding.proxies.trusts(self.address) and not (self._proxied and self.address == UNIX)
        self._constant = not self.trusted and not forwarding.tell_host and not forwarding.tell_forwarded
        self._asked = (b"", b"", b"", b"")
        self._client = self.address
        self._ours = b"via: 1.1 %b\r\n" % forwarding.via if forwarding.via else b""
        self._via = self._lines(Told(self.address, []), b"")

    def introduce(self, request: Request) -> None:
        """Sets the request's `peer` to the client's address, and `via` to the fields that backends are sent."""
        if not self._constant:
            headers = request.headers
            host = headers.get(b"host", b"")
            if self.trusted:
                field = self._forwarding.field
                said = headers.get(field, b"")
                scheme = headers.get(b"x-forwarded-proto", b"")
                asked = (said, scheme, headers.get(b"x-forwarded-host", b""), host)
                if asked != self._asked:  # a connection mostly says the same again
                    if field == b"forwarded":
                        told = read_forwarded(said, self.address, self._forwarding.proxies)
                    else:
                        told = read_x_forwarded(said, scheme, asked[2], self.address, self._forwarding.proxies)
                    self._client = told.client
                    self._via = self._lines(told, host)
                    self._asked = asked
            elif self._asked[3] != host:
                self._via = self._lines(Told(self.address, []), host)
                self._asked = (b"", b"", b"", host)
            request.peer = self._client
        if request.minor and b"via" not in request.headers:
            request.via = self._via
        else:
            request.via = self._via[: len(self._via) - len(self._ours)] + self._hops(request)

    def _hops(self, request: Request) -> bytes:
        """The Via line of a request that has one, or that came in HTTP/1.0."""
        hops = [said] if (said := request.headers.get(b"via", b"")) else []
        if self._ours:
            hops.append(b"1.%d %b" % (request.minor, self._forwarding.via))
        return b"via: %b\r\n" % b", ".join(hops) if hops else b""

    def _lines(self, told: Told, host: bytes) -> bytes:
        forwarding = self._forwarding
        scheme = told.scheme or self.scheme
        host = told.host or host
        hops = [told.client, *told.hops]
        if self.trusted and told.client != self.address:
            hops.append(self.address)
        lines = []
        if forwarding.tell_for:
            lines.append(b"x-forwarded-for: %s\r\n" % b", ".join([_UNKNOWN if hop == UNIX else hop for hop in hops]))
        if forwarding.tell_proto:
            lines.append(b"x-forwarded-proto: %s\r\n" % scheme)
        if forwarding.tell_host and host:
            lines.append(b"x-forwarded-host: %s\r\n" % host)
        if forwarding.tell_forwarded:
            elements = [b"for=%s" % _node(hop) for hop in hops]
            elements[0] += b";proto=%s" % scheme
            if host:
                elements[0] += b';host="%s"' % host
            lines.append(b"forwarded: %s\r\n" % b", ".join(elements))
        lines.append(self._ours)
        return b"".join(lines)


def _node(address: bytes) -> bytes:
    """An address as RFC 7239 section 6 writes it."""
    if address == UNIX:
        return _UNKNOWN
    return b'"[%s]"' % address if b":" in address else address


def peer_address(peername: object) -> bytes:
    """The transport's `peername` as text; `unix` for a unix socket."""
    if isinstance(peername, tuple):
        host: str = peername[0]
        return host.encode()
    return UNIX
