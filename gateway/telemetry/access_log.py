"""The access log: one JSON line per request, written in batches by a thread, so that a slow disk delays nobody.

Bounded: at most `CAPACITY` lines wait; what comes on top is dropped and counted. Client names are logged, keys and
bodies never.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

import orjson

CAPACITY: Final = 20_000
FLUSH: Final = 0.2  # seconds


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
        self._stop = threading.Event()
        self.dropped = 0
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
        if self._path != "-" and not self._thread.is_alive():
            os.close(self._fd)

    def _open(self) -> int:
        if self._path == "-":
            return sys.stdout.fileno()
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        data = memoryview(
            b"".join(orjson.dumps(_record(at, line), option=orjson.OPT_APPEND_NEWLINE) for at, line in lines)
        )
        try:
            self._reopen_if_moved()
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            self.dropped += len(lines)

    def _reopen_if_moved(self) -> None:
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
