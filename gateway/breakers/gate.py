"""A two-step gate over pybreaker: ask for a permit, do the work, hand the permit back with its outcome.

pybreaker keeps the state and judges the probes (`eras.py`); the gate adds what a concurrent caller needs and pybreaker
lacks:
* a permit carries the *era* it was made in; a result that comes back in a later one changes nothing;
* half-open admits exactly `probes` permits at a time;
* IGNORE (cancelled) frees its slot and proves nothing; DROPPED (overload: a 429 storm, say) neither;
* rates of failed and of slow calls over a window (`rates.py`), where a call still out counts as slow in good time;
* silence: a backend of which nothing is heard is doubted before any call has ended (`hearing.py`);
* open time doubles up to a ceiling while the backend keeps failing (`open_time.py`);
* an operator's word above all of it;
* the clock is the caller's monotonic nanoseconds, not the wall.

`states.TRANSITIONS` is the whole state machine. `sweep` wants to be called some twenty times a second: what happens
because nothing happened (silence, an overdue call, a doubt that is over, the end of a forced state) happens there.

A gate is *hard* when the last `failures` results were all failures: nothing gets through, as far as is known. One that
opened by a rate, or doubts, may still be of use when nothing better is left; `usable.py` says when.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from gateway.breakers.eras import Eras
from gateway.breakers.hearing import Hearing
from gateway.breakers.open_time import OpenTime
from gateway.breakers.permit import (
    ANSWERED,
    FOREVER,
    LAST_RESORT,
    SECOND,
    STRICT,
    UNCLEAR,
    URGED,
    AnyGate,
    BreakerSettings,
    Permit,
)
from gateway.breakers.rates import Rates
from gateway.breakers.states import CLOSED, DOUBTS, HALF_OPEN, OPEN, STATES, TRANSITIONS, TRIPS
from gateway.breakers.window import FAILED, GOOD, SLOW, VOID, Window
from gateway.request import Outcome

__all__ = ["ANSWERED", "FOREVER", "STATES", "UNCLEAR", "AnyGate", "BreakerSettings", "Gate", "Permit"]

HISTORY: Final = 16  # transitions remembered


class Gate(AnyGate):
    """One per backend (and model) and worker; survives reloads. `now` is monotonic nanoseconds.

    `on_turn` is called when the answer to `ready` may have changed, `on_trip` with the event when the gate opened by
    what it saw itself (not by a hint, and not again after a failed probe).
    """

    def __init__(
        self,
        settings: BreakerSettings,
        on_turn: Callable[[], None] | None = None,
        on_trip: Callable[[str, int], None] | None = None,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._on_turn = on_turn
        self.on_trip = on_trip
        self.rand = rand
        self._eras = Eras(settings)
        self._hearing = Hearing()
        self._open = OpenTime()
        self.window = Window(settings.window_calls, int(settings.window * SECOND))
        self.state: str = CLOSED
        self._era: object = None
        self._closed: Permit | None = None  # what all get while closed and untimed, so that it costs next to nothing
        self._failed = 0  # in a row, while closed
        self._slow = 0  # in a row, while closed; those overdue included
        self._out: dict[int, Permit] = {}  # permits of this era that are out, oldest first; all, or probes alone
        self._number = 0
        self._row = 0  # failures in a row, over all eras
        self._doubt = ""
        self._doubt_until = 0
        self._hinted = False  # while half-open: that it may have recovered
        self.forced = ""  # or "open", "closed"
        self.forced_until = FOREVER
        self.leniency = STRICT
        self.recovered = 0  # when it last closed after having been open
        self.dropped = 0  # results DROPPED
        self.history: list[tuple[int, str]] = []  # the last transitions: when, and by what event
        self.tripped = dict.fromkeys(TRIPS, 0)
        self.doubted = dict.fromkeys(DOUBTS, 0)
        self.configure(settings)

    def turned(self) -> None:
        """Tells whoever keeps what `ready` said that it may have changed."""
        if self._on_turn is not None:
            self._on_turn()

    def configure(self, settings: BreakerSettings) -> None:
        """Takes new settings at a reload without forgetting the state."""
        self._settings = settings
        self._eras.configure(settings)
        self._hearing.configure(settings)
        self._open.configure(settings)
        self._probes = settings.probes
        self._slow_after = int(settings.slow_after * SECOND)
        self._timed = settings.slow_after > 0
        self._rates = Rates(settings)
        self._counting = self._rates.counting
        self.window.resize(settings.window_calls, int(settings.window * SECOND))
        if self._era is None or (self.state == CLOSED and self._timed == (self._closed is not None)):
            self._turn()

    # -- asking -------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self.state == CLOSED

    @property
    def trips(self) -> int:
        return sum(self.tripped.values())

    @property
    def hard(self) -> bool:
        return self._row >= self._settings.failures

    @property
    def shut(self) -> bool:
        return self.forced == "open"

    @property
    def pristine(self) -> bool:
        """Nothing would be lost with this gate."""
        clean = self.state == CLOSED and not self.forced and not self._failed and not self._out
        return clean and not self._open.raised and not self.window.failures and not self.window.slow

    @property
    def ready_from(self) -> int:
        return FOREVER if self.forced or self.state != OPEN else self._open.until

    @property
    def urged_from(self) -> int:
        return FOREVER if self.forced or self.state != OPEN else self._open.opened + LAST_RESORT

    def ready(self, now: int) -> bool:
        if self.state == CLOSED:
            return True
        if self.state == OPEN:
            return not self.forced and now >= self._open.until
        return len(self._out) < self._probes

    def available(self, now: int) -> bool:
        if self.ready(now):
            return True
        if self.forced or not self.leniency:
            return False
        if not self.hard:
            return True
        return self.leniency == URGED and self.state == OPEN and now >= self._open.opened + LAST_RESORT

    def lean(self, leniency: int) -> None:
        self.leniency = leniency

    def try_acquire(self, now: int) -> Permit | None:
        if not self._hearing.asked:
            self._hearing.asked = now
        if self._closed is not None:
            return self._closed
        return self._acquire(now)

    def _acquire(self, now: int) -> Permit | None:
        if self.state == OPEN:
            if self.forced or not self.available(now):
                return None
            if now < self._open.until and not self.hard:
                return Permit(self, None, -1, now)
            self._move("waited", now)
        if self.state == HALF_OPEN:
            if len(self._out) >= self._probes:
                return Permit(self, None, -1, now) if self.leniency and not self.hard else None
            if len(self._out) + 1 == self._probes:
                self.turned()
        number = self._number = self._number + 1
        permit = self._out[number] = Permit(self, self._era, number, now)
        return permit

    # -- telling ------------------------------------------------------------------------------------------------

    def heard(self, permit: Permit, took: int) -> None:
        if permit.number:
            permit.took = took
        if permit.era is self._era:
            self._hearing.asked = 0
            self._hearing.longest = max(self._hearing.longest, took)

    def release(self, permit: Permit, outcome: Outcome, now: int, took: int = 0, contact: int = ANSWERED) -> None:
        if permit is self._closed and outcome is Outcome.SUCCESS and not self._failed:
            hearing = self._hearing
            hearing.asked = 0
            hearing.longest = max(hearing.longest, took)
            if self._counting:
                self.window.add(now, GOOD)
                if self.window.failures:
                    self._judge(now)
            return
        if outcome is Outcome.DROPPED:
            self.dropped += 1
        elif outcome is Outcome.SUCCESS:
            if permit.took < 0:
                self._hearing.longest = max(self._hearing.longest, took)
            self._tally(0)
        elif outcome is Outcome.FAILURE:
            self._tally(self._row + 1)
        if permit.era is not self._era:
            return  # a late result of an earlier era
        if permit.number and self._out.pop(permit.number, None) is None:
            return
        if permit.took < 0:
            if permit.number and not took:
                took = now - permit.began
            if outcome is not Outcome.IGNORE and contact != UNCLEAR:
                self._hearing.asked = 0
        else:
            took = permit.took
        slow = self._timed and took >= self._slow_after
        if self.state == CLOSED:
            self._count(permit, outcome, now, slow=slow)
        elif len(self._out) + 1 == self._probes:
            self.turned()  # a slot is free
        if self.forced or permit.era is not self._era:
            return
        if slow and self.state == HALF_OPEN and outcome is not Outcome.DROPPED:
            self._move("probe-slow", now)
        else:
            self._replay(outcome, now)

    def _tally(self, row: int) -> None:
        """Failures in a row, whatever their era: they say whether there is any capacity, and move nothing."""
        hard = self.hard
        self._row = row
        if self.state != CLOSED and self.hard != hard:
            self.turned()

    def _count(self, permit: Permit, outcome: Outcome, now: int, *, slow: bool) -> None:
        """Into the window. Cancelled calls only count if they were out for too long."""
        if not self._counting:
            return
        kind = SLOW if slow else GOOD
        if outcome is Outcome.FAILURE:
            kind |= FAILED
        elif outcome is Outcome.DROPPED:
            kind = VOID
        if permit.counted >= 0:
            self.window.amend(permit.counted, kind)
        elif kind == VOID or (outcome is Outcome.IGNORE and not slow):
            return
        else:
            self.window.add(now, kind)
            self._slow = self._slow + 1 if slow else 0
        self._judge(now)

    def _judge(self, now: int) -> None:
        if self.forced:
            return
        if self._slow >= self._settings.failures and self._rates.slow:
            self._move("slow-row", now)
        elif event := self._rates.judge(self.window):
            self._move(event, now)

    def _replay(self, outcome: Outcome, now: int) -> None:
        """Failures in a row are counted here, probes by pybreaker: a failure costs it 5 us, and in a brown-out of the
        closed state that would be every other request.
        """
        if self.state == CLOSED:
            if outcome is Outcome.SUCCESS:
                self._failed = 0
            elif outcome is Outcome.FAILURE:
                self._failed += 1
                if self._failed >= self._settings.failures:
                    self._move("failures", now)
        elif outcome is Outcome.SUCCESS:
            if self._eras.passed():
                self._turned("probes-passed", now)
        elif outcome is Outcome.FAILURE:
            self._eras.failed()
            self._turned("probe-failed", now)

    # -- time ---------------------------------------------------------------------------------------------------

    def sweep(self, now: int) -> None:
        """What happens because nothing happened."""
        if self.forced and now >= self.forced_until:
            self.force("", now)
        self._hearing.turn(now)
        if self.forced:
            return
        if self.state == CLOSED:
            if self._hearing.silent(now):
                self._move("silent", now)
            elif self._out:
                self._count_overdue(now)
        elif self.state == HALF_OPEN:
            limit = self._hearing.limit if not self._timed else min(self._slow_after, self._hearing.limit)
            for permit in self._out.values():
                if permit.took < 0 and now - permit.began >= limit:
                    self._row = self._settings.failures if self._doubt == "silent" else self._row + 1
                    self._move("probe-slow", now)
                    return
            if self._doubt and now >= self._doubt_until:
                self._move("doubt-over", now)

    def _count_overdue(self, now: int) -> None:
        """Calls that are out for `slow_after` count as slow before they end, which may be never."""
        found = False
        for permit in self._out.values():
            if now - permit.began < self._slow_after:
                break
            if permit.took < 0 and permit.counted < 0 and self._rates.slow:
                permit.counted = self.window.add(now, SLOW)
                self._slow += 1
                found = True
        if found:
            self._judge(now)

    # -- what others say ----------------------------------------------------------------------------------------

    def hint_recovered(self, now: int) -> None:
        if self.state == HALF_OPEN:
            self._hinted = True  # the probe that is out may be from before
        elif self.state == OPEN and not self.forced:
            self._open.until = now
            self.turned()

    def hint_failing(self, now: int) -> bool:
        """Somebody else's gate opened: a closed one doubts for a moment. Returns whether it does."""
        return not self.forced and self._move("hint", now)

    def force(self, how: str, now: int, until: int = FOREVER) -> None:
        """An operator's word: "open" and "closed" hold until `until`, come what may; "" is the gate's own rule again,
        which begins with probes if the gate was open.
        """
        was = self.forced
        self.forced = how
        self.forced_until = until if how else FOREVER
        if how == was:
            return
        if how:
            if self.state == CLOSED:
                self._turn()  # what is out belongs to the time before
            self._move("force-open" if how == "open" else "force-closed", now)
            self._open.forget()
        elif was == "open":
            self._move("force-auto", now)
        else:
            self._turn()
        self._row = 0

    # -- moving -------------------------------------------------------------------------------------------------

    def _move(self, event: str, now: int) -> bool:
        """Follows the table; False if there is no such row."""
        to = TRANSITIONS.get((self.state, event))
        if to is None:
            return False
        self._eras.enter(to)
        self._turned(event, now)
        return True

    def _turned(self, event: str, now: int) -> None:
        """A new era has begun; `event` is why."""
        self.history.append((now, event))
        if len(self.history) > HISTORY:
            del self.history[0]
        doubt, self._doubt = self._doubt, ""
        hinted, self._hinted = self._hinted, False
        if event in self.tripped:
            self.tripped[event] += 1
            self._open.begin(now, self.rand(), grows=self.leniency != URGED and not hinted)
            if hinted:
                self._open.until = min(self._open.until, now + LAST_RESORT)
        elif event in self.doubted:
            self.doubted[event] += 1
            self._doubt = event
            self._doubt_until = now + self._hearing.doubt
        elif event == "probes-passed" and not doubt:
            self.recovered = self._open.closed_since = now
        before = self.state
        self._turn()
        if event in self.tripped and self.on_trip is not None and (before == CLOSED or doubt == "silent"):
            self.on_trip(event, now)

    def _turn(self) -> None:
        self._era = self._eras.era
        self.state = self._eras.state
        closed = self.state == CLOSED
        self._closed = Permit(self, self._era, 0, 0) if closed and not self._timed else None
        self._failed = 0
        self._slow = 0
        self._hearing.asked = 0
        self._out = {}
        if closed:
            self._row = 0
            self.window.clear()
        self.turned()

    def __repr__(self) -> str:
        probes = 0 if self.state == CLOSED else len(self._out)
        forced = f" (forced {self.forced})" if self.forced else ""
        return f"<Gate {self.state}{forced}, {self._row} failures, {probes} probes out, {self.trips} trips>"
