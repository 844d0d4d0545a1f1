"""The search for the number of requests in flight from which one more only waits, by trials.

What matters is whether one more in flight still brings more answers per second. While nobody waits at the backend it
does (elasticity 1), behind the knee it only makes everybody wait (elasticity 0), and a backend that gathers batches is
in between for long. A latency threshold takes such a backend for overloaded, and a throughput is noisy; so the
elasticity is taken from latencies: with `L` in flight the throughput is L / R (Little), hence

    d ln X / d ln L = 1 - d ln R / d ln L

Samples are only taken while the limit binds, so that the number in flight is known, and in blocks during which it does
not change: a sample counts if it was sent and answered within the block. Blocks at the learnt level alternate with
blocks a step above or below, until the difference is clear of the noise (which is measured, too):

* up if one more brings more than `PAYS` of its share, doubling the step while it clearly pays;
* down if it costs less than that and is certainly no cliff: one step, more if it is far above;
* down, too, while clients give up on what waits at the backend: they had better wait here;
* neither: rest at the learnt level and a little more (so that a slot that frees finds the next request waiting and
  does not idle for a round trip), and look again later and later. A jump of the latency at rest makes what was learnt
  worthless and starts the search anew, first in the direction that the jump suggests.

A search does not go again where it has just been: not as far down as was too little, nor as far up as was no better.
Looking up costs a little latency, looking down a little throughput for two or three latencies; there are no phases that
let the pool run empty to find its latency at rest (BBR, Envoy's gradient controller), nor is the least latency ever
needed (Vegas, gradient2). Where several `gateways` use the same backends, each takes the others to have as much in
flight as itself: then one that has less than its part finds that more pays, and one that has more that it does not.

Sources: J. Little 1961; N. Cardwell et al., "BBR" (ACM Queue 2016); M. Dong et al., "PCC" (NSDI 2015: decide by
comparing trials, not by events); L. Kleinrock 1979 on the knee; Netflix, concurrency-limits (the interface).
Times are nanoseconds.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.admission.blocks import FEWEST, Block, Level
from gateway.admission.limit import CLIP, Limit
from gateway.admission.noise import Noise
from gateway.admission.places import Places
from gateway.request import Outcome

PAYS: Final = 0.2  # elasticity from which more in flight is worth its latency
ROUNDS: Final = 2  # of all places, answered in a block
SHORTEST: Final = 8_000_000  # of a block: several turns of an event loop
SLACK: Final = 4  # sent while there was room, for each that was not, with which a block is given up
STALE: Final = 16  # latencies of a block after which it may be given up
BITS: Final = 20  # of a mark, for the number in flight; the block is in the others
MOST: Final = (1 << BITS) - 1
WIDE: Final = 1.5  # steps are this many errors wide, so that they can be told apart
TRIES: Final = 3  # pairs of blocks before a step is left undecided
EXTRA: Final = 1 / 16  # of the places, at rest
REST: Final = 16  # blocks before the next look after the first search
LONGEST_REST: Final = 32
DOWN: Final = 4  # one look in so many is down, too: that one costs throughput; with others one in two
LOST: Final = 0.1  # share of a block without an answer from which answers are counted instead of timed
DEAR: Final = -0.1  # of answers in time (ln): too much for fewer that give up


class Search(Limit):
    """Learns from answers while the places are all taken. `target`: a latency so short that nobody needs to be kept
    waiting for it elsewhere.
    """

    def __init__(self, least: int, most: int, target: int, places: Places, first: int) -> None:
        super().__init__(max(least, min(most, first)))
        self.places = places
        self.least = least
        self.most = most
        self.target = target
        self.gateways = 1
        self.learnt = self.allowed
        self._step = self.allowed
        self._direction = 1
        self._trial = 0  # places above (below: negative) the learnt level; 0 at it and at rest
        self._refused = 0  # directions in a row
        self._low = 0  # the search has shown that this is too little,
        self._high = most + 1  # and this no better than less
        self._left = 0  # for less, as its last finding
        self._opposed = False  # a wider step in this direction was certainly wrong
        self._needed = True  # less than what was learnt would certainly be too little
        self._known = False  # that more than what was learnt does not pay
        self._fresh = True  # nothing is known: halve and double
        self._resting = False
        self._rest = 0  # blocks left of it
        self._borne = False  # clients give up, and would with fewer in flight, too
        self._next_rest = REST
        self._looks = 0
        self._here = Level()  # at the learnt level
        self._there = Level()  # at the trial's
        self._idle = Level()  # at rest
        self._noise = Noise()
        self.block = 1  # its number is in its samples' marks
        self._began = 0
        self._count = 0
        self._good = 0
        self._lost = 0
        self._total = 0
        self._squares = 0.0
        self._answered = 0  # when the last one was
        self._answers = 0  # of all requests that ended in this block
        self._slack = 0  # sent while there was room, in this block
        self._skip = 0  # still to be sent before the block begins

    # -- samples ------------------------------------------------------------------------------------------------

    def _mark(self, inflight: int) -> int:
        return self.block << BITS | min(inflight, MOST)

    def _bind(self, inflight: int, now: int) -> int:
        """The mark of a request with which all places are taken."""
        if self._skip:
            self._skip -= 1
            return 0
        if not self._began:
            self._began = now
            self._answers = 0
        return self._mark(inflight)

    def _loosen(self, now: int) -> None:
        """A request was sent, and there was room."""
        self._slack += 1
        if not self._began or self._slack <= SLACK * (self._count + FEWEST):
            return
        if now - self._began > STALE * max(SHORTEST, self.latency) * (1 + FEWEST / self.allowed):
            self._give_up()

    def _sample(self, took: int, outcome: Outcome, now: int) -> None:
        """The answer to a request of this block."""
        self._count += 1
        if outcome == Outcome.SUCCESS:
            took = min(took, int(CLIP * self.latency))
            self._total += took
            self._squares += float(took) * took
            self._good += 1
        elif self._gave_up(took, outcome):
            self._lost += 1
        if self._count >= self._enough() and now - self._began >= SHORTEST:
            self._close(now)

    def _gave_up(self, took: int, outcome: Outcome) -> bool:
        """Whether the client went because it took too long."""
        return outcome == Outcome.IGNORE and 2 * took > self.latency

    def _give_up(self) -> None:
        """The places were not full for long: nothing is known of this level but that there is no need of more."""
        if self._trial > 0 and not self._known:
            self.learnt += self._trial
            self._search(1)
            self._lie_down()
            self._level()
        elif self._trial:
            self._refuse()
            self._level()
        self._begin(0)

    def _enough(self) -> int:
        own = self._own
        return own * max(ROUNDS if self.latency < 40_000_000 else 1, -(-FEWEST // own))

    @property
    def _own(self) -> int:
        """This worker's part of the places."""
        return -(-self.allowed // self.places.workers)

    def _begin(self, now: int) -> None:
        """The next block; `now` where it has begun, 0 where it begins once the places are full."""
        self.block += 1
        self._began = now
        self._count = self._good = self._lost = self._answers = self._slack = 0
        self._total = 0
        self._squares = 0.0

    def _close(self, now: int) -> None:
        mean = self._total / self._good if self._good else self.latency or 1.0
        block = Block(
            mean=mean,
            timed=math.log(self.allowed / mean),
            counted=math.log((self._answers + 0.5) / (now - self._began)),
            lost=self._lost > LOST * self._count,
            hopeless=self._lost > (1 - LOST) * self._count,
        )
        if not (self._good or block.lost) or self.stalled(self._answered, now):
            self._begin(0)  # failures alone say nothing about how much is too much
            return
        if self._good > 1:
            within = math.sqrt(max(0.0, self._squares / self._good - mean * mean) / self._good) / mean
            self._noise.spread(within)
        self._conclude(block, now)

    def _conclude(self, block: Block, now: int) -> None:
        """What follows from a block: another level, or another block at this one."""
        if self._trial:
            self._there.add(block)
            self._judge(block.mean)
        elif block.hopeless:
            self.learnt = max(self.least, self.learnt // 2)
            self._search(-1)
        elif block.lost and self._resting and not self._borne:
            self._search(-1)
        else:
            self._compare(block)
        self._level()
        self._begin(now if self._trial and not self._skip else 0)

    def _compare(self, block: Block) -> None:
        """With what was seen at the same level before."""
        if self._idle.places != self.allowed and self._resting:
            self._idle = Level(self.allowed)
        level = self._idle if self._resting else self._here
        if level.blocks:
            off = block.timed - level.timed
        elif self._resting and self._here.blocks:  # with a little more than at the learnt level
            off = min(0.0, block.timed - self._here.timed)
        else:
            off = 0.0
        error = self._noise.error(1, level.blocks or 1)
        if self._noise.jumped(off, error):
            self._changed(off)
        elif self._noise.doubtful(off, error):
            pass  # the next one says whether it was noise
        elif self._resting and not (level.blocks or block.lost) and self._pays(block.timed):
            self._search(1)  # it changed during the search
        else:
            if level.blocks:
                self._noise.differed(off, level.blocks)
            level.add(block)
            self._go_on(block.mean)

    def _changed(self, off: float) -> None:
        """Another backend, as it were: slower or with fewer places (`off` < 0), or faster or with more."""
        self._search(1 if off > 0 else -1)

    def _level(self) -> None:
        extra = self._extra() if self._resting else self._trial
        before, self.allowed = self.allowed, min(self.most, self.learnt + extra)
        # The first round with more in flight meets the queue of fewer, and would say that it pays.
        self._skip = self._own if self.allowed > before else 0

    def _pays(self, timed: float) -> bool:
        """Whether what is given at rest on top of the learnt number clearly brings as much more: then it is too low."""
        here = self._here
        if not here.blocks or here.lost or self.gateways > 1:
            return False
        share = math.log(self.allowed / self.learnt)
        return timed - here.timed - self._noise.error(1, here.blocks) > share / 2

    def _extra(self) -> int:
        """At rest: so that a slot that frees need not wait for its next request, and more where times vary much."""
        return max(int(self._needed), round(self.learnt * max(EXTRA, self._noise.size)))

    # -- the search ---------------------------------------------------------------------------------------------

    def _search(self, direction: int) -> None:
        self._noise.settle()
        self._here = Level()
        self._there = Level()
        self._idle = Level()
        self._resting = False
        self._next_rest = REST
        self._trial = self._refused = 0
        self._low, self._high, self._left = 0, self.most + 1, 0
        self._opposed = False
        self._fresh = True
        self._direction = direction
        self._step = self._first_step()

    def _first_step(self) -> int:
        """Of a search in a direction."""
        least = self._least_step()
        if not self._fresh:
            return least
        if self._direction < 0 or self.gateways > 1:
            return max(least, self.learnt // 2)
        return max(least, (self._left - self.learnt) // 2 if self._left else self.learnt)

    def _go_on(self, mean: float) -> None:
        if self._resting:
            self._rest -= 1
            if self._rest:
                return
            self._resting = self._fresh = False
            self._looks += 1
            self._refused = 0 if self._looks % (DOWN if self.gateways == 1 else 2) == 0 else 1
            self._direction = 1
            self._low, self._high, self._left = 0, self.most + 1, 0
            self._here = Level()
            self._step = self._first_step()
            return
        if self._here.lost and self._direction > 0:
            self._direction = -1
            self._step = max(1, self.learnt // 2)
        if self._direction > 0:
            self._trial = min(self.most, self._high - 1, self.learnt + self._step) - self.learnt
        else:
            self._trial = max(self.least, self._low + 1, self.learnt - self._step) - self.learnt
        if not self._trial or (self._trial < 0 and (mean < self.target or not (self.pressed or self._here.lost))):
            self._refuse()

    def _least_step(self) -> int:
        most = 1.0 if self._direction > 0 else 0.5
        return max(1, int(self.learnt * min(most, max(0.125, WIDE * self._noise.size * self.gateways))))

    def _refuse(self) -> None:
        """This direction is of no use now: the other, or rest."""
        self._trial = 0
        self._opposed = False
        self._there = Level()
        self._refused += 1
        self._direction = -self._direction
        self._step = self._first_step()
        if self._refused >= 2:
            self._lie_down()

    def _lie_down(self) -> None:
        self._borne = self._here.lost
        self._resting = True
        self._rest = self._next_rest
        self._next_rest = min(LONGEST_REST, 2 * self._next_rest)

    def _judge(self, mean: float) -> None:
        """After a block at the trial's level: keep it, leave it, or look at both again."""
        here, there = self._here, self._there
        level = self.learnt + self._trial
        all_here = self.learnt * self.gateways
        share = math.log((all_here + self._trial) / all_here)
        stolen = math.log(level / self.learnt) - share
        error = self._noise.error(there.blocks, here.blocks or 1)
        if here.lost or there.lost:
            gain = there.counted - here.counted - stolen
            error = max(error, 0.3)
        else:
            gain = there.timed - here.timed - stolen
        elasticity, error = gain / share, abs(error / share)
        up = self._trial > 0
        if up:
            yes = elasticity - error > PAYS or mean < self.target
            no = elasticity + error < PAYS
        elif here.lost:  # clients give up at the backend: they had better wait here
            sure = abs(gain) > 2 * error * share
            yes = gain > DEAR and (sure or there.blocks >= TRIES or not there.lost)
            no = gain <= DEAR and (sure or there.blocks >= TRIES)
        else:
            sure = elasticity + 2 * error < 0.5
            yes = elasticity < PAYS and (sure or there.blocks >= TRIES)
            no = elasticity - (1 if there.blocks > 1 else 2) * error > PAYS  # a first block may have met a moment
        self._known = self._known or (no if up else yes)
        if no and up:
            self._high = min(self._high, level)
        elif no:
            self._low = max(self._low, level)
        if yes:
            self._left = 0 if up else self.learnt
            self.learnt = level
            self._opposed = False
            self._needed = True
            self._here, self._there = there, Level()
            self._refused = 0
            self._next_rest = REST
            if elasticity > 0.5 if up else self._fresh:
                self._step = min(2 * self._step, self.learnt if up else max(1, self.learnt // 2))
            self._go_on(mean)
        elif no and self._step > self._least_step() and not (up and gain < PAYS * math.log(1 + 1 / 8)):
            self._opposed = True
            self._step = max(1, self._step // 2)
            self._trial = 0
            self._there = Level()
            self._go_on(mean)
        elif no or (there.blocks >= TRIES and (self._opposed or not self._wider(elasticity))):
            if not up:
                self._needed = no
            self._refuse()
        elif there.blocks >= TRIES:  # not clear
            self._step *= 2
            self._trial = 0
            self._there = Level()
        else:
            self._trial = 0  # once more, after a look at the learnt level

    def _wider(self, elasticity: float) -> bool:
        """Whether a step that has shown nothing for certain is worth one twice as wide, which shows more."""
        if self._direction > 0:
            return elasticity > PAYS and 2 * self._step <= self.learnt
        return self._step < self.learnt // 2
