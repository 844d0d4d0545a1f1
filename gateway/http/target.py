"""The request target: which path we decide on and what the backend is sent (RFC 9112 section 3.2, RFC 3986).

Invariant: the path used for routing and the path sent on are the same bytes, so that a backend cannot be
reached by a spelling that the routes did not see. Anything ambiguous (encoded slash, NUL, dot segments that
climb, backslash, dot segments with parameters) is refused rather than guessed at.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import ProtocolError

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_REFUSED: Final = frozenset((0x00, 0x2F, 0x5C))  # NUL, "/" and "\" hidden behind an escape
_SUSPECT: Final = re.compile(rb"[%\\\x00-\x20\x7f-\xff#]|//|/\.")
_NOT_IN_QUERY: Final = re.compile(rb"[\x00-\x20\x7f-\xff#]")  # a raw blank would end the target for some backends
_DOTS_WITH_PARAMETER: Final = re.compile(rb"/\.\.?(?:;|%3B)")  # "..;" is ".." to servlet containers


def split_target(raw: bytes, host: bytes, *, plain_only: bool = False) -> tuple[bytes, bytes]:
    """Returns (path, target) for the `raw` request target; with `plain_only` a path is refused that is not normal.

    Origin-form and absolute-form are accepted; in absolute-form the authority must equal the Host field.
    Raises ProtocolError (400) for anything else.
    """
    if raw[:1] != b"/":
        raw = _from_absolute(raw, host)
    path, mark, query = raw.partition(b"?")
    if query and _NOT_IN_QUERY.search(query) is not None:
        if b"#" in query:
            raise ProtocolError("a request target carries no fragment ('#'); encode it as %23")
        raise ProtocolError("the query holds a character that must be percent-encoded")
    if _SUSPECT.search(path) is None:
        return path, raw
    normal = _normalise(path)
    if plain_only and normal != path:
        raise ProtocolError(f"the path is not in its normal form, which is {normal[:100].decode()!r}")
    return normal, normal + mark + query


def _from_absolute(raw: bytes, host: bytes) -> bytes:
    scheme, mark, rest = raw.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        raise ProtocolError("the request target must begin with '/', or with 'http://' and the host")
    authority, slash, tail = rest.partition(b"/")
    if not slash:
        authority, mark, query = rest.partition(b"?")
        tail = mark + query
    if not authority:
        raise ProtocolError("the request target names no host (RFC 9110 section 4.2.1)")
    if authority.lower() != host.lower():
        raise ProtocolError("the authority in the request target differs from the Host field")
    return b"/" + tail


def _unescape(match: re.Match[bytes]) -> bytes:
    code = int(match[1], 16)
    if code in _REFUSED:
        raise ProtocolError(f"the path holds an ambiguous escape (%{code:02X})")
    return bytes((code,)) if code in _UNRESERVED else match[0].upper()


def _normalise(path: bytes) -> bytes:
    """RFC 3986 section 6.2.2: unreserved escapes decoded once, hex digits in upper case, dot segments removed."""
    if _BAD_ESCAPE.search(path):
        raise ProtocolError("the path holds a '%' that is not followed by two hexadecimal digits")
    path = _ESCAPE.sub(_unescape, path)
    if any(byte <= 0x20 or byte >= 0x7F or byte in b"\\#" for byte in path):
        raise ProtocolError("the path holds a character that must be percent-encoded")
    if _DOTS_WITH_PARAMETER.search(path):
        raise ProtocolError("the path holds a dot segment with a parameter ('..;')")
    if b"//" in path:
        raise ProtocolError("the path holds an empty segment ('//')")
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                raise ProtocolError("the path climbs above the root ('..')")
            kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
