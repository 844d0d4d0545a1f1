"""A two-step gate over pybreaker: ask for a permit, do the work, hand the permit back with its outcome.

pybreaker keeps the state machine; the gate adds what a concurrent caller needs and pybreaker lacks:
* a permit carries pybreaker's *state object*; every transition makes a new one, so a result that comes back in a
  later era (compare with `is`) changes nothing;
* half-open admits exactly `probes` permits at a time;
* IGNORE (cancelled) frees its slot and proves nothing; DROPPED (overload) neither;
* the clock is the caller's monotonic nanoseconds, not the wall.

States and what moves them:

    closed    --`failures` FAILUREs in a row-->  open
    open      --`open_for` has passed, or `hint_recovered`-->  half-open
    half-open --`probes` SUCCESSes-->  closed
    half-open --a FAILURE-->  open
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

import pybreaker

from gateway.request import Outcome

STATES: Final = ("closed", "half-open", "open")  # index = the value of the state gauge


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """`open_for` in seconds."""

    failures: int = 5
    open_for: float = 5.0
    probes: int = 1


class Permit:
    """The right to try once. `era` is the generation token; `probe` numbers the probes, 0 is no probe."""

    __slots__ = ("era", "probe")

    def __init__(self, era: object, probe: int) -> None:
        self.era = era
        self.probe = probe


class Attempt(Exception):
    """What pybreaker is told when an attempt failed; it is caught again right here."""


def _fail() -> NoReturn:
    raise Attempt  # a new one each time: an exception raised again and again gathers tracebacks without end


def _succeed() -> None:
    return None


class Gate:
    """One per backend and worker; survives reloads. `now` is monotonic nanoseconds."""

    __slots__ = (
        "_blemished",
        "_breaker",
        "_closed",
        "_era",
        "_half_open_from",
        "_number",
        "_on_turn",
        "_open_for_ns",
        "_probes",
        "_settings",
        "opened",
        "trips",
    )  # fmt: skip

    def __init__(self, settings: BreakerSettings, on_turn: Callable[[], None] | None = None) -> None:
        self._on_turn = on_turn
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.failures,
            reset_timeout=0,  # the gate decides when, so pybreaker's wall clock must never hold anything back
            success_threshold=settings.probes,
            throw_new_error_on_trip=False,
        )
        self.configure(settings)
        self._era: object
        self._closed: Permit | None  # what everybody gets while closed, so that the common case costs next to nothing
        self._blemished: bool  # a failure has been told to pybreaker since it was last closed or last succeeded
        self._probes: set[int] = set()  # permits out in this half-open era
        self._number = 0
        self._turn()
        self._half_open_from = 0
        self.opened = 0  # when it last opened
        self.trips = 0

    def configure(self, settings: BreakerSettings) -> None:
        """Takes new settings at a reload without forgetting the state."""
        self._settings = settings
        self._breaker.fail_max = settings.failures
        self._breaker.success_threshold = settings.probes
        self._open_for_ns = int(settings.open_for * 1e9)

    @property
    def state(self) -> str:
        return str(self._breaker.current_state)

    @property
    def closed(self) -> bool:
        return self._closed is not None

    def available(self, now: int) -> bool:
        """Whether `try_acquire` would hand out a permit; changes nothing."""
        if self._closed is not None:
            return True
        if self._breaker.current_state == "open":
            return now >= self._half_open_from
        return len(self._probes) < self._settings.probes

    def try_acquire(self, now: int) -> Permit | None:
        """A permit, or None while open or while all probe slots are taken."""
        if self._closed is not None:
            return self._closed
        if self._breaker.current_state == "open":
            if now < self._half_open_from:
                return None
            self._breaker.half_open()
            self._turn()
        if len(self._probes) >= self._settings.probes:
            return None
        self._number += 1
        self._probes.add(self._number)
        return Permit(self._era, self._number)

    def release(self, permit: Permit, outcome: Outcome, now: int) -> None:
        """Hands a permit back, once; a probe that comes back twice changes nothing the second time."""
        if permit is self._closed and outcome is Outcome.SUCCESS and not self._blemished:
            return  # closed and unblemished: nothing to tell
        if permit.era is not self._era:
            return  # a late result of an earlier era
        if permit.probe:
            if permit.probe not in self._probes:
                return
            self._probes.discard(permit.probe)
        if outcome is Outcome.SUCCESS:
            self._blemished = False
            self._breaker.call(_succeed)
        elif outcome is Outcome.FAILURE:
            self._blemished = True
            with contextlib.suppress(Attempt):
                self._breaker.call(_fail)
        if self._breaker.state is not self._era:
            self._turn()
            if self._breaker.current_state == "open":
                self._open(now)

    def hint_recovered(self, now: int) -> None:
        """A health check saw the backend answer: an open gate may probe at once."""
        if self._breaker.current_state == "open":
            self._half_open_from = now

    def _open(self, now: int) -> None:
        self.opened = now
        self.trips += 1
        self._half_open_from = now + self._open_for_ns

    def _turn(self) -> None:
        self._era = self._breaker.state
        self._closed = Permit(self._era, 0) if self._breaker.current_state == "closed" else None
        self._blemished = False
        self._probes.clear()
        if self._on_turn is not None:
            self._on_turn()

    def __repr__(self) -> str:
        failures, probes = self._breaker.fail_counter, len(self._probes)
        return f"<Gate {self.state}, {failures} failures, {probes} probes out, {self.trips} trips>"
