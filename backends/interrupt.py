"""A long command that is told to stop: quietly, nothing half-written, no child left, status 128 + signal.

Contract: inside `Interrupts()`, SIGINT, SIGTERM and SIGHUP undo what was `made`, last first, and end the process at
once. No exception travels: one raised inside TensorFlow's callbacks would be printed or swallowed there.
Inside `held()` a signal waits; that is for steps that must not be torn apart (start a child and note it, publish).
Children stay in our process group, so a terminal's Ctrl-C reaches them even if somebody kills us first.
Invariant: an undo runs exactly as well twice, or when there is nothing to undo.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Self, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHILD_GRACE = 20.0  # seconds; Go ends after the compiler runs that it has started


class Interrupts:
    """Handlers for as long as the context lasts. A signal that was ignored before (nohup) stays ignored."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._holders = 0
        self._pending = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._told)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def made(self, make: Callable[[], T], undo: Callable[[T], None]) -> Iterator[T]:
        """Something that must not outlive the block, however that ends."""
        with self.held():
            thing = make()
            undo_it = partial(undo, thing)
            self._undo.append(undo_it)
        try:
            yield thing
        finally:
            with self.held():
                undo_it()
                self._undo.remove(undo_it)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a signal that comes in the block wait for its end."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._pending and not self._holders:
                self._stop(self._pending)

    @contextmanager
    def child(self, command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
        """Run a command; it has ended when the block has, however that ends."""
        start = partial(subprocess.Popen[str], command, text=True, stdin=subprocess.DEVNULL, **options)
        with self.made(start, _end) as process:
            yield process

    def _told(self, number: int, _: FrameType | None) -> None:
        if self._holders:
            self._pending = number
        else:
            self._stop(number)

    def _stop(self, number: int) -> None:
        for other in self._before:
            signal.signal(other, signal.SIG_IGN)  # it is being done
        for undo in reversed(self._undo):
            with suppress(OSError):
                undo()
        with suppress(OSError):
            if sys.stdout.isatty():
                sys.stdout.write("\n")  # the shell's prompt goes below a progress bar and ^C
            sys.stdout.flush()
        os._exit(128 + number)


def _end(process: subprocess.Popen[str]) -> None:
    """Not with Popen's own wait: the code that was interrupted may be inside it and hold its lock."""
    if process.returncode is not None:
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        return
    with suppress(ProcessLookupError, ChildProcessError):  # gone, or waited for
        os.kill(process.pid, signal.SIGINT)
        until = time.monotonic() + CHILD_GRACE
        while os.waitpid(process.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.01)
