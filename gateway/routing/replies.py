"""Routes that answer by themselves: redirects (RFC 9110 section 15.4) and fixed answers."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.paths import Prefixes, replace_prefix
from gateway.request import Request, Response
from gateway.routing.edits import captured
from gateway.routing.host import host_name, is_host
from gateway.routing.template import Template
from gateway.routing.words import Words


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where to ask instead. What is not given stays as it was asked; without scheme, host and port the answer is
    relative, so nothing a client wrote into Host comes back to it; it is relative too if no host can be made of what
    the client sent. Invariant: the path never begins with `//`.
    """

    status: int
    scheme: bytes = b""
    host: Words | None = None
    port: int = 0
    path: Words | None = None
    prefixes: Prefixes = ()
    keep_query: bool = True
    template: Template | None = None

    def response(self, request: Request) -> Response:
        captures = captured(self.template, request)
        path = request.path if self.path is None else self.path.say(request, captures)
        if self.prefixes:
            path = replace_prefix(path, self.prefixes)
        where = b"/" + path.lstrip(b"/")
        if self.scheme or self.host is not None or self.port:
            host = host_name(request) if self.host is None else self.host.say(request, captures)
            port = b":%d" % self.port if self.port else b""
            if is_host(host):
                where = (self.scheme + b":" if self.scheme else b"") + b"//" + host + port + where
        if self.keep_query:
            where += request.target[len(request.path) :]
        return Response(self.status, [(b"location", where)])


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same answer every time."""

    status: int
    content_type: bytes
    content: bytes

    def response(self, request: Request) -> Response:  # noqa: ARG002 - as Redirect
        headers = [(b"content-type", self.content_type)] if self.content else []
        return Response(self.status, headers, self.content)


Reply = Redirect | Fixed
