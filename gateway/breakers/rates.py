"""The rates of failed and of slow calls at which a gate opens. Compared in integers, so that a half is a half."""

from __future__ import annotations

from gateway.breakers.permit import PARTS, BreakerSettings
from gateway.breakers.window import Window


class Rates:
    """Of one gate. A rate of 0 is not looked at, nor that of slow calls where no call is slow."""

    __slots__ = ("_error_parts", "_min_calls", "_slow_parts", "counting", "slow")

    def __init__(self, settings: BreakerSettings) -> None:
        self._error_parts = int(settings.error_rate * PARTS)
        self._slow_parts = int(settings.slow_rate * PARTS) if settings.slow_after > 0 else 0
        self._min_calls = settings.min_calls
        self.slow = self._slow_parts > 0
        self.counting = self.slow or self._error_parts > 0  # whether the window is wanted at all

    def judge(self, window: Window) -> str:
        """The event of `states.TRIPS` for which the gate opens, or nothing."""
        calls = window.calls
        if calls < self._min_calls:
            return ""
        if self._error_parts and window.failures * PARTS >= self._error_parts * calls:
            return "error-rate"
        return "slow-rate" if self._slow_parts and window.slow * PARTS >= self._slow_parts * calls else ""
