"""What the fields of a request's head may say, so that they mean one thing to everybody on the way.

Refused here: a Host that is none, transfer codings other than `chunked`, and a `Connection` that names a field for the
whole way. Every error is a ProtocolError with the status to answer.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

from gateway.errors import ProtocolError

# A repeated field that is not a list has no defined meaning, so it is refused rather than joined.
SINGLE: Final = frozenset(
    (b"host", b"content-length", b"content-type", b"authorization", b"expect", b"transfer-encoding")
)

# uri-host [":" port] (RFC 9110 section 7.2); the field is sent on and looked up, so it must be nothing else. Escapes
# are legal there and never needed: what "%2F" or "%00" would mean is left to nobody.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=-]*|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")

PLAIN_CONNECTION: Final = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))
# Options of Connection that name no field, and the fields that frame this very message.
_KEPT: Final = frozenset((b"", b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"))
# Naming one of these would change what a message says between here and the backend.
_END_TO_END: Final = SINGLE - {b"transfer-encoding"} | {b"cache-control", b"content-encoding", b"cookie"}


def quote(name: bytes) -> str:
    """A field's name for a message, which must not grow with it."""
    return repr(name.decode("latin-1") if len(name) <= 40 else f"{name[:40].decode('latin-1')}...")


def check_host(host: bytes) -> None:
    """RFC 9112 section 3.2: 400 for a Host that is not a host, or a host and a port."""
    match = _HOST.fullmatch(host)
    if match is None or (match[2] and int(match[2]) > 65535):
        raise ProtocolError("the field 'host' is not a host, or a host and a port")
    if match[1] is not None:
        try:
            IPv6Address(match[1].decode())
        except ValueError:
            raise ProtocolError("the field 'host' holds something in brackets that is not an IPv6 address") from None


def wrong_coding(value: bytes, minor: int) -> ProtocolError:
    """RFC 9112 sections 6.1 and 6.3: 400 where the end of the body cannot be known, 501 for codings not known here."""
    if minor == 0:
        return ProtocolError("the field 'transfer-encoding' does not exist in HTTP/1.0")
    *before, last = (coding.strip().lower() for coding in value.split(b","))
    if last != b"chunked" or not all(before) or b"chunked" in before:
        return ProtocolError("the field 'transfer-encoding' must be 'chunked', or the end of the body is not known")
    return ProtocolError("the field 'transfer-encoding' names another coding than 'chunked'", 501)


def drop_named(headers: dict[bytes, bytes], named: bytes) -> bool:
    """Drops the fields that `Connection` names (RFC 9110 section 7.6.1): limits, cache and backend see the same.

    Returns whether it says `close`, whatever else it says (RFC 9112 section 9.3).
    """
    close = False
    for option in named.lower().split(b","):
        name = option.strip()
        if name in _END_TO_END:
            raise ProtocolError(f"the field 'connection' names {quote(name)}, which is for the whole way")
        if name == b"close":
            close = True
        elif name not in _KEPT:
            headers.pop(name, None)
    return close
