"""Whether the other end of a link is alive, told from when it was last heard. Pure: seconds on the caller's clock.

A link with exchanges under way that is silent for too long is asked (PING); one that does not reply in time is given
up. An idle link is asked at each look, and must have replied by the next. Who only listens to a stream has nothing to
say, and gives a sign of life now and then.
"""

from __future__ import annotations

from typing import Final

FINE: Final = 0
ASK: Final = 1  # a PING is due
DEAD: Final = 2


class LinkLimits:
    """Seconds: how long a link with exchanges may be silent before it is asked, how long it may then take, how long the
    backend has to end what was cancelled (and our own last words to leave), and how often it hears from us at least.
    """

    __slots__ = ("last_word", "patience", "sign_of_life", "silence")

    def __init__(
        self, silence: float = 1.0, patience: float = 1.0, last_word: float = 5.0, sign_of_life: float = 30.0
    ) -> None:
        self.silence = silence
        self.patience = patience
        self.last_word = last_word
        self.sign_of_life = sign_of_life


class Pulse:
    """Of one link. Whoever receives something sets `quiet` to False."""

    __slots__ = ("_heard", "_pinged", "_spoke", "_suspect", "_times", "quiet")

    def __init__(self, times: LinkLimits) -> None:
        self._times = times
        self.quiet = False  # nothing came since the last look
        self._heard = 0.0
        self._pinged = 0.0
        self._suspect = False
        self._spoke = 0.0  # when the backend had a sign of life from us, or something else

    def begin(self, now: float) -> None:
        """An exchange begins where there was none."""
        self._heard = self._spoke = now
        self._pinged = 0.0
        self.quiet = True
        self._suspect = False

    def look(self, now: float) -> None:
        """Notes that something came since the last look, if it did."""
        if not self.quiet:
            self.quiet = True
            self._heard = now
            self._pinged = 0.0
            self._suspect = False

    def doubt(self, now: float) -> int:
        """What to think while exchanges are under way. A busy loop is given one more round to read."""
        if now - self._heard <= self._times.silence:
            return FINE
        if not self._pinged:
            self._pinged = now
            return ASK
        if now - self._pinged > self._times.patience:
            if self._suspect:
                return DEAD
            self._suspect = True
        return FINE

    def doubt_idle(self, now: float) -> int:
        """The same, every few seconds, while there is no exchange: ASK or DEAD."""
        if self._pinged and self.quiet:
            return DEAD
        self._pinged = now
        self.quiet = True
        return ASK

    def owes_sign(self, now: float) -> bool:
        """Whether a sign of life is due; it counts as given."""
        if now - self._spoke <= self._times.sign_of_life:
            return False
        self._spoke = now
        return True
