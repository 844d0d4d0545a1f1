"""The operator's listener (aiohttp): health, metrics, status, reload. It lives in the supervisor, so it answers for
the whole gateway and while the workers are busy.
"""

from __future__ import annotations

import hmac
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import StartError
from gateway.telemetry.prometheus import CONTENT_TYPE

log = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listen(Protocol):
    """Where to listen."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def unix_path(self) -> str | None: ...


class ReloadOutcome(Protocol):
    """What came of a reload."""

    @property
    def applied(self) -> bool: ...
    def as_dict(self) -> dict[str, Any]: ...


class Operated(Protocol):
    """What the admin API needs of the gateway."""

    def not_ready(self) -> list[str]: ...
    def metrics(self) -> str: ...
    async def status(self) -> dict[str, Any]: ...
    async def reload(self) -> ReloadOutcome: ...
    async def breakers(self) -> list[dict[str, Any]]: ...
    async def force_breaker(
        self, pool: str, backend: str, state: str, seconds: float | None
    ) -> tuple[str, list[Any]]: ...


class AdminServer:
    """`token` is the bearer token callers must show, or None on loopback. Probes need no token."""

    def __init__(self, gateway: Operated, token: str | None) -> None:
        self._gateway = gateway
        self._token = token
        app = web.Application(middlewares=[self._authorise], client_max_size=64 * 1024)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/status", self._status),
                web.post("/reload", self._reload),
                web.get("/breakers", self._breakers),
                web.post("/breakers", self._force_breaker),
            ]
        )
        log.addFilter(_is_ours)
        # Bodies are not decompressed: what is not as it says would be an error with a trace in the log.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=log,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=30.0,
            auto_decompress=False,
        )
        self.port = 0

    async def start(self, listen: Listen, unix: socket.socket | None = None) -> None:
        """Raises StartError when the address cannot be had. `unix` is the socket where `listen` names one."""
        await self._runner.setup()
        site: web.BaseSite
        if unix is not None:
            site = web.SockSite(self._runner, unix)
        else:
            site = web.TCPSite(self._runner, listen.host, listen.port)
        try:
            await site.start()
        except OSError as error:
            raise StartError(f"the admin listener cannot have {listen}: {error.strerror or error}") from None
        if listen.unix_path is None:
            self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _authorise(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._token is not None and request.path not in ("/livez", "/readyz"):
            shown = request.headers.get("Authorization", "")
            if not hmac.compare_digest(shown.encode(errors="surrogateescape"), f"Bearer {self._token}".encode()):
                return _json({"error": "a bearer token is required"}, 401)
        return await handler(request)

    async def _index(self, _request: web.Request) -> web.Response:
        reads = ["/livez", "/readyz?verbose", "/metrics", "/status", "/breakers"]
        return _json({"see": [*reads, "POST /breakers", "POST /reload"]})

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = self._gateway.not_ready()
        if "verbose" in request.query:
            return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
        return web.Response(text="ok\n" if not reasons else "\n".join(reasons) + "\n", status=503 if reasons else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._gateway.metrics().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(await self._gateway.status())

    async def _reload(self, _request: web.Request) -> web.Response:
        outcome = await self._gateway.reload()
        return _json(outcome.as_dict(), 200 if outcome.applied else 422)

    async def _breakers(self, _request: web.Request) -> web.Response:
        return _json(await self._gateway.breakers())

    async def _force_breaker(self, request: web.Request) -> web.Response:
        """Takes `{"pool": NAME, "backend": NAME, "state": "open" | "closed" | "auto", "for": SECONDS}`; "for" may be
        missing: until told otherwise. 422 with `error` for a name that is not known.
        """
        asked = _asked(await request.read())
        if asked is None:
            return _json(
                {"error": "send pool, backend, state (open, closed or auto) and, if you like, for, as JSON"}, 400
            )
        wrong, breakers = await self._gateway.force_breaker(*asked)
        return _json({"error": wrong}, 422) if wrong else _json(breakers)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether an error is worth a line: not that a client's bytes are no request, which it is told with a 400."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _asked(body: bytes) -> tuple[str, str, str, float | None] | None:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict) or value.keys() - {"pool", "backend", "state", "for"}:
        return None
    match value.get("pool"), value.get("backend"), value.get("state"), value.get("for"):
        case str(pool), str(backend), str(state), None:
            return pool, backend, state, None
        case str(pool), str(backend), str(state), int() | float() as seconds if not isinstance(seconds, bool):
            return pool, backend, state, float(seconds)
    return None


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n", status=status, content_type="application/json"
    )
