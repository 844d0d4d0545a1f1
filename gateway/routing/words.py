"""Text with places to fill in, for rewritten paths, redirects and header values: `/v2/{model}` or `{client};{pool}`.

Split into parts once per snapshot. A place names a capture of the route's path template or one of `VARIABLES`; `{{` and
`}}` stand for the braces themselves. `{client}` of an anonymous request is empty. Nothing that is filled in can hold
CR, LF or NUL: paths and hosts come through the front door's own checks, client names from the key file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from gateway.request import Request
from gateway.routing.host import host_name

#: Known when the snapshot is built.
CONSTANTS: Final = ("pool", "route")
#: Known with the request.
VARIABLES: Final = ("client", "host", "method", "path", "peer", "request_id")

_PIECE: Final = re.compile(r"(\{\{|\}\})|\{([^{}]*)\}|([^{}]+)|(.)", re.DOTALL)


class Part(NamedTuple):
    """Fixed text, or (`variable` not empty) a variable, or (`capture` >= 0) a capture."""

    text: bytes
    variable: str = ""
    capture: int = -1


class Words(NamedTuple):
    """What `parse` found."""

    parts: tuple[Part, ...]

    def say(self, request: Request, captures: Sequence[bytes]) -> bytes:
        """The text for one request."""
        parts = self.parts
        if len(parts) == 1 and not parts[0].variable and parts[0].capture < 0:
            return parts[0].text
        return b"".join(
            [
                captures[part.capture] if part.capture >= 0 else _value(part.variable, request) if part.variable
                else part.text
                for part in parts
            ]
        )  # fmt: skip


def pieces(text: str) -> list[tuple[str, bool]]:
    """Texts (False) and names of places (True) in turn. Raises ValueError for a brace without its other half."""
    found: list[tuple[str, bool]] = []
    for piece in _PIECE.finditer(text):
        escaped, name, plain, stray = piece.groups()
        if stray is not None:
            raise ValueError(f"has a '{stray}' without its other half; write {stray * 2} for the brace itself")
        found.append((name, True) if name is not None else (plain or escaped[0], False))
    return found


def names(text: str) -> list[str]:
    """The names of all places in `text`."""
    return [name for name, place in pieces(text) if place]


def parse(text: str, captures: Sequence[str], constants: Mapping[str, str]) -> Words:
    """`captures` are the names of the route's template. Raises ValueError for a name that nothing has."""
    parts: list[Part] = []
    for piece, place in pieces(text):
        if not place or piece in constants:
            plain = (constants[piece] if place else piece).encode()
            if parts and not parts[-1].variable and parts[-1].capture < 0:
                parts[-1] = Part(parts[-1].text + plain)
            else:
                parts.append(Part(plain))
        elif piece in captures:
            parts.append(Part(b"", capture=captures.index(piece)))
        elif piece in VARIABLES:
            parts.append(Part(b"", variable=piece))
        else:
            raise ValueError(f"has the place '{{{piece}}}', which nothing fills in")
    return Words(tuple(parts) or (Part(b""),))


def _value(variable: str, request: Request) -> bytes:
    if variable == "client":
        return request.client
    if variable == "request_id":
        return request.id
    if variable == "path":
        return request.path
    if variable == "host":
        return host_name(request)
    return request.method if variable == "method" else request.peer
