"""Progress of a long step: a bar redrawn in place on a terminal, plain lines anywhere else (a log, a pipe, CI).

Contract: `advance(done, note)` may be called as often as wanted; a bar is redrawn at most ten times a second,
and plain output
is one line per quarter of the work, so a log stays readable.
"""

from __future__ import annotations

import sys
import time
from typing import Self, TextIO

BAR_WIDTH = 24
REDRAW_EVERY = 0.1  # seconds


class Progress:
    """One long step of `total` units. Use as a context manager, so that the terminal line is always finished."""

    def __init__(self, title: str, total: int, stream: TextIO | None = None) -> None:
        self.title = title
        self.total = max(total, 1)
        self.stream = stream or sys.stdout
        self.bar = self.stream.isatty()
        self._drawn_at = 0.0
        self._quarter = 0
        self._note = ""

    def __enter__(self) -> Self:
        if not self.bar:
            self._line(f"{self.title} ...")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.stream.write("\n")
            self.stream.flush()

    def advance(self, done: int, note: str = "") -> None:
        """Say that `done` of `total` units are finished; `note` is shown beside them (a loss, a file name)."""
        self._note = note
        if self.bar:
            now = time.monotonic()
            if now - self._drawn_at >= REDRAW_EVERY or done >= self.total:
                self._drawn_at = now
                self._draw(done)
            return
        quarter = 4 * done // self.total
        if quarter > self._quarter:
            self._quarter = quarter
            self._line(f"{self.title} {done}/{self.total} {note}".rstrip())

    def _draw(self, done: int) -> None:
        filled = BAR_WIDTH * min(done, self.total) // self.total
        blocks = "#" * filled + "." * (BAR_WIDTH - filled)
        self.stream.write(f"\r\x1b[K{self.title} [{blocks}] {done}/{self.total} {self._note}")
        self.stream.flush()

    def _line(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()
