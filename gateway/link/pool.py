"""A backend's connections where the link is wanted: one link, and HTTP/1.1 for whatever it cannot carry.

Invariants: an exchange never waits for a link to open unless the link is required; what the backend provably never
took up goes over HTTP/1.1 instead, and nothing else is ever sent twice; a backend that does not speak the link is
asked again now and then, so an upgrade of the backend needs nothing here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

from gateway.errors import ConnectFailed, PoolExhausted, UpstreamError, UpstreamTimeout
from gateway.http.client import ConnectionPool
from gateway.http.dial import Address, Tls, connect
from gateway.http.upstream import ClientLimits
from gateway.link.connection import LinkConnection
from gateway.link.exchange import Exchange, NotStarted
from gateway.link.frames import LoadReport
from gateway.link.pulse import LinkLimits
from gateway.link.upgrade import NotSpoken
from gateway.request import Request, Response

log = logging.getLogger(__name__)

HANDSHAKE: Final = 2.0  # seconds to open a link, once connected
AGAIN_MIN: Final = 0.05  # seconds before a link that was lost or refused is tried again; doubles
AGAIN_MAX: Final = 5.0
AGAIN_PLAIN: Final = 30.0  # the same for a backend that answered as a plain HTTP server does


class LinkPool(ConnectionPool):
    """The connections of one worker to one backend. `required`: never HTTP/1.1, but for requests no link can say."""

    __slots__ = (
        "_failures", "_going", "_link", "_on_load", "_opened_at", "_opening", "_retry_at", "_told", "required", "times",
    )  # fmt: skip

    def __init__(
        self,
        address: Address,
        limits: ClientLimits,
        tls: Tls | None = None,
        *,
        required: bool,
        times: LinkLimits | None = None,
        on_load: Callable[[LoadReport], None] | None = None,
    ) -> None:
        super().__init__(address, limits, tls)
        self._on_load = on_load
        self.required = required
        self.times = times or LinkLimits()
        self._link: LinkConnection | None = None
        self._going: set[LinkConnection] = set()  # take nothing new, and finish
        self._opening: asyncio.Task[LinkConnection] | None = None
        self._retry_at = 0.0
        self._failures = 0  # to open a link or to keep one, in a row
        self._opened_at = 0.0
        self._told = ""

    def __repr__(self) -> str:
        return f"<LinkPool {self.address} [{self._link!r}, {len(self._going)} going], {super().__repr__()}>"

    @property
    def protocol(self) -> str:
        return "http/1.1" if self._link is None else "sluice-link/1"

    @property
    def link(self) -> LinkConnection | None:
        """The link that new exchanges take, if one is open."""
        return self._link

    async def ask(
        self,
        request: Request,
        target: bytes,
        authority: bytes,
        left_ns: int,
        dropped: frozenset[bytes],
        *,
        deadline: float,
        fresh: bool = False,
    ) -> Response:
        """As `ConnectionPool.ask`. A link is always fresh: one that was lost is never asked again."""
        if request.stream is not None:  # streaming bodies and tunnels go beside the link
            return await super().ask(request, target, authority, left_ns, dropped, deadline=deadline, fresh=fresh)
        link = self._link
        if link is None or len(link.streams) >= link.max_streams:
            if self.required:
                link = await self._required(deadline)
                left_ns = self._left(deadline)
            else:
                link = self._wanted()
        if link is not None:
            try:
                exchange = link.send(request, target, authority, left_ns // 1000 or 1, dropped, deadline)
            except ValueError:
                pass  # this request cannot be said on a link
            else:
                waiter = exchange.future
                assert waiter is not None
                try:
                    return await waiter
                except asyncio.CancelledError:
                    link.cancel(exchange)
                    raise
                except NotStarted:
                    if self.required:
                        raise
                    left_ns = self._left(deadline)
        return await super().ask(request, target, authority, left_ns, dropped, deadline=deadline, fresh=fresh)

    def _left(self, deadline: float) -> int:
        """Nanoseconds; waiting took some. Raises UpstreamTimeout if there are none."""
        left_ns = int(deadline * 1e9) - time.monotonic_ns()
        if left_ns <= 0:
            raise UpstreamTimeout(f"{self.address}: no time was left to ask")
        return left_ns

    # -- opening ------------------------------------------------------------------------------------------------

    def _wanted(self) -> LinkConnection | None:
        """No link for this exchange; perhaps one for those to come."""
        if self._link is None and self._opening is None and not self._closed:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._retry_at:
                self._opening = loop.create_task(self._open())
                self._opening.add_done_callback(self._opened)
        return None

    async def _required(self, deadline: float) -> LinkConnection:
        if self._link is not None:
            raise self._full(self._link)
        loop = asyncio.get_running_loop()
        if self._opening is None:
            self._opening = loop.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        await asyncio.wait((opening,), timeout=max(deadline - loop.time(), 0.001))
        if not opening.done():
            raise UpstreamTimeout(f"{self.address}: no time was left to open a link")
        if opening.cancelled():
            raise ConnectFailed(f"{self.address}: the pool is closing")
        link = opening.result()
        if link is not self.link:
            raise ConnectFailed(f"{self.address}: the link was lost as soon as it was open")
        if len(link.streams) >= link.max_streams:  # others waited for it too
            raise self._full(link)
        return link

    def _full(self, link: LinkConnection) -> PoolExhausted:
        return PoolExhausted(f"all {link.max_streams} streams to {self.address} are in use")

    async def _open(self) -> LinkConnection:
        limits = self.limits
        opened = LinkConnection(self.address.authority, self.times, limits, self._gone, self._on_load)
        await connect(self.address, self.tls, opened, limits.connect_timeout)
        try:
            async with asyncio.timeout(HANDSHAKE):
                await opened.opened
        except TimeoutError:
            opened.drop(ConnectFailed(f"{self.address}: the link did not open in time"))
            raise ConnectFailed(f"{self.address}: the link did not open within {HANDSHAKE:g} s") from None
        except asyncio.CancelledError:
            opened.drop(ConnectFailed("cancelled"))
            raise
        if opened.lost:
            raise ConnectFailed(f"{self.address}: the link closed as soon as it was open")
        if self._closed:
            opened.finish()
            raise ConnectFailed(f"{self.address}: the pool is closing")
        self._link = opened
        self._opened_at = opened.loop.time()
        return opened

    def _opened(self, opening: asyncio.Task[LinkConnection]) -> None:
        self._opening = None
        if opening.cancelled():
            return
        error = opening.exception()
        if error is None:
            self._tell(logging.INFO, "the link is open")
            return
        plain = isinstance(error, NotSpoken) and error.answered < 500
        self._later(AGAIN_PLAIN if plain else AGAIN_MAX)
        if not isinstance(error, UpstreamError):
            raise error
        what = str(error) if self.required else f"no link, so HTTP/1.1 is spoken: {error}"
        self._tell(logging.WARNING if self.required or not plain else logging.INFO, what)

    def _later(self, longest: float) -> None:
        self._failures += 1
        pause = min(longest, AGAIN_MIN * 2 ** min(self._failures, 16))
        if longest == AGAIN_PLAIN:
            pause = longest
        self._retry_at = asyncio.get_running_loop().time() + pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def _tell(self, level: int, what: str) -> None:
        """A change of state is logged once."""
        if what != self._told:
            self._told = what
            log.log(level, "backend %s: %s", self.address, what)

    def _gone(self, link: LinkConnection) -> None:
        """The link takes nothing new: it drains, was idle too long, or is lost."""
        if link is self._link:
            self._link = None
            if link.lost:
                if asyncio.get_running_loop().time() - self._opened_at > AGAIN_MAX:
                    self._failures = 0  # it was a good one, whatever was before
                self._later(AGAIN_MAX)
                if not self._closed:
                    self._tell(logging.WARNING, "the link is lost")
            else:
                self._failures = 0
                self._retry_at = asyncio.get_running_loop().time() + AGAIN_MIN
                self._told = ""
        self._going = {one for one in self._going if not one.lost}
        if not link.lost:
            self._going.add(link)

    # -- as ConnectionPool --------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        super().expire(now)
        if self._link is not None:
            self._link.limits = self.limits  # a reload may have changed them
            self._link.idle(now, self.limits.idle)

    def close(self) -> None:
        super().close()
        if self._opening is not None:
            self._opening.cancel()
        if self._link is not None:
            self._link.finish()

    @property
    def streams(self) -> list[Exchange]:
        """Exchanges under way on links."""
        links: list[Any] = [*self._going, *([self._link] if self._link is not None else [])]
        return [exchange for link in links for exchange in link.streams.values()]
