"""How long a backend has been silent, against how long its answers usually take.

Silence is measured from the oldest call since which nothing at all was heard. What is usual is the longest answer of
this minute and the one before, so one slow answer is remembered for one to two minutes.
"""

from __future__ import annotations

from typing import Final

from gateway.breakers.permit import FOREVER, SECOND, BreakerSettings

SILENCE: Final = SECOND // 2  # shortest silence that counts when nobody has said how long an answer may take
PATIENCE: Final = 3  # times the longest recent answer that may pass in silence
DOUBT: Final = (SECOND, 5 * SECOND)  # shortest and longest moment of doubt
RECENT: Final = 60 * SECOND  # "recent" is this minute and the one before


class Hearing:
    """Of one gate. Every `now` is nanoseconds of one clock that does not go back."""

    __slots__ = ("_given", "_longest_before", "_minute", "asked", "longest")

    def __init__(self) -> None:
        self.asked = 0  # when the oldest call was made since when nothing was heard; 0: there is none
        self.longest = 0  # of this minute's answers
        self._longest_before = 0  # of the last minute's
        self._minute = 0  # when this one began
        self._given = 0  # what the configuration says of silence; 0: nothing

    def configure(self, settings: BreakerSettings) -> None:
        """Takes new settings at a reload; what was heard stays."""
        if settings.silent_after is not None:
            self._given = int(settings.silent_after * SECOND) if settings.silent_after > 0 else FOREVER
        else:
            self._given = int(settings.slow_after * SECOND)

    @property
    def limit(self) -> int:
        """The nanoseconds of silence after which the backend is doubted."""
        return self._given or max(SILENCE, PATIENCE * max(self.longest, self._longest_before))

    @property
    def doubt(self) -> int:
        """How long a doubt that nothing confirms goes on: long enough for a probe to be late."""
        return min(max(self.limit * 3 // 2, DOUBT[0]), DOUBT[1])

    def silent(self, now: int) -> bool:
        """Whether it has been silent for too long."""
        return self.asked > 0 and now - self.asked >= self.limit

    def turn(self, now: int) -> None:
        """Begins a new minute when it is time."""
        if now - self._minute >= RECENT:
            self._minute = now
            self._longest_before, self.longest = self.longest, 0
