"""Wakes a callback at a monotonic time, to some tens of microseconds.

Why not ``loop.call_at``: both asyncio and uvloop round timers to a whole millisecond, and an open-loop client
measures from the time a request was *due*, so every answer would look up to a millisecond slower than it was. Linux'
timerfd has no such rounding; where it is missing the loop's own timer is used and ``precise`` says so.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

# linux/timerfd.h
_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


class _Spec(ctypes.Structure):
    """struct itimerspec: interval, then value, each seconds and nanoseconds."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Timer:
    """One alarm; setting it again replaces it. ``close`` it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._libc: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        if hasattr(self._libc, "timerfd_create"):
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        self.precise = self._fd >= 0
        if self.precise:
            loop.add_reader(self._fd, self._expired)

    def set(self, at: float) -> None:
        """Call back once, at ``at`` on ``time.monotonic``'s clock; at once if that has passed."""
        if not self.precise or self._libc is None:
            self.cancel()
            self._handle = self._loop.call_later(max(0.0, at - time.monotonic()), self._callback)
            return
        # A zero value would disarm it, so the past becomes the first nanosecond.
        seconds, fraction = divmod(max(at, 1e-9), 1.0)
        spec = _Spec(0, 0, int(seconds), max(1, int(fraction * 1e9)))
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def cancel(self) -> None:
        """Forget the alarm, if one is set."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self.precise and self._libc is not None:
            self._libc.timerfd_settime(self._fd, 0, ctypes.byref(_Spec()), None)

    def close(self) -> None:
        """Release the file descriptor; the alarm never rings again."""
        self.cancel()
        if self.precise:
            self.precise = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._callback()
