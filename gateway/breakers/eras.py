"""pybreaker under a gate: it keeps the state and judges the probes; the gate decides when.

Every transition makes a new state object, the *era*: what belongs to an earlier one is told apart by `is`. pybreaker's
wall clock holds nothing back (`reset_timeout=0`).
"""

from __future__ import annotations

import contextlib
from typing import NoReturn

import pybreaker

from gateway.breakers.permit import BreakerSettings
from gateway.breakers.states import CLOSED, OPEN


class Attempt(Exception):
    """What pybreaker is told when an attempt failed; it is caught again right here."""


def _fail() -> NoReturn:
    raise Attempt  # a new one each time: an exception raised again and again gathers tracebacks without end


def _succeed() -> None:
    return None


class Eras:
    """Of one gate."""

    __slots__ = ("_breaker",)

    def __init__(self, settings: BreakerSettings) -> None:
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.failures,
            reset_timeout=0,
            success_threshold=settings.probes,
            throw_new_error_on_trip=False,
        )

    def configure(self, settings: BreakerSettings) -> None:
        """Takes new settings at a reload; the era goes on."""
        self._breaker.fail_max = settings.failures
        self._breaker.success_threshold = settings.probes

    @property
    def era(self) -> object:
        return self._breaker.state

    @property
    def state(self) -> str:
        """One of `states.STATES`."""
        return str(self._breaker.current_state)

    def enter(self, state: str) -> None:
        """Begins a new era."""
        if state == OPEN:
            self._breaker.open()
        elif state == CLOSED:
            self._breaker.close()
        else:
            self._breaker.half_open()

    def passed(self) -> bool:
        """A probe succeeded; whether it was the last that was wanted, and so began a new era."""
        era = self._breaker.state
        self._breaker.call(_succeed)
        return self._breaker.state is not era

    def failed(self) -> None:
        """A probe failed, which begins a new era."""
        with contextlib.suppress(Attempt):
            self._breaker.call(_fail)
