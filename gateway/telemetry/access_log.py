"""The access log: one JSON line per request, written in batches by a thread, so that a slow disk delays nobody.

Bounded: one batch and at most `CAPACITY` lines wait; what comes on top is dropped and counted. Client names are logged,
keys and bodies never.
A disk that is full, or anything else that refuses what is written, loses no line as long as they can wait, and leaves
no half of one: what of a line went into a file is taken back, what went into a pipe is followed by the rest. It is said
once when that begins and when it is over, and at most once a minute where it comes and goes.
The workers write to a file one at a time: a lock of POSIX, which also tells apart who has inherited one open file.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson

log = logging.getLogger(__name__)

CAPACITY: Final = 20_000
FLUSH: Final = 0.2  # seconds
OFTEN: Final = 60.0  # seconds between two complaints
_NOT_OPEN: Final = -1


class Line(NamedTuple):
    """Fields in the order they are written; durations in nanoseconds."""

    id: bytes
    client: bytes
    peer: bytes
    method: bytes
    target: bytes
    route: str
    pool: str
    status: int
    sent: int
    total_ns: int
    limits_ns: int
    upstream_ns: int
    backend: str
    attempts: int
    degraded: bytes
    hedges: int = 0


class AccessLog:
    """`path` is a file or "-". A file that was moved away is opened anew within a second: logrotate needs no signal."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: deque[tuple[float, Line]] = deque()
        self._batch = b""  # what the thread has taken of them, and not written yet
        self._stop = threading.Event()
        self.dropped = 0
        self._told = False  # that it is refused
        self._complained = -OFTEN
        self._fd = _NOT_OPEN
        with contextlib.suppress(OSError):  # the thread tries again
            self._fd = self._open()
        self._checked = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        if len(self._lines) < CAPACITY:
            self._lines.append((time.time(), line))
        else:
            self.dropped += 1

    def close(self) -> None:
        """Writes what is waiting."""
        self._stop.set()
        self._thread.join(timeout=2)
        if self._path != "-" and self._fd != _NOT_OPEN and not self._thread.is_alive():
            os.close(self._fd)

    def _open(self) -> int:
        if self._path == "-":
            return sys.stdout.fileno()
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH):
            self._flush()
        self._flush()  # what was refused before
        self._flush()
        self.dropped += self._batch.count(b"\n") + len(self._lines)

    def _flush(self) -> None:
        if not self._batch:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                return
            self._batch = b"".join(
                orjson.dumps(_record(at, line), option=orjson.OPT_APPEND_NEWLINE) for at, line in lines
            )
        try:
            self._open_if_moved()
            self._write()
        except OSError as error:
            self._complain(error)
        else:
            self._take_back_complaint()

    def _write(self) -> None:
        """Raises OSError; what was not written waits in `_batch`, from the beginning of a line."""
        with _alone(self._fd):
            self._write_alone()

    def _write_alone(self) -> None:
        done = 0
        try:
            while done < len(self._batch):
                done += os.write(self._fd, memoryview(self._batch)[done:])
        finally:
            begun = done - (self._batch.rfind(b"\n", 0, done) + 1)
            if begun and self._take_back(begun):
                done -= begun
            self._batch = self._batch[done:]

    def _take_back(self, size: int) -> bool:
        """Cuts what was written last off the file. False: it is none, or somebody else has written behind it."""
        try:
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if end != os.fstat(self._fd).st_size:
                return False
            os.ftruncate(self._fd, end - size)
            os.lseek(self._fd, end - size, os.SEEK_SET)
        except OSError:
            return False
        return True

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if not self._told and now - self._complained >= OFTEN:
            self._told = True
            self._complained = now
            what = f"cannot write '{self._path}', so up to {CAPACITY} lines wait and more are dropped"
            log.error("access_log.path: %s: %s", what, error.strerror)

    def _take_back_complaint(self) -> None:
        if self._told:
            self._told = False
            log.warning("access_log.path: '%s' is written again; %d lines are lost", self._path, self.dropped)

    def _open_if_moved(self) -> None:
        if self._fd == _NOT_OPEN:
            self._fd = self._open()
            return
        now = time.monotonic()
        if self._path == "-" or now - self._checked < 1.0:
            return
        self._checked = now
        try:
            moved = Path(self._path).stat().st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            moved = True
        if moved:
            old, self._fd = self._fd, self._open()
            os.close(old)


@contextlib.contextmanager
def _alone(fd: int) -> Iterator[None]:
    """No other worker writes to this file meanwhile; some file systems have no locks, and pipes need none."""
    locked = False
    if stat.S_ISREG(os.fstat(fd).st_mode):
        with contextlib.suppress(OSError):
            fcntl.lockf(fd, fcntl.LOCK_EX)
            locked = True
    try:
        yield
    finally:
        if locked:
            fcntl.lockf(fd, fcntl.LOCK_UN)


def _record(at: float, line: Line) -> dict[str, object]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z",
        "id": _text(line.id),
        "client": _text(line.client),
        "peer": _text(line.peer),
        "method": _text(line.method),
        "target": _text(line.target),
        "route": line.route,
        "pool": line.pool,
        "status": line.status,
        "bytes": line.sent,
        "ms": round(line.total_ns / 1e6, 3),
        "limits_ms": round(line.limits_ns / 1e6, 3),
        "upstream_ms": round(line.upstream_ns / 1e6, 3),
        "backend": line.backend,
        "attempts": line.attempts,
        "degraded": _text(line.degraded),
        "hedges": line.hedges,
    }


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
