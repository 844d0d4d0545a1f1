"""What a route changes on the way: the target and header fields sent to the backend, the fields of the answer.

A route without edits has none of this. Order of header edits: remove, set, add. Invariant: a field that an edit sets
arrives, even if the client's `Connection` names it (RFC 9110 section 7.6.1 would have it dropped).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.paths import Prefixes, climbs, replace_prefix
from gateway.request import Request, Response
from gateway.routing.host import is_authority
from gateway.routing.template import Template
from gateway.routing.words import Words

Pairs = tuple[tuple[bytes, Words], ...]


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Names in lower case."""

    remove: frozenset[bytes] = frozenset()
    set: Pairs = ()
    add: Pairs = ()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A new `path`, or else `prefixes` to replace; the query stays. `after` belongs to the pool, and comes last."""

    path: Words | None = None
    prefixes: Prefixes = ()
    after: Prefixes = ()

    def target(self, request: Request, captures: tuple[bytes, ...]) -> bytes:
        target = request.target
        if self.path is not None:
            path = self.path.say(request, captures)
            if not climbs(path):
                target = path + target[len(request.path) :]
        elif self.prefixes:
            target = replace_prefix(target, self.prefixes)
        return replace_prefix(target, self.after) if self.after else target


@dataclass(frozen=True, slots=True)
class Edits:
    """All edits of one route. `host`: what the backend gets as Host; empty text: its own address."""

    template: Template | None = None
    rewrite: Rewrite | None = None
    host: Words | None = None
    request: HeaderEdits | None = None
    response: HeaderEdits | None = None

    def outgoing(self, request: Request) -> Request:
        """The request as the pool gets it; `request` itself stays as it came."""
        if self.rewrite is None and self.host is None and self.request is None:
            return request
        captures = captured(self.template, request)
        headers = request.headers
        if self.host is not None or self.request is not None:
            headers = self._fields(request, captures)
        target = request.target if self.rewrite is None else self.rewrite.target(request, captures)
        sent = Request(request.method, target, request.path, headers, request.body, request.peer, request.minor)
        sent.received, sent.client, sent.id = request.received, request.client, request.id
        sent.tenant = request.tenant
        sent.via = request.via
        sent.stream, sent.upgrade = request.stream, request.upgrade
        return sent

    def _fields(self, request: Request, captures: tuple[bytes, ...]) -> dict[bytes, bytes]:
        headers = dict(request.headers)
        for name in headers.pop(b"connection", b"").split(b","):
            headers.pop(name.strip().lower(), None)
        if self.host is not None:
            host = self.host.say(request, captures)
            if not host:
                headers.pop(b"host", None)
            elif is_authority(host):
                headers[b"host"] = host
        edits = self.request
        if edits is not None:
            for name in edits.remove:
                headers.pop(name, None)
            for name, words in edits.set:
                headers[name] = words.say(request, captures)
            for name, words in edits.add:
                value, known = words.say(request, captures), headers.get(name)
                headers[name] = value if known is None else known + b", " + value
        return headers

    def answered(self, request: Request, response: Response) -> None:
        """Edits the fields of the answer."""
        edits = self.response
        if edits is None:
            return
        captures = captured(self.template, request)
        gone = edits.remove.union([name for name, _ in edits.set])
        headers = [field for field in response.headers if field[0] not in gone]
        headers += [(name, words.say(request, captures)) for name, words in (*edits.set, *edits.add)]
        response.headers = headers


def captured(template: Template | None, request: Request) -> tuple[bytes, ...]:
    """The captures of a request that the route with this template took."""
    return () if template is None else template.captures(request.path) or ()
