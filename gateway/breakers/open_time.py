"""How long a gate stays open: a back-off that doubles up to a ceiling, with jitter, and begins anew after good times.

It starts with `open_for`, doubles each time the gate opens again, and stays at `open_max`; after the gate had been
closed for `open_max` it starts over. While no backend of the pool answers it does not grow: that says little about any
one of them. Part of each time (`jitter`) is left to chance, only ever earlier, so that the
workers of many gateways do not probe all at once.
"""

from __future__ import annotations

from gateway.breakers.permit import SECOND, BreakerSettings


class OpenTime:
    """Of one gate. Times are nanoseconds."""

    __slots__ = ("_jitter", "_least", "_level", "_most", "closed_since", "opened", "until")

    def __init__(self) -> None:
        self._least = self._most = SECOND
        self._jitter = 0.0
        self._level = 0  # how many times it has been doubled
        self.closed_since = 0  # since when the gate is closed after having been open
        self.opened = 0  # when it last opened
        self.until = 0  # when it lets a probe through

    def configure(self, settings: BreakerSettings) -> None:
        """Takes new settings at a reload; a time that has begun stays."""
        self._least = int(settings.open_for * SECOND)
        self._most = max(self._least, int(settings.open_max * SECOND))
        self._jitter = settings.jitter

    @property
    def raised(self) -> bool:
        """Whether the next time is longer than the first."""
        return self._level > 0

    def begin(self, now: int, rand: float, *, grows: bool = True) -> None:
        """The gate opens; `rand` is drawn from [0, 1)."""
        if self.closed_since and now - self.closed_since >= self._most:
            self._level = 0
        self.closed_since = 0
        self.opened = now
        whole = min(self._most, self._least << self._level)
        if grows and whole < self._most:
            self._level += 1
        self.until = now + int(whole * (1.0 - self._jitter * rand))

    def forget(self) -> None:
        """An operator has spoken: the next time is the first again."""
        self._level = 0
