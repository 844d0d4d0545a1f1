"""Active health checks: one prober in the supervisor asks every backend, and the workers are told what changed.

`HealthState` is the policy (pure): a backend goes out after `unhealthy_after` failed checks in a row and comes back
after `healthy_after` passed ones. A backend counts as healthy until proven otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

from gateway.http.dial import Address, Tls

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """Whom to ask for `path`, and how often; times in seconds. The pool's requests connect in the same way."""

    key: str
    address: Address
    path: str
    interval: float
    timeout: float
    unhealthy_after: int
    healthy_after: int
    tls: Tls | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.address.authority.decode()}{self.path}"


class HealthState:
    """The running verdict on one backend."""

    __slots__ = ("_row", "healthy")

    def __init__(self) -> None:
        self.healthy = True
        self._row = 0  # checks in a row that contradict the verdict

    def seen(self, check: Check, *, passed: bool) -> bool:
        """Takes one result; returns whether the verdict changed."""
        if passed == self.healthy:
            self._row = 0
            return False
        self._row += 1
        if self._row < (check.healthy_after if passed else check.unhealthy_after):
            return False
        self.healthy = passed
        self._row = 0
        return True


class Prober:
    """Runs the checks of one configuration; `use` replaces them and keeps what is known."""

    def __init__(self, changed: Callable[[str, bool], None]) -> None:
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._states: dict[str, HealthState] = {}

    @property
    def healthy(self) -> dict[str, bool]:
        return {key: state.healthy for key, state in self._states.items()}

    def use(self, checks: Iterable[Check]) -> None:
        """Replaces the running checks."""
        for task in self._tasks:
            task.cancel()
        checks = list(checks)
        self._states = {check.key: self._states.get(check.key) or HealthState() for check in checks}
        for check in checks:
            task = asyncio.create_task(self._run(check))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, check: Check) -> None:
        state = self._states[check.key]
        await asyncio.sleep(random.random() * min(check.interval, 0.1))  # noqa: S311 - spread, not secrecy
        async with aiohttp.ClientSession(connector=_connector(check.address)) as session:
            while True:
                why = await self._ask(session, check)
                if state.seen(check, passed=not why):
                    log.warning("backend %s is %s", check.key, f"out: {why}" if why else "back")
                    self._changed(check.key, state.healthy)
                await asyncio.sleep(check.interval)

    async def _ask(self, session: aiohttp.ClientSession, check: Check) -> str:
        """Empty when the check passed, else why it did not."""
        timeout = aiohttp.ClientTimeout(total=check.timeout)
        context, name = (True, None) if check.tls is None else (check.tls.context, check.tls.server_name)
        try:
            async with session.get(
                check.url, timeout=timeout, allow_redirects=False, ssl=context, server_hostname=name
            ) as answer:
                return "" if answer.status < 400 else f"{check.url} answered {answer.status}"
        except TimeoutError:
            return f"{check.url} did not answer within {check.timeout:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"{check.url}: {error}"

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _connector(address: Address) -> aiohttp.BaseConnector:
    """A fresh connection is part of the check."""
    if address.unix_path is not None:
        return aiohttp.UnixConnector(address.unix_path, limit=0, force_close=True)
    return aiohttp.TCPConnector(limit=0, force_close=True)
