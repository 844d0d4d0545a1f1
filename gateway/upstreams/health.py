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

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """What to ask, and how often; times in seconds."""

    key: str
    url: str
    interval: float
    timeout: float
    unhealthy_after: int
    healthy_after: int


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
        self._tasks: list[asyncio.Task[None]] = []
        self._states: dict[str, HealthState] = {}
        self._session: aiohttp.ClientSession | None = None

    @property
    def healthy(self) -> dict[str, bool]:
        return {key: state.healthy for key, state in self._states.items()}

    def use(self, checks: Iterable[Check]) -> None:
        """Replaces the running checks."""
        for task in self._tasks:
            task.cancel()
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)  # a fresh connection is part of the check
            self._session = aiohttp.ClientSession(connector=connector)
        checks = list(checks)
        self._states = {check.key: self._states.get(check.key) or HealthState() for check in checks}
        self._tasks = [asyncio.create_task(self._run(check)) for check in checks]

    async def _run(self, check: Check) -> None:
        state = self._states[check.key]
        await asyncio.sleep(random.random() * min(check.interval, 0.1))  # noqa: S311 - spread, not secrecy
        while True:
            why = await self._ask(check)
            if state.seen(check, passed=not why):
                log.warning("backend %s is %s", check.key, f"out: {why}" if why else "back")
                self._changed(check.key, state.healthy)
            await asyncio.sleep(check.interval)

    async def _ask(self, check: Check) -> str:
        """Empty when the check passed, else why it did not."""
        assert self._session is not None
        try:
            timeout = aiohttp.ClientTimeout(total=check.timeout)
            async with self._session.get(check.url, timeout=timeout, allow_redirects=False) as answer:
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
        if self._session is not None:
            await self._session.close()
