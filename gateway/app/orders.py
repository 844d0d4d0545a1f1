"""What operators have ordered of breakers: in force, and kept where `admin.state_file` says."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from gateway.app.forced import ForcedBreakers
from gateway.app.kept import KeptBreakers
from gateway.config.model import Config
from gateway.workers.control import Forced

log = logging.getLogger(__name__)

AGAIN: Final = 5_000_000_000  # nanoseconds before the file is tried again


class Orders:
    """Of one gateway. Times are monotonic nanoseconds."""

    def __init__(self) -> None:
        self._forced = ForcedBreakers()
        self._kept: KeptBreakers | None = None
        self._tried = 0  # when the file was written, or could not be

    @property
    def failures(self) -> int:
        """Times that the file could not be written."""
        return 0 if self._kept is None else self._kept.failures

    def recall(self, config: Config) -> None:
        """Takes up what operators said before the gateway was started again. Raises StartError."""
        path = config.admin.state_file
        if path == "off":
            return
        self._kept = KeptBreakers(Path(path))
        self._forced = ForcedBreakers(self._kept.read(time.monotonic_ns(), time.time()))
        self._forced.use(config)
        for key, (state, _) in self.in_force().items():
            log.warning("breaker %s is still forced: %s", key, state)

    def set(self, config: Config, pool: str, backend: str, state: str, seconds: float | None) -> str:
        """Takes an order; returns what is wrong with it, or nothing. `keep` it once it is told."""
        wrong = self._forced.set(config, pool, backend, state, seconds, time.monotonic_ns())
        if not wrong:
            log.warning("breaker %s/%s is forced: %s", pool, backend, state)
        return wrong

    def use(self, config: Config) -> None:
        """Forgets backends that the configuration does not have."""
        self._forced.use(config)
        self.keep()

    def keep(self) -> None:
        """Writes what is in force to the file, if there is one."""
        if self._kept is not None:
            now = self._tried = time.monotonic_ns()
            self._kept.write(self._forced.at(now), now, time.time())

    def look(self, now: int) -> None:
        """Now and then: what the disk refused is tried again."""
        if self._kept is not None and self._kept.owed and now - self._tried >= AGAIN:
            self.keep()

    def in_force(self) -> dict[str, Forced]:
        """By backend key."""
        return self._forced.at(time.monotonic_ns())

    def left(self) -> dict[str, float | None]:
        """Seconds for which each is still in force; None is for ever."""
        return self._forced.left(time.monotonic_ns())

    def tell_what_is_lost(self) -> None:
        """The gateway ends."""
        forced = self.in_force()
        if forced and self._kept is None:
            what = ", ".join(f"{key} {state}" for key, (state, _) in forced.items())
            log.warning("forgotten with this gateway, for admin.state_file is off: breakers forced %s", what)
