"""A limit that holds nobody back until something speaks for it, and then learns.

Three states:

* open: nothing speaks against more. The limit doubles whenever it binds, after as many answers as half of it or, where
  none come, after `RAMP`: answers that take seconds, or that differ a thousandfold, are no reason to wait;
* suspicion: answers take longer the more is in flight (`Onset`), or hardly anybody waits for one any more. What seems
  to be enough is tried: if as many answers come, or more, it was right; if not, the limit is open again;
* learnt: the search goes on from there (`Search`).

What was learnt is forgotten when it is no longer so: most answers take several times as long as usual (other work, and
not a slower backend: a jump to twice as long is left to the search), or the limit has not bound for `FORGET`. A backend
that refuses by itself (`Refusals`) says what its limit is.

Of all workers one learns, the leader (`Places`); the others follow. Times are nanoseconds.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.admission.blocks import FEWEST, Block
from gateway.admission.limit import CLIP
from gateway.admission.onset import Onset
from gateway.admission.places import Places, alone
from gateway.admission.refusals import Refusals
from gateway.admission.search import BITS, MOST, Search
from gateway.request import Outcome

FIRST: Final = 16  # places, before anything is known
RAMP: Final = 100_000_000  # and two latencies, in which there are twice as many if no answer says anything
SLOW_RAMP: Final = 500_000_000
LONGER: Final = 4  # answers, less the others, that took so much longer than usual that it is other work
ENDED: Final = 32  # requests that ended: so many are looked at together
MISSED: Final = 0.25  # share of them whose clients gave up
SOME: Final = 8  # in flight, from which on it is of interest whether fewer would do
MEAN: Final = 64  # answers
MIXED: Final = 3  # usual times to an answer, which the mean is below where they are of one kind
CLAIM: Final = 32  # samples that show whether a suspicion was right, at the most
UNFOUNDED: Final = 0.35  # less throughput (ln) than before the first step down: it was no queue
FORGET: Final = 30_000_000_000
SILENT: Final = 1_000_000_000  # and eight latencies: without news of the leader, after which another leads
NEWS: Final = 4  # samples of the leader


class AdaptiveLimit(Search):
    """One per pool and worker; `most` is for all workers."""

    def __init__(self, least: int, most: int, target: int, places: Places | None = None) -> None:
        super().__init__(least, most, target, places if places is not None else alone(), FIRST)
        self.open = True
        self._onset = Onset()
        self._refusals = Refusals()
        self._claim = 0  # rounds left in which a suspicion may be confirmed
        self._promised = 0.0  # ln(throughput) with more in flight, that is to be confirmed with less
        self._longer = 0  # answers, less the others, that took several times as long as usual
        self._inflight = 0
        self._mean = 0.0  # time to an answer, with those that take very long
        self._counted = 0  # since when good and lost ones are, while nothing speaks against more
        self._bound_at = 0

    def bounded(self, most: int, target: int) -> None:
        """Other bounds from now on."""
        self.most, self.target = most, target
        self.allowed = min(self.allowed, most)

    def sent(self, inflight: int, now: int) -> int:
        self._inflight = inflight
        bound = inflight >= self.allowed
        if self.open:
            self._began = (self._began or now) if bound else 0
        if not self._leads(bound, now):
            return 0
        before = self._bound_at
        if bound or self.open:
            self._bound_at = now
        if self.open:
            return self._mark(inflight)
        if now - before > FORGET:  # looked at first: a limit of one binds whenever somebody comes
            self._reopen()
            return 0
        if not bound:
            self._loosen(now)
            return 0
        return self._bind(inflight, now)

    def done(self, mark: int, took: int, outcome: Outcome, now: int) -> None:
        if self.places.workers == 1 or self.places.leads:
            if not self.open and self.places.all > self.allowed:
                self.places.hear(now)  # it waits until what was learnt takes effect
            self._learn(mark, took, outcome, now)
            self.places.tell(-self.allowed if self.open else self.allowed)
        elif outcome == Outcome.SUCCESS:
            self._note(took)

    def _learn(self, mark: int, took: int, outcome: Outcome, now: int) -> None:
        if outcome == Outcome.SUCCESS:
            self._longer = max(0, self._longer + (1 if took > CLIP * self.latency else -1))
            self._note(took)
            self._answers += 1
            self._answered = now
            if self._longer >= max(LONGER, min(FEWEST, self.allowed)) and not (self.open or self._claim):
                self._reopen()
                return
        if outcome != Outcome.IGNORE:
            limit = self._inflight if self.open else self.allowed
            bound = self._refusals.seen(outcome == Outcome.DROPPED, mark & MOST or self._inflight, limit)
            if bound:
                self._bound(max(self.least, bound))
                return
        if mark >> BITS != self.block:
            return
        if self.open:
            self._look(mark & MOST, took, outcome, now)
            return
        if self._count % NEWS == 0:
            self.places.hear(now)
        self._sample(took, outcome, now)

    def tick(self, now: int) -> None:
        if not self.open:
            self._leads(True, now)
        elif not self._began:
            self._began = now
        elif now - self._began > min(SLOW_RAMP, max(RAMP, 2 * int(self.latency))):
            self._raise()
            self.places.tell(-self.allowed)

    # -- while nothing speaks against more ------------------------------------------------------------------------

    def _look(self, inflight: int, took: int, outcome: Outcome, now: int) -> None:
        if not (self._good or self._lost):
            self._counted = now
        if outcome == Outcome.SUCCESS:
            self._good += 1
            if took > 0 and self.latency > self.target and self._suspects(inflight, took, now):
                self._suspect(self._onset.enough, self._onset.throughput)
                return
            self._count += inflight >= self.allowed
            if self._count > self.allowed // 2:
                self._raise()
        elif self._gave_up(took, outcome):
            self._lost += 1
        ended = self._good + self._lost
        if ended % NEWS == 0:
            self.places.hear(now)
        if ended < ENDED:
            return
        if self._lost > MISSED * ENDED and self._onset.listens(now) and not self.stalled(self._answered, now):
            promised = math.log(self._good / max(1, now - self._counted)) if self._good else -math.inf
            self._suspect(self._inflight // 2, promised)
        else:
            self._good = self._lost = 0

    def _suspects(self, inflight: int, took: int, now: int) -> bool:
        self._mean += (took - self._mean) / MEAN if self._mean else took
        if self._onset.seen(inflight, took, now):
            return True
        alike = self._mean < MIXED * self.latency  # or those that take long would keep the others waiting
        return inflight >= SOME and alike and self._onset.curious(inflight, self.latency, now)

    def _raise(self) -> None:
        self.allowed = min(self.most, 2 * self.allowed)
        self._began = self._count = 0

    def _suspect(self, enough: int, promised: float) -> None:
        """The backend seems to be full: what seems to be enough is tried, and then less and less."""
        self.open = False
        self._promised = promised
        self._known = False
        self._claim = 1 if self.gateways == 1 else 3
        self.learnt = max(self.least, min(self.most, enough))
        self._search(-1)
        self._level()
        self._begin(0)

    def _conclude(self, block: Block, now: int) -> None:
        self.places.hear(now)
        if not self._claim:
            super()._conclude(block, now)
        elif not block.hopeless and (block.counted if block.lost else block.timed) > self._promised - UNFOUNDED:
            self._claim = 0
            self._onset.founded()
            if block.timed > self._promised + UNFOUNDED > -math.inf:
                self._search(1)  # it was not only less in flight that made it faster
            super()._conclude(block, now)
        elif block.hopeless and self.learnt > self.least:
            self.learnt = max(self.least, self.learnt // 2)
            self._step = self._first_step()
            self._level()
            self._begin(0)
        elif self._claim > 1:
            self._claim -= 1
            self._begin(0)
        else:
            self._onset.unfounded(now)
            self._reopen()

    def _level(self) -> None:
        if not self.open:
            super()._level()

    def _changed(self, off: float) -> None:
        if self._known:
            super()._changed(off)
        else:
            self._reopen()

    def _enough(self) -> int:
        enough = super()._enough()
        return min(enough, CLAIM) if self._claim else enough

    def _reopen(self) -> None:
        """What was learnt is not so, or no longer."""
        self.open = True
        self._claim = 0
        self._onset.forget()
        self.allowed = max(self.allowed, min(self.most, FIRST))
        self.places.forget_pace()
        self._begin(0)

    def _bound(self, learnt: int) -> None:
        """The backend refuses what is more than this."""
        self.open, self._claim = False, 0
        self.learnt = learnt
        self._search(1)
        self._fresh = self._needed = False
        self._lie_down()
        self._level()
        self._begin(0)

    # -- many workers, one limit --------------------------------------------------------------------------------

    def follow(self) -> None:
        places = self.places
        if places.workers > 1 and places.level and (not places.leads or (self.open and places.level < 0)):
            self._follow(places.level)

    def _follow(self, level: int) -> None:
        allowed = min(self.most, abs(level))
        if allowed != self.allowed:
            self.allowed = allowed
            self._began = 0
        self.open = level < 0

    def _leads(self, bound: bool, now: int) -> bool:
        """Whether this worker is the one that learns."""
        places = self.places
        if places.workers == 1 or places.leads:
            return True
        patience = max(SILENT, 8 * int(self.latency))
        if places.led and not (bound and now - places.heard > patience):
            return False
        level = places.level
        places.lead()
        places.hear(now)
        self._onset.forget()
        self._claim = 0
        if level:
            self._follow(level)
            self.learnt = self.allowed
            self._search(-1)
        self._bound_at = now
        self._begin(0)
        return True
