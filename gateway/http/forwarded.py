"""Who the client is, given who connected and what the proxies in between said. Pure: bytes in, a decision out.

Sources: RFC 7239 (`Forwarded`) and the custom of `X-Forwarded-For`. The rule: hops are read from the last to the first,
for each was written by the one after it; the first that is not one of `http.trusted_proxies` is the client. Invariants:
* what a client wrote itself is never reached, because the proxy's own entry for that client stands after it;
* a hop that cannot be read (garbage, `unknown`, an obfuscated name) ends the reading: the last hop understood is the
  client. So nonsense can blur who it was into a proxy's address, but never become somebody else's;
* of the two fields only the one configured is looked at: a proxy that writes one lets the other through as it came;
* what is sent on begins with the client that was decided on: no backend ever sees an entry nobody vouched for.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

MAX_HOPS: Final = 32  # trusted hops that are walked; nobody has that many proxies, but a list may be 32 KiB long
_MEMORY: Final = 4096  # addresses remembered with what is known of them
_LONGEST: Final = 64  # bytes of an address with brackets, zone and port

_NODE: Final = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{1,5})?")
_PAIR: Final = re.compile(rb"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([^\s\",;]+)|\"((?:[^\"\\]|\\.)*)\")\s*(;|$)")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class Hop:
    """One address: in canonical text (b"" where it could not be read), and whether it is a trusted proxy's."""

    __slots__ = ("address", "trusted")

    def __init__(self, address: bytes, trusted: bool) -> None:
        self.address = address
        self.trusted = trusted


_NOBODY: Final = Hop(b"", False)


class TrustedProxies:
    """The addresses whose word about others is taken. `unix` stands for whoever connects over a unix socket."""

    __slots__ = ("_known", "_networks4", "_networks6", "any", "unix")

    def __init__(self, networks: tuple[str, ...] = (), unix: bool = False) -> None:
        parsed = [ipaddress.ip_network(text) for text in networks]
        self._networks4 = [(int(n.network_address), int(n.netmask)) for n in parsed if n.version == 4]
        self._networks6 = [(int(n.network_address), int(n.netmask)) for n in parsed if n.version == 6]
        self._known: dict[bytes, Hop] = {}
        self.unix = unix
        self.any = unix or bool(parsed)

    def hop(self, node: bytes) -> Hop:
        """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80` as a hop."""
        if len(node) > _LONGEST:
            return _NOBODY
        hop = self._known.get(node)
        if hop is None:
            if len(self._known) >= _MEMORY:
                self._known.clear()
            hop = self._known[node] = self._look(node)
        return hop

    def trusts(self, address: bytes) -> bool:
        """Whether the peer of a connection is a trusted proxy; `unix` is the address of a unix socket."""
        if not self.any:
            return False
        return self.unix if address == b"unix" else self.hop(address).trusted

    def _look(self, node: bytes) -> Hop:
        found = _NODE.fullmatch(node)
        text: bytes = (found[1] or found[2]) if found is not None else node
        parsed = parse_address(text)
        if parsed is None:
            return _NOBODY
        number = int(parsed)
        networks = self._networks4 if parsed.version == 4 else self._networks6
        for network, mask in networks:
            if number & mask == network:
                return Hop(str(parsed).encode(), True)
        return Hop(str(parsed).encode(), False)


def parse_address(text: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address without its zone; one that IPv6 merely carries (`::ffff:192.0.2.1`) is the IPv4 address that it is."""
    try:
        parsed = ipaddress.ip_address(text.partition(b"%")[0].decode("ascii"))
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


class Told:
    """What the trusted proxies told: the client's address, the trusted hops after it (oldest first, without the peer),
    and the scheme and host the client used (b"" where they did not say).
    """

    __slots__ = ("client", "hops", "host", "scheme")

    def __init__(self, client: bytes, hops: list[bytes], scheme: bytes = b"", host: bytes = b"") -> None:
        self.client = client
        self.hops = hops
        self.scheme = scheme
        self.host = host


def read_x_forwarded(said: bytes, scheme: bytes, host: bytes, peer: bytes, proxies: TrustedProxies) -> Told:
    """Reads `X-Forwarded-For`, `-Proto` and `-Host` as a trusted `peer` sent them."""
    client = peer
    hops: list[bytes] = []
    end = len(said)
    while end > 0 and len(hops) <= MAX_HOPS:
        comma = said.rfind(b",", 0, end)
        hop = proxies.hop(said[comma + 1 : end].strip(b" \t"))
        if not hop.address:
            break
        hops.append(client)
        client = hop.address
        if not hop.trusted:
            break
        end = comma
    return Told(client, _oldest_first(hops), _scheme(_last(scheme)), _host(_last(host)))


def read_forwarded(said: bytes, peer: bytes, proxies: TrustedProxies) -> Told:
    """Reads `Forwarded` as a trusted `peer` sent it; scheme and host are those of the client's own hop."""
    told = Told(peer, [])
    hops: list[bytes] = []
    end = len(said)
    while end > 0 and len(hops) <= MAX_HOPS:
        comma = _comma_before(said, end)
        pairs = _pairs(said[comma + 1 : end])
        if pairs is None:
            break
        hop = proxies.hop(pairs.get(b"for", b""))
        if not hop.address:
            break
        hops.append(told.client)
        told.client = hop.address
        told.scheme = _scheme(pairs.get(b"proto", b""))
        told.host = _host(pairs.get(b"host", b""))
        if not hop.trusted:
            break
        end = comma
    told.hops = _oldest_first(hops)
    return told


def _oldest_first(hops: list[bytes]) -> list[bytes]:
    """The walk began at the peer, which the sender adds itself."""
    return hops[:0:-1]


def _comma_before(text: bytes, end: int) -> int:
    """The last comma before `end` outside quotes, or -1.

    Read from the right, because the element there is the trusted proxy's: what a client left open further left (a quote
    without its end) must not change what that element says.
    """
    at, quoted = end - 1, False
    while at >= 0:
        byte = text[at]
        if byte == 0x22:
            slash = at
            while slash > 0 and text[slash - 1] == 0x5C:
                slash -= 1
            if not quoted or (at - slash) % 2 == 0:
                quoted = not quoted
        elif byte == 0x2C and not quoted:
            return at
        at -= 1
    return -1


def _pairs(element: bytes) -> dict[bytes, bytes] | None:
    """`for=...;proto=...` as a mapping with names in lower case; None for anything that RFC 7239 does not describe."""
    pairs: dict[bytes, bytes] = {}
    at = 0
    while at < len(element):
        found = _PAIR.match(element, at)
        if found is None or found[1].lower() in pairs:
            return None
        quoted: bytes | None = found[3]
        pairs[found[1].lower()] = found[2] if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        at = found.end()
    return pairs


def _last(values: bytes) -> bytes:
    """The last member of a list: the one our own peer wrote, if it wrote one."""
    return values.rpartition(b",")[2].strip(b" \t")


def _scheme(text: bytes) -> bytes:
    text = text.lower()
    return text if text in (b"http", b"https") else b""


def _host(text: bytes) -> bytes:
    return text if _HOST.fullmatch(text) is not None else b""
